"""Fronts of accuracy over MACs.

moocore does the dominance and the volumes. It neither raises on NaN or inf nor treats them right
(a NaN row stays on the front and throws real points out), so everything passes the gate first.
"""

import math
from collections.abc import Sequence

import moocore
import numpy as np

from orchestrator.gate import accuracy_flaw, macs_flaw


def front(macs: Sequence[float], accuracy: Sequence[float]) -> list[int]:
    """Indices of the points that no other point dominates, by rising MACs; of equals the first.

    Raises:
        ValueError: a point that the gate would not have let through.
    """
    if not len(macs):
        return []
    check(macs, accuracy)
    points = np.column_stack([np.asarray(macs, float), np.asarray(accuracy, float)])
    kept = moocore.is_nondominated(points, maximise=[False, True])
    return sorted(np.flatnonzero(kept).tolist(), key=lambda i: macs[i])


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
    volume = moocore.hypervolume(np.array(inside, float), ref=[math.log(high), -chance])
    return chance + float(volume) / (math.log(high) - math.log(low))


def check(macs: Sequence[float], accuracy: Sequence[float]) -> None:
    """Refuses what moocore would pass over in silence.

    Raises:
        ValueError: a point that the gate would not have let through.
    """
    for m, a in zip(macs, accuracy, strict=True):
        flaw = macs_flaw("macs", m) or accuracy_flaw("accuracy", a)
        if flaw:
            raise ValueError(f"clean the points first: {flaw}")
