"""The history of a study: the state that its events add up to, in memory.

`History.apply` is the one place that folds an event into the state. The verbs (`start`, `epoch`,
`end`, ...) make an event of what happens now. Neither files nor a clock are used here: a `Book`,
if there is one, writes an event down and stamps it before it is applied (see `record.ledger`).
"""

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol

from optuna.trial import FrozenTrial

from methods.errors import StudyError
from methods.values import Params
from orchestrator.record.events import (
    WINDOW,
    Begun,
    Bracket,
    End,
    Epoch,
    Event,
    Latency,
    Lost,
    Metrics,
    Paused,
    Rung,
    Start,
    curve_sha256,
)
from orchestrator.record.provenance import Provenance
from orchestrator.record.result import Ending
from orchestrator.record.rows import Row, not_finite, trial_rows
from orchestrator.record.trials import (
    OPENING,
    OVER,
    Effort,
    Record,
    Ticket,
    predicted,
    running,
    search_ticket,
    settled,
    stored,
    told,
)
from orchestrator.study.file import Study
from orchestrator.study.identity import number_of, repeat_of, search_name, search_of, trial_name
from orchestrator.study.params import derive
from orchestrator.study.space import Space


class Book(Protocol):
    """Where a history is written down."""

    def commit(self, search: str, trial: FrozenTrial) -> None:
        """A new trial of a search; it exists once this returns."""

    def write(self, event: Event) -> Event:
        """An event that is about to be applied; returns it with its time."""

    def applied(self, event: Event) -> None:
        """The event has been applied."""


