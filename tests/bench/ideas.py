"""Two ideas that are no part of the search, each apart: priors, and what methods have in common."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from methods.api import Task
from methods.values import Params
from orchestrator.record.history import History
from orchestrator.search.agenda import Agenda
from orchestrator.search.model.ehvi import Beliefs, best
from orchestrator.search.model.gaussian import Array, Cube, Process
from orchestrator.search.promotion.curves import SMALLEST
from orchestrator.search.replay.searchers import in_memory
from orchestrator.study.file import Study
from orchestrator.study.params import PREFIX, derive
from orchestrator.study.space import Space

WIDTH = 0.25
"""Standard deviation of the prior, in units of a parameter's range."""
STRENGTH = 2.0
"""The exponent of the prior after one trial; it falls with their number."""
FEWEST = 6
"""Trials of other searches from which a trend is learned, at least."""


@dataclass(frozen=True)
class Prior(Beliefs):
    """Gains times a prior around the defaults of the recipe that fades (piBO, Hvarfner et al.,
    2022)."""

    centre: Array
    columns: Sequence[int]
    trials: int

    def gains(self, places: Array) -> Array:
        off = (places - self.centre)[:, self.columns] / WIDTH
        gained = super().gains(places)
        return gained * np.exp(-0.5 * STRENGTH / self.trials * (off**2).sum(axis=1))


@dataclass(frozen=True)
class Shared(Beliefs):
    """Errors around a trend over the fields of the recipe, learned from the other methods."""

    trend: Process
    columns: Sequence[int]
    weight: float
    """What the trend counts here, by least squares, shrunk towards 1."""

    def log_errors(self, places: Array) -> tuple[Array, Array]:
        mean, deviation = super().log_errors(places)
        return mean + self.weight * self.trend.at(places[:, self.columns])[0][:, 0], deviation


@dataclass(frozen=True)
class Idea:
    """The search with changed beliefs."""

    name: str
    change: Callable[[Beliefs, Space, History, int], Beliefs]

    def agenda(self, study: Study, spaces: Mapping[str, Space], task: Task, lag: int) -> Agenda:
        """A fresh search in memory."""
        history = in_memory(study, spaces, "ehvi")

        def sample(space: Space, shown: Sequence[FrozenTrial], study: Study, number: int) -> Params:
            random = np.random.default_rng(derive(study, f"{space.search}/sampler", number))
            beliefs = Beliefs.of(space, shown, study.cost.cap(study.budgets[-1]))
            if beliefs is None:
                return space.at(random.random(len(space.free)).tolist())
            return best(space, self.change(beliefs, space, history, number), random)

        return Agenda(history, task, lag=lag, sample=sample)


def prior(beliefs: Beliefs, space: Space, _: History, number: int) -> Beliefs:
    """The beliefs under a prior."""
    centre = Cube(space.free).place(space.defaults())
    return Prior(**_parts(beliefs), centre=centre, columns=_recipe(space), trials=number)


def shared(beliefs: Beliefs, space: Space, history: History, number: int) -> Beliefs:
    """The beliefs around a trend of the other searches, as far as they are by this number."""
    columns = _recipe(space)
    inputs, outputs = [], []
    for search, other in history.spaces.items():
        trials = [history.trial(search, n) for n in range(min(number, history.numbers(search)))]
        whole = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        if search == space.search or len(whole) < 3:
            continue
        errors = np.log([max(trial.values[0], SMALLEST) for trial in whole])
        inputs.append(Cube(other.free).places([trial.params for trial in whole])[:, _recipe(other)])
        outputs.append(errors - errors.mean())
    if sum(map(len, outputs)) < FEWEST:
        return beliefs
    levels = np.concatenate(outputs)[:, None]
    trend = Process.fit(np.concatenate(inputs), levels, np.zeros(len(columns)), noise=0.3)
    own = trend.at(beliefs.known.places[:, columns])[0][:, 0]
    errors, centred = beliefs.known.outputs[:, 0], own - own.mean()
    power = float(centred @ centred) + 1e-9
    weight = min(max(0.5 * (float(centred @ errors) / power + 1.0), 0.0), 1.0)
    rest = (errors - weight * own)[:, None]
    parts = _parts(beliefs)
    parts["accuracy"] = Process.fit(beliefs.known.places, rest, beliefs.known.closed, noise=0.1)
    return Shared(**parts, trend=trend, columns=columns, weight=weight)


IDEAS = {"prior": Idea("default, prior", prior), "shared": Idea("default, shared", shared)}


def _recipe(space: Space) -> list[int]:
    """Places of the fields that all methods share, in the order of their names."""
    names = list(space.free)
    return [names.index(name) for name in sorted(names) if name.startswith(PREFIX)]


def _parts(beliefs: Beliefs) -> dict[str, object]:
    return {each.name: getattr(beliefs, each.name) for each in fields(beliefs)}
