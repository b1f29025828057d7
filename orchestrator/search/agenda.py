"""The next trial: equal effort over the searches, then the configurations to confirm.

The agenda is pure. It knows neither Ray nor clocks nor files: a driver asks it for the next trial
and passes on what the workers say, and a history remembers. A sweep and a simulation are two
drivers of it. A proposal is a pure function of the seed, the trial's number, the ends of the trials
of its search that are numbered a fixed distance before it, and the parameters of the later ones; so
the same study makes the same trials, however workers race.
"""

import enum
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from optuna.trial import FrozenTrial, TrialState

from methods.api import Task
from methods.errors import MethodError
from methods.shipping.layers import CLEARLY
from methods.values import Params
from orchestrator.record.history import History
from orchestrator.record.result import OVER_BUDGET, REFUSED, Ending, Outcome, Result
from orchestrator.record.trials import Ticket, unended
from orchestrator.search import bases
from orchestrator.search.confirming import (
    awaited,
    confirm_plan,
    current,
    searched,
    searches,
    settled,
    spent,
)
from orchestrator.search.promotion.brackets import Promotion
from orchestrator.search.samplers import Sampler, propose, sampled, uninformed
from orchestrator.search.window import Window
from orchestrator.study.params import parts
from orchestrator.study.space import Space

logger = logging.getLogger(__name__)


Predict = Callable[[str, Params], float | None]
"""The least milliseconds that a method with these parameters can take, as predicted here; None
where that cannot be predicted."""
Stop = Callable[[Ticket], str | None]
"""Why a trial ends after its latest epoch, before its full length; None where it continues."""


class Turn(enum.Enum):
    """The state of an agenda that has no trial to serve."""

    WAIT = "wait"
    """Ask again when a trial has ended or was lost."""
    DONE = "done"
    """Every trial of search and confirm has an end."""


WAIT: Final = Turn.WAIT
DONE: Final = Turn.DONE


