"""Which running trials are stopped, by the rule of the rungs on the curves of a history."""

import copy
import math
from typing import Protocol

from optuna.trial import FrozenTrial, TrialState

from methods.api import Task
from orchestrator.record.events import Start
from orchestrator.record.history import History
from orchestrator.record.trials import Record, Ticket
from orchestrator.search.stops.rungs import REMEMBERED, Curve, Plan, first_rung, outlook, stops
from orchestrator.study.identity import number_of, search_of, trial_name
from orchestrator.study.params import recorded_parts


class StopRule(Protocol):
    """What stops trials before their end, and what samplers see of those that it stopped."""

    def reason(self, ticket: Ticket, lag: int) -> str | None:
        """Why a trial is stopped after its latest epoch; None if it continues."""

    def shown(self, search: str, trial: FrozenTrial) -> FrozenTrial:
        """A trial of a search that ended, as a sampler sees it."""


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


class Stopping:
    """The study's rule, by default: only a cache, so that a restart decides as before it."""

    def __init__(self, history: History, task: Task, plan: Plan | None = None) -> None:
        self._history = history
        self._curves = Curves(history, task)
        self._plan = plan or (Plan() if history.study.search.stop == "predictive" else None)

    def reason(self, ticket: Ticket, lag: int) -> str | None:
        """Why a search trial is given up after its latest epoch; None where it continues.

        It is compared with the trials of its search that are numbered `lag` before it: they have
        ended. With one epoch to go nothing is saved any more: its worker is at it.
        """
        if self._plan is None or ticket.role != "search":
            return None
        record = self._history.records[ticket.trial]
        if not first_rung(self._plan, record.length) <= record.step < record.length - 1:
            return None
        others = self._others(search_of(ticket.trial), number_of(ticket.trial) - lag)
        return stops(self._plan, self._curves.of(record), others)

    def shown(self, search: str, trial: FrozenTrial) -> FrozenTrial:
        """A trial as a sampler sees it: a stopped one with its predicted error and MACs."""
        if self._plan is None or trial.state != TrialState.PRUNED:
            return trial
        record = self._history.records[trial_name(search, trial.number)]
        predicted = outlook(self._curves.of(record), self._others(search, trial.number))
        if predicted is None:
            return trial
        complete = copy.copy(trial)
        complete.state = TrialState.COMPLETE
        complete.values = [math.exp(predicted[1]), math.exp(predicted[0])]
        return complete

    def _others(self, search: str, before: int) -> list[Curve]:
        names = [trial_name(search, number) for number in range(before)]
        curves = [self._curves.known(name) for name in names[-REMEMBERED:]]
        return [curve for curve in curves if curve is not None]
