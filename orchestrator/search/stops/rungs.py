"""Early stopping: a decision from curves alone.

A trial is judged by its curve so far, and by the curves of those trials of its method that ended
and are numbered a fixed distance before it. There is no other state: not the order of arrival, nor
a scheduler's memory. So the same study stops the same trials, and a restart needs only the ledger.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]
Rule = Literal["asha", "moasha", "predictive"]

REMEMBERED = 200
"""Latest trials of a method with which one is compared, in a sweep and in a simulation."""
SMALLEST = 1e-3
"""Errors below this count as this: their logarithms are compared."""
ENOUGH = 5
"""Whole curves that the learning-curve model needs."""
SAME = 0.02
"""MACs that differ by less, in logarithms, count as the same cost: those to come are predicted."""
UNSURE = 0.3
"""Standard deviation of a final log error that too few curves predict: between that of seeds and
that of configurations, on digits."""
FARTHEST = 3.0
"""Standard deviations beyond which the model counts a curve's features as this far off."""
RIDGE = 1.0
"""Shrinks the model's slopes, in units of one curve's evidence."""


@dataclass(frozen=True)
class Curve:
    """A trial's validation errors (fractions) and MACs, one per epoch so far."""

    errors: tuple[float, ...]
    macs: tuple[float, ...]
    epochs: int
    """Full length."""
    floor: float
    """Least MACs that the configuration can cost: known before it trains."""
    final_error: float | None = None
    """At the operating point that the search optimises; None where the trial ended early."""
    final_macs: float | None = None

    @property
    def step(self) -> int:
        """Epochs done."""
        return len(self.errors)

    @functools.cached_property
    def logs(self) -> Array:
        """Log errors, their means over the last three epochs, and log MACs: 3 x epochs so far."""
        errors = np.log(np.maximum(self.errors, SMALLEST))
        totals = np.concatenate([[0.0, 0.0, 0.0], np.cumsum(errors)])
        counts = np.minimum(np.arange(1, self.step + 1), 3)
        return np.array([errors, (totals[3:] - totals[:-3]) / counts, np.log(self.macs)])

    @property
    def whole(self) -> bool:
        """Whether the trial ran to its end."""
        return self.final_error is not None and self.final_macs is not None


@dataclass(frozen=True)
class Plan:
    """How trials are stopped."""

    rule: Rule = "predictive"
    """By error (asha), by fronts of error and MACs (moasha), or by learning curves (predictive)."""
    grace: float = 0.1
    """Fraction of a trial before which nothing stops."""
    eta: float = 3.0
    """Halving rules continue one trial in `eta` at a rung; rungs grow by `eta`."""
    chance: float = 0.1
    """`predictive` stops a trial whose probability to enter the front is lower."""


def stops(plan: Plan, curve: Curve, others: Sequence[Curve]) -> str | None:
    """Why a trial stops after its latest epoch; None where it continues.

    `others` are the method's trials that it may be compared with, in any order. A trial whose
    error is the lowest at this epoch continues whatever it costs.
    """
    if curve.step >= curve.epochs or curve.step < first_rung(plan, curve.epochs):
        return None
    reached = [other for other in others if other.step >= curve.step]
    if not reached or curve.errors[-1] <= min(o.errors[curve.step - 1] for o in reached):
        return None
    return RULES[plan.rule](plan, curve, reached)


def first_rung(plan: Plan, epochs: int) -> int:
    """Epochs that every trial gets."""
    return max(1, math.ceil(plan.grace * epochs - 1e-9))


def outlook(curve: Curve, others: Sequence[Curve]) -> tuple[float, float, float] | None:
    """Final log MACs, final log error and its standard deviation, as predicted; None if there are
    too few curves.

    The error to come is linear in the logarithms of the error now, of its mean over the last
    epochs and of the MACs to come: one ridge regression per epoch, on the whole curves.
    """
    whole = [other for other in others if other.whole and other.step >= curve.step]
    if len(whole) < ENOUGH:
        return None
    features = _features([*whole, curve], curve.step)
    known, mine = features[:-1], features[-1]
    target = np.log([max(curve.final_error or 0.0, SMALLEST) for curve in whole])
    centre, spread = known.mean(axis=0), known.std(axis=0) + 1e-9
    known = (known - centre) / spread
    mine = np.clip((mine - centre) / spread, -FARTHEST, FARTHEST)
    inverse = np.linalg.inv(known.T @ known + RIDGE * np.eye(known.shape[1]))
    level = target.mean()
    slopes = inverse @ known.T @ (target - level)
    leverage = 1.0 / len(known) + np.einsum("ij,jk,ik->i", known, inverse, known)
    left_out = (target - level - known @ slopes) / np.maximum(1.0 - leverage, 0.1)
    variance = float(np.mean(left_out**2)) + 1e-6
    spread_here = math.sqrt(variance * (1.0 + 1.0 / len(known) + float(mine @ inverse @ mine)))
    macs = float(features[-1][2])
    return macs, min(0.0, float(level + mine @ slopes)), spread_here


def forecasts(curves: Sequence[Curve], others: Sequence[Curve]) -> Array:
    """Final log MACs, final log error and its standard deviation of each curve.

    As `outlook` has it where there are enough whole curves among the others. With fewer, the error
    falls from here on as theirs did on average, or stays as it is.
    """
    return np.array([_forecast(curve, others) for curve in curves], float).reshape(-1, 3)


