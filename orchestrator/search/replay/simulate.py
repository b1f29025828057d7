"""Searches replayed on recorded curves: simulated time, many workers, asynchronous order.

A heap holds the next epoch of each running trial. What a proposal and a stop may see is what the
real sweep lets them see: the method's trials that are numbered `lag` before.
"""

import heapq
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import moocore
import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from methods.errors import StudyError
from orchestrator.search.gaussian import Array
from orchestrator.search.replay.curves import Table
from orchestrator.search.replay.surrogate import Course, Surrogate
from orchestrator.search.rungs import Curve
from orchestrator.study.file import Study, cap
from orchestrator.study.params import derive
from orchestrator.study.space import Space


@dataclass(frozen=True)
class Ended:
    """One trial of a method as those after it see it."""

    number: int
    params: Mapping[str, Any]
    curve: Curve
    refused: bool = False


class Session(Protocol):
    """A search of one method: what it tries next, and what it stops."""

    def propose(self, number: int, ended: Sequence[Ended]) -> Mapping[str, Any]:
        """The free parameters of trial `number`."""

    def stops(self, number: int, own: Curve, ended: Sequence[Ended]) -> bool:
        """Whether a trial stops after its latest epoch, which is not its last."""

    def close(self) -> None:
        """The search is over."""


class Searcher(Protocol):
    """A way to search, by name."""

    @property
    def name(self) -> str:
        """As the figure calls it."""

    def session(self, space: Space, study: Study) -> Session:
        """A fresh search of one method; all its randomness derives from the study's seed."""


@dataclass
class Run:
    """One method's part of a simulated search."""

    method: str
    epochs: int
    """Full length of a trial."""
    number: int = 0
    spent: int = 0
    """Epochs done."""
    open: dict[int, int] = field(default_factory=dict)
    """Running trials, and the epochs that each has done."""
    ended: list[Ended | None] = field(default_factory=list)
    """By number; None while it runs."""
    before: int = 0
    """Trials from 0 on that have all ended."""
    unknown: int = 0
    """Trials whose course the surrogate made up."""
    points: list[tuple[float, int, float, float, float]] = field(default_factory=list)
    """Of whole trials: time, epochs spent by then, MACs, error, error without noise."""

    @property
    def reserved(self) -> int:
        """Epochs that are done, and those that running trials may still take."""
        return self.spent + sum(self.epochs - done for done in self.open.values())


@dataclass(frozen=True)
class Trace:
    """What one simulated search found, by method."""

    searcher: str
    seed: int
    runs: Mapping[str, Run]
    seconds: float
    """Simulated time from the first start to the last end."""
    worked: float
    """Simulated seconds, summed over workers."""
    wall: float
    """Seconds that the simulation took."""
    peak: int
    """Workers busy at once, at most."""


def simulate(
    table: Table,
    courses: Mapping[str, Surrogate],
    searcher: Searcher,
    *,
    workers: int,
    trials: int,
    seed: int,
) -> Trace:
    """One search with `trials` full trials' worth of epochs per method.

    Stopped trials give their epochs to later trials of the same method. Trials whose floor is
    over every budget are refused at once, as in a real sweep.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    began = time.perf_counter()
    search = table.study.search.model_copy(update={"trials": trials})
    study = table.study.model_copy(update={"seed": seed, "search": search})
    sessions = {m: searcher.session(table.space(m), study) for m in courses}
    try:
        one = _Simulation(study, courses, sessions, workers, trials)
        one.run()
    finally:
        for session in sessions.values():
            session.close()
    wall = time.perf_counter() - began
    return Trace(searcher.name, seed, one.runs, one.now, one.worked, wall, one.peak)


class _Simulation:
    """The state of one simulation."""

    def __init__(
        self,
        study: Study,
        courses: Mapping[str, Surrogate],
        sessions: Mapping[str, Session],
        workers: int,
        trials: int,
    ) -> None:
        if workers < 1 or trials < 1:
            raise StudyError(f"workers and trials must be 1 or more, got ({workers=}, {trials=})")
        self.study = study
        self.courses = courses
        self.sessions = sessions
        self.workers = workers
        self.trials = trials
        self.runs = {method: Run(method, own.epochs) for method, own in courses.items()}
        self.now = self.worked = 0.0
        self.peak = 0
        self._events: list[tuple[float, int, str, int]] = []
        self._count = 0
        self._busy: dict[tuple[str, int], tuple[Mapping[str, Any], Course]] = {}

    def run(self) -> None:
        """From the first trial to the last."""
        while self._fill() or self._events:
            self.now, _, method, number = heapq.heappop(self._events)
            self._epoch(self.runs[method], number)

    def _fill(self) -> bool:
        """Give free workers trials; True where any runs."""
        waiting: set[str] = set()
        while len(self._busy) < self.workers and len(waiting) < len(self.runs):
            ready = [run for name, run in self.runs.items() if name not in waiting]
            run = min(ready, key=lambda run: run.reserved)
            if not self._start(run):
                waiting.add(run.method)
        self.peak = max(self.peak, len(self._busy))
        return bool(self._busy)

    def _start(self, run: Run) -> bool:
        if run.reserved + run.epochs > self.trials * run.epochs:
            return False
        number = run.number
        if number > 20 * self.trials or self._seen(run, number) is None:
            return False
        params = self.sessions[run.method].propose(number, self._seen(run, number) or [])
        random = np.random.default_rng(derive(self.study, f"{run.method}/course", number))
        course, known = self.courses[run.method].course(params, random)
        run.number += 1
        run.unknown += not known
        run.ended.append(None)
        if course.floor > cap(self.study.budgets[-1]):
            self._end(run, number, params, Curve((), (), run.epochs, course.floor), refused=True)
            return True
        run.open[number] = 0
        self._busy[run.method, number] = (params, course)
        self._push(run.method, number, float(course.seconds[0]))
        return True

    def _epoch(self, run: Run, number: int) -> None:
        params, course = self._busy[run.method, number]
        run.spent += 1
        run.open[number] += 1
        done = run.open[number]
        own = Curve(
            tuple(course.errors[:done].tolist()),
            tuple(course.macs[:done].tolist()),
            run.epochs,
            course.floor,
            course.error if done == run.epochs else None,
            course.cost if done == run.epochs else None,
        )
        if not own.whole:
            seen = self._seen(run, number)
            assert seen is not None, "a trial that runs could start"
            if not self.sessions[run.method].stops(number, own, seen):
                self._push(run.method, number, float(course.seconds[done]))
                return
        else:
            run.points.append((self.now, run.spent, course.cost, course.error, course.expected))
        del run.open[number]
        del self._busy[run.method, number]
        self._end(run, number, params, own)

    def _end(
        self,
        run: Run,
        number: int,
        params: Mapping[str, Any],
        curve: Curve,
        *,
        refused: bool = False,
    ) -> None:
        run.ended[number] = Ended(number, params, curve, refused)
        while run.before < len(run.ended) and run.ended[run.before] is not None:
            run.before += 1

    def _seen(self, run: Run, number: int) -> Sequence[Ended] | None:
        """The trials numbered `lag` before, or None while one of them runs."""
        before = max(0, number - self.workers)
        if run.before < before:
            return None
        return run.ended[:before]  # type: ignore[return-value]

    def _push(self, method: str, number: int, seconds: float) -> None:
        self._count += 1
        self.worked += seconds
        heapq.heappush(self._events, (self.now + seconds, self._count, method, number))


def frozen(space: Space, ended: Ended, shown: tuple[float, float] | None) -> FrozenTrial:
    """A trial as Optuna's samplers take it; `shown` are error and MACs, None where it has none."""
    state = TrialState.COMPLETE if shown else TrialState.PRUNED
    return optuna.trial.create_trial(
        state=TrialState.FAIL if ended.refused else state,
        params=dict(ended.params),
        distributions=dict(space.free),
        values=list(shown) if shown and not ended.refused else None,
    )


