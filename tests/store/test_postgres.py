"""PostgreSQL below MLflow and Optuna: it leaves and returns, and its password stays hidden."""

import time
from pathlib import Path

import pytest
from boards import study_rows
from faults import FILE, Sweep
from postgres import Postgres
from stores import events, study

from methods.errors import StorageError
from orchestrator import store
from orchestrator.record.events import decode
from orchestrator.record.log import Log
from orchestrator.store import silence
from orchestrator.store.client import connect
from orchestrator.store.reading.failures import storage_errors

PASSWORD = "hidden-word"


def test_a_store_that_leaves_freezes_and_returns_has_all_and_no_text_has_its_password(
    tmp_path: Path,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)  # where MLflow keeps files, for want of a server
    what = study("demo", budgets=[2.0], methods={"dense": {}})
    rows = list(study_rows(seeds=1, methods=("dense",), budgets=(2.0,)))
    told = events(what, rows)
    log = Log(tmp_path / "wal.jsonl")
    log.append(decode(told[0]))
    store.check(postgres.url)
    store.claim(postgres.url, "demo", what.hash)
    projector = store.Projector(tmp_path / "wal.jsonl", postgres.url, "demo")
    projector.start()
    assert projector.flush(timeout=150)
    assert projector.pid is not None
    assert PASSWORD not in Path(f"/proc/{projector.pid}/cmdline").read_text()
    postgres.stop()
    for event in told[1:]:
        log.append(decode(event))
    assert not projector.flush(timeout=2)
    postgres.start()
    assert projector.flush(timeout=120)
    projector.stop()
    log.close()
    assert [row.trial for row in store.read_rows(postgres.url, "demo")] == sorted(
        row.trial for row in rows
    )
    assert store.read_study(postgres.url, "demo").study["name"] == "demo"
    assert "did not accept a write" in caplog.text
    assert PASSWORD not in caplog.text
    assert not holders(tmp_path)

    monkeypatch.setattr(silence, "SILENCE", 1.0)
    uri = f"{postgres.url}?connect_timeout=2"
    client = connect(uri)
    assert client.search_experiments()
    with (
        postgres.frozen(),
        pytest.raises(StorageError, match="cannot be used: ") as caught,
        storage_errors(uri),
    ):
        client.search_experiments()
    assert PASSWORD not in str(caught.value)
    assert client.search_experiments(), "once it runs again"


def holders(folder: Path) -> list[Path]:
    """Files that hold the password."""
    return [
        file
        for file in folder.rglob("*")
        if file.is_file() and PASSWORD.encode() in file.read_bytes()
    ]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.full
@pytest.mark.timeout(1200)
def test_a_sweep_outlives_its_databases_and_nothing_holds_their_password(
    tmp_path: Path, postgres: Postgres
) -> None:
    optuna, mlflow = postgres.database("optuna"), postgres.database("mlflow")
    sweep = Sweep(tmp_path / "away", FILE, "--optuna", optuna, "--mlflow", mlflow)
    sweep.cwd = tmp_path  # where MLflow keeps files, for want of a server
    sweep.start()
    for ends in (2, 5):
        sweep.until("end", ends, timeout=300)
        postgres.stop()
        time.sleep(5)
        postgres.start()
    assert sweep.wait(600) == 0, sweep.printed()
    assert "skipnet" in sweep.printed()
    ended = sorted(event["trial"] for event in sweep.events() if event["event"] == "end")
    assert len(ended) == len(set(ended)) > 6
    assert sorted({row.trial for row in store.read_rows(mlflow, "tiny")}) == ended
    assert not holders(tmp_path)