def _forecast(curve: Curve, others: Sequence[Curve]) -> tuple[float, float, float]:
    if predicted := outlook(curve, others):
        return predicted
    whole = [other for other in others if other.whole and other.step >= curve.step]
    features = _features([*whole, curve], curve.step)
    ends = np.log([max(other.final_error or 0.0, SMALLEST) for other in whole])
    falls = ends - features[:-1, 0]
    fall = float(falls.mean()) if whole else 0.0
    return float(features[-1, 2]), min(0.0, float(features[-1, 0]) + fall), UNSURE


def _by_error(plan: Plan, curve: Curve, reached: Sequence[Curve]) -> str | None:
    """Asynchronous successive halving (Li et al., MLSys 2020), on error alone."""
    if curve.step not in _rungs(plan, curve.epochs):
        return None
    errors = [other.errors[curve.step - 1] for other in reached]
    return _halved(plan, curve, sum(error < curve.errors[-1] for error in errors), len(errors))


def _by_fronts(plan: Plan, curve: Curve, reached: Sequence[Curve]) -> str | None:
    """Multi-objective halving: fronts in turn, each ordered by an epsilon-net.

    Source: Salinas et al., A multi-objective perspective on jointly tuning hardware and
    hyperparameters, NAS workshop at ICLR 2021.
    """
    if curve.step not in _rungs(plan, curve.epochs):
        return None
    compared = sorted((o.errors[curve.step - 1], o.macs[curve.step - 1]) for o in reached)
    order = _net_order(np.array([*compared, (curve.errors[-1], curve.macs[-1])]))
    return _halved(plan, curve, order.index(len(reached)), len(reached))


def _by_prediction(plan: Plan, curve: Curve, reached: Sequence[Curve]) -> str | None:
    """Predictive termination, for a front: will the whole trials' front still take this one in?

    Source: Domhan, Springenberg and Hutter, Speeding up automatic hyperparameter optimization of
    deep neural networks by extrapolation of learning curves, IJCAI 2015; there for the best error.
    """
    forecast = outlook(curve, reached)
    if forecast is None:
        return None
    macs, error, deviation = forecast
    below = [
        other.final_error
        for other in reached
        if other.final_error is not None
        and other.final_macs is not None
        and math.log(other.final_macs) <= macs + SAME
    ]
    if not below:
        return None
    chance = float(ndtr((math.log(max(min(below), SMALLEST)) - error) / deviation))
    if chance >= plan.chance:
        return None
    return (
        f"at epoch {curve.step} of {curve.epochs} its probability of joining the front is "
        f"{chance:.3f}, below {plan.chance:g}"
    )


RULES: Mapping[Rule, Callable[[Plan, Curve, Sequence[Curve]], str | None]] = {
    "asha": _by_error,
    "moasha": _by_fronts,
    "predictive": _by_prediction,
}


def _rungs(plan: Plan, epochs: int) -> set[int]:
    """The epochs at which a halving rule decides."""
    rung, rungs = first_rung(plan, epochs), set()
    while rung < epochs:
        rungs.add(rung)
        rung = max(rung + 1, math.ceil(rung * plan.eta))
    return rungs


def _halved(plan: Plan, curve: Curve, better: int, others: int) -> str | None:
    """Stopped where more than 1/eta of a rung, itself included, is better."""
    if better * plan.eta <= others + 1:
        return None
    return f"at epoch {curve.step} of {curve.epochs} it ranks {better + 1} of {others + 1}"


def _net_order(points: Array) -> list[int]:
    """Indices from best to worst: fronts in turn, within a front always the farthest from those
    before it, the first being the least in the first objective.
    """
    spread = points.max(axis=0) - points.min(axis=0)
    scaled = points / np.where(spread > 0, spread, 1.0)
    below = np.asarray((points[:, None] <= points[None]).all(axis=2))
    beats = np.asarray(below & ~below.T)
    left, order = np.ones(len(points), bool), list[int]()
    while left.any():
        front = np.flatnonzero(left & ~beats[left].any(axis=0))
        left[front] = False
        rest = front[np.lexsort((points[front, 1], points[front, 0]))].tolist()
        taken = [rest.pop(0)]
        while rest:
            gaps = scaled[rest][:, None] - scaled[taken][None]
            taken.append(rest.pop(int((gaps**2).sum(axis=2).min(axis=1).argmax())))
        order += taken
    return order


def _features(curves: Sequence[Curve], step: int) -> Array:
    """Log error now and over the last epochs, and log MACs to come: one row per curve.

    MACs to come lie between the floor and those now, in logarithms, as far from the floor as the
    whole curves ended on average. All curves but the last are whole.
    """
    logs = np.array([curve.logs[:, step - 1] for curve in curves])
    floor = np.log([curve.floor for curve in curves])
    ended = np.log([curve.final_macs or 1.0 for curve in curves[:-1]])
    now, then = logs[:-1, 2] - floor[:-1], ended - floor[:-1]
    power = float(now @ now)
    share = min(max(float(now @ then) / power, 0.0), 1.0) if power > 1e-12 else 0.0
    logs[:, 2] = floor + share * np.maximum(logs[:, 2] - floor, 0.0)
    return logs
