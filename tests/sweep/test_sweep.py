"""A real sweep: real Ray, real Optuna journal, real MLflow on SQLite, stopped by hand."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faults import FILE, MAIN, ROOT, Sweep, nothing_lost, runs

from methods.errors import ClusterError, DataError, StorageError, StudyError
from orchestrator.record import evidence
from orchestrator.study.file import load
from orchestrator.sweep import run as sweep


def written(folder: Path, text: str = FILE) -> Path:
    path = folder / "study.yaml"
    path.write_text(text)
    return path


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_that_is_stopped_by_hand_goes_on_and_is_done_once(tmp_path: Path) -> None:
    stopped = Sweep(tmp_path)
    uri = f"sqlite:///{stopped.out / 'mlflow.db'}"
    try:
        stopped.start()
        stopped.until("epoch", 3)
        os.kill(stopped.pid, signal.SIGINT)
        assert stopped.wait(60) == 130, stopped.told()
        assert "Stopped; nothing is lost" in stopped.told()
        assert "RUNNING" not in {run.info.status for run in runs(uri, stopped.study)}
        assert stopped.events()[-1]["event"] == "paused"

        stopped.start()
        assert stopped.wait(400) == 0, stopped.told()
        assert "Report:" in stopped.told()
        nothing_lost(stopped, uri)
        rows = stopped.rows()
        assert {row.state for row in rows} <= {"COMPLETE", "FAIL"}
        assert sum(row.role == "confirm" for row in rows) >= 4

        stopped.start()
        assert stopped.wait(200) == 0, stopped.told()
        assert "Everything is done already" in stopped.told()
        assert_verified(stopped, tmp_path)
    finally:
        stopped.close()


def assert_verified(swept: Sweep, folder: Path) -> None:
    """The board follows from what MLflow holds, and no more so once a bit of it is another."""
    rows = [row for row in swept.rows() if row.role == "confirm"]
    kept = evidence.correctness(swept.folder, rows)
    assert {(row.trial, row.point): row.test_acc for row in rows} == {
        name: right.mean() for name, right in kept.items()
    }
    shutil.rmtree(swept.folder)
    command = [sys.executable, "-c", MAIN, "verify", swept.study.name, "--out", str(swept.out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "follows from its evidence" in done.stdout
    file = next((swept.out / "mlartifacts").rglob(f"{rows[0].trial}-*.parquet"))
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("isoflop: the board of 'tiny' must follow from its evidence, but")
    assert f"{rows[0].trial} (" in done.stdout
    assert f"SHA-256 of the evidence: stored {rows[0].evidence}, made again" in done.stdout


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
