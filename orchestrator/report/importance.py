"""Which hyperparameters decided the result of a search, and what its best trials share."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from methods.errors import IsoflopError
from methods.values import Params, Scalar
from orchestrator.board.choose import clean, under
from orchestrator.record.rows import Row
from orchestrator.study.budgets import Cost
from orchestrator.study.distributions import ranged
from orchestrator.study.file import Study
from orchestrator.study.space import Space, spaces

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import InMemoryStorage
    from optuna.trial import FrozenTrial

LEAST = 10
"""Minimal number of a method's trials under the primary budget for which an importance is
computed."""
BEST = 0.25
"""The fraction of a method's trials that count as its best."""
RESAMPLES = 50
"""Draws of the trials, over which a figure's uncertainty is taken."""


@dataclass(frozen=True)
class Importance:
    """How well one searched hyperparameter separates a method's best trials from all of its
    trials."""

    method: str
    field: str
    share: float
    """Share of the importance of all its hyperparameters, by PED-ANOVA (Watanabe et al., 2023); the
    shares add up to 1."""
    lo: float
    hi: float
    """The middle 90 % over resampled trials."""
    searched: str
    """The range that was searched."""
    best: str
    """The range, or the values, of the best quarter."""
    trials: int


def importances(study: Study, rows: Sequence[Row], primary: float) -> list[Importance]:
    """For every method with enough trials, its searched hyperparameters, the most important first.

    Only trials under the primary budget count, by the validation error of their best point.
    """
    errors = candidates(rows, primary, study.cost)
    try:
        searched = spaces(study)
    except IsoflopError:  # a study of an earlier version may have had other fields
        return []
    return [
        found
        for method, space in sorted(searched.items())
        if len(space.free) > 1
        for found in _of_method(space, list(dict(sorted(errors.get(method, {}).items())).values()))
    ]


def candidates(
    rows: Sequence[Row], primary: float, cost: Cost
) -> dict[str, dict[str, tuple[Params, float]]]:
    """The trials under the primary budget, by method and name: what they tried, and the
    validation error of their best point."""
    errors: dict[str, dict[str, tuple[Params, float]]] = {}
    for row in clean(rows)[0]:
        if row.role == "search" and under(row, primary, cost) and row.val_acc is not None:
            trials = errors.setdefault(row.method, {})
            error = min(1 - row.val_acc, trials.get(row.trial, (row.params, 1.0))[1])
            trials[row.trial] = (row.params, error)
    return errors


def best_of(trials: int) -> int:
    """How many of so many trials count as the best."""
    return max(2, round(BEST * trials))


def _of_method(space: Space, tried: Sequence[tuple[Params, float]]) -> list[Importance]:
    within = [
        ({name: params[name] for name in space.free}, error)
        for params, error in tried
        if all(name in params and _holds(own, params[name]) for name, own in space.free.items())
    ]
    if len(within) < LEAST:
        return []
    trials = [_trial(space.free, params, error) for params, error in within]
    whole = _shares(space.free, trials)
    draw = np.random.default_rng(0)
    resampled = [
        _shares(space.free, [trials[i] for i in draw.integers(len(trials), size=len(trials))])
        for _ in range(RESAMPLES)
    ]
    best = sorted(within, key=lambda trial: trial[1])[: best_of(len(within))]
    found = []
    for name, share in sorted(whole.items(), key=lambda item: (-item[1], item[0])):
        lo, hi = np.quantile([shares[name] for shares in resampled], [0.05, 0.95])
        values = [params[name] for params, _ in best]
        found.append(
            Importance(
                method=space.method,
                field=name,
                share=share,
                lo=float(min(lo, share)),
                hi=float(max(hi, share)),
                searched=ranged(space.free[name]),
                best=_common(values),
                trials=len(within),
            )
        )
    return found


def _holds(distribution: "BaseDistribution", value: Scalar) -> bool:
    """Whether a value is in the range that was searched; what the paper sets may lie outside."""
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except ValueError:
        return False


def _shares(
    free: "Mapping[str, BaseDistribution]", trials: "Sequence[FrozenTrial]"
) -> dict[str, float]:
    """PED-ANOVA's importances, as shares; equal ones where it finds none."""
    import optuna  # noqa: PLC0415  # loads slowly, and only a finished search asks

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST)
        memory = optuna.create_study(storage=_drawn(trials))
        found = evaluator.evaluate(memory)
    total = sum(found.values())
    if not total > 0:
        return {name: 1 / len(free) for name in free}
    return {name: found.get(name, 0.0) / total for name in free}


def _drawn(trials: "Sequence[FrozenTrial]") -> "InMemoryStorage":
    """A storage of drawn trials; Optuna's own copies each of them deeply, and that takes most of
    the time."""
    from optuna.storages import InMemoryStorage  # noqa: PLC0415

    class Drawn(InMemoryStorage):
        def get_all_trials(self, *_: object, **__: object) -> "list[FrozenTrial]":
            return numbered

    numbered = [copy.copy(trial) for trial in trials]
    for number, trial in enumerate(numbered):
        trial.number = trial._trial_id = number
    return Drawn()


def _trial(free: "Mapping[str, BaseDistribution]", params: Params, error: float) -> "FrozenTrial":
    import optuna  # noqa: PLC0415

    return optuna.trial.create_trial(params=dict(params), distributions=dict(free), values=[error])


def _common(values: Sequence[Scalar]) -> str:
    """The range of numbers, or the values that occur, the most frequent first."""
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(numbers) == len(values) and not any(isinstance(value, bool) for value in values):
        low, high = min(numbers), max(numbers)
        return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
    names = [str(value) for value in values]
    return ", ".join(sorted(set(names), key=lambda name: (-names.count(name), name)))
