"""Boards and comparisons from a real MLflow store alone: its cache, and what it may hold."""

import dataclasses
import json
import math
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from boards import confirm, row, study_rows
from mlflow import MlflowClient
from mlflow.entities import Run
from stores import held, study

from methods.errors import StudyError
from orchestrator import store
from orchestrator.board.model import Board
from orchestrator.board.verdict import notes, verdict
from orchestrator.cli import main
from orchestrator.record.rows import Row
from orchestrator.results import boards
from orchestrator.store import cache, trials
from orchestrator.store import tags as layout
from orchestrator.study.file import Study

METHODS = ("dense", "skipnet")
BUDGETS = (1.0, 2.0)
BAD = {
    "val_acc is missing": {"val_acc": math.nan},
    "val_acc must lie in [0, 1], got inf": {"val_acc": math.inf},
    "val_acc must lie in [0, 1], got 1.02": {"val_acc": 1.02},
    "val_macs_mean must lie in (0, 1e+18), got 1.797e+308": {"val_macs_mean": 1.797e308},
    "val_macs_mean must lie in (0, 1e+18), got inf": {"val_macs_mean": math.inf},
    "val_macs_mean must lie in (0, 1e+18), got 0": {"val_macs_mean": 0.0},
    "val_macs_max must lie in (0, 1e+18), got -1": {"val_macs_max": -1.0},
    "FAIL: loss is nan at epoch 3": {"state": "FAIL", "reason": "loss is nan at epoch 3"},
    "RUNNING": {"state": "RUNNING"},
}
"""Why a row has no figure, and what it holds."""


def small(name: str = "demo", **changes: Any) -> Study:
    fields = {"budgets": list(BUDGETS), "methods": {name: {} for name in METHODS}}
    return study(name, **{**fields, **changes})


def few(seeds: int = 3) -> list[Row]:
    """Six search trials a method, and the confirm runs."""
    rows = study_rows(seeds=seeds, methods=METHODS, budgets=BUDGETS)
    chosen = {r.config for r in rows if r.role == "confirm"}
    return [r for r in rows if r.role == "confirm" or r.trial in chosen or r.trial[-1] in "0246"]


