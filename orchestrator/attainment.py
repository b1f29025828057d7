"""Empirical attainment surfaces: what at least one, half and all of the seeds' fronts attain.

Every seed of a method has a front of its own. The surface of level k is, at each cost, the accuracy
that at least k of the fronts reach at or under it (Grunert da Fonseca et al., 2001; moocore).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import moocore
import numpy as np

from orchestrator.front import check

Front = Sequence[tuple[float, float]]
"""Points of (MACs, accuracy); dominated ones change nothing."""
Surface = tuple[tuple[float, float], ...]
"""Corners of (MACs, accuracy) of a step function that holds from its MACs on, both rising."""


@dataclass(frozen=True)
class Attainment:
    """The extremes and the median over the fronts of `seeds` seeds."""

    seeds: int
    best: Surface
    """Attained by at least one."""
    median: Surface
    """By at least half of them."""
    worst: Surface
    """By all."""


def attainment(fronts: Sequence[Front]) -> Attainment | None:
    """The surfaces over one front per seed; None without a seed.

    Raises:
        ValueError: a front without a point, or a point that the gate would not have let through.
    """
    seeds = len(fronts)
    if not seeds:
        return None
    found = surfaces(fronts)
    return Attainment(seeds, found[0], found[(seeds + 1) // 2 - 1], found[-1])


def surfaces(fronts: Sequence[Front]) -> list[Surface]:
    """The surface of each level, from one front to all of them.

    Raises:
        ValueError: a front without a point, or a point that the gate would not have let through.
    """
    if not all(fronts):
        raise ValueError("every seed has a point, but a front is empty")
    points = [(m, -a) for front in fronts for m, a in front]
    check([m for m, _ in points], [-a for _, a in points])
    sets = np.repeat(np.arange(len(fronts)), [len(front) for front in fronts])
    found = moocore.eaf(np.array(points, float), sets)
    levels = np.rint(found[:, 2] * len(fronts) / 100).astype(int)
    return [
        tuple(sorted((float(m), -float(a)) for m, a, _ in found[levels == level]))
        for level in range(1, len(fronts) + 1)
    ]
