"""Trials per hour of a whole sweep, against the bare training loop on the very same trials.

`python -m tests.bench.sweep` runs a small study as `isoflop run` does, and then the same
configurations with the same seeds, in the same order, through `train` and `evaluate` in as
many plain processes as the sweep has slots; in turns. A side's pace is taken from the moment when
each of its processes has a trial behind it; the cold figures include what comes before: imports,
Ray, the stores.

CPU seconds are those of the whole family: driver, Ray, projection to MLflow, workers. On a machine
whose cores are all at work they are what the wall will show, and other work disturbs them less.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from methods.data.load import Data, load
from methods.machine import tune_allocator
from methods.training.evaluate import evaluate
from methods.training.loop import train
from orchestrator.record.events import End, Epoch, Start, encode
from orchestrator.record.ledger import News
from orchestrator.study.file import Study
from orchestrator.study.params import parts
from orchestrator.sweep import run as sweep
from orchestrator.sweep.ready import Place

SLOTS = 2
GOAL = 0.9
TRIALS, EPOCHS = 4, 12
STUDY: Mapping[str, Any] = {
    "name": "pace",
    "data": "digits",
    "budgets": [0.3, 1],
    "recipe": {"batch_size": 32, "lr": {"low": 0.03, "high": 0.15, "log": True}},
    "methods": {
        "dense": {"depth": 8, "width": {"low": 0.25, "high": 0.75, "step": 0.25}},
        "skipnet": {"depth": 8, "width": {"low": 0.25, "high": 0.75, "step": 0.25}, "gate": "rnn"},
    },
    "confirm": {"seeds": 2},
    "resources": {"concurrency": SLOTS},
}
Trial = Mapping[str, Any]


class Pace:
    """When the trials of one side ended, by the wall's clock and the family's CPU time."""

    def __init__(self) -> None:
        self._began = self._now()
        self._ends: list[tuple[float, float]] = []
        self._at_work: list[tuple[float, float]] = []
        self.ready: float | None = None
        """Seconds until the first trial trained."""

    def end(self, seconds: float) -> None:
        """A trial has ended, after so many seconds."""
        now = self._now()
        self._ends.append(now)
        self._at_work.append((now[0] - seconds, now[0]))

    def first(self, seconds: float) -> None:
        """An epoch of so many seconds has ended; the first one counts."""
        if self.ready is None:
            self.ready = self._now()[0] - self._began[0] - seconds

    def figures(self) -> dict[str, float | None]:
        """Seconds a trial: warm, and with all that came before; by the wall and in CPU time.

        `at_work`: the fraction of the slots' warm time in which they had a trial.
        """
        trials, last, warm = len(self._ends), self._ends[-1], self._ends[SLOTS - 1]
        held = sum(max(0.0, end - max(begin, warm[0])) for begin, end in self._at_work)
        return {
            "trials": trials,
            "wall": (last[0] - warm[0]) / (trials - SLOTS),
            "cpu": (last[1] - warm[1]) / (trials - SLOTS),
            "cold_wall": (last[0] - self._began[0]) / trials,
            "cold_cpu": (last[1] - self._began[1]) / trials,
            "at_work": held / (SLOTS * (last[0] - warm[0])),
            "ready": self.ready,
        }

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.monotonic(), family()


def family() -> float:
    """CPU seconds of this process and all below it, those included that have ended."""
    parents: dict[int, int] = {}
    spent: dict[int, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it has ended
            continue
        parents[int(stat.parent.name)] = int(fields[1])
        spent[int(stat.parent.name)] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def ours(process: int) -> bool:
        while process not in (0, os.getpid()):
            process = parents.get(process, 0)
        return process != 0

    return sum(seconds for process, seconds in spent.items() if ours(process))


def swept(trials: int, epochs: int) -> tuple[dict[str, float | None], list[Trial]]:
    """The pace of a whole sweep, and its trials in the order of their starts."""
    recipe = {**STUDY["recipe"], "epochs": epochs}
    study = Study.model_validate({**STUDY, "recipe": recipe, "search": {"trials": trials}})
    begun: list[Trial] = []
    starts: dict[str, float] = {}
    pace = Pace()

    def hear(news: News) -> None:
        match news:
            case Start():
                begun.append(encode(news))
                starts[news.trial] = time.monotonic()
            case Epoch():
                pace.first(news.metrics.seconds)
            case End():
                pace.end(time.monotonic() - starts[news.trial])

    with tempfile.TemporaryDirectory(prefix="pace-") as folder:
        sweep.run(study, Place(out=Path(folder)), listener=hear)
    return pace.figures(), begun


def bare(trials: Sequence[Trial]) -> dict[str, float | None]:
    """The pace of the training loop alone on these trials."""
    context = multiprocessing.get_context("spawn")
    pace = Pace()
    waiting, ended = context.Queue(), context.Queue()
    for trial in trials:
        waiting.put(trial)
    barrier = context.Barrier(SLOTS)
    workers = [
        context.Process(target=_work, args=(barrier, waiting, ended), daemon=True)
        for _ in range(SLOTS)
    ]
    for worker in workers:
        worker.start()
        waiting.put(None)
    for _ in trials:
        seconds = ended.get(timeout=600)
        pace.first(seconds)
        pace.end(seconds)
    for worker in workers:
        worker.join()
    return pace.figures()


def _work(barrier: Barrier, waiting: Any, ended: Any) -> None:
    """A plain process: trains what it is given, and tells the seconds of each trial."""
    tune_allocator()
    torch.set_num_threads(1)
    data = load(STUDY["data"])
    barrier.wait()
    for trial in iter(waiting.get, None):
        began = time.monotonic()
        alone(trial, data)
        ended.put(time.monotonic() - began)


def alone(trial: Trial, data: Data) -> None:
    """One trial: an evaluation per epoch, and of every operating point once its phase is done."""
    method, recipe = parts(trial["method"], trial["params"])
    for epoch in train(method, data, recipe, seed=trial["torch_seed"]):
        evaluate(epoch.net, data.validation)
        for view in epoch.points().values() if epoch.phase_done else ():
            evaluate(view, data.validation)
            if trial["role"] == "confirm":
                evaluate(view, data.test)


def measured(rounds: int = 2, trials: int = TRIALS, epochs: int = EPOCHS) -> dict[str, Any]:
    """Both sides in turns, and the sweep's pace as a fraction of the bare loop's.

    `trials` are those of each method's search, of so many `epochs`.
    """
    found = []
    for _ in range(rounds):
        ours, begun = swept(trials, epochs)
        found.append({"sweep": ours, "bare": bare(begun)})
    ratios = {
        name: _spread(lambda one, name=name: one["bare"][name] / one["sweep"][name], found)
        for name in ("wall", "cpu", "cold_wall", "cold_cpu")
    }
    return {"rounds": found, "ratios": ratios, "goal": GOAL, "load": os.getloadavg()[0]}


def _spread(
    ratio: Callable[[Mapping[str, Any]], float], found: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    values = [ratio(one) for one in found]
    return {"median": float(np.median(values)), "low": min(values), "high": max(values)}


def table(found: Mapping[str, Any]) -> Table:
    """What was measured, for the terminal."""
    trials = found["rounds"][0]["sweep"]["trials"]
    title = f"{trials} trials on {SLOTS} slots, load {found['load']:.1f}"
    shown = Table("the sweep's pace over the bare loop's", "ratio", "range", "goal", title=title)
    words = {
        "wall": "by the wall",
        "cpu": "in CPU time",
        "cold_wall": "by the wall, start-up included",
        "cold_cpu": "in CPU time, start-up included",
    }
    for name, ratio in found["ratios"].items():
        goal = f">= {GOAL}" if name in ("wall", "cpu") else ""
        span = f"{ratio['low']:.3f} to {ratio['high']:.3f}"
        shown.add_row(words[name], f"{ratio['median']:.3f}", span, goal)
    for side in ("sweep", "bare"):
        own = found["rounds"][-1][side]
        told = (
            f"{3600 / own['wall']:.0f} trials an hour, first at work after {own['ready']:.1f} s, "
            f"slots at work {own['at_work']:.1%}"
        )
        shown.add_row(f"{side}, last round", "", told, "")
    return shown


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--trials", type=int, default=TRIALS, help="of each method's search")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of a trial")
    parser.add_argument("--json", type=Path, default=None, help="write the figures here too")
    asked = parser.parse_args()
    found = measured(asked.rounds, asked.trials, asked.epochs)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1))
    Console(width=110).print(table(found))


if __name__ == "__main__":
    main()
