"""Time and memory of a process against the trials that ended, and how they grow."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ray.tune import Callback

from orchestrator.record.events import End
from orchestrator.record.ledger import News

MARKS = 20
"""Samples of time and memory in one run."""
STEADY = 0.1
"""Share of a run that warms caches up and is not fitted."""


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


def consumed(process: int | None) -> float:
    """CPU seconds of a process that runs, its children left out."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
