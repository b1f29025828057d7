"""The figures on routing and on groups of images, used in a real browser."""

import csv
import dataclasses

import pytest
from boards import routed
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.rules import Rules
from orchestrator.record.provenance import Provenance
from orchestrator.report.content import Report
from orchestrator.report.drawing import write_report

pytestmark = pytest.mark.browser
RUNS = "http://127.0.0.1:5000/#/runs/run-of-"


def written(folder, worth=0.1, seeds=5):
    """A report of a baseline and of a network that decides, each with what it gave per image."""
    rows, images = routed(worth, seeds=seeds)
    rows = [dataclasses.replace(row, run_id=f"run-of-{row.trial}") for row in rows]
    decided = {name.removeprefix("skipnet"): one for (name, _), one in images.items()}
    for name, one in decided.items():
        images[f"dense{name}", ""] = dataclasses.replace(one, worth=None)
    board = leaderboard(rows, Rules(budgets=(1,), primary=1, images=400), images)
    provenance = Provenance(study={}, study_hash="ab", classes=10, image=(1, 8, 8))
    return write_report(
        Report(board=board, rows=rows, provenance=provenance, images=images), folder
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return written(tmp_path_factory.mktemp("panels"))


@pytest.fixture
def page(browser, path):
    browser.get(path.as_uri())
    yield browser
    assert browser.get_log("browser") == []


def lines(path, name):
    with (path.parent / name).open() as file:
        return list(csv.DictReader(file))


def marks(page, figure, kind):
    return page.find_elements(By.CSS_SELECTOR, f"#{figure} .plot [data-key^='{kind}-']")


def pointed(page, mark):
    """The text of the card beside a mark."""
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", mark)
    ActionChains(page).move_to_element(mark).perform()
    shown = page.find_element(By.ID, "card")
    return shown.text if shown.is_displayed() else ""


def address(page, mark):
    return page.execute_script("return arguments[0].href.baseVal", mark)


def test_pointing_at_a_group_shows_what_its_file_holds(page, path):
    rows = lines(path, "groups.csv")
    assert len(marks(page, "parts", "group")) == 2 * len(rows) == 2 * 2 * (5 + 10)
    for mark in marks(page, "parts", "group")[::3]:
        row = rows[int(mark.get_attribute("data-key").rpartition("-")[2])]
        text = pointed(page, mark)
        assert text.startswith(f"{row['method']}, {row['by']} {row['group']}")
        for column in ("accuracy", "lo", "hi"):
            assert f"{100 * float(row[column]):.2f}" in text
        assert f"{float(row['macs_mean_m']):.4g}" in text
        assert f"Images\n{row['images']}" in text
        assert mark.get_attribute("aria-label").startswith(text.split("\n")[0])


def test_no_interval_leaves_its_axis(page):
    bars = """const all = document.querySelectorAll(":is(#parts, #decisions) .plot svg");
        return [...all].map(svg => {
        const box = svg.getBoundingClientRect();
        return [...svg.querySelectorAll('line')].every(line => {
            const b = line.getBoundingClientRect();
            return b.left >= box.left && b.right <= box.right + 1
                && b.top >= box.top && b.bottom <= box.bottom + 1;
        })})"""
    assert page.execute_script(bars) == [True] * 6


def test_decisions_have_their_values_and_the_worth_its_interval(page, path):
    (cell,) = [line for line in lines(path, "leaderboard.csv") if line["worth"]]
    names = {"mean": "Own decisions", "another": "Another image's"}
    names |= {"majority": "The majority's", "all_run": "All run"}
    for column, name in names.items():
        (mark,) = marks(page, "decisions", f"decision-{column}")
        assert f"{name}\n{100 * float(cell[column]):.2f} %" in pointed(page, mark)
    (mark,) = marks(page, "decisions", "worth")
    text = pointed(page, mark)
    for column in ("worth", "worth_lo", "worth_hi"):
        assert f"+{100 * float(cell[column]):.2f}" in text
    assert "dynamic" in text


def test_each_run_leads_to_mlflow_and_a_mean_to_its_row(page, path):
    page.find_element(By.XPATH, "//*[@id='decisions']//button[text()='Each run']").click()
    runs = marks(page, "decisions", "run")
    assert [address(page, run) for run in runs] == [
        f"{RUNS}skipnet-00000-seed{seed}" for seed in range(1, 6)
    ]
    seeds = {line["trial"]: line for line in lines(path, "seeds.csv")}
    for run in runs:
        trial, *told = pointed(page, run).split("\n")
        own, other = (float(seeds[trial][column]) for column in ("test_acc", "another"))
        assert told[:2] == ["Worth", f"+{100 * (own - other):.2f} points"]
    group = marks(page, "parts", "group")[0]
    group.send_keys(Keys.ENTER)
    key = page.current_url.partition("#")[2]
    assert page.find_element(By.CSS_SELECTOR, f"td#{key}").is_displayed()


def test_a_single_run_is_what_its_groups_lead_to(browser, tmp_path):
    browser.get(written(tmp_path, seeds=1).as_uri())
    targets = {address(browser, mark) for mark in marks(browser, "parts", "group")}
    assert targets == {f"{RUNS}{name}-00000-seed1" for name in ("dense", "skipnet")}
    assert "(" not in pointed(browser, marks(browser, "parts", "group")[0])
    assert browser.get_log("browser") == []


def test_a_method_is_switched_off_in_every_figure_at_once(page):
    def labels():
        shown = page.find_elements(By.CSS_SELECTOR, ".live .plot [aria-label][data-key]")
        return [mark.get_attribute("aria-label") for mark in shown]

    before = labels()
    page.find_element(By.XPATH, "//*[@id='parts']//button[text()='skipnet']").send_keys(Keys.SPACE)
    assert not any("skipnet" in label for label in labels())
    buttons = page.find_elements(By.XPATH, "//button[text()='skipnet'][@aria-pressed]")
    states = {b.get_attribute("aria-pressed") for b in buttons if "parallel" not in b.id}
    assert states == {"false"}
    assert len(buttons) == 3, "accuracy over cost, routing, groups"
    page.find_element(By.XPATH, "//*[@id='decisions']//button[text()='skipnet']").click()
    assert labels() == before


def test_arrows_walk_the_groups_of_a_method_one_by_one(page, path):
    page.execute_script("document.querySelector('#parts .plot [tabindex=\"0\"]').focus()")
    heard = []
    for _ in range(10):
        heard.append(page.execute_script("return document.activeElement.ariaLabel").split(":")[0])
        ActionChains(page).send_keys(Keys.ARROW_RIGHT).perform()
    rows = [row for row in lines(path, "groups.csv") if row["by"] == "difficulty"]
    assert heard == [f"{row['method']}, difficulty {row['group']}" for row in rows]


def test_a_static_network_is_hollow_and_called_so(browser, tmp_path):
    browser.get(written(tmp_path, worth=0.0).as_uri())
    (mark,) = marks(browser, "decisions", "worth")
    assert "static" in pointed(browser, mark)
    fills = {
        mark.get_attribute("aria-label").split()[0]: browser.execute_script(
            "return arguments[0].firstChild.getAttribute('fill')", mark
        )
        for mark in marks(browser, "accuracy", "cell")
    }
    assert fills["skipnet"] == "var(--paper)"
    assert fills["dense"] != "var(--paper)"
    (mark,) = [m for m in marks(browser, "accuracy", "cell") if "skipnet" in m.accessible_name]
    assert "static" in pointed(browser, mark)
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [390, 1280, 1440])
def test_nothing_is_cut_off_or_wider_than_the_page(page, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.execute_script(wide) == 0
        cut = """return [...document.querySelectorAll('.live svg[role=group]')].flatMap(svg => {
            const box = svg.getBoundingClientRect();
            return [...svg.querySelectorAll('text')].filter(text => {
                const b = text.getBoundingClientRect();
                return b.left < box.left - 1 || b.right > box.right + 1;
            }).map(text => text.textContent)})"""
        assert page.execute_script(cut) == []
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_without_scripts_the_figures_for_papers_and_the_tables_stand_there(browser, path):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(path.as_uri())
        for figure, count in (("decisions", 2), ("parts", 4)):
            drawn = browser.find_elements(By.CSS_SELECTOR, f"#{figure} ~ figure.static svg")
            assert len(drawn) == count
            assert all(svg.size["height"] > 60 for svg in drawn)
            assert not browser.find_element(By.ID, figure).is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_the_groups_stand_in_tables_too(page, path):
    page.execute_script("document.querySelectorAll('details').forEach(e => { e.open = true })")
    (table,) = page.find_elements(By.CSS_SELECTOR, "[aria-label='Table: class'] table")
    text = table.text
    for row in lines(path, "groups.csv"):
        if row["by"] == "class":
            assert f"{100 * float(row['accuracy']):.2f}" in text
    assert len(table.find_elements(By.CSS_SELECTOR, "tbody tr")) == 10


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_has_no_complaint_about_the_panels(page, scheme):
    axe = pytest.importorskip("axe_core_python.base")
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    page.execute_script("document.querySelectorAll('details').forEach(e => { e.open = true })")
    page.set_script_timeout(300)
    page.execute_script(axe.AXE_SCRIPT)
    result = page.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert [(flaw["id"], flaw["nodes"][0]["html"][:120]) for flaw in result["violations"]] == []
