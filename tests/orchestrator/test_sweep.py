"""A real sweep: real Ray, real Optuna journal, real MLflow on SQLite, a real kill."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import ViewType

from methods.errors import ClusterError, DataError, StorageError, StudyError
from orchestrator import store, sweep
from orchestrator.ledger import Ledger
from orchestrator.rows import Row
from orchestrator.study import Study, load

FILE = """
name: tiny
data: digits
budgets: [0.3, 1]
recipe: {epochs: 3, batch_size: 64, lr: {low: 0.05, high: 0.2, log: true}}
methods:
  dense: {depth: 8, width: {choices: [0.25, 0.5]}}
  skipnet: {depth: 8, width: {choices: [0.25, 0.5]}, gate: rnn}
search: {trials: 3}
confirm: {seeds: 2}
"""
COMMAND = [sys.executable, "-c", "from orchestrator.cli import main; main()", "run"]


def written(folder: Path, text: str = FILE) -> Path:
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def rows_of(folder: Path, study: Study) -> list[Row]:
    ledger = Ledger(folder / study.name, study)
    rows = ledger.rows()
    ledger.close()
    return rows


def command(folder: Path, out: str = "runs") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, str(folder / "study.yaml"), "--out", str(folder / out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def different(found: list[Row], expected: list[Row]) -> list[str]:
    """What two runs decided differently, row by row."""
    left, right = ({row[:2]: row for row in comparable(rows)} for rows in (found, expected))
    return [
        f"{name}: {left.get(name)} instead of {right.get(name)}"
        for name in sorted(left.keys() | right.keys())
        if left.get(name) != right.get(name)
    ]


def comparable(rows: list[Row]) -> list[tuple[object, ...]]:
    """All that a run decides: everything but the clock."""
    return [
        (
            row.trial,
            row.point,
            row.state,
            row.reason,
            dict(row.params),
            row.epochs,
            row.val_acc,
            row.val_macs_mean,
            row.test_acc,
            row.test_macs_mean,
        )
        for row in sorted(rows, key=lambda row: (row.trial, row.point))
    ]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_sweep_goes_on_and_equals_one_that_was_not(tmp_path: Path) -> None:
    study = load(written(tmp_path))
    whole = command(tmp_path, "whole")
    output, _ = whole.communicate(timeout=400)
    assert whole.returncode == 0, output
    assert "Report:" in output

    stopped = command(tmp_path, "killed")
    _wait_for_epochs(stopped, tmp_path, 3)
    os.kill(stopped.pid, signal.SIGINT)
    output, _ = stopped.communicate(timeout=60)
    assert stopped.returncode == 130, output
    assert "Stopped; nothing is lost" in output
    assert "RUNNING" not in _statuses(tmp_path, study)

    killed = command(tmp_path, "killed")
    _wait_for_epochs(killed, tmp_path, 9)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()

    again = command(tmp_path, "killed")
    _wait_for_epochs(again, tmp_path, 14)
    os.kill(_worker_below(again.pid), signal.SIGKILL)
    output, _ = again.communicate(timeout=400)
    assert again.returncode == 0, output

    unbroken, resumed = rows_of(tmp_path / "whole", study), rows_of(tmp_path / "killed", study)
    assert different(resumed, unbroken) == []
    assert {row.state for row in resumed} <= {"COMPLETE", "FAIL"}
    assert sum(row.role == "confirm" for row in resumed) >= 4
    _mlflow_agrees(f"sqlite:///{tmp_path / 'killed' / 'mlflow.db'}", study, resumed)

    done = command(tmp_path, "killed")
    output, _ = done.communicate(timeout=200)
    assert done.returncode == 0, output
    assert "Everything is done already" in output


def _wait_for_epochs(driver: subprocess.Popen[str], folder: Path, count: int) -> None:
    """Until the log holds so many epochs, or the driver has ended."""
    wal = folder / "killed" / "tiny" / "wal.jsonl"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and driver.poll() is None:
        if wal.exists() and wal.read_text().count('"epoch"') >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"the log never held {count} epochs")


def _worker_below(driver: int) -> int:
    """A process that runs a trial and descends from a driver."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := _workers_below(driver):
            return found[0]
        time.sleep(0.05)
    raise AssertionError("no worker was seen at work")


def _workers_below(driver: int) -> list[int]:
    parents, names = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
            names[int(stat.parent.name)] = (stat.parent / "cmdline").read_text()
        except OSError:
            continue

    def descends(process: int) -> bool:
        while process > 1 and process != driver:
            process = parents.get(process, 0)
        return process == driver

    working = [p for p, name in names.items() if name.startswith("ray::ResourceTrainable.")]
    return sorted(process for process in working if descends(process))


def _statuses(folder: Path, study: Study) -> set[str]:
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'killed' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(study.name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
    return {run.info.status for run in runs}


def _mlflow_agrees(uri: str, study: Study, rows: list[Row]) -> None:
    """Every trial is one MLflow run with the ledger's numbers, and none is left running."""
    read = store.read_rows(uri, study.name)
    assert different(read, rows) == []
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name(study.name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
    assert {run.info.status for run in runs} <= {"FINISHED", "FAILED"}
    trials = [run.data.tags["trial"] for run in runs if run.data.tags["role"].startswith("trial-")]
    assert len(trials) == len(set(trials)) == len({row.trial for row in rows})
    for run in runs:
        if run.data.tags["role"].startswith("trial-") and run.info.status == "FINISHED":
            steps = [m.step for m in client.get_metric_history(run.info.run_id, "curve/val_acc")]
            assert sorted(steps) == [1, 2, 3]


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (("data: digits", "data: ./nowhere.parquet"), DataError, "nowhere"),
        (("batch_size: 64", "batch_size: 4096"), DataError, "batch"),
        (("[0.3, 1]", "[0.001]"), StudyError, "a budget must hold one configuration"),
        (("search:", "resources: {gpu: 64}\nsearch:"), ClusterError, "64 GPUs"),
        (("dense:", "dnese:"), StudyError, "did you mean 'dense'?"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(
    tmp_path: Path, change: tuple[str, str], error: type[Exception], sentence: str
) -> None:
    study = load(written(tmp_path, FILE.replace(*change)))
    with pytest.raises(error) as caught:
        sweep.run(study, tmp_path / "runs")
    assert sentence in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_a_store_that_does_not_answer_is_refused(tmp_path: Path) -> None:
    study = load(written(tmp_path))
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:9"):
        sweep.run(study, tmp_path / "runs", uri="http://127.0.0.1:9")
    assert not (tmp_path / "runs").exists()