class History:
    """The state of one study; the same events give the same state.

    `spaces` are those of the searches that it asks for from the start, by name: a method has one,
    or several (see `study.space.searches`). A race may add others.
    """

    def __init__(self, study: Study, spaces: Mapping[str, Space], book: Book | None = None) -> None:
        self.study = study
        self.spaces = spaces
        self.book = book
        self.keeps_curves = study.search.stop != "none"  # those of search trials that ended
        self.begun: Begun | None = None
        """The first driver's beginning, which stands for all."""
        self.records: dict[str, Record] = {}
        """Every trial that was started, by name, in the order of their first starts."""
        self.latencies: list[Latency] = []
        """How long deployed networks took."""
        self.searched = 0
        """Ends of search trials."""
        self.confirmed = 0
        """Ends of confirm runs."""
        self.brackets: dict[str, Bracket] = {}
        """The decided brackets, by their last trials."""
        self._trials = defaultdict[str, list[FrozenTrial]](list, {name: [] for name in spaces})
        self._settled: Counter[str] = Counter()
        """Search trials from 0 on that have all ended."""
        self._effort = Effort()

    # What happens now

    def begin(self, provenance: Provenance, *, lag: int, device: str) -> int:
        """A driver is about to run trials; the lag of the first one stands for all.

        Raises:
            StudyError: the study began on another kind of device.
        """
        window = WINDOW
        if self.begun is not None:
            lag, window = self.begun.lag, self.begun.window
            if self.begun.device != device:
                raise StudyError(
                    f"a study must run on one kind of device, but {self.study.name!r} began on "
                    f"{self.begun.device} and `resources` now asks for {device}; ask for "
                    f"{self.begun.device}, or give the study another name"
                )
        self._record(Begun(self.study.name, self.study.hash, provenance, lag, device, window))
        return lag

    def add(
        self,
        space: Space,
        searched: Params,
        *,
        opening: bool = False,
        over: float | None = None,
        predicted_ms: float | None = None,
    ) -> Ticket:
        """Commit one new search trial, before anything runs.

        The one that opens a search is what the paper sets. One that will take no worker lies `over`
        the largest budget, as a fraction of it.
        """
        params = {name: stored(value, space.free[name]) for name, value in searched.items()}
        attributes = {
            **({OPENING: True} if opening else {}),
            **({} if over is None else {OVER: over}),
            **predicted(predicted_ms),
        }
        trial = running(params, space.free, attributes)
        if self.book:
            self.book.commit(space.search, trial)
        self.commit(space.search, trial)
        return search_ticket(space, trial)

    def start(self, ticket: Ticket) -> None:
        """A trial is about to take a worker, once more if it was interrupted."""
        known = self.records.get(ticket.trial)
        self._record(
            Start(
                trial=ticket.trial,
                role=ticket.role,
                method=ticket.method,
                params=dict(ticket.params),
                seed=ticket.seed,
                attempt=1 + (known.attempts if known else 0),
                config=ticket.config,
                config_hash=ticket.config_hash,
                budgets=ticket.budgets,
                point=ticket.point,
                torch_seed=derive(self.study, ticket.config, ticket.seed),
                repeat=ticket.repeat,
                unit=self.study.cost.name,
                predicted_ms=ticket.predicted_ms,
                serves=ticket.serves,
            )
        )

    def epoch(self, trial: str, step: int, time: int, metrics: Metrics) -> None:
        """One point of a trial's curve; what a resumed trial repeats is known already."""
        if step > self.records[trial].step:
            self._record(Epoch(trial, step, metrics, time))

    def lose(self, trial: str, reason: str) -> None:
        """A trial's worker died; it may be started again."""
        self._record(Lost(trial, reason))

    def rest(self, trial: str) -> None:
        """A trial has reached its rung, and waits there."""
        self._record(Rung(trial, self.records[trial].step))

    def promote(self, trials: Sequence[str], promoted: Sequence[str]) -> None:
        """These trials of a bracket resume; its others are to be ended."""
        self._record(Bracket(tuple(trials), tuple(promoted)))

    def pause(self) -> None:
        """The driver is stopped by hand: no running trial is to blame."""
        running = tuple(name for name, record in self.records.items() if record.open)
        if running:
            self._record(Paused(running))

    def abandon(self) -> None:
        """What still runs by the log runs no more: its driver died, or all of Ray did."""
        for record in self.records.values():
            if record.open:
                record.open, record.orphaned, record.death = False, True, "Ray or its driver died"

    def end(self, trial: str, ending: Ending) -> None:
        """A trial's end, for good; a trial that has one keeps it.

        A trial with a figure that is not finite has failed, whatever its worker says.
        """
        record = self.records[trial]
        if record.end is not None:
            return
        if ending.state == "COMPLETE" and (flaw := not_finite(ending.points)):
            ending = Ending("FAIL", f"diverged: {flaw}", ending.seconds, (), ending.device)
        if ending.state == "COMPLETE" and self.study.cost.clocked and not ending.timed:
            ending = Ending("FAIL", "its network was not timed", ending.seconds, (), ending.device)
        seconds = self.trained(trial) if ending.seconds is None else ending.seconds
        self._record(
            End(
                trial=trial,
                state=ending.state,
                reason=ending.reason,
                epochs=record.step,
                seconds=seconds,
                points=ending.points,
                device=ending.device,
                evidence=ending.evidence,
                curve=curve_sha256((e.step, e.metrics.named()) for e in record.curve),
            )
        )

    def time(self, latency: Latency) -> None:
        """How long a deployed network took."""
        self._record(latency)

    # What happened

    @property
    def heard(self) -> int:
        """How many epochs and ends there were."""
        return sum(record.step + bool(record.end) for record in self.records.values())

    def rows(self) -> list[Row]:
        """Every trial that ended, one row per operating point."""
        return [
            row
            for _, record in sorted(self.records.items())
            if record.end is not None
            for row in trial_rows(self.study.name, record.start, record.end)
        ]

    def space(self, search: str) -> Space:
        """The space that a search draws from; a further one has that of its method's first.

        Raises:
            KeyError, ValueError: no search of this study can have this name.
        """
        if search in self.spaces:
            return self.spaces[search]
        method, repeat = repeat_of(search)
        return dataclasses.replace(self.spaces[search_name(method, 1)], repeat=repeat)

    def numbers(self, search: str) -> int:
        """How many trials a search has, those that took no worker included."""
        return len(self._trials[search])

    def trials(self, search: str, before: int) -> list[FrozenTrial] | None:
        """The trials of a search numbered below `before`, or None while one of them runs."""
        trials = self._trials[search]
        settled = self._settled[search]
        while settled < len(trials) and trials[settled].state.is_finished():
            settled += 1
        self._settled[search], before = settled, min(max(0, before), len(trials))
        return trials[:before] if before <= settled else None

    def opened(self, search: str) -> bool:
        """Whether the first trial of a search is what the method's paper sets, or will be."""
        trials = self._trials[search]
        return OPENING in trials[0].user_attrs if trials else bool(self.space(search).opening)

    def trial(self, search: str, number: int) -> FrozenTrial:
        """One trial of a search."""
        return self._trials[search][number]

    def interrupted(self) -> list[Ticket]:
        """Search trials that were committed and have no end, oldest first; none that waits."""
        return [
            search_ticket(self.space(search), trial)
            for search, trials in self._trials.items()
            for trial in trials
            if not trial.state.is_finished() and not self.waits(trial_name(search, trial.number))
        ]

    def effort(self, search: str) -> float:
        """Epochs that the trials of a search count for; one that runs counts in full.

        Device-seconds where the study shares those out; one that runs counts at its search's pace.
        """
        by_epochs = self.study.search.seconds is None
        return self._effort.epochs[search] if by_epochs else self._effort.seconds(search)

    def trained(self, trial: str) -> float:
        """Seconds that the epochs of a trial took."""
        seconds = (epoch.metrics.seconds for epoch in self.records[trial].curve)
        return sum(taken for taken in seconds if not math.isnan(taken))

    def ended(self, trial: str) -> bool:
        """Whether a trial has an end."""
        return trial in self.records and self.records[trial].end is not None

    def waits(self, trial: str) -> bool:
        """Whether a trial is paused at its rung."""
        return trial in self.records and self.records[trial].waits

    def took_a_worker(self, search: str, number: int) -> bool:
        """False for a search trial that ended as over budget or refused."""
        record = self.records.get(trial_name(search, number))
        return record is None or record.took_a_worker

    def doomed(self, trial: str) -> str | None:
        """Why a trial is not started again, or None where it may be."""
        record = self.records.get(trial)
        if record is None or record.vain <= self.study.resources.retries:
            return None
        return f"lost {record.vain} times in a row without a new epoch; last cause: {record.death}"

    def suspect(self, trial: str) -> bool:
        """Whether a trial may be what its driver died of, and has one start left or is at it."""
        record = self.records.get(trial)
        if record is None or not record.orphaned or record.end is not None:
            return False
        return record.vain + (not record.open) > self.study.resources.retries

    # How events add up

    def commit(self, search: str, trial: FrozenTrial) -> None:
        """A trial that exists, under the next number of its search."""
        trial.number = len(self._trials[search])
        self._trials[search].append(trial)

    def apply(self, event: Event) -> None:
        """What an event changes."""
        match event:
            case Begun():
                self.begun = event if self.begun is None else _begun(self.begun, event)
            case Start():
                self._start(event)
            case Epoch():
                record = self.records[event.trial]
                record.step = max(record.step, event.step)
                if record.end is None:
                    record.curve.append(event)
                record.vain, record.orphaned = 0, False
            case Lost():
                record = self.records[event.trial]
                record.open, record.orphaned, record.death = False, False, event.reason
            case Paused():
                for record in map(self.records.__getitem__, event.trials):
                    record.open, record.vain = False, max(0, record.vain - 1)
            case Rung():
                self.records[event.trial].rest()
            case Bracket():
                self.brackets[event.trials[-1]] = event
                for trial in event.trials:
                    self.records[trial].promoted = trial in event.promoted
            case End():
                self._end(event)
            case Latency():
                self.latencies.append(event)

    def _record(self, event: Event) -> None:
        if self.book:
            event = self.book.write(event)
        self.apply(event)
        if self.book:
            self.book.applied(event)

    def _start(self, start: Start) -> None:
        record = self.records.setdefault(start.trial, Record(start))
        record.attempts += 1
        record.vain += 1
        record.open, record.waits = True, False
        if record.attempts == 1 and start.role == "search":
            search = search_of(start.trial)
            self._effort.start(search, record)
            if number_of(start.trial) == self.numbers(search):
                self.commit(search, told(self.space(search), start))

    def _end(self, end: End) -> None:
        record = self.records[end.trial]
        record.end, record.open, record.waits = end, False, False
        if (role := record.start.role) != "search" or not self.keeps_curves:
            record.curve.clear()
        if role != "search":
            self.confirmed += role == "confirm"
            return
        self.searched += 1
        search = search_of(end.trial)
        self._effort.end(search, record)
        trials, number = self._trials[search], number_of(end.trial)
        if number < len(trials):
            trials[number] = settled(trials[number], end, self.study.cost)


def _begun(first: Begun, later: Begun) -> Begun:
    """The first beginning, with the data of a later one where it did not note its own."""
    if first.provenance.data is not None or later.provenance.data is None:
        return first
    origin = dataclasses.replace(first.provenance, data=later.provenance.data)
    return dataclasses.replace(first, provenance=origin)
