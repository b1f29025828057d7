"""Fronts of accuracy over MACs.

moocore does the dominance and the volumes. It neither raises on NaN or inf nor treats them right
(a NaN row stays on the front and throws real points out), so everything passes the gate first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MACS_LIMIT = 1e18
"""Above this a count is no measurement; MLflow turns inf into 1.797e308."""
Front = Sequence[tuple[float, float]]
"""Points of (MACs, accuracy); dominated ones change nothing."""
Surface = tuple[tuple[float, float], ...]
"""Corners of (MACs, accuracy) of a step function that holds from its MACs on, both rising."""


def front(macs: Sequence[float], accuracy: Sequence[float]) -> list[int]:
    """Indices of the points that no other point dominates, by rising MACs; of equals the first.

    Raises:
        ValueError: a point that the gate would not have let through.
    """
    if not len(macs):
        return []
    check(macs, accuracy)
    points = np.column_stack([np.asarray(macs, float), np.asarray(accuracy, float)])
    leading = _moocore().is_nondominated(points, maximise=[False, True])
    return sorted(np.flatnonzero(leading).tolist(), key=lambda i: macs[i])


def mean_best_accuracy(
    macs: Sequence[float],
    accuracy: Sequence[float],
    *,
    low: float,
    high: float,
    chance: float = 0.0,
) -> float | None:
    """Best accuracy at or under B, averaged over log B in [low, high] MACs; `chance` where none.

    The hypervolume in readable units: chance + HV / (log high - log low). It is secondary, never
    a rank: its winner flips with the range. None where the range has no width.

    Raises:
        ValueError: a point that the gate would not have let through.
    """
    check(macs, accuracy)
    if not 0 < low < high:
        return None
    inside = [
        (math.log(max(m, low)), -a)
        for m, a in zip(macs, accuracy, strict=True)
        if m <= high and a > chance
    ]
    if not inside:
        return chance
    volume = _moocore().hypervolume(np.array(inside, float), ref=[math.log(high), -chance])
    return chance + float(volume) / (math.log(high) - math.log(low))


def check(macs: Sequence[float], accuracy: Sequence[float]) -> None:
    """Check points that moocore would accept in silence.

    Raises:
        ValueError: a point that the gate would not have let through.
    """
    for m, a in zip(macs, accuracy, strict=True):
        flaw = macs_flaw("macs", m) or accuracy_flaw("accuracy", a)
        if flaw:
            raise ValueError(f"clean the points first: {flaw}")


def accuracy_flaw(name: str, value: float | None) -> str | None:
    """Why `value` cannot be an accuracy in [0, 1], or None."""
    if value is None or math.isnan(value):
        return f"{name} is missing"
    if not 0 <= value <= 1:
        return f"{name} must lie in [0, 1], got {value:g}"
    return None


def macs_flaw(name: str, value: float | None) -> str | None:
    """Why `value` cannot be a MAC count, or None."""
    if value is None or math.isnan(value):
        return f"{name} is missing"
    if not 0 < value < MACS_LIMIT:
        return f"{name} must lie in (0, {MACS_LIMIT:g}), got {value:g}"
    return None


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
    levels = surfaces(fronts)
    return Attainment(seeds, levels[0], levels[(seeds + 1) // 2 - 1], levels[-1])


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
    corners = _moocore().eaf(np.array(points, float), sets)
    levels = np.rint(corners[:, 2] * len(fronts) / 100).astype(int)
    return [
        tuple(sorted((float(m), -float(a)) for m, a, _ in corners[levels == level]))
        for level in range(1, len(fronts) + 1)
    ]


def _moocore() -> Any:
    """moocore, once it is needed: workers read what a board is made of, and draw no front."""
    import moocore  # noqa: PLC0415  # loads slowly

    return moocore
