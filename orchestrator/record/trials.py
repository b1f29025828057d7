"""One trial as it is planned (`Ticket`), as the log tells it (`Record`), and as Optuna knows it."""

import copy
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from methods.values import Params
from orchestrator.record.events import End, Epoch, Role, Start
from orchestrator.record.result import Outcome
from orchestrator.record.rows import config_hash
from orchestrator.study.budgets import Cost
from orchestrator.study.identity import number_of, trial_name
from orchestrator.study.params import PREFIX
from orchestrator.study.space import Space

EPOCHS = PREFIX + "epochs"
"""A trial's length, among its parameters."""
STATES = {"COMPLETE": TrialState.COMPLETE, "PRUNED": TrialState.PRUNED, "FAIL": TrialState.FAIL}
OVER = "over"
"""Attribute in the journal of a trial that took no worker: by which fraction it is over budget."""
PREDICTED = "predicted_ms"
"""Attribute in the journal: see `Ticket.predicted_ms`."""
OPENING = "opening"
"""Attribute in the journal of a trial that is what its paper sets, outside of its space."""


@dataclass(frozen=True)
class Ticket:
    """A trial to be run: all that a worker needs to know, and what it was chosen for."""

    trial: str
    method: str
    role: Role
    config: str
    seed: int
    params: Params
    budgets: tuple[float, ...] = ()
    point: str = ""
    repeat: int = 1
    """Which of the method's searches, from 1 on."""
    predicted_ms: float | None = None
    """See `record.events.Start`: predicted once, when the trial was chosen, and recorded."""
    serves: tuple[str, ...] = ()
    """The methods that start from this base; empty for other trials."""
    until: int | None = None
    """The epoch after which it pauses; None where it trains to its end."""

    @property
    def config_hash(self) -> str:
        """Twelve hex digits of the method and all its parameters."""
        return config_hash(self.method, self.params)


