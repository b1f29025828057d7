"""What is measured: Ray Tune alone, a whole sweep, and its parts without Ray."""

import json
import os
import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import create_trial
from ray import tune
from ray.tune import FailureConfig, RunConfig, TuneConfig, Tuner

from methods.api import Task
from orchestrator import store
from orchestrator.record.events import decode
from orchestrator.record.ledger import Ledger
from orchestrator.record.log import Log
from orchestrator.record.provenance import provenance
from orchestrator.record.result import decode_result
from orchestrator.record.trials import Ticket
from orchestrator.search.agenda import Agenda
from orchestrator.search.confirming import confirm_plan
from orchestrator.search.samplers import SAMPLERS, propose
from orchestrator.study.file import Study
from orchestrator.study.space import Space, spaces
from orchestrator.sweep import cluster
from orchestrator.sweep import run as sweep
from orchestrator.sweep.ready import Place
from tests.bench.scale.meter import MARKS, Meter, consumed, exponent, resident
from tests.bench.scale.noop import Noop, Plain, noop_result, study

HISTORIES = (50, 100, 200, 500)
"""Trials that a sampler is handed."""
TASK = Task("digits", 1, 8, 8, 10)


def plain(trials: int, folder: Path, _sampler: str, *, snapshots: str = "1e9") -> dict[str, Any]:
    """Ray Tune alone: actors reused, no logger, no search state."""
    meter = Meter(trials)
    with cluster.started(study(trials, "random").resources, "local") as slots:
        os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = snapshots
        Tuner(
            tune.with_resources(Plain, {"cpu": 1}),
            tune_config=TuneConfig(
                num_samples=trials, max_concurrent_trials=slots, reuse_actors=True
            ),
            run_config=RunConfig(
                name="tune",
                storage_path=str(folder),
                verbose=0,
                callbacks=[meter],
                failure_config=FailureConfig(max_failures=2),
            ),
        ).fit()
        written = sum(file.stat().st_size for file in folder.glob("tune/experiment_state*"))
    return {**meter.summary(), "snapshot_kb_per_trial": written / 1e3 / trials}


def snapshots(trials: int, folder: Path, sampler: str) -> dict[str, Any]:
    """Ray Tune alone, with its snapshots as often as it likes."""
    return plain(trials, folder, sampler, snapshots="auto")


class Unheard:
    """In the place of the projection to MLflow: nothing."""

    refused = 0

    def __init__(self, log: Path, uri: str, study: str) -> None:
        """Takes what the projection takes."""

    def start(self) -> None:
        """Nothing."""

    def flush(self, timeout: float) -> bool:
        return True

    def stop(self, timeout: float = 0.0) -> None:
        """Nothing."""


class Metered(store.Projector):
    """The projection, its process's CPU seconds known when it has ended."""

    spent = 0.0

    def stop(self, timeout: float = 30.0) -> None:
        Metered.spent += consumed(self.pid)
        super().stop(timeout)


def unlogged(trials: int, folder: Path, sampler: str) -> dict[str, Any]:
    """The whole sweep but its projection to MLflow."""
    store.Projector = Unheard  # type: ignore[assignment,misc]
    return whole(trials, folder, sampler)


def whole(trials: int, folder: Path, sampler: str) -> dict[str, Any]:
    """A sweep from study to board: Ray, journal, log, MLflow on SQLite."""
    if store.Projector is not Unheard:  # type: ignore[comparison-overlap]
        store.Projector = Metered  # type: ignore[misc]
    meter = Meter(trials)
    outcome = sweep.run(study(trials, sampler), Place(out=folder), listener=meter, trainable=Noop)
    rows = store.read_rows(outcome.uri, "scale")
    return {**meter.summary(), "rows": len(rows), "projector_cpu": Metered.spent}


