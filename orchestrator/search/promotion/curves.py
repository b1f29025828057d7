"""The learning curves from which promotion decides."""

import functools
from dataclasses import dataclass

import numpy as np

from methods.api import Task
from orchestrator.record.events import Start
from orchestrator.record.history import History
from orchestrator.record.trials import Record
from orchestrator.search.model.gaussian import Array
from orchestrator.study.params import recorded_parts

SMALLEST = 1e-3
"""Errors below this count as this: their logarithms are compared."""


@dataclass(frozen=True)
class Curve:
    """A trial's validation errors (fractions) and MACs, one per epoch so far."""

    errors: tuple[float, ...]
    macs: tuple[float, ...]
    epochs: int
    """Full length."""
    floor: float
    """Least MACs that the configuration can cost: known before it trains."""
    final_error: float | None = None
    """At the operating point that the search optimises; None where the trial ended early."""
    final_macs: float | None = None

    @property
    def step(self) -> int:
        """Epochs done."""
        return len(self.errors)

    @functools.cached_property
    def logs(self) -> Array:
        """Log errors, their means over the last three epochs, and log MACs: 3 x epochs so far."""
        errors = np.log(np.maximum(self.errors, SMALLEST))
        totals = np.concatenate([[0.0, 0.0, 0.0], np.cumsum(errors)])
        counts = np.minimum(np.arange(1, self.step + 1), 3)
        return np.array([errors, (totals[3:] - totals[:-3]) / counts, np.log(self.macs)])

    @property
    def whole(self) -> bool:
        """Whether the trial ran to its end."""
        return self.final_error is not None and self.final_macs is not None


class Curves:
    """The curves of a history's trials: only a cache."""

    def __init__(self, history: History, task: Task) -> None:
        self._history = history
        self._task = task
        self._floors: dict[str, int] = {}
        self._ended: dict[str, Curve | None] = {}

    def known(self, trial: str) -> Curve | None:
        """The curve of a trial that ended; None where it has none."""
        if trial not in self._ended:
            record = self._history.records[trial]
            if record.end is None:
                return None
            self._ended[trial] = self.of(record) if record.curve else None
        return self._ended[trial]

    def of(self, record: Record) -> Curve:
        """The curve of a trial so far."""
        whole = record.end is not None and record.end.state == "COMPLETE"
        final = record.end.points[-1].val if record.end and whole else None
        epochs = [epoch.metrics for epoch in record.curve]
        return Curve(
            errors=tuple(1.0 - epoch.val_acc for epoch in epochs),
            macs=tuple(1e6 * epoch.macs_mean_m for epoch in epochs),
            epochs=record.length,
            floor=self._floor(record.start),
            final_error=1.0 - final.accuracy if final else None,
            final_macs=final.macs_mean if final else None,
        )

    def _floor(self, start: Start) -> int:
        if start.trial not in self._floors:
            floor = recorded_parts(start.method, start.params)[0].floor(self._task)
            self._floors[start.trial] = floor
        return self._floors[start.trial]