@dataclass
class Record:
    """One trial as the log tells it."""

    start: Start
    attempts: int = 0
    vain: int = 0
    """Starts in a row that brought no new epoch, the present one included."""
    open: bool = False
    """Whether it was started and has not ended since, nor has its worker."""
    waits: bool = False
    """Whether it is paused at its rung: it has no worker, and no end."""
    promoted: bool | None = None
    """Whether its bracket lets it train to its end; None while that is open."""
    orphaned: bool = False
    """Whether its last start ended with its driver, or with all of Ray."""
    death: str = ""
    """How its last start ended."""
    step: int = 0
    curve: list[Epoch] = field(default_factory=list)
    """Its epochs, until it ends: from then on they are in the log alone."""
    end: End | None = None

    def rest(self) -> None:
        """It has paused, and has no worker any more."""
        self.open, self.waits = False, True

    @property
    def length(self) -> int:
        """Epochs of the whole trial."""
        return int(self.start.params[EPOCHS])

    @property
    def effort(self) -> int:
        """Epochs that the ended trial counts for: a failed one at least a quarter of its length,
        so that a method whose trials all fail comes to its end."""
        assert self.end is not None, "only what ended has a price"
        if self.end.state == "COMPLETE":
            return self.length
        failed = self.end.state == "FAIL" and self.took_a_worker
        return max(self.step, -(-self.length // 4) if failed else 0)

    @property
    def took_a_worker(self) -> bool:
        """False for a trial that ended as over budget or refused."""
        return self.end is None or Outcome.of(self.end.state, self.end.reason).took_a_worker


class Effort:
    """What the trials of each search count for; one without an end counts in full."""

    def __init__(self) -> None:
        self.epochs: Counter[str] = Counter()
        self._ahead: Counter[str] = Counter()
        """Epochs of the trials without an end, among them."""
        self._seconds = defaultdict[str, float](float)
        """Device-seconds of the trials that ended."""

    def start(self, search: str, record: Record) -> None:
        """A trial of a search has a worker for the first time."""
        self.epochs[search] += record.length
        self._ahead[search] += record.length

    def spare(self, search: str, epochs: int) -> None:
        """A trial that has just begun need not train so many of its epochs."""
        self.epochs[search] -= epochs
        self._ahead[search] -= epochs

    def end(self, search: str, record: Record) -> None:
        """It has ended."""
        assert record.end is not None, "only what ended has a price"
        least = record.effort * self._pace(search) if record.effort > record.step else 0.0
        self._seconds[search] += max(record.end.seconds, least)  # failing is not for nothing
        self._ahead[search] -= record.length
        self.epochs[search] -= record.length - record.effort

    def seconds(self, search: str) -> float:
        """Device-seconds of a search; a trial without an end counts at the search's pace."""
        return self._seconds[search] + self._ahead[search] * self._pace(search)

    def _pace(self, search: str) -> float:
        """Seconds per epoch of a search's ended trials; of all searches' where it has none."""
        ended = {name: self.epochs[name] - self._ahead[name] for name in self.epochs}
        if ended.get(search):
            return self._seconds[search] / ended[search]
        epochs = sum(ended.values())
        return sum(self._seconds.values()) / epochs if epochs else 1.0


def objectives(end: End, cost: Cost) -> list[float] | None:
    """Validation error and cost of a whole trial: its last operating point stands for it."""
    if end.state != "COMPLETE":
        return None
    point = end.points[-1]
    spent = point.ms if cost.clocked else point.val.macs_mean
    assert spent is not None, "a trial that was not timed has failed"
    return [1.0 - point.val.accuracy, float(spent)]


def running(
    params: Params,
    distributions: Mapping[str, BaseDistribution],
    attributes: Mapping[str, Any],
) -> FrozenTrial:
    """A search trial that has no end yet."""
    return create_trial(
        state=TrialState.RUNNING,
        params=dict(params),
        distributions=dict(distributions),
        user_attrs=dict(attributes),
    )


def unended(trial: FrozenTrial) -> FrozenTrial:
    """The trial as it was when it was chosen, whether or not it has ended since."""
    if OVER in trial.user_attrs:  # that it takes no worker was known
        return trial
    chosen = running(trial.params, trial.distributions, trial.user_attrs)
    chosen.number = trial.number
    return chosen


def told(space: Space, start: Start) -> FrozenTrial:
    """A search trial of which the log alone tells."""
    free = {name: space.free[name] for name in space.free if name in start.params}
    first = number_of(start.trial) == 0
    if first and start.params == space.params(space.published(), opening=True) and space.opening:
        return running(space.published(), free, {OPENING: True, **predicted(start.predicted_ms)})
    return running({name: start.params[name] for name in free}, free, predicted(start.predicted_ms))


def predicted(ms: float | None) -> dict[str, float]:
    """The attribute of a trial whose time was predicted."""
    return {} if ms is None else {PREDICTED: ms}


def stored(value: Any, distribution: BaseDistribution) -> Any:
    """A value with the type that it comes back with from Optuna's storage."""
    return distribution.to_external_repr(distribution.to_internal_repr(value))


def settled(trial: FrozenTrial, end: End, cost: Cost) -> FrozenTrial:
    """The trial with its end."""
    ended = copy.copy(trial)
    ended.state = STATES[end.state]
    ended.values = objectives(end, cost)
    ended.datetime_complete = datetime.fromtimestamp(end.time / 1000, UTC).replace(tzinfo=None)
    return ended


def search_ticket(space: Space, trial: FrozenTrial) -> Ticket:
    """What is to be run for a search trial of this space."""
    name = trial_name(space.search, trial.number)
    params = space.params(trial.params, opening=OPENING in trial.user_attrs)
    return Ticket(
        name,
        space.method,
        "search",
        name,
        0,
        params,
        repeat=space.repeat or 1,
        predicted_ms=trial.user_attrs.get(PREDICTED),
    )
