"""Promotion: trials pause at a rung, and the better half of each bracket trains to its end.

A bracket holds a fixed number of consecutive trials of one search, those that took no worker left
out. Each pauses after a quarter of its epochs, with its checkpoint, and its worker takes another
trial. When all have paused or ended, half of them resume: that of the lowest predicted error, and
those that are predicted to add most to the front of error and MACs; the others end. The decision
depends on numbered results alone: the curves of the bracket up to the rung, and the ends of the
brackets that lie a fixed distance, the lag, before it.
"""

import bisect
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from optuna.trial import FrozenTrial

from methods.api import Task
from orchestrator.record.history import History
from orchestrator.record.result import Ending
from orchestrator.record.trials import EPOCHS, OVER, Ticket, search_ticket
from orchestrator.search.model.ehvi import front_of, gain
from orchestrator.search.model.gaussian import Array
from orchestrator.search.promotion.curves import SMALLEST, Curve, Curves
from orchestrator.search.promotion.forecast import forecasts
from orchestrator.study.identity import trial_name

SIZE = 4
"""Trials of a bracket."""
SHARE = 0.25
"""Part of its epochs that a trial trains before it pauses."""
REMEMBERED = 200
"""Latest complete trials of a search from which ends are predicted."""


def rung(epochs: int) -> int | None:
    """The epoch after which a trial of this length pauses; None where it is too short for that."""
    first = max(1, math.floor(SHARE * epochs + 0.5))
    return first if first < epochs else None


@dataclass
class _Brackets:
    """The brackets of one search, as far as its trials are numbered."""

    closed: list[list[int]] = field(default_factory=list)
    """Those that get no further trial: full, or decided."""
    open: list[int] = field(default_factory=list)
    undecided: list[list[int]] = field(default_factory=list)
    numbered: int = 0
    """Trials below this number are in a bracket, or took no worker."""


