"""Real stores with runs that no sweep wrote, and stores that were moved, locked or deleted."""

import contextlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import pytest
from kept import Place
from places import refusal

from methods.errors import DatabaseAway, StudyError
from orchestrator import store
from orchestrator.board.model import Board
from orchestrator.results import boards
from orchestrator.results.findings import Flaw
from orchestrator.results.verify import verify
from orchestrator.store.lines import NOTE

CONFIRM, SEARCH = "skipnet-00001-seed2", "dense-00001"
EARLIER = 1_000
"""Milliseconds since 1970: before every run of the study."""


@pytest.fixture
def place(kept_study: Place, tmp_path: Path) -> Place:
    return kept_study.copied(tmp_path / "runs")


def added(place: Place, name: str, tags: Mapping[str, str]) -> str:
    """The id of a run that someone adds, and that is older than all others."""
    run = place.client.create_run("1", start_time=EARLIER, run_name=name, tags=dict(tags))
    place.client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def tags_of(place: Place, name: str) -> dict[str, str]:
    tags = place.client.get_run(place.runs[name]).data.tags
    return {key: value for key, value in tags.items() if key != "mlflow.runName"}


def flaws(place: Place) -> list[Flaw]:
    return verify("kept", place.out).flaws


def shown(place: Place) -> Board:
    return boards.at_budgets("kept", [], place.out)


def listed(board: Board, run_id: str) -> str:
    """Why a run is not on the board."""
    (reason,) = {e.reason for e in board.excluded if e.row.run_id == run_id}
    return reason


def test_what_is_added_or_rewritten_in_mlflow_is_named(place: Place) -> None:
    client, runs = place.client, place.runs
    older = added(place, "board: dense", tags_of(place, "board: dense"))
    client.log_metric(older, "acc_percent/at_1m", 99)
    newer = added(place, "report", tags_of(place, "report"))
    page = place.out / "mlartifacts" / "kept" / newer / "artifacts" / "report.html"
    page.parent.mkdir(parents=True)
    page.write_text("skipnet wins")
    client.log_metric(runs[SEARCH], "test/acc", 0.9)
    client.log_metric(runs["dense-00000"], "curve/val_acc", 0.9, step=1)
    client.update_run(runs[CONFIRM], name="the best")
    client.set_tag(runs["report"], NOTE, "skipnet wins")
    client.set_experiment_tag("1", NOTE, "skipnet wins")
    (place.folder("report") / "below").mkdir()
    (place.folder("report") / "below" / "page.html").write_text("skipnet wins")
    named = {(flaw.where, flaw.what) for flaw in flaws(place)}
    for where, what in (
        (f"run 'board: dense' ({older})", "runs of board/dense"),
        (f"run 'report' ({newer})", "runs of report"),
        (f"{SEARCH} ({runs[SEARCH]})", "metric test/acc"),
        (f"dense-00000 ({runs['dense-00000']})", "SHA-256 of the curve"),
        (f"run 'the best' ({runs[CONFIRM]})", "name"),
        (f"run 'report' ({runs['report']})", f"tag {NOTE}"),
        ("experiment", "description"),
        ("report/below/page.html", "SHA-256"),
    ):
        assert (where, what) in named


def test_strays_are_listed_and_enter_no_cell(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    before = shown(place)
    confirm = tags_of(place, CONFIRM)
    strays = {
        added(place, "empty", {}): "no tag 'role'",
        added(place, "torn", {"role": "trial-confirm", "trial": "x"}): "no tag 'key'",
        added(place, "odd", {**confirm, "role": "trial-final"}): "must have a role of",
        added(place, "ninth", {**confirm, "trial": "skipnet-00001-seed9", "seed": "9"}): "`key`",
        added(place, "other", {**confirm, "method": "mine"}): "none of the study's",
    }
    report = added(place, "report", {"role": "report"})
    place.client.delete_tag(place.runs["dense-00000-seed1"], "role")
    board = shown(place)
    assert board.methods == before.methods
    assert board.cell("skipnet", 1) == before.cell("skipnet", 1)
    for run_id, reason in strays.items():
        assert reason in listed(board, run_id)
    assert "no tag 'role'" in listed(board, place.runs["dense-00000-seed1"])
    assert "must have one run `report` in MLflow, but has 2" in caplog.text
    named = " ".join(flaw.where for flaw in flaws(place))
    assert all(run_id in named for run_id in (*strays, report, place.runs["dense-00000-seed1"]))


def test_a_renamed_study_is_read_and_named(place: Place) -> None:
    place.client.rename_experiment("1", "better")
    assert boards.at_budgets("better", [], place.out).cell("dense", 1).n == 3
    named = [(f.where, f.what, f.stored, f.recomputed) for f in verify("better", place.out).flaws]
    assert named == [("experiment", "name", "better", "kept")]
    moved = place.copied(place.out.with_name("moved"))
    place.out.rename(place.out.with_name("away"))
    assert len(verify("better", moved.out).flaws) == 1


def test_a_moved_store_is_verified_and_a_copy_by_its_own_files(place: Place) -> None:
    copy = place.copied(place.out.with_name("copy"))
    (evidence,) = copy.folder(CONFIRM).glob("*.parquet")
    evidence.write_bytes(evidence.read_bytes()[:-1] + b"?")
    assert {flaw.what for flaw in flaws(copy)} >= {"SHA-256 of the evidence"}
    assert flaws(place) == []
    place.out.rename(place.out.with_name("moved"))
    assert verify("kept", place.out.with_name("moved")).flaws == []


def test_what_was_deleted_in_mlflow_says_how_to_restore_it(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.client.delete_run(place.runs["report"])
    for command in ("board", "verify", "compare"):
        line = refusal([command, "kept", "--out", str(place.out)], capsys)
        assert f"mlflow runs restore --run-id {place.runs['report']}" in line
    place.client.restore_run(place.runs["report"])
    place.client.delete_experiment("1")
    for command in ("board", "verify", "compare"):
        line = refusal([command, "kept", "--out", str(place.out)], capsys)
        assert "was deleted in this MLflow store" in line
        assert "mlflow experiments restore --experiment-id 1" in line
    place.client.restore_experiment("1")
    assert flaws(place) == []


def test_a_locked_store_is_busy_for_every_reader(place: Place) -> None:
    uri = f"{place.uri}?timeout=0.1"
    with contextlib.closing(sqlite3.connect(place.out / "mlflow.db")) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        for read in (
            lambda: verify("kept", place.out, uri=uri),
            lambda: boards.show("kept", place.out, uri=uri),
            lambda: store.read_stored(uri, "kept"),
        ):
            with pytest.raises(DatabaseAway, match="another program holds its lock"):
                read()
    assert verify("kept", place.out, uri=uri).flaws == []


def test_a_study_of_another_name_is_none(place: Place) -> None:
    with pytest.raises(StudyError, match="no study 'kpt'; did you mean 'kept'"):
        verify("kpt", place.out)
