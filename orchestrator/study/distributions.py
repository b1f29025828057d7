"""Where a hyperparameter's value may lie: Optuna's distributions, and their unit interval."""

import math
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from methods.values import Scalar

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution
"""Where a value may lie."""


def ends(distribution: Distribution) -> tuple[Scalar, ...]:
    """Every choice of a distribution, or its least and its largest number."""
    if isinstance(distribution, CategoricalDistribution):
        return tuple(choice for choice in distribution.choices if choice is not None)
    return distribution.low, distribution.high


def ranged(distribution: Distribution) -> str:
    """A distribution in words."""
    if isinstance(distribution, CategoricalDistribution):
        return " | ".join(str(choice) for choice in distribution.choices)
    low, high, step = distribution.low, distribution.high, distribution.step
    log, whole = distribution.log, isinstance(distribution.low, int)
    stepped = step is not None and not log and not (whole and step == 1)
    return f"{low:g} to {high:g}" + (", log" if log else f", step {step:g}" if stepped else "")


def spread(u: float, distribution: Distribution) -> Scalar:
    """The value below which a fraction `u` of a distribution lies; choices count alike."""
    if isinstance(distribution, CategoricalDistribution):
        return ends(distribution)[int(u * len(distribution.choices))]
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.log:
        value = float(low * (high / low) ** u)
        return min(round(value), high) if isinstance(distribution, IntDistribution) else value
    if step is None:
        return low + u * (high - low)
    value = low + step * int(u * (math.floor((high - low) / step + 1e-9) + 1))
    return int(value) if isinstance(distribution, IntDistribution) else float(value)


def rank(value: Any, distribution: Distribution) -> float:
    """The middle of what `spread` sends to a value."""
    if isinstance(distribution, CategoricalDistribution):
        return (distribution.choices.index(value) + 0.5) / len(distribution.choices)
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.log:
        return math.log(value / low) / math.log(high / low)
    if step is None:
        return float((value - low) / (high - low))
    count = math.floor((high - low) / step + 1e-9) + 1
    return float((math.floor((value - low) / step + 0.5) + 0.5) / count)


def inside(value: Any, distribution: Distribution) -> Scalar:
    """The nearest value of a distribution; its first choice where this is none."""
    if isinstance(distribution, CategoricalDistribution):
        return value if value in distribution.choices else ends(distribution)[0]
    low, high, step = distribution.low, distribution.high, distribution.step
    clipped = min(max(value, low), high)
    if step and not distribution.log:
        clipped = min(low + math.floor((clipped - low) / step + 0.5) * step, high)
    return int(clipped) if isinstance(distribution, IntDistribution) else float(clipped)
