"""Cells against cells: gains over the baseline, all pairs, the noise floor, P(best)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from orchestrator.board.cells import Grid, values
from orchestrator.board.model import INTERVAL_FROM, Cell, Comparison, Drawn
from orchestrator.board.stats.bootstrap import Counts, best_probability
from orchestrator.board.stats.intervals import Difference, crossed, holm, more_seeds, welch
from orchestrator.record.evidence import Correct, Correctness

Pair = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What all comparisons of a board are made on."""

    controls: Mapping[str, str]
    confidence: float
    looks: int = 1
    """How often the seeds may be looked at: Bonferroni over the looks, whichever is the last."""
    floor: float | None = None
    """The noise floor, as a fraction."""
    correct: Correctness = field(default_factory=dict)

    @property
    def level(self) -> float:
        """Confidence of one look's intervals, so that those of all looks hold with `confidence`."""
        return 1 - (1 - self.confidence) / self.looks


def gains(
    names: Sequence[str], grid: Grid, terms: Terms, *, baseline: str, primary: float
) -> tuple[Comparison, ...]:
    """Every method against the baseline at every budget; tested at the primary budget alone."""
    others = [(name, baseline) for name in names if name != baseline]
    found: list[Comparison] = []
    for budget in _ladder(grid):
        family = _compared(others, budget, grid, terms)
        if budget != primary:
            family = [replace(c, p_holm=None, more=None) for c in family]
        found += family
    return tuple(found)


def pairs(names: Sequence[str], grid: Grid, terms: Terms) -> tuple[Comparison, ...]:
    """All pairs of methods, and each control with what it repeats; Holm within a budget."""
    real = [name for name in names if name not in terms.controls]
    own = [(original, control) for control, original in sorted(terms.controls.items())]
    family = [*combinations(real, 2), *own]
    return tuple(
        comparison
        for budget in _ladder(grid)
        for comparison in _compared(family, budget, grid, terms)
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
    names: Sequence[str],
    budget: float,
    grid: Grid,
    images: int | None,
    correct: Correctness,
) -> tuple[dict[tuple[str, float], float], Drawn | None]:
    """P(best) of each method at one budget, among those whose seeds allow an interval.

    With what was drawn: the test images that the methods share, where it is known of every run
    which images it had right. Its random numbers are always the same. Empty where fewer than two
    methods compete.
    """
    cells = {n: grid[n, budget] for n in names if grid[n, budget].n >= INTERVAL_FROM}
    if len(cells) < 2:
        return {}, None
    known = {name: right(cell, correct) for name, cell in cells.items()}
    shared = {name: own for name, own in known.items() if own is not None}
    samples: Mapping[str, Correct | Counts]
    drawn: Drawn
    if len(shared) == len(cells) and len({own.shape[1] for own in shared.values()}) == 1:
        samples, drawn = shared, "predictions"
    else:
        samples = {name: Counts(values(cell), images) for name, cell in cells.items()}
        drawn = "seeds" if images is None else "counts"
    found = best_probability(samples, generator=np.random.default_rng(0))
    return {(name, budget): share for name, share in found.items()}, drawn


def right(cell: Cell, correct: Correctness) -> Correct | None:
    """Which test images each of a cell's seeds has right, or None where one is not known."""
    known = [correct.get((row.trial, row.point)) for row in cell.seeds]
    rows = [own for own in known if own is not None]
    if not rows or len(rows) < len(known) or len({len(own) for own in rows}) > 1:
        return None
    return np.array(rows, bool)


def _ladder(grid: Grid) -> list[float]:
    return sorted({budget for _, budget in grid})


def _compared(family: Sequence[Pair], budget: float, grid: Grid, terms: Terms) -> list[Comparison]:
    """Welch's test on each pair at one budget, Holm over those without a control."""
    cells = [(grid[a, budget], grid[b, budget]) for a, b in family]
    samples = [(values(a), values(b)) for a, b in cells]
    results = [welch(a, b, terms.level) for a, b in samples]
    real = [not ({a, b} & terms.controls.keys()) for a, b in family]
    adjusted = holm(
        [r.p if tested else None for r, tested in zip(results, real, strict=True)],
        looks=terms.looks,
    )
    tests = terms.looks * sum(p is not None for p in adjusted)
    found = []
    for pair, own, sample, result, p in zip(family, cells, samples, results, adjusted, strict=True):
        need = None
        if p is not None:
            apart = p < 1 - terms.confidence
            need = 0 if apart else more_seeds(*sample, confidence=terms.confidence, tests=tests)
        known = terms.floor is not None and result.difference is not None
        noise = known and abs(result.difference or 0.0) <= (terms.floor or 0.0) + 1e-12
        images = _images(own, terms)
        found.append(Comparison(*pair, budget, result, p, more=need, noise=noise, images=images))
    return found


def _images(pair: tuple[Cell, Cell], terms: Terms) -> Difference | None:
    """The difference for new images too, where every run's predictions are kept."""
    a, b = (right(cell, terms.correct) for cell in pair)
    if a is None or b is None or a.shape[1] != b.shape[1]:
        return None
    return crossed(a, b, terms.level)
