"""How far a sweep is: its trials by method, how many there will be, and how long they take yet.

The terminal counts what its driver tells, the watch what a log holds: both pass their own clock.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean

from orchestrator.board.words import percent, plural
from orchestrator.record.events import End, Epoch, Point, Role, Start
from orchestrator.record.result import Outcome
from orchestrator.record.trials import EPOCHS
from orchestrator.search.confirming import confirm_runs, unreduced_runs
from orchestrator.study.budgets import Cost
from orchestrator.study.file import Study
from orchestrator.study.identity import BASE
from orchestrator.study.space import spaces

FEW = 2
"""Trials that must have ended before the time left is more than a guess."""


@dataclass
class Running:
    """A trial that a worker has."""

    start: Start
    since: float
    """Seconds of the clock."""
    step: int = 0
    accuracy: float = math.nan
    """On validation, a fraction."""

    @property
    def epochs(self) -> int:
        """Epochs of the whole trial; 0 where they are not recorded."""
        return int(self.start.params.get(EPOCHS) or 0)

    @property
    def left(self) -> float:
        """The fraction of it that is still to run."""
        return max(0.0, 1 - self.step / self.epochs) if self.epochs else 1.0


@dataclass
class Counts:
    """The trials of one method so far."""

    running: dict[str, Running] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)
    """Trials that wait at their rung."""
    ended: Counter[str] = field(default_factory=Counter)
    by_role: Counter[Role] = field(default_factory=Counter)
    """Trials that took a worker and ended."""
    seconds: dict[Role, list[float]] = field(default_factory=dict)
    """How long complete trials took."""
    unfit: Counter[str] = field(default_factory=Counter)
    """Trials that took no worker, by their outcome."""
    best: float | None = None
    spent: str = ""
    """What that costs."""

    @property
    def failed(self) -> int:
        return self.ended["FAIL"]

    @property
    def done(self) -> int:
        """Trials that took a worker and ended otherwise."""
        return self.ended.total() - self.failed

    def mean_seconds(self, role: Role) -> float | None:
        """Mean seconds of a trial of this role, else of the other: both train a configuration of
        the method."""
        other: Role = "confirm" if role == "search" else "search"
        measured = self.seconds.get(role) or self.seconds.get(other)
        return fmean(measured) if measured else None


class Tally:
    """The trials of a study, counted; `now` is the clock, in seconds that only rise."""

    def __init__(self, study: Study, now: float = 0.0) -> None:
        self._study = study
        based = [BASE] if BASE in study.start.values() else []
        self.counts = {method: Counts() for method in (*study.methods, *based)}
        self.confirm: int | None = None
        """Confirm runs that are planned; None while the choice of what to confirm is open."""
        self.searches: int | None = None
        """Searches that have begun, of all methods; None: the study's own."""
        self.trains_since = now
        """Since when trials run."""
        self.ended_before = 0
        """Trials that had ended before this driver."""
        self._methods: dict[str, str] = {}
        self._roles: dict[str, Role] = {}
        self._searched = 0
        self._busy = 0.0

    def resume(self) -> None:
        """A driver takes over: what ended is not of its time, and nothing runs."""
        for counts in self.counts.values():
            counts.running.clear()
        self._busy = 0.0
        self.ended_before = self.done

    def start(self, start: Start, now: float) -> None:
        """A trial has a worker."""
        self._methods[start.trial], self._roles[start.trial] = start.method, start.role
        self.counts[start.method].running[start.trial] = Running(start, now)
        self.counts[start.method].paused.discard(start.trial)

    def epoch(self, epoch: Epoch) -> None:
        """A trial has trained one epoch more."""
        running = self._of(epoch.trial).running.get(epoch.trial)
        if running is not None:
            running.step, running.accuracy = epoch.step, epoch.metrics.val_acc

    def lose(self, trial: str) -> None:
        """A trial has no worker any more."""
        self._of(trial).running.pop(trial, None)

    def rest(self, trial: str) -> None:
        """A trial has paused, and its worker is free."""
        self.lose(trial)
        self._of(trial).paused.add(trial)

    def end(self, end: End) -> None:
        """A trial has ended."""
        counts, role = self._of(end.trial), self._roles[end.trial]
        counts.running.pop(end.trial, None)
        counts.paused.discard(end.trial)
        outcome = Outcome.of(end.state, end.reason)
        if outcome.took_a_worker:
            counts.ended[outcome.word] += 1
            counts.by_role[role] += 1
            self._searched += role == "search"
            self._busy += end.seconds
            if end.state != "FAIL":
                counts.seconds.setdefault(role, []).append(end.seconds)
        else:
            counts.unfit[outcome.word] += 1
        for point in end.points:
            if counts.best is None or point.val.accuracy > counts.best:
                counts.best, counts.spent = point.val.accuracy, spent(point, self._study.cost)

    @property
    def running(self) -> dict[str, Running]:
        """Every trial that a worker has, by method."""
        return {
            name: each for counts in self.counts.values() for name, each in counts.running.items()
        }

    @property
    def paused(self) -> set[str]:
        """Every trial that waits at its rung."""
        return set().union(*(counts.paused for counts in self.counts.values()))

    @property
    def done(self) -> int:
        """Trials that took a worker and ended."""
        return sum(counts.ended.total() for counts in self.counts.values())

    @property
    def where(self) -> str:
        """'12 of at most 90'."""
        planned = self.planned
        if planned is None:
            return f"{self.done}"
        most = "at most " if self.confirm is None else ""
        return f"{self.done} of {most}{planned}"

    @property
    def planned(self) -> int | None:
        """Trials in all, or the most there can be; None where the search is bounded by time."""
        study, confirm, searches = self._study, self.confirm, self.searches
        if study.search.seconds is not None:
            return None if confirm is None else self._searched + confirm
        further, repeats = study.confirm.budget or 0, study.search.repeats
        own = len(study.methods) * repeats
        if searches is None:
            searches = own + (further if repeats > 1 and confirm is None else 0)
        if confirm is None:
            runs = self.most_confirm.values()
            added = (searches - own) * (max(runs) // repeats) if repeats > 1 else further
            confirm = sum(runs) + added
        return max(study.search.trials * searches + confirm, self.done)

    @cached_property
    def most_confirm(self) -> Mapping[str, int]:
        """Confirm runs of each method, whatever is chosen; without those that a race adds."""
        return {
            method: confirm_runs(self._study, space) + unreduced_runs(self._study, space)
            for method, space in spaces(self._study).items()
        }

    def left(self, now: float) -> str:
        """The remaining time of training, once every method with trials left was measured."""
        seconds = self._device_seconds_left()
        if seconds is None or self.done - self.ended_before < FEW:
            return ""
        busy = self._busy + sum(now - each.since for each in self.running.values())
        pace = busy / max(now - self.trains_since, 1e-9)
        if not pace or not seconds:
            return ""
        most = "up to about" if self.confirm is None else "about"
        return f"{most} {_rounded(seconds / pace)} of training left"

    def _of(self, trial: str) -> Counts:
        return self.counts[self._methods[trial]]

    def _device_seconds_left(self) -> float | None:
        """Seconds of one worker for all trials that are left; None where a method was not
        measured."""
        plan, left = self._study.search, 0.0
        confirm_left = None
        if self.confirm is not None:
            confirm_left = self.confirm - (self.done - self._searched)
        for method, counts in ((m, self.counts[m]) for m in self._study.methods):
            search, confirm = counts.mean_seconds("search"), counts.mean_seconds("confirm")
            if search is None or confirm is None:
                return None
            running = list(counts.running.values())
            left += sum(
                each.left * (search if each.start.role == "search" else confirm) for each in running
            )
            searching = sum(each.start.role == "search" for each in running)
            started = counts.by_role["search"] + searching
            if plan.seconds is not None:
                used = sum(counts.seconds.get("search", []))
                left += max(0.0, plan.seconds * plan.repeats - used) if confirm_left is None else 0
            elif confirm_left is None:
                left += max(0, plan.trials * plan.repeats - started) * search
            if confirm_left is None:
                begun = counts.by_role["confirm"]
                begun += sum(each.start.role == "confirm" for each in running)
                left += max(0, self.most_confirm[method] - begun) * confirm
        if confirm_left is not None:
            confirms = sum(each.start.role == "confirm" for each in self.running.values())
            means = [counts.mean_seconds("confirm") or 0.0 for counts in self.counts.values()]
            left += max(0, confirm_left - confirms) * fmean(means)
        return left


def ended_text(end: End, cost: Cost) -> str:
    """How a trial ended, in a few words and by validation alone; the report has the rest."""
    if end.reason or not end.points:
        return str(Outcome.of(end.state, end.reason))
    best = max(end.points, key=lambda point: point.val.accuracy)
    accuracy = percent(best.val.accuracy, 1)
    words = f"{end.state}: {accuracy} % validation at {spent(best, cost)}"
    if alarms := sum(point.alarm is not None for point in end.points):
        words += f", {plural(alarms, 'alarm')}"
    return words


def spent(point: Point, cost: Cost) -> str:
    """What a budget limits of an operating point, with its unit."""
    return f"{cost.text(point.ms if cost.clocked else point.val.macs_mean)} {cost.unit}"


def clock(seconds: float) -> str:
    """A time as '1:02' or '1:02:03'."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _rounded(seconds: float) -> str:
    """A time, rounded to its precision."""
    if seconds < 90:
        return f"{max(1, round(seconds)) if seconds < 10 else 10 * round(seconds / 10)} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
