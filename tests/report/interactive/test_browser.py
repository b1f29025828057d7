"""The page's figures, tables and files, used in a real browser by pointer and keyboard."""

import csv
import dataclasses
from urllib.parse import unquote

import pytest
from boards import BUDGETS, study_rows
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from orchestrator.board.latency import pairs, timed
from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.rules import Rules
from orchestrator.record.events import Latency
from orchestrator.record.provenance import Provenance
from orchestrator.report.content import Report
from orchestrator.report.drawing import write_report
from orchestrator.report.importance import Importance
from orchestrator.report.interactive.fields import Field

pytestmark = pytest.mark.browser
LARGEST = 2_000_000
SIZES = {"dense": 9_000, "skipnet": 30_000, "slimming": 4_000}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A report with every part: sizes, times, runs in MLflow, searched fields, importances."""
    rows = [
        dataclasses.replace(
            row,
            parameters=SIZES[row.method],
            run_id=f"run-of-{row.trial}",
            params={"width": 0.25 + 0.05 * (i % 7), "norm": ("batch", "group")[i % 2]},
        )
        for i, row in enumerate(study_rows())
    ]
    board = leaderboard(rows, Rules(budgets=BUDGETS, primary=2, chance=0.1))
    events = [
        Latency(*pair.key, batch=batch, ms=2.0 * batch, p95_ms=3.0 * batch, reference_ms=3.0)
        for pair in pairs(rows, BUDGETS, "dense")
        for batch in (1, 64)
    ]
    fields = [
        field
        for name in board.methods
        for field in (
            Field(name, "norm", "choice", ("batch", "group")),
            Field(name, "width", "linear", (0.25, 0.6)),
        )
    ]
    importances = [
        Importance("dense", "width", 0.8, 0.6, 0.9, "0.25 to 0.6", "0.5", 12),
        Importance("dense", "norm", 0.2, 0.1, 0.4, "batch | group", "batch", 12),
    ]
    report = Report(
        board=board,
        rows=rows,
        provenance=Provenance(study={}, study_hash="ab", classes=10, image=(1, 8, 8)),
        times=timed(rows, BUDGETS, "dense", events),
        importances=importances,
        fields=fields,
    )
    return write_report(report, tmp_path_factory.mktemp("live"))


@pytest.fixture
def page(browser, path):
    browser.get(path.as_uri())
    yield browser
    assert browser.get_log("browser") == []


def cells(path):
    with (path.parent / "leaderboard.csv").open() as file:
        return list(csv.DictReader(file))


def all_of(page, selector):
    return page.find_elements(By.CSS_SELECTOR, selector)


def marks(page, kind="cells"):
    return all_of(page, f"#accuracy .plot a[data-key^={kind[:-1]}]")


def positions(page):
    """Where the marks stand, in pixels; read at once: a figure may be drawn anew meanwhile."""
    found = "document.querySelectorAll('#accuracy .plot a[data-key^=cell]')"
    return page.execute_script(
        f"return Array.from({found}, mark => mark.getBoundingClientRect().x)"
    )


def card(page):
    shown = page.find_element(By.ID, "card")
    return shown.text if shown.is_displayed() else ""


def choose_cost(page, label):
    page.execute_script(
        """const select = document.querySelector('#accuracy select');
        select.value = [...select.options].find(o => o.text === arguments[0]).value;
        select.dispatchEvent(new Event('change'))""",
        label,
    )


def press(page, *keys):
    ActionChains(page).send_keys(*keys).perform()


def test_the_page_is_small_and_asks_for_nothing(page, path):
    assert path.stat().st_size < LARGEST
    resources = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    assert page.execute_script(resources) == []
    refused = page.execute_async_script(
        """const done = arguments[0];
        document.addEventListener('securitypolicyviolation', e => done(e.effectiveDirective));
        new Image().src = 'http://127.0.0.1:9/picture.png'"""
    )
    assert refused == "img-src"
    log = page.get_log("browser")
    assert all("Content Security Policy" in entry["message"] for entry in log)


def test_pointing_at_a_network_shows_what_the_table_holds(page, path):
    lines = cells(path)
    assert len(marks(page)) == len({(c["method"], c["config"], c["point"]) for c in lines})
    for mark in marks(page):
        line = lines[int(mark.get_attribute("data-key").removeprefix("cell-"))]
        page.execute_script("arguments[0].scrollIntoView({block: 'center'})", mark)
        ActionChains(page).move_to_element(mark).perform()
        text = card(page)
        assert text.startswith(f"{line['method']} at ≤ {float(line['budget_mmac']):g}")
        for column in ("mean", "lo", "hi"):
            assert f"{100 * float(line[column]):.2f}" in text
        assert f"{float(line['macs_mean_m']):.4g}" in text
        assert line["config"] in text
        assert mark.get_attribute("aria-label").startswith(text.split("\n")[0])


def test_a_network_leads_to_its_row_and_a_run_to_mlflow(page, path):
    mark = marks(page)[0]
    key = mark.get_attribute("data-key")
    mark.send_keys(Keys.ENTER)
    assert page.current_url.endswith(f"#{key}")
    cell = page.find_element(By.ID, key)
    line = cells(path)[int(key.removeprefix("cell-"))]
    assert f"{100 * float(line['mean']):.2f}" in cell.text
    page.find_element(By.XPATH, "//button[text()='Each run']").click()
    address = "return arguments[0].href.baseVal"
    runs = [page.execute_script(address, run) for run in marks(page, "seeds")]
    assert len(runs) == 5 * len(BUDGETS) * len(SIZES)
    assert all(run.startswith("http://127.0.0.1:5000/#/runs/run-of-") for run in runs)
    field = page.find_element(By.CSS_SELECTOR, "#accuracy input")
    field.clear()
    field.send_keys("http://host:81/", Keys.TAB)
    assert page.execute_script(address, marks(page, "seeds")[0]).startswith("http://host:81/#/runs")
    links = all_of(page, "th[data-run-of] a")
    assert {link.get_attribute("href")[:22] for link in links} == {"http://host:81/#/runs/"}


def test_a_method_that_is_switched_off_is_gone_and_comes_back(page):
    before = len(marks(page))
    button = page.find_element(By.XPATH, "//*[@id='accuracy']//button[text()='skipnet']")
    button.send_keys(Keys.SPACE)
    assert button.get_attribute("aria-pressed") == "false"
    assert not any("skipnet" in mark.get_attribute("aria-label") for mark in marks(page))
    assert f"of {before} networks" in page.find_element(By.ID, "accuracy").text
    button.click()
    assert len(marks(page)) == before


def test_every_cost_has_its_figure(page, path):
    options = [option.text for option in all_of(page, "#accuracy select option")]
    assert options[:3] == ["MMACs per image", "thousand parameters", "ms for 1 image"]
    choose_cost(page, "thousand parameters")
    labels = [mark.get_attribute("aria-label") for mark in marks(page)]
    assert any("thousand parameters 9," in label for label in labels)
    choose_cost(page, "ms for 1 image")
    assert all("ms for 1 image 2," in m.get_attribute("aria-label") for m in marks(page))
    page.execute_script(
        """const s = document.querySelector('#accuracy select');
        s.value = 'search'; s.dispatchEvent(new Event('change'))"""
    )
    trials = all_of(page, "#accuracy .plot a[data-key^=search]")
    assert len(trials) == 12 * len(SIZES)
    assert "Validation accuracy" in trials[0].get_attribute("aria-label")


def test_zoom_enlarges_and_reset_restores(page):
    before = positions(page)
    for _ in range(4):
        page.find_element(By.CSS_SELECTOR, "[aria-label='Zoom in']").click()
    assert len(marks(page)) < len(before)
    page.find_element(By.CSS_SELECTOR, "[aria-label='Reset the zoom']").click()
    assert positions(page) == before


def test_arrows_walk_the_marks_and_one_tab_leaves_them(page):
    page.execute_script("document.querySelector('#accuracy .plot [tabindex=\"0\"]').focus()")
    cards = [card(page)]
    for _ in range(len(marks(page)) - 1):
        press(page, Keys.ARROW_RIGHT)
        cards.append(card(page))
    assert len(set(cards)) == len(marks(page))
    press(page, Keys.ESCAPE)
    assert card(page) == ""
    press(page, Keys.TAB)
    inside = "return document.querySelector('#accuracy .plot').contains(document.activeElement)"
    assert not page.execute_script(inside)


def test_a_table_sorts_by_a_column_and_back(page, path):
    def column(i):
        rows = "[aria-labelledby=board] > .scroll tbody tr"
        script = f"""return [...document.querySelectorAll('{rows}')].map(
            row => row.cells[{i}].textContent.match(/\\d+\\.\\d\\d|[a-z]+/)[0])"""
        return page.execute_script(script)

    names = column(0)
    heads = all_of(page, "section[aria-labelledby=board] > .scroll thead th")
    assert [head.get_attribute("aria-sort") for head in heads] == [None] * 4
    button = heads[1].find_element(By.TAG_NAME, "button")
    button.send_keys(Keys.ENTER)
    assert heads[1].get_attribute("aria-sort") == "descending"
    means = [100 * float(c["mean"]) for c in cells(path) if float(c["budget_mmac"]) == 1]
    assert [float(text) for text in column(1)] == pytest.approx(
        sorted(means, reverse=True), abs=0.006
    )
    button.send_keys(Keys.ENTER)
    assert heads[1].get_attribute("aria-sort") == "ascending"
    assert [float(text) for text in column(1)] == pytest.approx(sorted(means), abs=0.006)
    button.send_keys(Keys.ENTER)
    assert column(0) == names
    best = all_of(page, "section[aria-labelledby=board] > .scroll .best")
    assert len(best) == len(BUDGETS)
    for mark, budget in zip(sorted(float(m.text) for m in best), sorted(BUDGETS), strict=True):
        column_means = [float(c["mean"]) for c in cells(path) if float(c["budget_mmac"]) == budget]
        assert mark == pytest.approx(100 * max(column_means), abs=0.006)


def test_the_search_of_a_method_is_drawn_with_what_matters(page):
    button = page.find_element(By.XPATH, "//*[@id='parallel']//button[text()='dense']")
    button.click()
    texts = [text.text for text in all_of(page, "#parallel svg text")]
    assert texts.index("width") < texts.index("norm"), "the most important comes first"
    assert "80 %" in texts
    lines = all_of(page, "#parallel .trials a")
    assert len(lines) == 12
    label = lines[0].get_attribute("aria-label")
    assert "validation accuracy" in label
    assert "norm batch" in label or "norm group" in label
    assert "the best quarter" in page.find_element(By.ID, "parallel").text


def test_the_files_in_the_page_are_those_beside_it(page, path):
    links = all_of(page, "#files a")
    names = {link.get_attribute("download") for link in links}
    assert names >= {"leaderboard.csv", "seeds.csv", "search.csv", "provenance.json"}
    for link in links:
        kind, _, text = link.get_attribute("href").partition(",")
        assert kind.startswith("data:")
        assert unquote(text).encode() == (path.parent / link.get_attribute("download")).read_bytes()


def test_without_scripts_the_figures_for_papers_stand_there(browser, path):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(path.as_uri())
        figures = all_of(browser, "#accuracy ~ figure.static svg")
        assert len(figures) == 2
        assert all(figure.size["height"] > 100 for figure in figures)
        assert not browser.find_element(By.ID, "accuracy").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_has_no_complaint(page, scheme):
    axe = pytest.importorskip("axe_core_python.base")
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    page.execute_script("document.querySelectorAll('details').forEach(e => { e.open = true })")
    page.set_script_timeout(300)
    page.execute_script(axe.AXE_SCRIPT)
    result = page.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    found = [
        (flaw["id"], [node["html"][:120] for node in flaw["nodes"]][:3])
        for flaw in result["violations"]
    ]
    assert found == []


def test_figures_stand_there_before_anything_is_laid_out_again(browser, path):
    blind = "window.ResizeObserver = class { observe() {} }"
    script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": blind})
    try:
        browser.get(path.as_uri())
        for figure in ("accuracy", "parallel"):
            assert browser.find_elements(By.CSS_SELECTOR, f"#{figure} .plot svg"), figure
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
