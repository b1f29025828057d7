"""Cells against cells: gains over the baseline, all pairs, the noise floor, P(best)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from orchestrator.board import INTERVAL_FROM, Comparison
from orchestrator.bootstrap import Counts, best_probability
from orchestrator.cells import Grid, values
from orchestrator.intervals import holm, more_seeds, welch

Pair = tuple[str, str]


def gains(
    names: Sequence[str],
    grid: Grid,
    *,
    baseline: str,
    primary: float,
    controls: Mapping[str, str],
    confidence: float,
    floor: float | None,
) -> tuple[Comparison, ...]:
    """Every method against the baseline at every budget; tested at the primary budget alone."""
    others = [(name, baseline) for name in names if name != baseline]
    found: list[Comparison] = []
    for budget in _ladder(grid):
        family = _compared(
            others, budget, grid, controls=controls, confidence=confidence, floor=floor
        )
        if budget != primary:
            family = [replace(c, p_holm=None, more=None) for c in family]
        found += family
    return tuple(found)


def pairs(
    names: Sequence[str],
    grid: Grid,
    *,
    controls: Mapping[str, str],
    confidence: float,
    floor: float | None,
) -> tuple[Comparison, ...]:
    """All pairs of methods, and each control with what it repeats; Holm within a budget."""
    real = [name for name in names if name not in controls]
    own = [(original, control) for control, original in sorted(controls.items())]
    family = [*combinations(real, 2), *own]
    return tuple(
        comparison
        for budget in _ladder(grid)
        for comparison in _compared(
            family, budget, grid, controls=controls, confidence=confidence, floor=floor
        )
    )


def noise_floor(grid: Grid, controls: Mapping[str, str]) -> float | None:
    """The largest gap of a method to its own repetition at any budget; None without a control.

    One draw of the noise per budget is little, so the largest counts for all of them.
    """
    gaps = []
    for control, original in controls.items():
        for budget in _ladder(grid):
            one, other = (grid[name, budget].accuracy.mean for name in (original, control))
            if one is not None and other is not None:
                gaps.append(abs(one - other))
    return max(gaps, default=None)


def contest(
    names: Sequence[str], budget: float, grid: Grid, images: int | None
) -> dict[tuple[str, float], float]:
    """P(best) of each method at one budget, among those whose seeds allow an interval.

    Its random numbers are always the same. Empty where fewer than two methods compete.
    """
    samples = {
        name: Counts(values(grid[name, budget]), images)
        for name in names
        if grid[name, budget].n >= INTERVAL_FROM
    }
    if len(samples) < 2:
        return {}
    found = best_probability(samples, generator=np.random.default_rng(0))
    return {(name, budget): share for name, share in found.items()}


def _ladder(grid: Grid) -> list[float]:
    return sorted({budget for _, budget in grid})


def _compared(
    family: Sequence[Pair],
    budget: float,
    grid: Grid,
    *,
    controls: Mapping[str, str],
    confidence: float,
    floor: float | None,
) -> list[Comparison]:
    """Welch's test on each pair at one budget, Holm over those without a control."""
    samples = [(values(grid[a, budget]), values(grid[b, budget])) for a, b in family]
    results = [welch(a, b, confidence) for a, b in samples]
    real = [not ({a, b} & controls.keys()) for a, b in family]
    adjusted = holm([r.p if tested else None for r, tested in zip(results, real, strict=True)])
    tests = sum(p is not None for p in adjusted)
    found = []
    for pair, sample, result, p in zip(family, samples, results, adjusted, strict=True):
        need = None
        if p is not None:
            apart = p < 1 - confidence
            need = 0 if apart else more_seeds(*sample, confidence=confidence, tests=tests)
        known = floor is not None and result.difference is not None
        noise = known and abs(result.difference or 0.0) <= (floor or 0.0) + 1e-12
        found.append(Comparison(*pair, budget, result, p, more=need, noise=noise))
    return found
