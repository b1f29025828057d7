"""What a reviewer sees in MLflow's own pages, in a real browser against a real server."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from boards import study_rows, undraw
from mlflow import MlflowClient
from mlflow.entities import Run
from selenium.webdriver import ActionChains
from stores import Server, held, study

from methods.data.digest import Digest, PartDigest
from orchestrator import store
from orchestrator.board.model import Board
from orchestrator.cli import main
from orchestrator.report.publish import Source, publish
from orchestrator.results import boards

pytestmark = [pytest.mark.browser, pytest.mark.slow]
METHODS = ("dense", "skipnet")
TEST = PartDigest(images=360, sha256="cd" * 32, sizes={"8x8": 360}, modes={"L": 360})
DATA = Digest(sha256="ab" * 32, parts={"test": TEST}, splits={"test": "ef" * 32})
PATIENCE = 60
"""Seconds for a page; two cores serve and draw it."""
DOTS = "[...document.querySelectorAll('.scatterlayer .point')].map((dot) => dot.style.fill)"


class Pages(NamedTuple):
    """A server that holds a study, its board and its report."""

    server: Server
    board: Board
    report: Path
    link: str
    """The saved view, from `#` on."""

    @property
    def runs(self) -> dict[str, Run]:
        """The runs of the board by their methods."""
        client = MlflowClient(self.server.uri)
        experiment = client.get_experiment_by_name("demo")
        assert experiment is not None
        found = client.search_runs([experiment.experiment_id], "tags.role = 'leaderboard'")
        return {run.data.tags["method"]: run for run in found}

    @property
    def names(self) -> list[str]:
        """The names of the board's runs, in its order."""
        return [self.runs[method].info.run_name for method in self.board.methods]

    @property
    def experiment(self) -> str:
        """The address of the study's experiment."""
        return f"{self.server.uri}/{self.link.partition('/runs')[0]}"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, shared_server: Server) -> Pages:
    folder, server = tmp_path_factory.mktemp("pages"), shared_server
    rows = study_rows(methods=METHODS, budgets=(2.0,))
    chosen = {row.config for row in rows if row.role == "confirm"}
    rows = [row for row in rows if row.config in chosen or row.trial[-1] in "36"]
    what = study(budgets=[2.0], methods={name: {} for name in METHODS})
    held(server.uri, folder, what, rows)
    stored = boards.stored(what.name, folder, uri=server.uri)
    origin = replace(stored.provenance, data=DATA, commit="0123456789ab")
    with pytest.MonkeyPatch.context() as changed:
        undraw(changed)
        published = publish(Source(study=stored.study, rows=stored.rows, provenance=origin), folder)
    link = store.write_board(server.uri, what.name, published.board, published.page.parent)
    return Pages(server, published.board, published.page, link)


@pytest.fixture
def window(browser: Any) -> Iterator[Any]:
    """The browser with a window of 1,280 pixels; tabs that the test opens are closed."""
    first = browser.current_window_handle
    metrics = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    yield browser
    for tab in {*browser.window_handles} - {first}:
        browser.switch_to.window(tab)
        browser.close()
    browser.switch_to.window(first)


def seen(browser: Any, address: str, *words: str) -> str:
    """The text of a page once all these words are on it."""
    browser.get("about:blank")
    browser.get(address)
    return awaited(browser, *words)


def awaited(browser: Any, *words: str) -> str:
    """The text of the page that is open once all these words are on it."""
    until(browser, lambda: all(word in text_of(browser) for word in words))
    return text_of(browser)


