"""Searches replayed on recorded curves: the agenda of a sweep, driven in simulated time.

A heap holds the next epoch of each running trial. What runs next, what is refused and what stops is
decided by the agenda, as in a sweep; only the workers and the clock are made up.
"""

import heapq
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import moocore
import numpy as np
import optuna

from methods.api import Task
from methods.errors import StudyError
from methods.values import Params
from orchestrator.record.events import Figures, Metrics, Point
from orchestrator.record.history import History
from orchestrator.record.result import Ending, Result
from orchestrator.record.trials import Ticket
from orchestrator.search.agenda import Agenda
from orchestrator.search.model.gaussian import Array
from orchestrator.search.replay.curves import Table
from orchestrator.search.replay.surrogate import Course, Surrogate
from orchestrator.study.file import Study
from orchestrator.study.identity import number_of
from orchestrator.study.params import derive
from orchestrator.study.space import Space


class Searcher(Protocol):
    """A way to search, by name."""

    @property
    def name(self) -> str:
        """As the figure calls it."""

    def agenda(self, study: Study, spaces: Mapping[str, Space], task: Task, lag: int) -> Agenda:
        """A fresh search in memory; all its randomness derives from the study's seed."""


class Courses(Protocol):
    """What a method's trials would show."""

    def course(self, params: Params, random: np.random.Generator) -> tuple[Course, bool]:
        """A trial's course, and whether it was recorded."""


@dataclass
class Run:
    """One method's part of a simulated search."""

    epochs: int
    """Full length of a trial."""
    started: int = 0
    """Trials that took a worker."""
    unknown: int = 0
    """Number of them with a simulated curve."""
    spent: int = 0
    """Epochs done."""
    points: list[tuple[float, int, float, float, float]] = field(default_factory=list)
    """The complete trials: time, epochs spent by then, MACs, error, error without noise."""


@dataclass(frozen=True)
class Trace:
    """The result of one simulated search, by method."""

    searcher: str
    seed: int
    history: History
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
    """One search with `trials` full trials' worth of epochs per method, and no confirm runs.

    Raises:
        StudyError: no worker, no trial, or budgets in milliseconds.
    """
    if workers < 1 or trials < 1:
        raise StudyError(f"workers and trials must be 1 or more, got ({workers=}, {trials=})")
    if table.study.cost.clocked:
        raise StudyError(
            f"a simulation replays MACs, but the budgets of {table.study.name!r} are milliseconds"
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    began = time.perf_counter()
    study = searched_only(table.study, list(courses), trials, seed)
    spaces = {method: table.space(method) for method in courses}
    agenda = searcher.agenda(study, spaces, task_of(table), workers)
    simulation = Simulation(agenda, courses, workers)
    simulation.run()
    return Trace(
        searcher=searcher.name,
        seed=seed,
        history=agenda.history,
        runs=simulation.runs,
        seconds=simulation.now,
        worked=simulation.worked,
        wall=time.perf_counter() - began,
        peak=simulation.peak,
    )


def searched_only(study: Study, methods: Sequence[str], trials: int, seed: int) -> Study:
    """A study of so many trials of these methods, in equal epochs, that confirms nothing."""
    search = study.search.model_copy(update={"trials": trials, "seconds": None})
    confirm = study.confirm.model_copy(update={"seeds": 0, "race": False, "budget": None})
    chosen = {method: study.methods[method] for method in methods}
    changes = {"seed": seed, "search": search, "confirm": confirm, "methods": chosen, "start": {}}
    return study.model_copy(update=changes)


def task_of(table: Table) -> Task:
    """What the recorded networks were trained for."""
    return Task(table.study.data, *table.provenance.image, table.provenance.classes)


class Simulation:
    """Workers that take what an agenda serves, and follow its courses in simulated seconds."""

    def __init__(self, agenda: Agenda, courses: Mapping[str, Courses], workers: int) -> None:
        self.runs = {method: Run(space.epochs) for method, space in agenda.history.spaces.items()}
        self.now = self.worked = 0.0
        self.peak = 0
        self._agenda = agenda
        self._study = agenda.history.study
        self._courses = courses
        self._workers = workers
        self._events: list[tuple[float, int, Ticket]] = []
        self._count = 0
        self._busy: dict[str, Course] = {}

    def run(self) -> None:
        """From the first trial to the last."""
        self._fill()
        while self._events:
            self.now, _, ticket = heapq.heappop(self._events)
            self._epoch(ticket)

    def _fill(self) -> None:
        """Give free workers trials."""
        while len(self._busy) < self._workers:
            ticket = self._agenda.next()
            if not isinstance(ticket, Ticket):
                break
            random = np.random.default_rng(
                derive(self._study, f"{ticket.method}/course", number_of(ticket.config))
            )
            course, recorded = self._courses[ticket.method].course(ticket.params, random)
            done = self._agenda.history.records[ticket.trial].step
            self.runs[ticket.method].started += not done
            self.runs[ticket.method].unknown += not (recorded or done)
            self._busy[ticket.trial] = course
            self._push(ticket, float(course.seconds[done]))
        self.peak = max(self.peak, len(self._busy))

    def _epoch(self, ticket: Ticket) -> None:
        course, run = self._busy[ticket.trial], self.runs[ticket.method]
        step = self._agenda.history.records[ticket.trial].step + 1
        run.spent += 1
        if step == len(course.errors):
            run.points.append((self.now, run.spent, course.cost, course.error, course.expected))
        if self._agenda.heard(ticket.trial, result(course, step, self.now)):
            self._push(ticket, float(course.seconds[step]))
        else:
            del self._busy[ticket.trial]
            self._fill()

    def _push(self, ticket: Ticket, seconds: float) -> None:
        self._count += 1
        self.worked += seconds
        heapq.heappush(self._events, (self.now + seconds, self._count, ticket))


def result(course: Course, step: int, now: float) -> Result:
    """What a worker would say after epoch `step` of a course, `now` seconds after the start."""
    ending = None
    if step == len(course.errors):
        point = Point("", Figures(accuracy=1.0 - course.error, macs_mean=course.cost))
        ending = Ending("COMPLETE", seconds=float(course.seconds.sum()), points=(point,))
    metrics = Metrics(
        val_acc=1.0 - float(course.errors[step - 1]),
        macs_mean_m=float(course.macs[step - 1]) / 1e6,
        seconds=float(course.seconds[step - 1]),
    )
    return Result(step, round(1000 * now), metrics, ending)


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
