"""What a trial costs the driver, and how that grows with the number of trials.

`python -m tests.bench.scale --trials 5000` runs plain Ray Tune and a whole sweep on the same
number of no-op trials, one after the other, each in a process of its own; then the sweep's parts
apart, without Ray. It prints a table and writes JSON. CPU seconds are the driver's own, all its
threads; the projection to MLflow, a process of its own, stands apart; workers and Ray's daemons
are not counted.

The growth exponent is the slope of log(cost per trial) against log(number of trials): 0 where a
trial costs the same whenever it comes, 1 where it costs twice as much among twice as many.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import create_trial
from ray import tune
from ray.tune import Callback, FailureConfig, RunConfig, TuneConfig, Tuner
from rich.console import Console
from rich.table import Table

from methods.api import Task
from orchestrator import store
from orchestrator.record.events import End, News, decode
from orchestrator.record.ledger import Ledger
from orchestrator.record.log import Log
from orchestrator.record.result import decode_result
from orchestrator.record.trials import Ticket
from orchestrator.search.agenda import Agenda, confirm_plan
from orchestrator.search.proposals import SAMPLERS, propose
from orchestrator.study.file import Study
from orchestrator.study.space import Space, spaces
from orchestrator.sweep import cluster
from orchestrator.sweep import run as sweep
from orchestrator.sweep.worker import TOLD

METHODS: Mapping[str, Any] = {
    "dense": {"depth": 8, "width": {"low": 0.25, "high": 1.0}},
    "condconv": {"depth": 8, "width": {"low": 0.25, "high": 1.0}},
}
RATE = {"lr": {"low": 0.01, "high": 1.0, "log": True}}
MOMENTUM = {"momentum": {"low": 0.5, "high": 0.95}}
HISTORIES = (50, 100, 200, 500)
"""Trials that a sampler is handed."""
MARKS = 20
"""Samples of time and memory in one run."""
STEADY = 0.1
"""Share of a run that warms caches up and is not fitted."""


def study(trials: int, sampler: str) -> Study:
    """A study of about so many trials in all."""
    return Study.model_validate(
        {
            "name": "scale",
            "data": "digits",
            "budgets": [1, 4],
            "recipe": {"epochs": 1, **RATE, **MOMENTUM},
            "methods": METHODS,
            "search": {"trials": max(1, trials // len(METHODS)), "sampler": sampler},
            "confirm": {"seeds": 5},
            "resources": {"cpu": 1},
        }
    )


class Plain(tune.Trainable):  # type: ignore[misc]
    """A trial that reports once and does nothing."""

    def step(self) -> dict[str, Any]:
        return {"done": True, "loss": 0.0}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing."""


