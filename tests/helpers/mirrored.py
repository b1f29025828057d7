"""A small study as a log, mirrored into a real MLflow store; and what the store must hold then."""

import os
import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from orchestrator import store
from orchestrator.record.events import End, Start, decode
from orchestrator.record.log import Log
from orchestrator.record.rows import Row, trial_rows

STUDY = "demo"
Event = dict[str, Any]


def events(trials: int = 4, epochs: int = 3) -> list[Event]:
    """A small study: searched, confirmed, one diverged, one over budget, one running."""
    clock = iter(range(1_700_000_000_000, 1_800_000_000_000, 7))
    draw = random.Random(3)
    facts = {"study": {"name": STUDY}, "study_hash": "ab12", "classes": 10, "image": [1, 8, 8]}
    found: list[Event] = [
        {"event": "study", "study": STUDY, "hash": "ab12", "provenance": facts, "time": next(clock)}
        | {"lag": 2, "device": "cpu"}
    ]

    def point(name: str, *splits: str) -> Event:
        figures = ("acc", "macs_mean", "macs_p95", "macs_max")
        return {"point": name} | {f"{s}_{f}": draw.random() for s in splits for f in figures}

    def start(trial: str, role: str = "search") -> None:
        method, config = trial.split("-", maxsplit=1)[0], "-".join(trial.split("-")[:2])
        found.append(
            {
                "event": "start",
                "time": next(clock),
                "trial": trial,
                "role": role,
                "method": method,
                "params": {"depth": 14, "recipe.lr": draw.random(), "gate": "rnn"},
                "seed": 0 if role == "search" else 1,
                "attempt": 1,
                "config": config,
                "config_hash": "cd34",
                "budgets": [] if role == "search" else [0.5, 1.0],
                "point": "" if role == "search" else "supervised",
            }
        )

    def curve(trial: str) -> None:
        for step in range(1, epochs + 1):
            metrics = {"curve/val_acc": draw.random(), "curve/train_loss": draw.random()}
            found.append(
                {
                    "event": "epoch",
                    "time": next(clock),
                    "trial": trial,
                    "step": step,
                    "metrics": metrics,
                }
            )

    def end(trial: str, points: list[Event], state: str = "COMPLETE", reason: Any = None) -> None:
        found.append(
            {
                "event": "end",
                "time": next(clock),
                "trial": trial,
                "state": state,
                "reason": reason,
                "seconds": draw.random(),
                "epochs": epochs,
                "points": points,
                "device": "cpu",
            }
        )

    for number in range(trials):
        for method in ("dense", "skipnet"):
            trial = f"{method}-{number:05d}"
            names = ("",) if method == "dense" else ("supervised", "policy")
            start(trial)
            curve(trial)
            end(trial, [point(name, "val") for name in names])
    start("skipnet-00000-seed1", "confirm")
    curve("skipnet-00000-seed1")
    end(
        "skipnet-00000-seed1",
        [point(name, "val", "test") for name in ("supervised", "policy")],
    )
    start("dense-00090")
    end("dense-00090", [], "FAIL", "diverged: loss is nan at epoch 1")
    start("dense-00091")
    end("dense-00091", [], "FAIL", "over budget: costs 9 MMACs at least, the largest budget is 1")
    start("dense-00092")
    curve("dense-00092")
    return found


def logged(folder: Path, found: list[Event]) -> Path:
    log = Log(folder / "wal.jsonl")
    for event in found:
        log.append(decode(event))
    log.close()
    return folder / "wal.jsonl"


def runs(uri: str, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(STUDY)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], run_view_type=view))


def agrees(uri: str, found: list[Event]) -> None:
    """The store holds each trial once, with every point of its curve once and all its digits."""
    by_key = {run.data.tags["key"]: run for run in runs(uri) if "key" in run.data.tags}
    assert len(by_key) == sum("key" in run.data.tags for run in runs(uri))
    starts = {event["trial"]: event for event in found if event["event"] == "start"}
    ends = {event["trial"]: event for event in found if event["event"] == "end"}
    parents = {f"sweep/{event['method']}" for event in starts.values()}
    assert set(by_key) == {*starts, *parents, "report"}
    client = MlflowClient(uri)
    for trial in starts:
        told = {
            (event["step"], event["time"], value)
            for event in found
            if event["event"] == "epoch" and event["trial"] == trial
            for value in [event["metrics"]["curve/val_acc"]]
        }
        history = client.get_metric_history(by_key[trial].info.run_id, "curve/val_acc")
        assert sorted((m.step, m.timestamp, m.value) for m in history) == sorted(told)
    expected = [
        row
        for trial, end in sorted(ends.items())
        for row in rows_of(starts[trial], end, by_key[trial].info.run_id)
    ]
    assert store.read_rows(uri, STUDY) == expected


def rows_of(start: Event, end: Event, run_id: str) -> list[Row]:
    begun, ended = decode(start), decode(end)
    assert isinstance(begun, Start)
    assert isinstance(ended, End)
    return trial_rows(STUDY, begun, ended, run_id)


def forked(call: Callable[[], None]) -> int:
    """The exit status of a copy of this process that makes one call: a driver without imports."""
    with warnings.catch_warnings(action="ignore"):  # other threads run; the copy uses none of them
        process = os.fork()
    if process == 0:
        try:
            call()
        finally:
            sys.stdout.flush()
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
