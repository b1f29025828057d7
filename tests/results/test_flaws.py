"""What no board may show is listed with its reason; what cannot be read is refused in a line."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from places import BAD, Place, few, refusal, small
from stores import held

from methods.errors import StudyError
from orchestrator import store
from orchestrator.board.model import Board
from orchestrator.board.verdict import notes, verdict
from orchestrator.results import boards


@pytest.fixture(scope="module")
def bad(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Board:
    """The board of the study with all that no board may show."""
    out = tmp_path_factory.mktemp("bad")
    shutil.copy(original / "mlflow.db", out / "mlflow.db")
    shutil.copytree(original / "mlartifacts", out / "mlartifacts")
    place = Place(out)
    (one,) = place.runs("tags.trial = 'dense-00000'", "bad")
    place.client.create_run(one.info.experiment_id, tags=one.data.tags)
    for trial, tag, value in (("dense-00002", "points", "{"), ("dense-00004", "seed", "first")):
        (run,) = place.runs(f"tags.trial = '{trial}'", "bad")
        place.client.set_tag(run.info.run_id, tag, value)
    (run,) = place.runs("tags.trial = 'dense-00006'", "bad")
    place.client.delete_tag(run.info.run_id, "config")
    found = boards.at_budgets("bad", [], out)
    assert len(place.runs(name="bad")) == len(
        {r.run_id for r in store.read_trials(place.uri, "bad")}
    )
    return found


@pytest.mark.parametrize("reason", BAD)
def test_a_row_without_a_figure_is_listed_with_its_reason(bad: Board, reason: str) -> None:
    trial = f"dense-{90 + list(BAD).index(reason):05d}"
    assert [e.reason for e in bad.excluded if e.row.trial == trial] == [reason]


def test_impossible_confirm_rows_are_listed_and_the_cell_is_right(bad: Board) -> None:
    reasons = {e.row.trial: e.reason for e in bad.excluded}
    assert "got 1.797e+308" in reasons["skipnet-00000-seed8"]
    assert reasons["skipnet-00000-seed9"] == "test_macs_mean is missing"
    assert bad.cell("dense", 2).n == 3


def test_a_duplicate_is_listed_and_counted_once(bad: Board) -> None:
    reasons = [e.reason for e in bad.excluded if e.row.trial == "dense-00000"]
    assert reasons == ["duplicate of dense-00000 (seed 0), which is counted"]


@pytest.mark.parametrize(
    ("trial", "sentence"),
    [
        ("dense-00002", "Expecting property name"),
        ("dense-00004", "'first'"),
        ("dense-00006", "no tag 'config'"),
    ],
)
def test_a_run_that_cannot_be_read_is_listed(bad: Board, trial: str, sentence: str) -> None:
    (reason,) = [e.reason for e in bad.excluded if e.row.trial == trial]
    assert reason.startswith("UNREADABLE: run ")
    assert sentence in reason


def test_a_missing_seed_and_a_method_without_a_point_are_said(bad: Board) -> None:
    said = " ".join(notes(bad))
    assert "skipnet at 2 MMACs has 2 seeds, other cells have up to 3" in said
    assert "condconv has no point at any budget" in said


def test_no_row_vanishes(bad: Board) -> None:
    running = next(e for e in bad.effort if e.method == "dense").running
    assert running == 1
    listed = {e.row.run_id for e in bad.excluded}
    shown = {r.run_id for cell in bad.cells for r in cell.seeds}
    assert not listed & shown
    searched = sum(e.search for e in bad.effort)
    dropped = {e.row.trial for e in bad.excluded if e.row.role == "search"} - {"dense-00000"}
    good = {r.trial for r in few() if r.role == "search"} - dropped
    assert searched == len(good) + len(dropped)


def test_an_empty_store_says_so(
    tmp_path: Path, template: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["board", "demo", "--out", str(tmp_path)]
    assert "must be a store of studies, but there is none" in refusal(words, capsys)
    shutil.copy(template, tmp_path)
    assert "it holds none yet; `isoflop run` creates one" in refusal(words, capsys)


@pytest.mark.parametrize("count", [0, 3])
def test_a_study_that_was_never_confirmed_has_a_board(
    tmp_path: Path, template: Path, count: int
) -> None:
    shutil.copy(template, tmp_path)
    place = Place(tmp_path)
    held(place.uri, tmp_path, small(), few()[:count])
    board = boards.show("demo", tmp_path).board
    assert verdict(board).startswith(f"Not confirmed yet: {count} search trials complete")
    assert boards.at_budgets("demo", [1.5], tmp_path).cell("dense", 1.5).state == "no point"


def test_a_store_of_a_newer_isoflop_is_refused(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = place.client.get_experiment_by_name("demo")
    assert experiment is not None
    assert experiment.tags["isoflop_schema"] == "1"
    place.client.set_experiment_tag(experiment.experiment_id, "isoflop_schema", "2")
    line = refusal(["board", "demo", "--out", str(place.out)], capsys)
    assert "a newer isoflop wrote it (schema 2)" in line
    with pytest.raises(StudyError, match="newer isoflop"):
        store.claim(place.uri, "demo", experiment.tags["study_hash"])


def test_a_store_of_a_newer_mlflow_is_refused(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    with sqlite3.connect(place.file) as database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    database.close()
    line = refusal(["board", "demo", "--out", str(place.out)], capsys)
    assert "a newer MLflow made them (revision ffffffffffff)" in line


def test_a_study_with_fields_of_a_newer_isoflop_is_refused(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    (report,) = place.runs("tags.role = 'report'")
    file = place.out / "mlartifacts" / "demo" / report.info.run_id / "artifacts" / "provenance.json"
    what = json.loads(file.read_text())
    what["study"]["tomorrow"] = 1
    file.write_text(json.dumps(what))
    line = refusal(["board", "demo", "--out", str(place.out)], capsys)
    assert "cannot be read by this version of isoflop: tomorrow" in line
    file.write_text("{")
    line = refusal(["board", "demo", "--out", str(place.out)], capsys)
    assert "must hold its study as JSON" in line