def searched(trials: int, folder: Path, sampler: str) -> tuple[dict[str, Any], Ledger]:
    """Search and ledger without Ray: every trial ends when it has begun."""
    found = study(trials, sampler)
    ledger, meter = Ledger(folder, found), Meter(trials)
    lag = ledger.history.begin(provenance(found, TASK, 269), lag=2, device="cpu")
    agenda = Agenda(ledger.history, TASK, lag=lag)
    for _ in range(trials):
        ticket = agenda.next()
        if not isinstance(ticket, Ticket) or ticket.role == "confirm":
            break
        agenda.heard(ticket.trial, decode_result(noop_result(ticket.trial, ticket.role)))
        meter.count()
    return meter.summary(), ledger


def ledger(trials: int, folder: Path, sampler: str) -> dict[str, Any]:
    """Search, journal and log; then a resume, and the plan of what to confirm."""
    found, kept = searched(trials, folder, sampler)
    kept.close()
    before = resident()
    opened, cpu = spent(lambda: Ledger(folder, kept.study))
    _, plan = spent(lambda: confirm_plan(opened.history))
    opened.close()
    return {
        **found,
        "resume_ms_per_trial": 1e3 * cpu / found["trials"],
        "resumed_kb_per_trial": 1e3 * (resident() - before) / found["trials"],
        "confirm_plan_ms": 1e3 * plan,
    }


def projector(trials: int, folder: Path, sampler: str) -> dict[str, Any]:
    """The log into MLflow on SQLite, a slice at a time."""
    _, kept = searched(trials, folder / "from", "random")
    kept.close()
    lines = kept.wal.read_text().splitlines()
    log = Log(folder / "wal.jsonl")
    log.append(decode(json.loads(lines[0])))
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    store.claim(uri, "scale", kept.study.hash)
    projection = store.Projector(folder / "wal.jsonl", uri, "scale")
    projection.start()
    projection.flush(60)
    meter, ended = Meter(trials, lambda: projection.pid), 0
    size = max(1, trials // MARKS)
    for line in lines[1:]:
        event = json.loads(line)
        log.append(decode(event))
        ended += event["event"] == "end"
        if event["event"] == "end" and ended % size == 0:
            assert projection.flush(600), "MLflow took no write for ten minutes"
            meter.count(size)
    found = meter.summary()
    projection.stop()
    log.close()
    _, again = spent(lambda: store.project(folder / "wal.jsonl", uri, "scale"))
    kept_kb = sum(file.stat().st_size for file in folder.glob("mlflow.db*")) / 1e3
    return {
        **found,
        "again_ms_per_trial": 1e3 * again / ended,
        "stored_kb_per_trial": kept_kb / ended,
    }


def samplers(_trials: int, _folder: Path, _sampler: str) -> dict[str, Any]:
    """One proposal from histories of several lengths, in ms of CPU."""
    found: dict[str, Any] = {}
    for name in (*SAMPLERS, "sobol"):
        plan = study(1000, name)
        space = spaces(plan)["condconv"]
        costs = [proposal(space, plan, size) for size in HISTORIES]
        found[name] = {"histories": HISTORIES, "cpu_ms": costs, **exponent(HISTORIES, costs)}
    return found


def proposal(space: Space, plan: Study, size: int) -> float:
    """The median cost of a proposal from this many trials at random places, in ms of CPU."""
    draw = random.Random(size)
    history = [
        create_trial(
            params=space.at([draw.random() for _ in space.free]),
            distributions=dict(space.free),
            values=[draw.random(), draw.uniform(2e5, 5e6)],
        )
        for _ in range(size)
    ]
    costs: list[float] = []
    while len(costs) < 5 and sum(costs) < 1e3:
        number = size + 20 + len(costs)
        costs.append(1e3 * spent(partial(propose, space, history, plan, number))[1])
    return round(float(np.median(costs)), 3)


def spent(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and its CPU seconds."""
    began = time.process_time()
    value = call()
    return value, time.process_time() - began


PARTS: Mapping[str, Callable[[int, Path, str], dict[str, Any]]] = {
    "plain": plain,
    "unlogged": unlogged,
    "whole": whole,
    "snapshots": snapshots,
    "ledger": ledger,
    "projector": projector,
    "samplers": samplers,
}
