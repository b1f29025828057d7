"""A searcher of others on recorded curves: a class that asks and tells, in a process of its own.

The agenda drives it like isoflop's own searches. What crosses the pipe are plain values, so that
the class imports nothing of isoflop and may run in another environment (docs/search.md).
"""

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial

from methods.api import Task
from methods.errors import SearcherError, nearest
from methods.outside import PLACE
from methods.values import Params, Scalar
from orchestrator.record.history import History
from orchestrator.record.result import REFUSED, Outcome
from orchestrator.record.trials import OVER, Ticket
from orchestrator.search.agenda import Agenda
from orchestrator.search.replay.pipe import Pipe, Plain
from orchestrator.search.window import Window
from orchestrator.study.distributions import Distribution
from orchestrator.study.file import Study
from orchestrator.study.identity import number_of, search_of, trial_name
from orchestrator.study.params import derive
from orchestrator.study.space import Space

PATIENCE = 60.0
"""Seconds that a searcher may take for one answer; importing its module is one."""
WRITTEN = re.compile(rf"(?:([^=:]+)=)?(?:([^:]+):)?({PLACE.pattern})")
"""`package.module:Class`, with an interpreter and a colon before it or not, and a name and `=`
before that or not."""
ROUNDING = 1e-9
"""By which fraction a value may miss a bound: logarithms round."""


@dataclass
class Foreign:
    """The class at a place, run by an interpreter that may be another."""

    name: str
    place: str
    python: str = sys.executable
    folder: Path = field(default_factory=Path.cwd)
    """Where its module is looked for, after all that is installed."""
    patience: float = PATIENCE
    _pipe: Pipe | None = None

    @classmethod
    def written(cls, text: str, patience: float = PATIENCE) -> "Foreign | None":
        """The one that a command's option names; None where it names none."""
        match = WRITTEN.fullmatch(text)
        if match is None:
            return None
        label, python, place = match[1], match[2], match[3]
        return cls(label or place, place, python or sys.executable, patience=patience)

    def agenda(self, study: Study, spaces: Mapping[str, Space], task: Task, lag: int) -> Agenda:
        """A fresh search in memory, each method's by an object of its own.

        Raises:
            SearcherError: its class cannot be had.
        """
        pipe = self._begun()
        pipe.ask("clear")
        search = study.search.model_copy(update={"sampler": "foreign", "stop": "none"})
        history = Continuing(study.model_copy(update={"search": search}), spaces)
        window = replace(Window.of(lag, len(spaces)), running=False)  # it knows what it proposed
        rule = _Rule(self.name, pipe, history)
        return Agenda(history, task, window=window, sample=rule.sample, stop=rule.reason)

    def close(self) -> None:
        """End its process, if it has one."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def _begun(self) -> Pipe:
        if self._pipe is None:
            settings = {"python": self.python, "folder": self.folder, "patience": self.patience}
            self._pipe = Pipe(self.name, self.place, **settings)  # type: ignore[arg-type]
            self._pipe.ask("load")
        return self._pipe


class Continuing(History):
    """A history in memory, in which a trial may continue a stopped one from its checkpoint."""

    def __init__(self, study: Study, spaces: Mapping[str, Space]) -> None:
        super().__init__(study, spaces)
        self.keeps_curves = True  # the searcher is told how far a trial came that it stopped
        self._continued: dict[str, str] = {}

    def continues(self, trial: str, stopped: str) -> None:
        """The trial that is about to be added continues a stopped one."""
        self._continued[trial] = stopped

    def continued(self, stopped: str) -> bool:
        """Whether a trial continues this one."""
        return stopped in self._continued.values()

    def add(
        self,
        space: Space,
        searched: Params,
        *,
        opening: bool = False,
        over: float | None = None,
        predicted_ms: float | None = None,
    ) -> Ticket:
        """Commit one new trial; one that continues another is of the other's configuration."""
        ticket = super().add(space, searched, opening=opening, over=over, predicted_ms=predicted_ms)
        stopped = self._continued.get(ticket.trial)
        return replace(ticket, config=self.records[stopped].start.config) if stopped else ticket

    def start(self, ticket: Ticket) -> None:
        """A trial is about to take a worker; epochs that it need not repeat are no effort."""
        super().start(ticket)
        if stopped := self._continued.get(ticket.trial):
            done = self.records[stopped].step
            self.records[ticket.trial].step = done
            self._effort.spare(search_of(ticket.trial), done)


