"""What a handful of seeds lets us say: t-intervals, Welch's test, Holm's correction, power."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Correct = NDArray[np.bool_]
MOST_SEEDS = 100
"""Further seeds per method, above which `more_seeds` counts no further."""


@dataclass(frozen=True)
class Summary:
    """Mean over seeds with its t-interval; a number that `n` does not allow is None."""

    n: int
    mean: float | None
    sd: float | None
    lo: float | None
    hi: float | None


@dataclass(frozen=True)
class Difference:
    """Mean of one sample less the mean of another, with Welch's interval and p-value."""

    state: Literal["tested", "not testable", "too few seeds"]
    difference: float | None
    lo: float | None = None
    hi: float | None = None
    p: float | None = None


def summary(values: Sequence[float], confidence: float = 0.95) -> Summary:
    """The mean of independent seeds; sd from two seeds on, a t-interval from three.

    The bootstrap is no substitute here: at n=3 its 95 % interval covers 70 %.
    """
    n = len(values)
    if n == 0:
        return Summary(0, None, None, None, None)
    mean, variance = _moments(values)
    if n == 1:
        return Summary(1, mean, None, None, None)
    sd = float(np.sqrt(variance))
    if n == 2:
        return Summary(n, mean, sd, None, None)
    half = _quantile(confidence, n - 1) * sd / float(np.sqrt(n))
    return Summary(n, mean, sd, mean - half, mean + half)


