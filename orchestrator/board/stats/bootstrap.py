"""P(best): how often each method has the highest mean, by a bootstrap over seeds and test images.

It stands beside the intervals, never instead of them: a bootstrap over few seeds is too sure of
itself (its intervals cover 70 % at three seeds, 84 % at five, where 95 % is meant).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.board.stats.intervals import Correct

DRAWS = 10_000
"""Resamples; the figure's own error is half a point at most."""
CHUNK = 64
"""Resamples at once: their image weights are held in memory."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """The accuracies of a method's seeds, as fractions, where what each image gave is not kept."""

    accuracies: Sequence[float]
    images: int | None
    """Test images; None leaves the images out and resamples seeds alone."""


def best_probability(
    samples: Mapping[str, Correct | Counts],
    *,
    generator: np.random.Generator,
    draws: int = DRAWS,
) -> dict[str, float]:
    """The share of resamples in which each method's mean accuracy is the highest; ties share.

    Every resample draws each method's seeds anew, and the test images once for all the methods
    that have their correctness. Of `Counts` each drawn seed draws its own images, binomially: the
    images that methods share, and find hard together, are then not seen as shared.

    Raises:
        ValueError: a method without a seed, or two that were tested on different images.
    """
    names = sorted(samples)
    widths = {s.shape[1] for s in samples.values() if not isinstance(s, Counts)}
    if len(widths) > 1:
        raise ValueError(f"methods must be tested on the same images, but got {sorted(widths)}")
    if any(_seeds(samples[name]) == 0 for name in names):
        raise ValueError("every method needs a seed")
    shared, counts = _patterns(samples)
    share = np.zeros(len(names))
    for start in range(0, draws, CHUNK):
        weights = _weights(counts, min(CHUNK, draws - start), generator)
        means = np.array([_means(shared[name], weights, generator) for name in names])
        leads = means >= means.max(axis=0, initial=-np.inf) - 1e-12  # methods draws
        share += (leads / leads.sum(axis=0)).sum(axis=1) if names else 0
    return dict(zip(names, (share / draws).tolist(), strict=True))


def _seeds(sample: Correct | Counts) -> int:
    return len(sample.accuracies) if isinstance(sample, Counts) else len(sample)


def _patterns(
    samples: Mapping[str, Correct | Counts],
) -> tuple[dict[str, Correct | Counts], Integers]:
    """The samples with images that all runs treat alike as one, and how many each stands for.

    Most images are right in every run, so that a draw is over hundreds instead of thousands.
    """
    by_image = {n: seeds for n, seeds in sorted(samples.items()) if not isinstance(seeds, Counts)}
    if not by_image:
        return dict(samples), np.zeros(0, np.int64)
    alike, counts = np.unique(np.concatenate(list(by_image.values())), axis=1, return_counts=True)
    parts = np.split(alike, np.cumsum([len(seeds) for seeds in by_image.values()])[:-1])
    return {**samples, **dict(zip(by_image, parts, strict=True))}, counts


def _weights(counts: Integers, draws: int, generator: np.random.Generator) -> Floats:
    """How much of a drawn test set each pattern makes up, a fraction: patterns draws."""
    images = int(counts.sum())
    if not images:
        return np.empty((0, draws))
    drawn = generator.multinomial(images, counts / images, size=draws)
    fractions: Floats = drawn.T / images
    return fractions


def _means(sample: Correct | Counts, weights: Floats, generator: np.random.Generator) -> Floats:
    """The method's mean accuracy in each resample."""
    seeds, draws = _seeds(sample), weights.shape[1]
    drawn = generator.integers(seeds, size=(seeds, draws))
    if not isinstance(sample, Counts):
        values = sample.astype(np.float64) @ weights  # seeds draws
        values = np.take_along_axis(values, drawn, axis=0)
    else:
        values = np.asarray(sample.accuracies, np.float64)[drawn]
        if sample.images is not None:
            values = generator.binomial(sample.images, values) / sample.images
    means: Floats = values.mean(axis=0)
    return means
