"""The process that mirrors the log into MLflow, in whatever folder the user works."""

import os
from pathlib import Path

import pytest
from faults import POINT, STUDY

from orchestrator import store
from orchestrator.record.events import decode_points
from orchestrator.record.ledger import Ledger
from orchestrator.record.result import Ending
from orchestrator.study.space import spaces


def test_modules_in_the_working_folder_do_not_disturb_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("methods.py", "orchestrator/__init__.py", "filelock.py", "json.py"):
        module = tmp_path / "work" / name
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text("raise RuntimeError('this module is the user\\'s')\n")
    monkeypatch.chdir(tmp_path / "work")
    ledger = Ledger(tmp_path / "runs", STUDY)
    ticket = ledger.history.add(spaces(STUDY)["dense"], {"width": 0.5})
    ledger.history.start(ticket)
    ledger.history.end(ticket.trial, Ending("COMPLETE", points=decode_points([POINT])))
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    store.claim(uri, STUDY.name, STUDY.hash)
    projector = store.Projector(ledger.wal, uri, STUDY.name)
    projector.start()
    try:
        assert projector.flush(timeout=120)
        assert projector.pid is not None
        own, its = (os.getpriority(os.PRIO_PROCESS, pid) for pid in (0, projector.pid))
        assert its == min(own + 10, 19), "the sweep has priority"
    finally:
        projector.stop()
        ledger.close()
    assert [row.state for row in store.read_rows(uri, STUDY.name)] == ["COMPLETE"]
