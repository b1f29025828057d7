"""Whole studies in a real MLflow store, for the tests of what reads them."""

import math
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from boards import BUDGETS, LIFT, study_rows
from ports import free_port

from orchestrator import store
from orchestrator.record.events import decode
from orchestrator.record.log import Log
from orchestrator.record.rows import FIGURES, Row
from orchestrator.study.file import Study

Event = dict[str, Any]
DRIVER = {"lag": 2, "device": "cpu"}
BEGAN, MINUTE = 1_700_000_000_000, 60_000
FACTS = {"classes": 10, "image": [1, 8, 8], "test_images": 360, "versions": {"torch": "2.13.0"}}


def study(name: str = "demo", **changes: Any) -> Study:
    """The study that `study_rows` could be of, but for `changes`."""
    fields: dict[str, Any] = {
        "name": name,
        "data": "digits",
        "budgets": list(BUDGETS),
        "primary": 2,
        "methods": {method: {} for method in LIFT},
        "recipe": {"epochs": 4},
    }
    return Study.model_validate({**fields, **changes})


def events(what: Study, rows: Iterable[Row], epochs: int = 4) -> list[Event]:
    """The log that would have brought these rows; each trial has a curve, a running one no end."""
    facts = {"study": what.model_dump(mode="json"), "study_hash": what.hash, **FACTS}
    found: list[Event] = [
        {"event": "study", "study": what.name, "hash": what.hash, "provenance": facts, **DRIVER}
    ]
    draw = random.Random(11)
    for row in rows:
        found.append(
            {
                "event": "start",
                "trial": row.trial,
                "role": row.role,
                "method": row.method,
                "params": dict(row.params),
                "seed": row.seed,
                "attempt": 1,
                "config": row.config,
                "config_hash": row.config_hash,
                "budgets": list(row.budgets),
                "point": "",
            }
        )
        top = row.val_acc if row.val_acc is not None and math.isfinite(row.val_acc) else 0.2
        for step in range(1, epochs + 1):
            value = top - 0.6 * math.exp(-step) + draw.gauss(0, 0.004)
            metrics = {"curve/val_acc": value, "curve/val_loss": 1 / step}
            found.append({"event": "epoch", "trial": row.trial, "step": step, "metrics": metrics})
        if row.state == "RUNNING":
            continue
        points = [{"point": row.point, **{name: getattr(row, name) for name in FIGURES}}]
        found.append(
            {
                "event": "end",
                "trial": row.trial,
                "state": row.state,
                "reason": row.reason,
                "seconds": row.seconds,
                "epochs": row.epochs,
                "points": points if row.state == "COMPLETE" else [],
                "device": "cpu",
            }
        )
    return [{**event, "time": BEGAN + MINUTE * i} for i, event in enumerate(found)]


def held(uri: str, folder: Path, what: Study, rows: Iterable[Row] | None = None) -> list[Row]:
    """The study in the store at `uri`, projected from a log in `folder`; the rows."""
    own = list(study_rows() if rows is None else rows)
    place = folder / what.name
    place.mkdir(parents=True, exist_ok=True)
    log = Log(place / "wal.jsonl")
    for event in events(what, own):
        log.append(decode(event))
    log.close()
    store.project(place / "wal.jsonl", uri, what.name)
    return own


class Server:
    """A real `mlflow server` on one SQLite file, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self._folder}/mlflow.db"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **quiet},
                cwd=self._folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self._folder / "server.log").read_text())

    def kill(self) -> None:
        """All its processes at once, as an outage does."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