@dataclass
class _Rule:
    """Proposes, stops and continues as the searcher says."""

    name: str
    pipe: Pipe
    history: Continuing
    _told: dict[str, int] = field(default_factory=dict)
    """Trials that each search's object was told of."""
    _stops: dict[str, bool] = field(default_factory=dict)
    """Whether each search's object may stop trials."""
    _asked: set[str] = field(default_factory=set)

    def sample(
        self, space: Space, history: Sequence[FrozenTrial], study: Study, _number: int
    ) -> Params:
        search, number = space.search, self.history.numbers(space.search)
        if search not in self._told:
            self._open(space, study)
        for trial in history[self._told[search] :]:
            self.pipe.ask("tell", search, self._news(search, trial))
        self._told[search] = len(history)
        answer = self.pipe.ask("ask", search, {"trial": number})
        self._asked.add(trial_name(search, number))
        if isinstance(answer, int) and not isinstance(answer, bool):
            return self._continued(search, number, answer)
        return self._checked(space, answer)

    def reason(self, ticket: Ticket) -> str | None:
        search = search_of(ticket.trial)
        if ticket.trial not in self._asked or not self._stops[search]:
            return None
        content = {"trial": number_of(ticket.trial), **self._latest(ticket.trial)}
        return "stopped" if self.pipe.ask("stop", search, content) else None

    def _open(self, space: Space, study: Study) -> None:
        defaults = space.defaults()
        content: dict[str, Plain] = {
            "space": {
                name: {**described(values), "default": defaults[name]}
                for name, values in space.free.items()
            },
            "seed": derive(study, f"{space.search}/foreign", 0),
            "trials": study.search.trials,
            "epochs": space.epochs,
        }
        self._stops[space.search] = bool(self.pipe.ask("open", space.search, content))
        self._told[space.search] = 0

    def _news(self, search: str, trial: FrozenTrial) -> dict[str, Plain]:
        """How a trial ended: one that took no worker has no error, and at most a least cost."""
        name = trial_name(search, trial.number)
        figures: dict[str, Plain]
        if OVER in trial.user_attrs:
            end = self.history.records[name].end
            assert end is not None, "it never ran"
            refused = Outcome.of(end.state, end.reason).word == REFUSED
            largest = self.history.study.cost.cap(self.history.study.budgets[-1])
            least = largest * (1 + trial.user_attrs[OVER])
            figures = {"epochs": 0, "error": None, "macs": None if refused else least}
        elif trial.values is None:
            figures = self._latest(name)
        else:
            epochs = self.history.records[name].length
            figures = {"epochs": epochs, "error": trial.values[0], "macs": trial.values[1]}
        return {"trial": trial.number, "params": dict(trial.params), **figures}

    def _latest(self, trial: str) -> dict[str, Plain]:
        epoch = self.history.records[trial].curve[-1]
        error, macs = 1.0 - epoch.metrics.val_acc, 1e6 * epoch.metrics.macs_mean_m
        return {"epochs": epoch.step, "error": error, "macs": macs}

    def _continued(self, search: str, number: int, stopped: int) -> Params:
        """The parameters of a stopped trial, which the proposal continues."""
        name = trial_name(search, stopped)
        record = self.history.records.get(name)
        pruned = record is not None and record.end is not None and record.end.state == "PRUNED"
        if not pruned or self.history.continued(name):
            raise self._error(
                search,
                f"may continue a trial that it stopped, once, but continues trial {stopped}",
            )
        self.history.continues(trial_name(search, number), name)
        return self.history.trial(search, stopped).params

    def _checked(self, space: Space, answer: Plain) -> Params:
        """A proposal that lies in the space."""
        if not isinstance(answer, dict):
            raise self._error(
                space.search,
                "must propose a dict of parameters, or the number of a trial that it stopped, "
                f"but proposed {answer!r:.100}",
            )
        for name in answer:
            if name not in space.free:
                hint = nearest(name, list(space.free))
                raise self._error(space.search, f"has no field {name!r} to propose; {hint}")
        checked = {}
        for name, values in space.free.items():
            if name not in answer:
                raise self._error(space.search, f"must propose every field, but left out {name}")
            value = within(answer[name], values)
            if value is None:
                raise self._error(
                    space.search,
                    f"must propose {name} as {range_of(values)}, but proposed "
                    f"{answer[name]!r:.100}",
                )
            checked[name] = value
        return checked

    def _error(self, search: str, what: str) -> SearcherError:
        return SearcherError(f"the searcher {self.name} {what} ({search})")


def described(values: Distribution) -> dict[str, Plain]:
    """The values of a parameter, for a searcher that knows nothing of isoflop."""
    if isinstance(values, CategoricalDistribution):
        return {"kind": "choice", "choices": list(values.choices)}
    kind = "int" if isinstance(values, IntDistribution) else "float"
    ends: dict[str, Plain] = {"low": values.low, "high": values.high}
    return {"kind": kind, **ends, "log": values.log, "step": values.step}


def range_of(values: Distribution) -> str:
    """The values of a parameter, in words."""
    if isinstance(values, CategoricalDistribution):
        return f"one of {', '.join(map(repr, values.choices))}"
    return f"a number from {values.low:g} to {values.high:g}"


def within(value: Plain, values: Distribution) -> Scalar | None:
    """A proposed value, a number at the nearest step; None where it lies outside of the space."""
    if isinstance(values, CategoricalDistribution):
        return next((each for each in values.choices if _alike(each, value)), None)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    slack = ROUNDING * max(abs(values.low), abs(values.high))
    if not values.low - slack <= value <= values.high + slack:
        return None
    inside = min(max(value, values.low), values.high)
    if isinstance(values, IntDistribution):
        return values.low + round((inside - values.low) / values.step) * values.step
    if values.step is None:
        return float(inside)
    return values.low + round((inside - values.low) / values.step) * values.step


def _alike(choice: Scalar | None, value: Plain) -> bool:
    """Whether a proposed value is a choice: 1 is 1.0, but True is not 1."""
    return choice == value and isinstance(choice, bool) == isinstance(value, bool)
