"""A proposal: the free parameters of one trial, a pure function of its seed, number and history."""

import copy
import math
import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import qmc

from methods.values import Params, Scalar
from orchestrator.record.trials import OVER
from orchestrator.search.model.ehvi import condensed, improving
from orchestrator.study.file import Study
from orchestrator.study.params import derive
from orchestrator.study.sections import SearchPlan
from orchestrator.study.space import Space

MEMORY = 300
"""Trials that a sampler is shown, at most."""
LEARNING = ("ehvi", "tpe")
"""Samplers that start from points spread over the space."""

Sampler = Callable[[Space, Sequence[FrozenTrial], Study, int], Params]
"""The free parameters of a trial, from what was tried before it and from its number."""


def propose(
    space: Space,
    history: Sequence[FrozenTrial],
    study: Study,
    number: int,
    *,
    spread: bool = False,
    sample: Sampler | None = None,
) -> dict[str, Scalar]:
    """Free parameters of trial `number`; the space names the first ones.

    `spread` takes the next Sobol point where the study's sampler learns: its choice was
    refused, and it would make the same one. `sample` stands in for the study's sampler.
    """
    first = space.first
    if number < len(first) or not space.free:
        return first[min(number, len(first) - 1)]
    name = sampler_of(study.search)
    place = number - len(first)
    if name == "sobol" or (name in LEARNING and (spread or place < _start(study.search))):
        return spread_over(space, study, place)[0]
    return dict((sample or sampled)(space, history, study, number))


def uninformed(space: Space, plan: SearchPlan) -> int | float:
    """The number of the first trial that depends on what was tried before; infinity if none does.

    A trial that the paper sets, outside of the space, is not counted.
    """
    name = sampler_of(plan)
    if name in ("random", "sobol") or not space.free:
        return math.inf
    return len(space.first) + (_start(plan) if name in LEARNING else 0)


def sampler_of(plan: SearchPlan) -> str:
    """The sampler that a plan means."""
    return "ehvi" if plan.sampler == "auto" else plan.sampler


def sampled(
    space: Space, history: Sequence[FrozenTrial], study: Study, number: int
) -> dict[str, Scalar]:
    """The choice of the study's sampler: a fresh one, seeded by study, search and number."""
    name = sampler_of(study.search)
    seed = derive(study, f"{space.search}/sampler", number)
    largest = study.cost.cap(study.budgets[-1])
    shown = [] if name == "random" else condensed(history, MEMORY)
    if name == "ehvi":
        return improving(space, shown, largest, np.random.default_rng(seed))
    sampler = SAMPLERS[name](seed)
    memory = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    memory.add_trials(_bounded(shown, largest))
    return dict(memory.ask(dict(space.free)).params)


def spread_over(space: Space, study: Study, first: int, count: int = 1) -> list[dict[str, Scalar]]:
    """Points `first` and following of the scrambled Sobol sequence that spreads over a space."""
    if not space.free:
        return [{}]
    sequence = qmc.Sobol(len(space.free), rng=derive(study, f"{space.search}/sobol", 0))
    if first:
        sequence.fast_forward(first)
    return [space.at([float(u) for u in place]) for place in sequence.random(count)]


SAMPLERS: Mapping[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=1),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}
"""Optuna's samplers by name, each made from a seed. `tpe`, Optuna's own default, is the yardstick
of the field: it is behind our default in all settings of docs/races.md."""


def _start(plan: SearchPlan) -> int:
    """Trials that spread over the space before a sampler learns from them."""
    return max(4, min(10, plan.trials // 3))


def _bounded(history: Sequence[FrozenTrial], largest: float) -> list[FrozenTrial]:
    """The trials as a sampler sees them: beyond the largest budget they break a constraint.

    A refused one has no error, and is shown with the usual one.
    """
    errors = [trial.values[0] for trial in history if trial.state == TrialState.COMPLETE]
    usual = statistics.median(errors) if errors else 0.5
    views = []
    for trial in history:
        view, over = copy.copy(trial), trial.user_attrs.get(OVER)
        if over is not None:
            view.state, view.values = TrialState.COMPLETE, [usual, largest * (1 + over)]
        if view.state == TrialState.COMPLETE:
            view.system_attrs = {}
            view.set_constraint("budget", view.values[1] / largest - 1)
        views.append(view)
    return views