class Noop(Plain):
    """A trial of the sweep that reports one epoch and a made-up point at once."""

    def setup(self, config: dict[str, Any]) -> None:
        self._told = told(config["trial"], config["role"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        return {"done": True, TOLD: json.dumps(self._told)}


def told(trial: str, role: str) -> dict[str, Any]:
    """The one result of a no-op trial: figures drawn from its name."""
    draw = random.Random(trial)
    point: dict[str, Any] = {"point": ""}
    for split in ("val", "test") if role == "confirm" else ("val",):
        cost = draw.uniform(2e5, 3e6)
        point |= {f"{split}_acc": draw.uniform(0.2, 0.9), f"{split}_loss": 1.0}
        point |= {f"{split}_macs_{name}": cost for name in ("mean", "p95", "max")}
        point[f"{split}_macs_std"] = 0.0
    names = ("train_loss", "val_acc", "val_loss", "macs_mean_m", "lr", "seconds")
    return {
        "step": 1,
        "time": time.time_ns() // 1_000_000,
        "metrics": {f"curve/{name}": draw.random() for name in names},
        "done": True,
        "end": {
            "state": "COMPLETE",
            "reason": None,
            "seconds": 0.0,
            "points": [point],
            "device": "none",
        },
    }


class Meter(Callback):  # type: ignore[misc]
    """Time and memory of a process, this one by default, against the trials that ended."""

    def __init__(self, trials: int, process: Callable[[], int | None] = os.getpid) -> None:
        self._process = process
        self._every = max(1, trials // MARKS)
        self._ended = 0
        self.samples: list[dict[str, float]] = []
        self.began = (time.monotonic(), consumed(process()))

    def __call__(self, news: News) -> None:
        """A listener of the ledger's."""
        if isinstance(news, End):
            self.count()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.count()

    def count(self, number: int = 1) -> None:
        """So many more trials have ended."""
        self._ended += number
        if self._ended % self._every < number:
            self.samples.append(self._now())

    def summary(self) -> dict[str, Any]:
        """The whole run, its samples, and what they show."""
        return {**self._now(), "samples": self.samples, **growth(self.samples)}

    def _now(self) -> dict[str, float]:
        return {
            "trials": self._ended,
            "wall": time.monotonic() - self.began[0],
            "cpu": consumed(self._process()) - self.began[1],
            "rss_mb": resident(self._process()),
        }


def resident(process: int | None = None) -> float:
    """A process's memory now, this one's by default, in MB."""
    pages = int(Path(f"/proc/{process or 'self'}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def growth(samples: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Between samples: cost per trial in ms of CPU, its exponent, and memory per trial in kB."""
    kept = [s for s in samples if s["trials"] > STEADY * samples[-1]["trials"]] if samples else []
    if len(kept) < 4:
        return {}
    ended, cpu, rss = (np.array([s[name] for s in kept]) for name in ("trials", "cpu", "rss_mb"))
    cost = 1e3 * np.diff(cpu) / np.diff(ended)
    return {
        "cpu_ms": [round(float(c), 3) for c in cost],
        **exponent((ended[1:] + ended[:-1]) / 2, cost),
        "kb_per_trial": float(1e3 * np.polyfit(ended, rss, 1)[0]),
    }


def exponent(numbers: Any, costs: Any) -> dict[str, float]:
    """The slope in the log-log plane, and its standard error."""
    x, y = np.log(numbers), np.log(np.maximum(costs, 1e-9))
    slope, offset = np.polyfit(x, y, 1)
    rest = y - slope * x - offset
    spread = np.sqrt(rest @ rest / max(1, len(x) - 2) / ((x - x.mean()) @ (x - x.mean())))
    return {"exponent": float(slope), "error": float(spread)}


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


def consumed(process: int | None) -> float:
    """CPU seconds of a process that runs, its children left out."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def unlogged(trials: int, folder: Path, sampler: str) -> dict[str, Any]:
    """The whole sweep but its projection to MLflow."""
    store.Projector = Unheard  # type: ignore[assignment,misc]
    return whole(trials, folder, sampler)


def whole(trials: int, folder: Path, sampler: str) -> dict[str, Any]:
    """A sweep from study to board: Ray, journal, log, MLflow on SQLite."""
    if store.Projector is not Unheard:  # type: ignore[comparison-overlap]
        store.Projector = Metered  # type: ignore[misc]
    meter = Meter(trials)
    outcome = sweep.run(study(trials, sampler), folder, listener=meter, trainable=Noop)
    rows = store.read_rows(outcome.uri, "scale")
    return {**meter.summary(), "rows": len(rows), "projector_cpu": Metered.spent}


def searched(trials: int, folder: Path, sampler: str) -> tuple[dict[str, Any], Ledger]:
    """Search and ledger without Ray: every trial ends when it has begun."""
    found = study(trials, sampler)
    ledger, meter = Ledger(folder, found), Meter(trials)
    lag = ledger.history.begin({"study": {}, "classes": 10}, lag=2, device="cpu")
    agenda = Agenda(ledger.history, TASK, lag=lag)
    for _ in range(trials):
        ticket = agenda.next()
        if not isinstance(ticket, Ticket) or ticket.role == "confirm":
            break
        agenda.heard(ticket.trial, decode_result(told(ticket.trial, ticket.role)))
        meter.count()
    return meter.summary(), ledger


TASK = Task("digits", 1, 8, 8, 10)


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
    """The median cost of a proposal from so many trials at random places, in ms of CPU."""
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


def apart(part: str, trials: int, sampler: str) -> dict[str, Any]:
    """One part in a fresh process and a fresh folder."""
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", "tests.bench.scale", "--trials", str(trials)]
        command += ["--sampler", sampler, "--one", part, "--json", str(result)]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
        content: dict[str, Any] = json.loads(result.read_text())
    return content


def lines(found: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Goal, figure and verdict of what was measured."""
    table = []

    def line(what: str, goal: str, figure: str, holds: bool | None = None) -> None:
        table.append((what, goal, figure, "" if holds is None else "holds" if holds else "FAILS"))

    def flat(what: str, run: Mapping[str, Any]) -> None:
        if "exponent" not in run:
            return
        slope, error = run["exponent"], run["error"]
        cost = f"{run['cpu_ms'][0]:.3g} to {run['cpu_ms'][-1]:.3g} ms of CPU"
        line(what, "exponent 0", f"{slope:+.2f} +- {error:.2f} ({cost})", slope - 2 * error <= 0.1)

    for part, what in (("unlogged", "MLflow left out"), ("whole", "MLflow included")):
        for name, unit in (("wall", "elapsed"), ("cpu", "CPU of the driver")):
            if "plain" in found and part in found:
                base, own = (found[k][name] / found[k]["trials"] for k in ("plain", part))
                line(
                    f"a trial, {unit}, {what}",
                    "under 1.5 times plain",
                    f"{own / base:.2f} ({1e3 * own:.3g} ms, plain {1e3 * base:.3g} ms)",
                    own / base < 1.5,
                )
    names = {
        "plain": "plain Ray Tune",
        "unlogged": "the sweep without MLflow",
        "whole": "the whole sweep",
        "snapshots": "plain Ray Tune with snapshots",
        "ledger": "search, journal and log",
        "projector": "projection to MLflow",
    }
    for part, what in names.items():
        if part in found:
            flat(what, found[part])
    for part, what in names.items():
        if "kb_per_trial" in found.get(part, {}):
            figure = f"{found[part]['kb_per_trial']:.3g} kB a trial, {found[part]['rss_mb']:.0f} MB"
            line(f"memory: {what}", "", figure)
    if "projector" in found:
        again, kept = (
            found["projector"][f"{what}_per_trial"] for what in ("again_ms", "stored_kb")
        )
        line("MLflow at a resume", "", f"{again:.3g} ms of CPU a trial; {kept:.3g} kB on disk")
    if "ledger" in found:
        line("a resume", "", f"{found['ledger']['resume_ms_per_trial']:.3g} ms of CPU a trial")
        line("the plan to confirm", "", f"{found['ledger']['confirm_plan_ms']:.3g} ms of CPU, once")
    for name, run in found.get("samplers", {}).items():
        costs = ", ".join(f"{c:.3g}" for c in run["cpu_ms"])
        line(f"proposal: {name}", "", f"{costs} ms of CPU; exponent {run['exponent']:+.2f}")
    return table


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--sampler", default="random", help="of the whole sweep and the ledger")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--json", type=Path, default=Path("scale.json"))
    parser.add_argument("--one", choices=list(PARTS), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        found = PARTS[asked.one](asked.trials, asked.json.parent, asked.sampler)
        asked.json.write_text(json.dumps(found))
        return
    found = {part: apart(part, asked.trials, asked.sampler) for part in asked.parts}
    machine = {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
    asked.json.write_text(
        json.dumps({"asked": asked.trials, "sampler": asked.sampler, **machine, **found}, indent=1)
    )
    table = Table("", "goal", "figure", "verdict", title=f"{asked.trials} no-op trials")
    for row in lines(found):
        table.add_row(*row)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
