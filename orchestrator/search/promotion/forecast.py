"""How a trial will end, as its curve so far and the whole curves of its search predict."""

import math
from collections.abc import Sequence

import numpy as np

from orchestrator.search.model.gaussian import Array
from orchestrator.search.promotion.curves import SMALLEST, Curve

ENOUGH = 5
"""Whole curves that the learning-curve model needs."""
UNSURE = 0.3
"""Standard deviation of a final log error that too few curves predict: between that of seeds and
that of configurations, on digits."""
FARTHEST = 3.0
"""Standard deviations beyond which the model counts a curve's features as this far off."""
RIDGE = 1.0
"""Shrinks the model's slopes, in units of one curve's evidence."""


def forecasts(curves: Sequence[Curve], others: Sequence[Curve]) -> Array:
    """Final log MACs, final log error and its standard deviation of each curve."""
    return np.array([forecast(curve, others) for curve in curves], float).reshape(-1, 3)


def forecast(curve: Curve, others: Sequence[Curve]) -> tuple[float, float, float]:
    """Final log MACs, final log error and its standard deviation, as predicted.

    The error to come is linear in the logarithms of the error now, of its mean over the last
    epochs and of the MACs to come: one ridge regression per epoch, on the whole curves. With few of
    them, the error falls from here on as theirs did on average, or stays as it is.
    """
    whole = [other for other in others if other.whole and other.step >= curve.step]
    features = _features([*whole, curve], curve.step)
    known, mine = features[:-1], features[-1]
    target = np.log([max(other.final_error or 0.0, SMALLEST) for other in whole])
    macs = float(mine[2])
    if len(whole) < ENOUGH:
        fall = float((target - known[:, 0]).mean()) if whole else 0.0
        return macs, min(0.0, float(mine[0]) + fall), UNSURE
    centre, spread = known.mean(axis=0), known.std(axis=0) + 1e-9
    known = (known - centre) / spread
    mine = np.clip((mine - centre) / spread, -FARTHEST, FARTHEST)
    inverse = np.linalg.inv(known.T @ known + RIDGE * np.eye(known.shape[1]))
    level = target.mean()
    slopes = inverse @ known.T @ (target - level)
    leverage = 1.0 / len(known) + np.einsum("ij,jk,ik->i", known, inverse, known)
    left_out = (target - level - known @ slopes) / np.maximum(1.0 - leverage, 0.1)
    variance = float(np.mean(left_out**2)) + 1e-6
    deviation = math.sqrt(variance * (1.0 + 1.0 / len(known) + float(mine @ inverse @ mine)))
    return macs, min(0.0, float(level + mine @ slopes)), deviation


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