def until(browser: Any, holds: Callable[[], Any]) -> Any:
    """What holds, as soon as it does."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, PATIENCE).until(lambda _: holds())


def text_of(browser: Any) -> str:
    return str(browser.execute_script("return document.body.innerText"))


def follow(browser: Any, click: Callable[[], None]) -> None:
    """Clicks on a link, behind what MLflow may ask a newcomer first, into the tab that it opens."""
    from selenium.common.exceptions import WebDriverException

    tabs = {*browser.window_handles}

    def clicked() -> bool:
        try:
            for button in browser.find_elements("xpath", "//button[.='Got it']"):
                button.click()
            click()
        except WebDriverException:  # it is not there yet, was drawn anew, or something covers it
            return False
        return True

    until(browser, clicked)
    (tab,) = until(browser, lambda: {*browser.window_handles} - tabs)
    browser.switch_to.window(tab)


def follow_words(browser: Any, words: str) -> None:
    """Follows the link with these words."""
    follow(browser, lambda: browser.find_element("link text", words).click())


def in_sight(browser: Any, words: str) -> bool:
    """Whether the head of a column stands within the window, whole and with nothing upon it."""
    script = """
    const cell = [...document.querySelectorAll('.ag-header-cell')].find(
      (each) => each.innerText.trim() === arguments[0]);
    if (!cell) return false;
    const box = cell.getBoundingClientRect();
    return [box.left + 4, box.right - 8].every((x) =>
      cell.contains(document.elementFromPoint(x, (box.top + box.bottom) / 2)));
    """
    return bool(browser.execute_script(script, words))


def test_the_printed_link_shows_the_board_sorted(
    pages: Pages, window: Any, capsys: pytest.CaptureFixture[str], undrawn: None
) -> None:
    out = pages.report.parents[1] / "other"
    with pytest.raises(SystemExit):
        main(["board", "demo", "--mlflow", pages.server.uri, "--out", str(out)])
    (link,) = re.findall(r"http://\S+viewStateShareKey=leaderboard", capsys.readouterr().out)
    assert link == f"{pages.server.uri}/{pages.link}"
    cell = pages.board.cell("skipnet", 2)
    standing = f"tested, letters {cell.letters}"
    text = seen(window, link, *pages.names, standing)
    places = [text.index(name) for name in pages.names]
    assert places == sorted(places)
    assert cell.accuracy.lo is not None
    assert cell.accuracy.hi is not None
    mean, lo, hi = (
        100 * (value or 0) for value in (cell.accuracy.mean, cell.accuracy.lo, cell.accuracy.hi)
    )
    assert f"skipnet {mean:.1f} % ({lo:.1f}\N{EN DASH}{hi:.1f}) at 2 MMACs" in pages.names
    assert "dense-00003" not in text  # the view is filtered to the board
    assert "beats the one found for dense" in text or "not separated" in text  # the verdict
    for column in ("Run Name", "macs/at_2m", "at_2m"):
        until(window, lambda column=column: in_sight(window, column))


def test_its_charts_show_accuracy_over_macs_in_the_methods_colours(
    pages: Pages, window: Any
) -> None:
    address = f"{pages.server.uri}/{pages.link}&compareRunsMode=CHART"
    seen(window, address, "Accuracy over cost", "macs/at_2m vs. acc_percent/at_2m")
    dots = until(window, lambda: window.execute_script(f"return {DOTS}"))
    colours = {run.data.tags["mlflow.runColor"] for run in pages.runs.values()}
    assert len(colours) == len(METHODS)
    assert {
        "#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", dot)[:3]) for dot in dots
    } == {colour.lower() for colour in colours}


def test_the_same_board_changes_nothing_on_a_server(pages: Pages) -> None:
    before = pages.runs
    store.write_board(pages.server.uri, "demo", pages.board, pages.report.parent)
    assert {name: run.info.run_id for name, run in pages.runs.items()} == {
        name: run.info.run_id for name, run in before.items()
    }


def test_an_opened_experiment_leads_to_its_board(pages: Pages, window: Any) -> None:
    """A new browser opens a page of traces, whatever the experiment is; its description links."""
    seen(window, pages.experiment, "demo", "the board")
    follow_words(window, "the board")
    awaited(window, *pages.names, "macs/at_2m")
    assert "viewStateShareKey=leaderboard" in window.current_url


def test_the_list_of_runs_begins_with_the_board(pages: Pages, window: Any) -> None:
    address = f"{pages.experiment}?workflowType=machine_learning"
    text = seen(window, address, "sweep of dense", *METHODS)
    rows = [line for line in text.splitlines() if line.startswith(METHODS) or "sweep of" in line]
    assert [row.split()[0] for row in rows[:3]] == [*pages.board.methods, "sweep"]
    assert "digits (abababababab)" in text


def test_two_lines_of_the_board_are_compared(pages: Pages, browser: Any) -> None:
    runs = [pages.runs[method] for method in METHODS]
    text = seen(browser, comparison(pages, runs), "Parameters", "Metrics", *pages.names)
    for name in ("acc_percent/at_2m", "acc_lo/at_2m", "macs/at_2m", "depth", "width"):
        assert name in text, name
    for run in runs:
        assert f"{run.data.metrics['acc_percent/at_2m']:g}" in text
        assert run.data.params["width"] in text


def test_a_line_says_what_it_read_and_who_made_it_with_what(pages: Pages, browser: Any) -> None:
    run = pages.runs["skipnet"]
    address = f"{pages.experiment}/runs/{run.info.run_id}"
    seen(
        browser,
        address,
        *("digits (abababababab)", "isoflop", "0123456", run.data.tags["mlflow.user"]),
        *("seed 5", "the board", "letters"),
    )


def test_a_run_of_the_report_opens_in_mlflow_and_leads_back(pages: Pages, window: Any) -> None:
    window.get(pages.report.as_uri())
    field = window.find_element("css selector", "#accuracy input[type=url]")
    field.clear()
    field.send_keys(pages.server.uri, "\t")
    window.find_element("xpath", "//*[@id='accuracy']//button[.='Each run']").click()
    mark = window.find_element("css selector", "#accuracy .plot a[data-key^=seed]")
    follow(window, lambda: ActionChains(window).move_to_element(mark).click().perform())
    until(window, lambda: "/runs/" in window.current_url)
    run = MlflowClient(pages.server.uri).get_run(window.current_url.rpartition("/")[2])
    awaited(window, run.data.tags["trial"], "About this run", "config_hash")
    window.find_element("xpath", "//a[.='demo' and contains(@href, '/experiments/')]").click()
    follow_words(window, "the report")
    until(window, lambda: window.find_elements("css selector", "iframe#html"))
    window.switch_to.frame("html")
    awaited(window, "isoflop leaderboard", "study demo")


def comparison(pages: Pages, runs: list[Run]) -> str:
    """The address of a comparison of runs."""
    identities = ",".join(f'"{run.info.run_id}"' for run in runs)
    place = f'experiments=["{runs[0].info.experiment_id}"]'
    return f"{pages.server.uri}/#/compare-runs?runs=[{identities}]&{place}"


def test_two_runs_of_different_methods_have_the_same_names(pages: Pages, browser: Any) -> None:
    client = MlflowClient(pages.server.uri)
    runs = []
    for name in METHODS:
        choice = pages.board.cell(name, 2).choice
        assert choice is not None
        query = f"tags.trial = '{choice.config}-seed1'"
        runs += client.search_runs([pages.runs[name].info.experiment_id], query)
    one, other = runs
    assert one.data.metrics.keys() == other.data.metrics.keys()
    assert {"val/acc", "test/acc", "macs/mean_m", "test_macs/max_m"} <= one.data.metrics.keys()
    assert one.data.tags["mlflow.runColor"] != other.data.tags["mlflow.runColor"]
    names = [run.info.run_name for run in runs]
    text = seen(browser, comparison(pages, runs), "Parameters", "Metrics", *names)
    for name in ("test/acc", "macs/mean_m", "depth", "width"):
        assert name in text, name
    for run in runs:
        assert f"{run.data.metrics['test/acc']:g}"[:5] in text
