"""Means with their intervals: over runs, and over runs and test images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.board.stats.contrasts import paired
from orchestrator.board.stats.units import Floats, Units, moments, quantile


@dataclass(frozen=True)
class Summary:
    """Mean over runs with its interval; a number that `n` does not allow is None."""

    n: int
    mean: float | None
    sd: float | None
    lo: float | None
    hi: float | None


def summary(values: Sequence[float], confidence: float = 0.95) -> Summary:
    """The mean of independent seeds; sd from two seeds on, a t-interval from three.

    The bootstrap is no substitute here: at n=3 its 95 % interval covers 70 %.
    """
    n = len(values)
    if n == 0:
        return Summary(0, None, None, None, None)
    mean, variance = moments(values)
    if n == 1:
        return Summary(1, mean, None, None, None)
    sd = float(np.sqrt(variance))
    if n == 2:
        return Summary(n, mean, sd, None, None)
    half = quantile(confidence, n - 1) * sd / float(np.sqrt(n))
    return Summary(n, mean, sd, mean - half, mean + half)


def accuracy(units: Units, confidence: float = 0.95) -> Summary:
    """A mean accuracy, for new units and new test images; from three units on.

    Its variance is that over units and over images, less the interaction, which both hold; the
    interval is Wilson's (1927) with as many images as would give that variance, and with Student's
    quantile. It never leaves [0, 1], and units that are all alike are no certainty.
    """
    over_units = summary(units.accuracies, confidence)
    if units.n < 3:
        return over_units
    variance, freedom = _variance(units)
    images = units.images
    share = units.mean if images is None else (units.mean * images + 0.5) / (images + 1)
    if variance <= 0 or not 0 < share < 1:
        return Summary(units.n, units.mean, over_units.sd, None, None)
    size = share * (1 - share) / variance
    size = size if images is None else min(size, images * units.n)
    square = quantile(confidence, freedom) ** 2
    middle = (units.mean + square / (2 * size)) / (1 + square / size)
    half = square * units.mean * (1 - units.mean) / size + (square / (2 * size)) ** 2
    half = float(np.sqrt(max(half, 0.0))) / (1 + square / size)
    return Summary(
        units.n, units.mean, over_units.sd, max(0.0, middle - half), min(1.0, middle + half)
    )


def _variance(units: Units) -> tuple[float, float]:
    """Variance of a mean accuracy over units and images, and its degrees of freedom."""
    parts, both = [(units.spread, units.n - 1)], 0.0
    if units.correct is not None and units.correct.shape[1] > 1:
        n = units.correct.shape[1]
        images = float(units.correct.mean(axis=0).var(ddof=1)) / n + (n + 1) ** -2 / 2
        parts, both = [*parts, (images, n - 1)], units.interaction
    elif units.images is not None and units.images > 1:
        parts.append((units.of_images, units.images - 1))
    square = max(sum(part for part, _ in parts) - both, *(part for part, _ in parts), 0.0)
    freedom = square**2 / sum(part**2 / free for part, free in parts) if square else units.n - 1
    return square, freedom


def crossed_mean(values: Floats, confidence: float = 0.95) -> Summary:
    """The mean of a figure of each unit (axis 0) on each image (axis 1), both of them samples.

    Of a single unit the interval is over images alone; it is never shorter than that over units.
    """
    units = len(values)
    found = paired(values).at(confidence)
    sd = float(np.sqrt(moments(values.mean(axis=1).tolist())[1])) if units > 1 else None
    return Summary(units, float(values.mean()), sd, found.lo, found.hi)