class Place:
    """A folder as `--out`, with a store of two studies in it."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.file = out / "mlflow.db"
        self.uri = f"sqlite:///{self.file}"

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    def runs(self, query: str = "tags.role LIKE 'trial-%'", name: str = "demo") -> list[Run]:
        experiment = self.client.get_experiment_by_name(name)
        assert experiment is not None
        return list(self.client.search_runs([experiment.experiment_id], query))

    def run(self, trial: str) -> Run:
        (found,) = self.runs(f"tags.trial = '{trial}'")
        return found

    def read(self, *, refresh: bool = False) -> list[Row]:
        return store.read_trials(self.uri, "demo", cache=self.out / "cache", refresh=refresh)

    def truth(self) -> list[Row]:
        return store.read_trials(self.uri, "demo")

    def cached(self) -> Path:
        (found,) = (self.out / "cache").glob("trials-*.parquet")
        return found


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Path:
    """Two studies, written once; the second has what no board may show."""
    folder = tmp_path_factory.mktemp("original")
    shutil.copy(template, folder)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    held(uri, folder, small(), few())
    bad = [row(trial=f"dense-{90 + i:05d}", **what) for i, what in enumerate(BAD.values())]
    few_seeds = [r for r in few() if not (r.method == "skipnet" and r.seed == 2)]
    over = [
        confirm(config="skipnet-00000", method="skipnet", seed=8, test_acc=1.797e308),
        confirm(config="skipnet-00000", method="skipnet", seed=9, test_macs_mean=math.nan),
    ]
    methods = {name: {} for name in (*METHODS, "condconv")}
    held(uri, folder, small("bad", methods=methods), [*few_seeds, *bad, *over])
    return folder


@pytest.fixture
def place(tmp_path: Path, original: Path) -> Iterator[Place]:
    shutil.copy(original / "mlflow.db", tmp_path / "mlflow.db")
    return Place(tmp_path)


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a command ends."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_the_cache_answers_what_the_store_would(place: Place) -> None:
    first = place.read()
    assert first == place.truth()
    assert len(first) == len(few())
    assert place.read() == first


def test_old_runs_come_from_the_cache_and_deletions_show_with_refresh(place: Place) -> None:
    before = place.read()
    old = place.run("dense-00000")
    place.client.delete_run(old.info.run_id)
    assert place.read() == before
    after = place.read(refresh=True)
    assert after == place.truth()
    assert {r.trial for r in before} - {r.trial for r in after} == {"dense-00000"}
    assert place.read() == after


def test_edits_show_with_refresh(place: Place) -> None:
    place.read()
    run = place.run("dense-00002")
    points = json.loads(run.data.tags["points"])
    points[0]["val_acc"] = 0.123
    place.client.set_tag(run.info.run_id, "points", json.dumps(points))
    assert 0.123 not in {r.val_acc for r in place.read()}
    assert 0.123 in {r.val_acc for r in place.read(refresh=True)}
    assert place.read() == place.truth()


def test_a_run_deleted_within_the_window_shows_at_once(place: Place) -> None:
    place.read()
    last = max(place.runs(), key=lambda run: run.info.end_time)
    place.client.delete_run(last.info.run_id)
    assert place.read() == place.truth()


def test_what_starts_runs_is_interrupted_and_ends_shows_at_once(place: Place) -> None:
    place.read()
    client, one = place.client, place.run("dense-00000")
    new = client.create_run(one.info.experiment_id, tags={**one.data.tags, "trial": "dense-00070"})
    client.delete_tag(new.info.run_id, "state")
    steps = [
        lambda: None,
        lambda: client.set_terminated(new.info.run_id, "KILLED"),
        lambda: client.update_run(new.info.run_id, "RUNNING"),
        lambda: client.set_tag(new.info.run_id, "state", "COMPLETE"),
        lambda: client.set_terminated(new.info.run_id, "FINISHED"),
    ]
    states = []
    for step in steps:
        step()
        found = place.read()
        assert found == place.truth()
        states += [r.state for r in found if r.trial == "dense-00070"]
    assert states == ["RUNNING", "RUNNING", "RUNNING", "COMPLETE", "COMPLETE"]


def test_a_driver_whose_clock_is_behind_is_not_missed(place: Place) -> None:
    place.read()
    one = place.run("dense-00000")
    latest = max(run.info.end_time for run in place.runs())
    new = place.client.create_run(
        one.info.experiment_id, tags={**one.data.tags, "trial": "dense-00071"}
    )
    place.client.set_terminated(new.info.run_id, end_time=latest - trials.OVERLAP + 1)
    assert "dense-00071" in {r.trial for r in place.read()}


def test_ends_that_come_late_are_not_hidden_by_an_interruption(place: Place) -> None:
    client, one = place.client, place.run("dense-00000")
    latest = max(run.info.end_time for run in place.runs())

    def arrives(trial: str, status: str, end: int | None, *left_out: str) -> None:
        tags = {**one.data.tags, "trial": trial}
        own = {name: value for name, value in tags.items() if name not in left_out}
        run = client.create_run(one.info.experiment_id, tags=own)
        client.set_terminated(run.info.run_id, status, end)

    arrives("dense-00072", "KILLED", None, "state")  # now, years after the study
    place.read()
    arrives("dense-00073", "FINISHED", latest + 60_000)
    assert place.read() == place.truth()


@pytest.mark.parametrize(
    "harm", ["torn", "flipped", "foreign", "newer", "other", "empty", "folder"]
)
def test_a_cache_that_cannot_be_trusted_is_made_anew(
    place: Place, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = place.read()
    file = place.cached()
    content = file.read_bytes()
    if harm == "torn":
        file.write_bytes(content[: len(content) // 2])
    elif harm == "flipped":
        file.write_bytes(content[:300] + bytes(b ^ 255 for b in content[300:400]) + content[400:])
    elif harm == "foreign":
        pq.write_table(pq.read_table(file).replace_schema_metadata(None).slice(3), file)
    elif harm in ("newer", "other"):
        experiment = place.client.get_experiment_by_name("demo")
        assert experiment is not None
        with monkeypatch.context() as changed:
            if harm == "newer":
                changed.setattr(cache, "VERSION", cache.VERSION + 1)
            else:
                experiment._creation_time += 1
            own = trials._cache(file.parent, "trials", place.uri, experiment)
            kept = pq.read_table(file).slice(3)
            own.save({name: kept[name].to_pylist() for name in kept.column_names}, {"read": 2**60})
            assert len(own.load()[0]) == len(truth) - 3
    elif harm == "empty":
        file.write_bytes(b"")
    else:
        file.unlink()
        file.mkdir()
    assert place.read() == truth
    assert place.read() == truth


def test_another_store_at_the_same_place_is_another_store(
    place: Place, tmp_path: Path, template: Path
) -> None:
    place.read()
    anew = tmp_path / "anew.db"
    shutil.copy(template, anew)
    held(f"sqlite:///{anew}", tmp_path / "again", small(), few()[:3])
    shutil.copyfile(anew, place.file)
    assert len(place.read()) == 3
    assert place.read() == place.truth()


def test_no_password_is_written_down(tmp_path: Path) -> None:
    facts = {"uri": "postgresql://me:secret@host/db", "experiment": "1"}
    own = cache.Cache(tmp_path, "trials", facts)
    own.save({"run_id": ["a"]}, {"read": 1})
    (file,) = tmp_path.iterdir()
    assert b"secret" not in file.read_bytes()
    assert "secret" not in file.name
    assert own.load() == ([{"run_id": "a"}], {"read": 1})


def test_a_board_comes_from_the_store_alone_and_twice_the_same(place: Place) -> None:
    first = boards.show("demo", place.out)
    assert first.board.cell("skipnet", 2).n == 3
    files = {path.name: path.read_bytes() for path in first.report.parent.iterdir()}
    assert b"Learning curves" in files["report.html"]
    shutil.rmtree(place.out / "demo")
    again = boards.show("demo", place.out, refresh=True)
    assert {path.name: path.read_bytes() for path in again.report.parent.iterdir()} == files


def test_every_number_of_the_board_leads_to_its_runs(place: Place, tmp_path: Path) -> None:
    board = boards.at_budgets("demo", [], place.out)
    (tmp_path / "files").mkdir()
    store.write_board(place.uri, "demo", board, tmp_path / "files")
    lines = {run.data.tags["method"]: run for run in place.runs("tags.role = 'leaderboard'")}
    for name in METHODS:
        note = lines[name].data.tags["mlflow.note.content"]
        for cell in (board.cell(name, budget) for budget in BUDGETS):
            assert cell.choice is not None
            for trial in (cell.choice.config, *(r.trial for r in cell.seeds)):
                assert f"/runs/{place.run(trial).info.run_id})" in note
    long = layout.board_note(board, "dense", "1" * 4000, {r.trial: "ab" for r in few()})
    assert len(long) < 8000


def test_another_primary_budget_is_exploratory_and_leaves_the_declared_report(place: Place) -> None:
    declared = boards.show("demo", place.out)
    content = declared.report.read_bytes()
    other = boards.show("demo", place.out, primary=1)
    assert other.board.primary == 1
    assert any("exploratory" in note for note in notes(other.board))
    assert all(g.p_holm is None for g in other.board.gains if g.budget != 1)
    assert other.report != declared.report
    assert declared.report.read_bytes() == content
    assert b"Exploratory: the study declared another" in other.report.read_bytes()
    with pytest.raises(StudyError, match="one of the study's budgets, 1, 2, but got 3"):
        boards.show("demo", place.out, primary=3)


def test_at_other_budgets_only_what_was_confirmed_is_chosen(place: Place) -> None:
    board = boards.at_budgets("demo", [1, 1.9, 2, 0.1], place.out)
    assert board.rules.undeclared == (0.1, 1.9)
    for name in METHODS:
        assert board.cell(name, 1.9).choice is not None
        assert board.cell(name, 1.9).seeds == board.cell(name, 1).seeds
        assert board.cell(name, 0.1).state == "no point"
    whole = boards.at_budgets("demo", [], place.out)
    assert board.cell("skipnet", 2) == whole.cell("skipnet", 2)
    better = {(c.method, c.budget): c.config for c in board.passed_over}
    macs = {r.trial: r.val_macs_mean or 0 for r in few()}
    assert all(macs[config] <= 1.9e6 for config in better.values())
    assert any("never confirmed" in note for note in notes(board)) == bool(better)


def test_methods_are_named_and_dense_stands(place: Place) -> None:
    board = boards.at_budgets("demo", [], place.out, methods=["skipnet"])
    assert set(board.methods) == {"dense", "skipnet"}
    assert board.budgets == BUDGETS
    assert boards.at_budgets("bad", [], place.out, methods=["dense"]).methods == ("dense",)
    with pytest.raises(StudyError, match="did you mean 'skipnet'"):
        boards.at_budgets("demo", [], place.out, methods=["skipnt"])


def test_two_studies_side_by_side(place: Place, tmp_path: Path) -> None:
    better = [
        dataclasses.replace(r, test_acc=r.test_acc + 0.02 if r.test_acc is not None else None)
        for r in few()
    ]
    later = small("later", recipe={"epochs": 8}, seed=4, budgets=[1, 4], primary=4)
    held(place.uri, tmp_path / "logs", later, better)
    found = boards.two_studies("demo", "later", [], place.out)
    assert [(d.method, d.budget) for d in found.differences] == [
        (name, 1.0) for name in found.methods
    ]
    for difference in found.differences:
        assert difference.result.difference == pytest.approx(0.02)
        assert difference.p_holm is not None
        assert difference.result.p is not None
        assert difference.p_holm >= difference.result.p
    assert found.exploratory
    assert ("recipe.epochs", "4", "8") in found.unlike
    assert any("different images" in note for note in found.notes)
    wider = boards.two_studies("demo", "later", [1, 2], place.out)
    assert wider.second.board.rules.undeclared == (2.0,)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": "mnist5k"}, "same data"),
        ({"budgets": [7], "primary": 7}, "share a budget"),
        ({"methods": {"condconv": {}}}, "share a method"),
    ],
)
def test_studies_that_cannot_be_compared_say_why(
    place: Place, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    held(place.uri, tmp_path / "logs", small("other", **changes), [])
    with pytest.raises(StudyError, match=sentence):
        boards.two_studies("demo", "other", [], place.out)


def test_compare_prints_both_kinds(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(place.out)]
    with pytest.raises(SystemExit) as ended:
        main(["compare", "demo", "--at", "1,1.5", *out])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "<=1.5†" in shown
    assert "skipnet \N{MINUS SIGN} dense" in shown
    with pytest.raises(SystemExit):
        main(["compare", "demo", "bad", *out])
    shown = capsys.readouterr().out
    assert "Test accuracy of bad less that of demo" in shown
    assert "methods.condconv" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["compare", "demo", "--at", "ten"], "--at must be positive MMACs"),
        (["compare", "demo", "--at=-1"], "--at must be positive MMACs"),
        (["compare", "demo", "demo"], "both are 'demo'"),
        (["compare", "dmo"], "did you mean 'demo'"),
        (["board", "demo", "--primary", "3"], "one of the study's budgets"),
    ],
)
def test_a_mistake_is_one_line(
    place: Place, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in refusal([*words, "--out", str(place.out)], capsys)


@pytest.fixture(scope="module")
def bad(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Board:
    """The board of the study with all that no board may show."""
    out = tmp_path_factory.mktemp("bad")
    shutil.copy(original / "mlflow.db", out / "mlflow.db")
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
    assert "it holds none; `isoflop run` makes one" in refusal(words, capsys)


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
    place: Place, original: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (report,) = place.runs("tags.role = 'report'")
    what = json.loads(
        Path(place.client.download_artifacts(report.info.run_id, "provenance.json")).read_text()
    )
    what["study"]["tomorrow"] = 1
    place.client.log_dict(report.info.run_id, what, "provenance.json")
    try:
        line = refusal(["board", "demo", "--out", str(place.out)], capsys)
        assert "cannot be read by this version of isoflop: tomorrow" in line
        place.client.log_text(report.info.run_id, "{", "provenance.json")
        line = refusal(["board", "demo", "--out", str(place.out)], capsys)
        assert "must hold its study as JSON" in line
    finally:
        del what["study"]["tomorrow"]
        place.client.log_dict(report.info.run_id, what, "provenance.json")
