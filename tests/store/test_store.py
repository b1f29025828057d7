"""Studies in a real MLflow store: their names, their boards, and stores that cannot be used."""

import socket
from pathlib import Path

import pytest
from boards import BUDGETS, study_rows
from mirrored import STUDY, events, logged, runs
from mlflow import MlflowClient
from mlflow.entities import Run

from methods.errors import StorageError, StudyError
from orchestrator import store
from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.model import Board
from orchestrator.board.rules import Rules
from orchestrator.board.verdict import verdict
from orchestrator.store.lines import board_run, content_of


def test_a_name_belongs_to_one_study(uri: str) -> None:
    first = store.claim(uri, STUDY, "ab12")
    assert store.claim(uri, STUDY, "ab12") == first
    with pytest.raises(StudyError, match="another name, or another store"):
        store.claim(uri, STUDY, "ffff")
    MlflowClient(uri).delete_experiment(first)
    with pytest.raises(StudyError, match="experiments restore"):
        store.claim(uri, STUDY, "ab12")
    with pytest.raises(StudyError, match="no study 'other'"):
        store.read_rows(uri, "other")


def test_a_store_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no database, but longer than the header of one" * 9)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # bound, not listening: nobody answers
        places = {
            f"sqlite:///{tmp_path}/file": "must be an SQLite database",
            f"sqlite:///{tmp_path}/file/mlflow.db": "must be writable",
            f"http://127.0.0.1:{silent.getsockname()[1]}": "must answer",
            "ftp://somewhere": "starts with sqlite:///",
        }
        for place, sentence in places.items():
            with pytest.raises(StorageError, match=sentence):
                store.check(place)
    store.check(f"sqlite:///{tmp_path}/new/mlflow.db")
    assert not (tmp_path / "new").exists()


def board() -> Board:
    return leaderboard(study_rows(), Rules(budgets=BUDGETS, primary=2.0))


def written(uri: str, folder: Path, what: Board) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "report.html").write_text("<h1>The report</h1>")
    return store.write_board(uri, STUDY, what, folder)


def test_a_board_is_written_once_and_replaced_where_it_changed(tmp_path: Path, uri: str) -> None:
    store.project(logged(tmp_path, events(trials=1)), uri, STUDY)
    what = board()
    link = written(uri, tmp_path / "report", what)
    assert link == store.link(uri, STUDY)
    lines = {run.data.tags["method"]: run for run in runs(uri) if leads(run)}
    assert set(lines) == set(what.methods)
    cell = what.cell("skipnet", 2.0)
    assert cell.accuracy.mean is not None
    assert lines["skipnet"].data.metrics["acc_percent/at_2m"] == round(100 * cell.accuracy.mean, 2)
    assert cell.choice is not None
    assert cell.choice.config in lines["skipnet"].data.tags["at_2m"]
    assert written(uri, tmp_path / "report", what) == link
    assert {r.info.run_id for r in runs(uri) if leads(r)} == {
        run.info.run_id for run in lines.values()
    }

    fewer = leaderboard(
        study_rows(methods=("dense", "skipnet")), Rules(budgets=BUDGETS, primary=2.0)
    )
    written(uri, tmp_path / "report", fewer)
    assert sorted(r.data.tags["method"] for r in runs(uri) if leads(r)) == ["dense", "skipnet"]
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(STUDY)
    assert experiment is not None
    assert experiment.tags["mlflow.note.content"].endswith(verdict(fewer))
    report = [run for run in runs(uri) if run.data.tags["role"] == "report"]
    assert len(report) == 1
    names = {item.path for item in client.list_artifacts(report[0].info.run_id)}
    assert names == {"provenance.json", "report.html"}


def test_a_board_of_an_earlier_version_is_replaced(tmp_path: Path, uri: str) -> None:
    store.project(logged(tmp_path, events(trials=1)), uri, STUDY)
    what, client = board(), MlflowClient(uri)
    experiment = client.get_experiment_by_name(STUDY)
    assert experiment is not None
    for method in what.methods:
        line = board_run(what, method, earlier=True)
        content = content_of(method, line.metrics, line.words)
        tags = {"role": "leaderboard", "method": method, "content": content, **line.words}
        run = client.create_run(experiment.experiment_id, tags=tags, run_name=line.name)
        for name, value in line.metrics.items():
            client.log_metric(run.info.run_id, name, value)
        client.set_terminated(run.info.run_id)
    client.delete_experiment_tag(experiment.experiment_id, "mlflow.experimentKind")
    written(uri, tmp_path / "report", what)
    lines = [run for run in runs(uri) if leads(run)]
    assert sorted(run.data.tags["method"] for run in lines) == sorted(what.methods)
    for run in lines:
        expected = board_run(what, run.data.tags["method"])
        assert (run.info.run_name, run.data.metrics) == (expected.name, expected.metrics)
        assert run.data.params == expected.params != {}
    kind = client.get_experiment(experiment.experiment_id).tags["mlflow.experimentKind"]
    assert kind == "custom_model_development"


def test_a_line_that_mlflow_would_cut_is_known_by_its_sum() -> None:
    words = {f"at_{budget}m": "tested, letters a, dynamic" for budget in range(400)}
    assert len(content_of("dense", {}, words)) == 64
    assert content_of("dense", {}, words) != content_of("dense", {"seeds/at_1m": 5.0}, words)


def leads(run: Run) -> bool:
    return run.data.tags["role"] == "leaderboard"