@dataclass(frozen=True)
class Goal:
    """What a method's hypervolume is measured against: log MACs x error, both least.

    The reference point is the largest budget and the error that one recorded trial in four exceeds.
    """

    reference: tuple[float, float]
    best: float
    """Hypervolume of the best front known."""

    def share(self, macs: Array, errors: Array) -> float:
        """Hypervolume of these points over that of the best front known."""
        return _volume(np.log(macs), errors, self.reference) / self.best


def goal(surrogate: Surrogate, space: Space, budget: float, places: Array) -> Goal:
    """The goal of one method: the noise-free front over `places` of the unit cube, under `budget`.

    Raises:
        StudyError: nothing fits the budget.
    """
    macs, errors = surrogate.expected([space.at(list(place)) for place in places])
    inside = macs <= budget
    if not inside.any():
        raise StudyError(f"{surrogate.method}: no configuration fits {budget / 1e6:g} MMACs")
    points = np.column_stack([np.log(macs[inside]), errors[inside]])
    corner = (math.log(budget), float(np.quantile([c.error for c in surrogate.known], 0.75)))
    best = _volume(points[:, 0], points[:, 1], corner)
    if best <= 0:
        raise StudyError(f"{surrogate.method}: no configuration is better than the recorded ones")
    return Goal(corner, best)


def shares(run: Run, goal: Goal, ends: Sequence[int]) -> tuple[list[float], list[float]]:
    """Hypervolume after so many whole trials: as observed, and as fresh seeds would confirm it.

    The second takes the observed front and counts each of its trials by its error without noise.
    """
    points = np.array(run.points, float).reshape(-1, 5)
    observed, confirmed = [], []
    for end in ends:
        macs, errors, expected = points[:end, 2], points[:end, 3], points[:end, 4]
        chosen = _nondominated(np.column_stack([macs, errors]))
        observed.append(goal.share(macs, errors))
        confirmed.append(goal.share(macs[chosen], expected[chosen]))
    return observed, confirmed


def by_epochs(run: Run, fractions: Sequence[float], trials: int) -> list[int]:
    """Whole trials when a fraction of the method's epochs was spent."""
    spent = [point[1] for point in run.points]
    total = trials * run.epochs
    return [int(np.searchsorted(spent, f * total + 1e-9, side="right")) for f in fractions]


def by_time(run: Run, times: Sequence[float]) -> list[int]:
    """Whole trials at these simulated times, in seconds."""
    ends = [point[0] for point in run.points]
    return [int(np.searchsorted(ends, moment + 1e-9, side="right")) for moment in times]


def _nondominated(points: Array) -> Array:
    if not len(points):
        return np.zeros(0, bool)
    return np.asarray(moocore.is_nondominated(points), bool)


def _volume(log_macs: Array, errors: Array, reference: tuple[float, float]) -> float:
    points = np.column_stack([log_macs, errors])
    points = points[(points < np.array(reference)).all(axis=1)]
    if not len(points):
        return 0.0
    value = float(moocore.hypervolume(points, ref=list(reference)))
    return value if math.isfinite(value) else 0.0
