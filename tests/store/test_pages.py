"""What a reviewer sees in MLflow's own pages, in a real browser against a real server."""

import re
from pathlib import Path
from typing import Any

import pytest
from boards import study_rows
from mlflow import MlflowClient
from stores import Server, held, study

from orchestrator import store
from orchestrator.board.model import Board
from orchestrator.cli import main
from orchestrator.results import boards

pytestmark = [pytest.mark.browser, pytest.mark.slow]
METHODS = ("dense", "skipnet")


@pytest.fixture(scope="module")
def pages(
    tmp_path_factory: pytest.TempPathFactory, shared_server: Server
) -> tuple[Server, Board, Path]:
    """A server that holds a study and its board, without a report."""
    folder, server = tmp_path_factory.mktemp("pages"), shared_server
    rows = study_rows(methods=METHODS, budgets=(2.0,))
    chosen = {row.config for row in rows if row.role == "confirm"}
    rows = [row for row in rows if row.config in chosen or row.trial[-1] in "36"]
    what = study(budgets=[2.0], methods={name: {} for name in METHODS})
    held(server.uri, folder, what, rows)
    board = boards.at_budgets(what.name, [], folder, uri=server.uri)
    (folder / "files").mkdir()
    store.write_board(server.uri, what.name, board, folder / "files")
    return server, board, folder


def seen(browser: Any, address: str, *words: str) -> str:
    """The text of a page once all these words are on it."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get("about:blank")
    browser.get(address)
    WebDriverWait(browser, 60).until(lambda b: all(word in text_of(b) for word in words))
    return text_of(browser)


def text_of(browser: Any) -> str:
    return str(browser.execute_script("return document.body.innerText"))


@pytest.mark.usefixtures("undrawn")
def test_the_printed_link_shows_the_board_sorted(
    pages: tuple[Server, Board, Path], browser: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    server, board, folder = pages
    with pytest.raises(SystemExit):
        main(["board", "demo", "--mlflow", server.uri, "--out", str(folder / "other")])
    (link,) = re.findall(r"http://\S+viewStateShareKey=leaderboard", capsys.readouterr().out)
    assert link.startswith(server.uri)
    order = sorted(METHODS, key=lambda name: -(board.cell(name, 2).accuracy.mean or 0))
    numbers = [f"{round(board.cell(name, 2).accuracy.mean or 0, 4):g}" for name in order]
    text = seen(browser, link, *(number[:5] for number in numbers))
    browser.save_screenshot(str(folder / "view.png"))
    places = [text.index(f"board: {name}") for name in order]
    assert places == sorted(places)
    assert "acc/at_2m" in text
    assert "dense-00003" not in text  # the view is filtered to the board
    assert f"tested, letters {board.cell('skipnet', 2).letters}" in text
    assert (
        "beats the one found for dense" in text or "not separated" in text
    )  # the verdict is the note's first line


def test_two_runs_of_different_methods_have_the_same_names(
    pages: tuple[Server, Board, Path], browser: Any
) -> None:
    server, board, folder = pages
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("demo")
    assert experiment is not None
    runs = []
    for name in METHODS:
        choice = board.cell(name, 2).choice
        assert choice is not None
        query = f"tags.trial = '{choice.config}-seed1'"
        runs += client.search_runs([experiment.experiment_id], query)
    one, other = runs
    assert one.data.metrics.keys() == other.data.metrics.keys()
    assert {"val/acc", "test/acc", "macs/mean_m", "test_macs/max_m"} <= one.data.metrics.keys()
    assert one.data.tags["mlflow.runColor"] != other.data.tags["mlflow.runColor"]
    identities = ",".join(f'"{run.info.run_id}"' for run in runs)
    place = f'experiments=["{experiment.experiment_id}"]'
    address = f"{server.uri}/#/compare-runs?runs=[{identities}]&{place}"
    text = seen(browser, address, "Parameters", "Metrics", *(run.info.run_name for run in runs))
    browser.save_screenshot(str(folder / "compare.png"))
    for name in ("test/acc", "macs/mean_m", "depth", "width"):
        assert name in text, name
    for run in runs:
        assert f"{run.data.metrics['test/acc']:g}"[:5] in text
