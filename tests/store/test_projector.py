"""The process that mirrors the log into MLflow: it follows, dies, returns, and ends in time."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mirrored import STUDY, agrees, events, forked, logged, runs
from stores import Server

from methods.errors import StorageError
from orchestrator import store
from orchestrator.record.events import decode
from orchestrator.record.log import Log
from orchestrator.store import mirror


def test_the_projector_follows_the_log_and_is_started_again(tmp_path: Path, uri: str) -> None:
    lines = events(trials=3)
    refused = {**lines[1], "params": {"depth": 20}, "attempt": 2}  # a parameter's second value
    log = Log(tmp_path / "wal.jsonl")
    log.append(decode(lines[0]))
    store.claim(uri, STUDY, "ab12")
    projector = store.Projector(tmp_path / "wal.jsonl", uri, STUDY)
    projector.start()
    for number, event in enumerate(lines[1:]):
        log.append(decode(event))
        if number == 0:
            log.append(decode(refused))
        if number == len(lines) // 2:
            assert projector.flush(timeout=120)
            assert projector.pid is not None
            driver, mirror = (os.getpriority(os.PRIO_PROCESS, pid) for pid in (0, projector.pid))
            assert mirror == min(driver + 10, 19), "the sweep has priority"
            os.kill(projector.pid, signal.SIGKILL)
    assert projector.flush(timeout=120)
    agrees(uri, lines)
    assert projector.refused == 1
    projector.stop()
    assert projector.pid is None
    status = {run.data.tags["key"]: run.info.status for run in runs(uri)}
    assert "RUNNING" not in status.values()
    assert status["dense-00092"] == "KILLED"
    log.append(decode({**lines[-4], "attempt": 2}))
    end = next(event for event in lines if event["event"] == "end")
    lines.append({**end, "trial": "dense-00092", "time": lines[-1]["time"] + 1})
    log.append(decode(lines[-1]))
    log.close()
    store.project(tmp_path / "wal.jsonl", uri, STUDY)
    agrees(uri, lines)


def test_a_pass_leaves_what_comes_meanwhile_to_the_next(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would never end beside short trials, and write them a few at a time."""
    lines = events()
    first = next(n for n, line in enumerate(lines) if line["event"] == "end") + 1
    path = logged(tmp_path, lines[:first])
    store.claim(uri, STUDY, "ab12")
    log, write = Log(path), mirror.write_whole
    coming = iter([lines[first:]])

    def slowly(*arguments: Any) -> list[str]:
        for line in next(coming, []):
            log.append(decode(line))
        return write(*arguments)

    monkeypatch.setattr(mirror, "write_whole", slowly)
    held = path.stat().st_size
    projection = mirror.Projection(path, uri, STUDY)
    projection.advance()
    assert projection.offset == held < path.stat().st_size
    trials = [run.data.tags["key"] for run in runs(uri) if "trial" in run.data.tags]
    assert trials == ["dense-00000"]
    projection.advance()
    log.close()
    agrees(uri, lines)


def test_a_projector_that_died_with_a_word_unread_is_started_again(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = events(trials=1)
    log = logged(tmp_path, lines)
    store.claim(uri, STUDY, "ab12")
    projector = store.Projector(log, uri, STUDY)
    deaf = [sys.executable, "-c", "import os, time; os.close(0); print(flush=True); time.sleep(2)"]
    command = projector._command
    monkeypatch.setattr(projector, "_command", deaf)
    projector.start()
    while not (projector.pid and projector._process):
        time.sleep(0.01)
    time.sleep(1)  # its input is closed by now
    monkeypatch.setattr(projector, "_command", command)
    assert not projector.flush(timeout=0), "this word is never read"
    for _ in range(240):
        if projector.flush(timeout=1):
            break
    agrees(uri, lines)
    projector.stop()


def test_a_projector_ends_with_its_driver(tmp_path: Path, uri: str) -> None:
    log, note = logged(tmp_path, events(trials=1)), tmp_path / "pid"
    store.claim(uri, STUDY, "ab12")

    def driver() -> None:
        projector = store.Projector(log, uri, STUDY)
        projector.start()
        assert projector.flush(120)
        note.write_text(str(projector.pid))
        os.kill(os.getpid(), signal.SIGKILL)

    assert forked(driver) == -signal.SIGKILL
    place = Path("/proc") / str(int(note.read_text()))
    deadline = time.monotonic() + 30
    while place.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not place.exists()


@pytest.fixture
def server(tmp_path: Path, template: Path) -> Iterator[Server]:
    (tmp_path / "mlflow.db").write_bytes(template.read_bytes())
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.mark.slow
def test_a_server_that_dies_and_returns_loses_and_doubles_nothing(
    tmp_path: Path, server: Server
) -> None:
    lines = events(trials=3, epochs=4)
    log = Log(tmp_path / "wal.jsonl")
    log.append(decode(lines[0]))
    store.check(server.uri)
    store.claim(server.uri, STUDY, "ab12")
    projector = store.Projector(tmp_path / "wal.jsonl", server.uri, STUDY)
    projector.start()
    for number, event in enumerate(lines[1:]):
        log.append(decode(event))
        if number == len(lines) // 3:
            assert projector.flush(timeout=120), "it is busy when the server dies"
        if number == len(lines) // 2:
            server.kill()
            assert not projector.flush(timeout=0.5)
            threading.Timer(1.0, server.start).start()
    log.close()
    assert projector.flush(timeout=120)
    projector.stop()
    agrees(server.uri, lines)
    assert "RUNNING" not in {run.info.status for run in runs(server.uri)}
    assert not (tmp_path / "mlflow-refused.jsonl").exists()
    server.kill()
    with pytest.raises(StorageError, match="cannot be used"):
        store.read_rows(server.uri, STUDY)
