"""The number of runs that a difference needs to be detected."""

import numpy as np
from numpy.typing import NDArray

from orchestrator.board.stats.units import Floats, Units, scipy

Counts = NDArray[np.int64]
MOST_SEEDS = 100
"""Largest number of further runs per method that `more_seeds` considers."""


def detectable(seeds: int, level: float = 0.05, power: float = 0.8) -> float | None:
    """The smallest difference that Welch's two-sided test detects with probability `power`.

    In seed-to-seed standard deviations, alike on both sides, for normal samples of `seeds` each;
    None under two seeds. Given the ratio of the two variances, the statistic is noncentral t with
    `2 (seeds - 1)` degrees of freedom, whatever the ratio, and Welch's critical value depends on
    the ratio alone, which is beta distributed: so this is exact but for the quadrature. Taking the
    test's degrees of freedom as fixed would promise a third more than three seeds can detect at
    level 0.01.
    """
    if seeds < 2:
        return None
    special = scipy().special
    shape = (seeds - 1) / 2
    ratio = special.betaincinv(shape, shape, (np.arange(128) + 0.5) / 128)
    freedom = (seeds - 1) / (ratio**2 + (1 - ratio) ** 2)
    beyond = special.stdtrit(freedom, level / 2)  # below 0, where small chances keep their digits

    def short_of_it(difference: float) -> float:
        shift = difference * np.sqrt(seeds / 2)
        return float(np.mean(special.nctdtr(2 * (seeds - 1), -shift, beyond))) - power

    high = 1.0
    while short_of_it(high) < 0:
        high *= 2
    return float(scipy().optimize.brentq(short_of_it, 0.0, high, xtol=1e-6))


def more_seeds(
    a: Units,
    b: Units,
    *,
    level: float = 0.05,
    floor: float = 0.0,
    power: float = 0.8,
    most: int = MOST_SEEDS,
) -> int | None:
    """Further units of each, after which the test separates `a` from `b` with this power.

    If the observed means and spreads are the true ones: a guess, and a rough one from few units.
    `level` is that of the first step of Holm's correction, `floor` the variance that the test
    images leave however many units there are. Where the samples differ in size the shorter one is
    brought to the longer one first, and the answer counts from the longer. `most + 1` means more
    than `most`; None that this spread cannot say: under two units, equal means, or no spread.
    """
    if min(a.n, b.n) < 2:
        return None
    difference = abs(a.mean - b.mean)
    variances = a.spread * a.n, b.spread * b.n
    if difference < 1e-12 or sum(variances) + floor < 1e-24:
        return None
    now = max(a.n, b.n)
    units = np.arange(now + 1, now + most + 1)
    reached = _power(difference, variances, units, level, floor) >= power
    return int(np.argmax(reached)) + 1 if reached.any() else most + 1


def _power(
    difference: float, variances: tuple[float, float], units: Counts, level: float, floor: float
) -> Floats:
    """Chance that a two-sided test with so many units on either side rejects at `level`.

    Through F = t^2: scipy's noncentral t is NaN at places (at 4 degrees and a shift of 10, say).
    The images' own degrees of freedom are many, and taken as endless.
    """
    special = scipy().special
    parts = np.array(variances)[:, None] / units
    square = parts.sum(axis=0) + floor
    held = (parts**2 / (units - 1)).sum(axis=0)
    freedom = np.minimum(square**2 / np.maximum(held, 1e-300), 1e6)
    edge = special.stdtrit(freedom, 1 - level / 2) ** 2
    rejected: Floats = 1 - special.ncfdtr(1, freedom, difference**2 / square, edge)
    return rejected