class Promotion:
    """Which trials pause and which resume; only a cache, so that a restart decides as before it."""

    def __init__(self, history: History, task: Task, lag: int, size: int = SIZE) -> None:
        self._history = history
        self._lag = lag
        self._size = size
        self._curves = Curves(history, task)
        self._brackets: dict[str, _Brackets] = {}

    def staged(self, ticket: Ticket) -> Ticket:
        """A trial that is about to run, with the epoch after which it pauses."""
        if ticket.role != "search":
            return ticket
        record = self._history.records.get(ticket.trial)
        return replace(ticket, until=None if record and record.promoted else _rung_of(ticket))

    def settle(self, searches: Iterable[str], spent: Callable[[str], bool]) -> list[Ticket]:
        """Decide the brackets that can be: end the trials they leave behind, return the others.

        `spent` says whether a search gets no further trial as long as nothing else ends.
        """
        resumed = []
        for search in searches:
            brackets = self._updated(search)
            ready = [each for each in brackets.undecided if self._ready(search, each)]
            if not ready and self._last(search, brackets) and spent(search):
                ready, brackets.open = [brackets.open], []
                brackets.closed += ready
                brackets.undecided += ready
            for members in ready:
                resumed += self._settled(search, members)
                brackets.undecided.remove(members)
        return resumed

    def shown(self, search: str, number: int) -> list[FrozenTrial] | None:
        """The ended trials that the proposal of this number sees; None while it waits for one.

        They are those of the brackets that lie a lag before it.
        """
        self._updated(search)
        return self._history.trials(search, self._ended_before(search, number))

    def _settled(self, search: str, members: Sequence[int]) -> list[Ticket]:
        """The trials of a bracket that resume; the others have ended."""
        names = [trial_name(search, number) for number in members]
        decided = self._history.brackets.get(names[-1])
        if decided is None:
            self._history.promote(names, self._better(search, members))
            decided = self._history.brackets[names[-1]]
        waiting = [n for n in members if self._history.waits(trial_name(search, n))]
        space, tickets = self._history.space(search), []
        for number in waiting:
            name = trial_name(search, number)
            if name in decided.promoted:
                tickets.append(search_ticket(space, self._history.trial(search, number)))
                continue
            record = self._history.records[name]
            reason = (
                f"at epoch {record.step} of {record.length} it promised less than "
                f"{len(decided.promoted)} of the {len(names)} trials of its bracket"
            )
            self._history.end(name, Ending("PRUNED", reason))
        return tickets

    def _better(self, search: str, members: Sequence[int]) -> list[str]:
        """The half of a bracket that resumes."""
        names = [trial_name(search, number) for number in members]
        waiting = [name for name in names if self._history.waits(name)]
        count = min(len(waiting), math.ceil(len(members) / 2))
        if count == len(waiting):
            return waiting
        curves = [self._curves.of(self._history.records[name]) for name in waiting]
        whole = self._whole(search, self._ended_before(search, members[-1]))
        study = self._history.study
        limit = math.log(study.cost.cap(study.budgets[-1]))
        best = most_promising(forecasts(curves, whole), whole, limit, count)
        return [waiting[place] for place in sorted(best)]

    def _updated(self, search: str) -> _Brackets:
        """The brackets of a search with its latest trials."""
        brackets = self._brackets.setdefault(search, _Brackets())
        for number in range(brackets.numbered, self._history.numbers(search)):
            brackets.numbered += 1
            if OVER in self._history.trial(search, number).user_attrs:
                continue
            brackets.open.append(number)
            decided = trial_name(search, number) in self._history.brackets
            if decided or len(brackets.open) == self._size:
                brackets.closed.append(brackets.open)
                brackets.undecided.append(brackets.open)  # or its ends may not stand there yet
                brackets.open = []
        return brackets

    def _ready(self, search: str, members: Sequence[int]) -> bool:
        """Whether a bracket can be decided."""
        if trial_name(search, members[-1]) in self._history.brackets:
            return True
        if not all(map(functools.partial(self._rests, search), members)):
            return False
        return self._history.trials(search, self._ended_before(search, members[-1])) is not None

    def _last(self, search: str, brackets: _Brackets) -> bool:
        """Whether all that a search has left are trials that wait in its last bracket."""
        if not brackets.open or brackets.undecided:
            return False
        before = self._history.trials(search, brackets.open[0])
        return before is not None and all(self._rests(search, each) for each in brackets.open)

    def _rests(self, search: str, number: int) -> bool:
        """Whether a trial has ended, or waits at its rung."""
        name = trial_name(search, number)
        return self._history.ended(name) or self._history.waits(name)

    def _ended_before(self, search: str, number: int) -> int:
        """The trials below this one lie in brackets whose ends are known to a trial."""
        closed = self._brackets[search].closed
        limit = number - self._lag
        place = bisect.bisect_left(closed, limit, key=lambda members: members[-1])
        return closed[place - 1][-1] + 1 if place else 0

    def _whole(self, search: str, before: int) -> list[Curve]:
        """The curves of the latest complete trials below a number."""
        names = (trial_name(search, number) for number in reversed(range(before)))
        curves = (self._curves.known(name) for name in names)
        whole = (curve for curve in curves if curve is not None and curve.whole)
        return list(itertools.islice(whole, REMEMBERED))[::-1]


def most_promising(predicted: Array, whole: Sequence[Curve], limit: float, count: int) -> list[int]:
    """The places of the trials that resume, in the order of choice.

    The first is that of the lowest predicted error, whatever it costs. Each further one adds most
    to the front of the whole ones and those chosen before it, as if these had ended as predicted.
    Where nothing is gained the lower predicted error counts, then the lower number.

    Args:
        predicted: Final log MACs, log error and its deviation, one row per trial.
        whole: The curves of complete trials.
        limit: Log MACs of the largest budget.
        count: How many are chosen.
    """
    ends = [(curve.final_macs or 1.0, max(curve.final_error or 0.0, SMALLEST)) for curve in whole]
    known = np.log(np.array(ends, float).reshape(-1, 2))
    corner = (limit, float(np.exp(np.quantile([*known[:, 1], *predicted[:, 1]], 0.75))))
    chosen = [min(range(len(predicted)), key=lambda place: (predicted[place, 1], place))]
    while len(chosen) < count:
        macs, errors = np.concatenate([known, predicted[chosen, :2]]).T
        front = front_of(macs, errors, limit)
        points = np.column_stack([macs[front], np.exp(errors[front])])
        gains = gain(*predicted.T, front=points, corner=corner)
        left = [place for place in range(len(predicted)) if place not in chosen]
        chosen.append(min(left, key=lambda place: (-gains[place], predicted[place, 1], place)))
    return chosen


def _rung_of(ticket: Ticket) -> int | None:
    return rung(int(ticket.params[EPOCHS]))