def welch(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Difference:
    """`mean(a) - mean(b)` without assuming equal variances (Welch, 1947).

    `scipy.stats.ttest_ind` gives the same figures, but warns whenever one sample has no spread, as
    few seeds on a small test set often have none. Two samples without any variance are `not
    testable`: a t statistic would be a division by zero, and p = 0 a claim that nothing supports.
    """
    if not a or not b:
        return Difference("too few seeds", None)
    (mean_a, variance_a), (mean_b, variance_b) = _moments(a), _moments(b)
    difference = mean_a - mean_b
    if min(len(a), len(b)) < 2:
        return Difference("too few seeds", difference)
    part_a, part_b = variance_a / len(a), variance_b / len(b)
    error = float(np.sqrt(part_a + part_b))
    if error < 1e-12:  # accuracies are fractions of a test set: this is no spread but rounding
        return Difference("not testable", difference)
    weight = part_a / (part_a + part_b)
    freedom = 1 / (weight**2 / (len(a) - 1) + (1 - weight) ** 2 / (len(b) - 1))
    half = _quantile(confidence, freedom) * error
    p = float(2 * _scipy().stats.t.sf(abs(difference) / error, freedom))
    return Difference("tested", difference, difference - half, difference + half, p)


def crossed(a: Correct, b: Correct, confidence: float = 0.95) -> Difference:
    """`welch` for new test images too: seeds and images are both samples, the images shared.

    From whether each seed (axis 0) is right on each image (axis 1), the same images in `a` and `b`.
    Two crossed random effects: the variance of the seeds' means, that of the images' mean
    differences, less what both hold, the interaction; degrees of freedom by Satterthwaite (1946).
    A bootstrap of so few seeds would promise too much. Never shorter than Welch's interval, and
    without a p-value: no test is declared on it.
    """
    same_images = welch(a.mean(axis=1).tolist(), b.mean(axis=1).tolist(), confidence)
    difference = same_images.difference
    if difference is None or min(len(a), len(b)) < 2 or a.shape[1] < 2:
        return Difference("too few seeds", difference)
    images = a.shape[1]
    seeds = [(float(s.mean(axis=1).var(ddof=1)) / len(s), len(s) - 1) for s in (a, b)]
    apart = a.mean(axis=0) - b.mean(axis=0)
    parts = [*seeds, (float(apart.var(ddof=1)) / images, images - 1)]
    both = sum(_interaction(sample) / sample.size for sample in (a, b))
    largest = max(seeds[0][0] + seeds[1][0], parts[2][0])
    square = max(sum(part for part, _ in parts) - both, largest)
    if square < 1e-24:
        return Difference("not testable", difference)
    freedom = square**2 / sum(part**2 / free for part, free in parts)
    half = _quantile(confidence, freedom) * float(np.sqrt(square))
    low, high = difference - half, difference + half
    if same_images.lo is not None and same_images.hi is not None:
        low, high = min(low, same_images.lo), max(high, same_images.hi)
    return Difference("tested", difference, low, high)


def crossed_mean(values: Floats, confidence: float = 0.95) -> Summary:
    """The mean of a figure of each seed (axis 0) on each image (axis 1), both of them samples.

    Two crossed random effects as in `crossed`, for one sample, paired as its values are. Of a
    single seed the interval is over images alone; it is never shorter than the one over seeds.
    """
    seeds, images = values.shape
    mean = float(values.mean())
    by_image = (float(values.mean(axis=0).var(ddof=1)) / images, images - 1) if images > 1 else None
    if by_image is None:
        return Summary(seeds, mean, None, None, None)
    parts, both = [by_image], 0.0
    if seeds > 1:
        parts.append((float(values.mean(axis=1).var(ddof=1)) / seeds, seeds - 1))
        both = _interaction(values) / values.size
    square = max(sum(part for part, _ in parts) - both, *(part for part, _ in parts), 0.0)
    sd = float(values.mean(axis=1).std(ddof=1)) if seeds > 1 else None
    if square < 1e-24:
        return Summary(seeds, mean, sd, mean, mean)
    freedom = square**2 / sum(part**2 / free for part, free in parts)
    half = _quantile(confidence, freedom) * float(np.sqrt(square))
    over_seeds = summary(values.mean(axis=1).tolist(), confidence)
    low = min(mean - half, mean if over_seeds.lo is None else over_seeds.lo)
    high = max(mean + half, mean if over_seeds.hi is None else over_seeds.hi)
    return Summary(seeds, mean, sd, low, high)


def holm(p_values: Sequence[float | None], *, looks: int = 1) -> list[float | None]:
    """Each p-value adjusted for being one of a family (Holm, 1979); None is not in the family.

    Of a family that may be looked at several times, while seeds are added, each look has its share
    of the level (Bonferroni over the looks).
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    floor = 0.0
    for done, (p, i) in enumerate(known):
        floor = max(floor, min(1.0, looks * (len(known) - done) * p))
        adjusted[i] = floor
    return adjusted


def detectable(seeds: int, level: float = 0.05, power: float = 0.8) -> float | None:
    """The least difference that Welch's two-sided test finds with probability `power`.

    In seed-to-seed standard deviations, alike on both sides, for normal samples of `seeds` each;
    None under two seeds. Given the ratio of the two variances, the statistic is noncentral t with
    `2 (seeds - 1)` degrees of freedom, whatever the ratio, and Welch's critical value depends on
    the ratio alone, which is beta distributed: so this is exact but for the quadrature. Taking the
    test's degrees of freedom as fixed would promise a third more than three seeds can tell apart
    at level 0.01.
    """
    if seeds < 2:
        return None
    stats = _scipy().stats
    shape = (seeds - 1) / 2
    ratio = stats.beta.ppf((np.arange(128) + 0.5) / 128, shape, shape)
    freedom = (seeds - 1) / (ratio**2 + (1 - ratio) ** 2)
    critical = stats.t.isf(level / 2, freedom)

    def short_of_it(difference: float) -> float:
        shift = difference * np.sqrt(seeds / 2)
        return float(np.mean(stats.nct.sf(critical, 2 * (seeds - 1), shift))) - power

    high = 1.0
    while short_of_it(high) < 0:
        high *= 2
    return float(_scipy().optimize.brentq(short_of_it, 0.0, high, xtol=1e-6))


def more_seeds(
    a: Sequence[float],
    b: Sequence[float],
    *,
    confidence: float = 0.95,
    tests: int = 1,
    power: float = 0.8,
    most: int = MOST_SEEDS,
) -> int | None:
    """Further seeds of each, after which Welch's test separates `a` from `b` with this power.

    If the observed means and spreads are the true ones: a guess, and a rough one from few seeds.
    Of several tests each has to pass at the level of the first step of Holm's correction. Where
    the samples differ in size the shorter one is brought to the longer one first, and the answer
    counts from the longer. `most + 1` means more than `most`; None that this spread cannot say:
    under two seeds, equal means, or no spread at all.
    """
    if min(len(a), len(b)) < 2:
        return None
    (mean_a, variance_a), (mean_b, variance_b) = _moments(a), _moments(b)
    difference = abs(mean_a - mean_b)
    if difference < 1e-12 or variance_a + variance_b < 1e-24:
        return None
    now = max(len(a), len(b))
    seeds = np.arange(now + 1, now + most + 1)
    reached = _power(difference, variance_a, variance_b, seeds, (1 - confidence) / tests) >= power
    return int(np.argmax(reached)) + 1 if reached.any() else most + 1


def _power(
    difference: float, variance_a: float, variance_b: float, seeds: Counts, level: float
) -> Floats:
    """Chance that a two-sided Welch test with so many seeds on either side rejects at `level`.

    Through F = t^2: scipy's noncentral t is NaN at places (at 4 degrees and a shift of 10, say).
    """
    stats = _scipy().stats
    weight = variance_a / (variance_a + variance_b)
    freedom = (seeds - 1) / (weight**2 + (1 - weight) ** 2)
    shift = difference**2 * seeds / (variance_a + variance_b)
    edge = stats.t.ppf(1 - level / 2, freedom) ** 2
    rejected: Floats = stats.ncf.sf(edge, 1, freedom, shift)
    return rejected


def _interaction(by_seed: Correct | Floats) -> float:
    """Mean square of what neither the seed nor the image explains."""
    values = by_seed.astype(np.float64)
    rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    freedom = (len(values) - 1) * (values.shape[1] - 1)
    return float((rest**2).sum() / freedom)


def _moments(values: Sequence[float]) -> tuple[float, float]:
    """Mean and unbiased variance; equal values have exactly none."""
    array = np.asarray(values, dtype=np.float64)
    if np.ptp(array) == 0:
        return float(array[0]), 0.0
    return float(array.mean()), float(array.var(ddof=1))


def _quantile(confidence: float, freedom: float) -> float:
    return float(_scipy().stats.t.ppf(0.5 + confidence / 2, freedom))


def _scipy() -> Any:
    """scipy, once it is needed: workers read what a board is made of, and never test."""
    import scipy.optimize  # noqa: PLC0415  # loads slowly
    import scipy.stats  # noqa: PLC0415

    return scipy