class Agenda:
    """Serves the trials of one study in their order, and keeps its history.

    `lag` is the number of trials at once, or more; searches share it (see `window.Window`).
    `warm` are trials of an earlier study, by method. `sample` and `window` are the study's unless a
    simulation compares others, which may `stop` trials, too. `predict` tells times where budgets
    are in milliseconds: asked once for each trial, when it is chosen, and recorded with it, so that
    any later driver decides as this one did.
    """

    def __init__(
        self,
        history: History,
        task: Task,
        *,
        lag: int = 1,
        warm: Mapping[str, Sequence[FrozenTrial]] | None = None,
        sample: Sampler = sampled,
        stop: Stop | None = None,
        window: Window | None = None,
        predict: Predict | None = None,
    ) -> None:
        self.history = history
        self._study = history.study
        self._task = task
        self._window = window or Window.begun(history, lag)
        self._warm = warm or {}
        self._sample = sample
        self._predict = predict
        self._stop = stop
        promotes = self._study.search.stop == "promote"
        self._promotion = Promotion(history, task, self._window.lag) if promotes else None
        self._running: dict[str, Ticket] = {}
        self._overdue: dict[str, str] = {}
        self._served: set[str] = set()
        self._planned: tuple[tuple[int, int], list[Ticket], list[str]] | None = None
        self._early: tuple[list[str], list[Ticket]] = ([], [])
        self._searches = list(history.spaces)
        history.abandon()
        self._again = history.interrupted()
        self._again.sort(key=lambda ticket: not history.suspect(ticket.trial))
        self._bases = bases.planned(self._study, history.spaces)
        self._searches += self._further()

    @property
    def finished(self) -> bool:
        """Whether every trial of search and confirm has an end."""
        searched = all(self._searched(search) for search in self._searches)
        left = self._again or self._left(self._bases) or self._unconfirmed() or self._further()
        return searched and not left and not any(map(self.history.waits, self.history.records))

    def next(self) -> Ticket | Literal[Turn.WAIT, Turn.DONE]:
        """The next trial, which has begun when this returns; or that there is none now, or ever."""
        ticket = self._next()
        while ticket is DONE and (further := self._further()):
            self._searches += further
            ticket = self._next()
        if isinstance(ticket, Ticket):
            ticket = self._promotion.staged(ticket) if self._promotion else ticket
            self.history.start(ticket)
            self._served.add(ticket.trial)
            self._running[ticket.trial] = ticket
        return ticket

    @property
    def confirms(self) -> int | None:
        """How many confirm runs are planned by now; None while searches go on."""
        if self._searching() or not all(map(self._searched, self._searches)):
            return None
        return len(self._plan()[0])

    @property
    def searches(self) -> int:
        """How many searches have begun by now, or are about to."""
        return len(self._searches)

    def heard(self, trial: str, result: Result) -> bool:
        """A worker's result: an epoch, its end, or both; False where its worker is to stop.

        The trial has ended by itself, or is stopped, or pauses.
        """
        ticket, ending = self._running[trial], result.ending
        if result.warning:
            logger.warning("%s: %s", trial, result.warning)
        if result.metrics:
            self.history.epoch(trial, result.step, result.time, result.metrics)
        if ending is None and result.step == ticket.until:
            del self._running[trial]
            self.history.rest(trial)
            return False
        if ending is None:
            reason = self._stop(ticket) if self._stop else None
            if reason is None:
                return True
            ending = Ending("PRUNED", reason)
        self._end(trial, ending)
        return False

    def lost(self, trial: str, reason: str) -> None:
        """A trial's worker died: the trial is served again, unless it was lost too often.

        Raises:
            KeyError: the trial does not run.
        """
        ticket = self._running[trial]
        if overdue := self._overdue.get(trial):
            self._end(trial, Ending("FAIL", overdue))
            return
        del self._running[trial]
        self.history.lose(trial, reason)
        if not self._given_up(ticket):
            self._served.discard(trial)
            if ticket.role == "search":
                self._again.append(ticket)

    def overdue(self, trial: str, reason: str) -> None:
        """A trial takes too long: it fails when its worker, which is being ended, is lost."""
        self._overdue.setdefault(trial, reason)

    def runs(self, trial: str) -> bool:
        """Whether a trial was served and has neither ended nor been lost."""
        return trial in self._running

    def trained(self, trial: str) -> float:
        """Seconds that a trial's epochs took, those of its former starts included."""
        return self.history.trained(trial)

    def _end(self, trial: str, ending: Ending) -> None:
        del self._running[trial]  # before the end: what cannot be recorded ends the driver
        self._overdue.pop(trial, None)
        self.history.end(trial, ending)
        record = self.history.records[trial]
        if record.start.role == "base" and ending.state != "COMPLETE":
            names = " and ".join(record.start.serves)
            logger.warning("%s failed, so that %s has no trials: %s", trial, names, ending.reason)

    def _given_up(self, ticket: Ticket) -> bool:
        """Whether a trial was lost too often; it has failed then."""
        reason = self.history.doomed(ticket.trial)
        if reason is not None:
            self.history.end(ticket.trial, Ending("FAIL", reason))
        return reason is not None

    def _next(self) -> Ticket | Literal[Turn.WAIT, Turn.DONE]:
        if any(self.history.suspect(trial) for trial in self._running):
            return WAIT  # it runs alone until it has a new epoch: no other trial may be blamed
        if base := self._first(self._left(self._bases)):
            return base
        if self._promotion:
            self._again += self._promotion.settle(self._searches, self._searched)
        while self._again:
            ticket = self._again.pop(0)
            if self._given_up(ticket):
                continue
            unfit = self._unfit(ticket.method, ticket.params, ticket.predicted_ms)
            if unfit is None:
                return ticket
            self._turn_away(ticket, unfit)
        searches = [search for search in self._searches if not self._searched(search)]
        for search in sorted(searches, key=lambda search: bases.effort(self.history, search)):
            if awaited(self.history, search) is None and (proposed := self._propose(search)):
                return proposed
        if any(not self._searched(search) for search in searches) or self._searching():
            return self._first(self._left(self._settled())) or WAIT
        return self._first(self._unconfirmed()) or (WAIT if self._running else DONE)

    def _first(self, tickets: Sequence[Ticket]) -> Ticket | None:
        """The first that may be started, suspects before others."""
        left = [ticket for ticket in tickets if not self._given_up(ticket)]
        return min(left, key=lambda ticket: not self.history.suspect(ticket.trial), default=None)

    def _propose(self, search: str) -> Ticket | None:
        """A search's next trial that fits a budget; None while one that it builds on runs."""
        space = self.history.space(search)
        while not self._searched(search):
            number = self.history.numbers(search)
            shown = self._shown(space, number)
            if shown is None:
                return None
            opened = self.history.opened(search)
            opening = opened and number == 0
            searched = (
                space.published() if opening else self._proposed(space, shown, number - opened)
            )
            params = space.params(searched, opening=opening)
            predicted = self._predicted(space.method, params)
            unfit = self._unfit(space.method, params, predicted)
            ticket = self.history.add(
                space,
                searched,
                opening=opening,
                over=unfit and unfit.over,
                predicted_ms=predicted,
            )
            if unfit is None:
                return ticket
            self._turn_away(ticket, unfit)
        if not spent(self.history, search):
            logger.warning(
                "%s: the search ended early: too many trials were over budget or refused", search
            )
        return None

    def _shown(self, space: Space, number: int) -> list[FrozenTrial] | None:
        """What the proposal of this number sees; None while a trial runs that it waits for.

        It waits for none where it depends on none. Where trials pause, their brackets wait for what
        they need.
        """
        search = space.search
        opened = self.history.opened(search)
        if number - opened < uninformed(space, self._study.search):
            return []
        if self._promotion:
            ended = self._promotion.shown(search, number)
        else:
            ended = self.history.trials(search, number - self._window.lag)
        if ended is None:
            return None
        shown = [*self._warm.get(space.method, ()), *ended[opened:]]
        if self._window.running:
            later = range(max(opened, len(ended)), number)
            shown += [unended(self.history.trial(search, each)) for each in later]
        return shown

    def _proposed(self, space: Space, shown: Sequence[FrozenTrial], number: int) -> Params:
        """The choice at this number of those that are in the space."""
        opened = self.history.opened(space.search)
        spread = not self.history.took_a_worker(space.search, number + opened - 1)
        if self._window.running:
            spread |= all(trial.state == TrialState.RUNNING for trial in shown)
        return propose(space, shown, self._study, number, spread=spread, sample=self._sample)

    def _predicted(self, method: str, params: Params) -> float | None:
        if self._predict is None or not self._study.cost.clocked:
            return None
        try:
            return self._predict(method, params)
        except MethodError:  # it is refused as it is
            return None

    def _unfit(self, method: str, params: Params, predicted_ms: float | None) -> "_Unfit | None":
        """Why a trial is invalid or exceeds every budget, as known before it takes a worker."""
        try:
            floor = parts(method, params)[0].floor(self._task)
        except MethodError as error:
            return _Unfit(Outcome(REFUSED, str(error)), 1.0)
        cost, largest = self._study.cost, self._study.budgets[-1]
        least = predicted_ms if cost.clocked else floor
        if least is None or least <= cost.cap(largest) * (CLEARLY if cost.clocked else 1):
            return None
        how = "takes about" if cost.clocked else "costs"
        reason = (
            f"{how} {least / cost.scale:.4g} {cost.unit} at least, the largest budget is "
            f"{largest:g}"
        )
        return _Unfit(Outcome(OVER_BUDGET, reason), least / cost.cap(largest) - 1)

    def _turn_away(self, ticket: Ticket, unfit: "_Unfit") -> None:
        self.history.start(ticket)
        self.history.end(ticket.trial, Ending.without_a_worker(unfit.outcome))

    def _searching(self) -> bool:
        return any(ticket.role == "search" for ticket in self._running.values())

    def _searched(self, search: str) -> bool:
        return searched(self.history, search)

    def _further(self) -> list[str]:
        """The searches that a race asks for now and did not before."""
        if not (self._study.confirm.race and self._study.search.repeats > 1):
            return []
        return [search for search in self._plan()[1] if search not in self._searches]

    def _unconfirmed(self) -> list[Ticket]:
        return self._left(self._plan()[0])

    def _settled(self) -> list[Ticket]:
        """The confirm runs that can begin while searches go on: a worker would be idle else."""
        over = [search for search in self._searches if self._over(search)]
        if over != self._early[0]:
            self._early = (over, settled(self.history, over))
        return self._early[1]

    def _over(self, search: str) -> bool:
        """Whether every trial of a search has ended."""
        ended = self.history.trials(search, self.history.numbers(search))
        return self._searched(search) and ended is not None

    def _left(self, tickets: Sequence[Ticket]) -> list[Ticket]:
        """Those that have no end and do not run."""
        return [
            ticket
            for ticket in tickets
            if ticket.trial not in self._served and not self.history.ended(ticket.trial)
        ]

    def _plan(self) -> tuple[list[Ticket], list[str]]:
        """The planned confirm runs and searches, recomputed only when another trial has ended that
        they may depend on."""
        races = self._study.confirm.race
        now = (self.history.searched, self.history.confirmed if races else 0)
        if self._planned is None or self._planned[0] != now:
            asked = current(self.history)
            self._planned = (now, confirm_plan(self.history, asked), searches(asked))
        return self._planned[1:]


class _Unfit(NamedTuple):
    """The reason why a trial takes no worker, and the fraction by which it exceeds the largest
    budget."""

    outcome: Outcome
    over: float
