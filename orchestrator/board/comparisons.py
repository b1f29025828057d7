"""Samples against samples: gains over the baseline, all pairs, the noise floor, P(best)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from orchestrator.board.cells import Grid, Sample
from orchestrator.board.model import INTERVAL_FROM, Comparison, Drawn
from orchestrator.board.rules import Rules
from orchestrator.board.stats.bootstrap import Counts, best_probability
from orchestrator.board.stats.intervals import Correct, Difference, crossed, holm, more_seeds, welch
from orchestrator.record.evidence import Images

Pair = tuple[str, str]


@dataclass(frozen=True)
class Terms:
    """What all comparisons of a board are made on."""

    rules: Rules
    floor: float | None
    """The noise floor, as a fraction."""
    images: Images = field(default_factory=dict)


@dataclass(frozen=True)
class Contest:
    """P(best) at one budget, by method; empty where fewer than two methods compete."""

    shares: Mapping[str, float]
    drawn: Drawn | None
    """What the shares were drawn from."""


def gains(names: Sequence[str], grid: Grid, terms: Terms) -> tuple[Comparison, ...]:
    """Every method against the baseline at every budget; tested at the primary budget alone."""
    rules = terms.rules
    others = [(name, rules.baseline) for name in names if name != rules.baseline]
    comparisons: list[Comparison] = []
    for budget in _budgets(grid):
        family = _compared(others, budget, grid, terms)
        if budget != rules.primary:
            family = [replace(c, p_holm=None, more=None) for c in family]
        comparisons += family
    return tuple(comparisons)


def pairs(names: Sequence[str], grid: Grid, terms: Terms) -> tuple[Comparison, ...]:
    """All pairs of methods, and each control with what it repeats; Holm within a budget."""
    controls = terms.rules.controls
    contenders = [name for name in names if name not in controls]
    repeated = [(original, control) for control, original in sorted(controls.items())]
    family = [*combinations(contenders, 2), *repeated]
    return tuple(
        comparison
        for budget in _budgets(grid)
        for comparison in _compared(family, budget, grid, terms)
    )


def noise_floor(grid: Grid, controls: Mapping[str, str]) -> float | None:
    """The largest gap of a method to its own repetition at any budget; None without a control.

    One draw of the noise per budget is little, so the largest counts for all of them.
    """
    gaps = []
    for control, original in controls.items():
        for budget in _budgets(grid):
            one, other = (grid[name, budget].mean for name in (original, control))
            if one is not None and other is not None:
                gaps.append(abs(one - other))
    return max(gaps, default=None)


def contest(family: Sequence[Sample], test_images: int | None, images: Images) -> Contest:
    """P(best) of each method at one budget, among those whose seeds allow an interval.

    The test images that the methods share are drawn too, where it is known of every run which
    images it had right. The random numbers are always the same.
    """
    competing = {sample.method: sample for sample in family if sample.n >= INTERVAL_FROM}
    if len(competing) < 2:
        return Contest({}, None)
    correctness = {name: right(sample, images) for name, sample in competing.items()}
    shared = {name: of_seeds for name, of_seeds in correctness.items() if of_seeds is not None}
    draws: Mapping[str, Correct | Counts]
    drawn: Drawn
    if len(shared) == len(competing) and len({c.shape[1] for c in shared.values()}) == 1:
        draws, drawn = shared, "predictions"
    else:
        draws = {name: Counts(sample.accuracies, test_images) for name, sample in competing.items()}
        drawn = "seeds" if test_images is None else "counts"
    return Contest(best_probability(draws, generator=np.random.default_rng(0)), drawn)


def right(sample: Sample, images: Images) -> Correct | None:
    """Which test images each seed of a sample has right, or None where that is not known of one."""
    seeds = [images.get((row.trial, row.point)) for row in sample.seeds]
    known = [per_image.correct for per_image in seeds if per_image is not None]
    if not known or len(known) < len(seeds) or len({len(correct) for correct in known}) > 1:
        return None
    return np.array(known, bool)


def _budgets(grid: Grid) -> list[float]:
    return sorted({budget for _, budget in grid})


def _compared(family: Sequence[Pair], budget: float, grid: Grid, terms: Terms) -> list[Comparison]:
    """Welch's test on each pair at one budget, Holm over those without a control."""
    rules = terms.rules
    samples = [(grid[a, budget], grid[b, budget]) for a, b in family]
    results = [welch(a.accuracies, b.accuracies, rules.level) for a, b in samples]
    tested = [not ({a, b} & rules.controls.keys()) for a, b in family]
    adjusted = holm(
        [result.p if counts else None for result, counts in zip(results, tested, strict=True)],
        looks=rules.looks,
    )
    tests = rules.looks * sum(p is not None for p in adjusted)

    def more(a: Sample, b: Sample, p: float | None) -> int | None:
        if p is None:
            return None
        if p < 1 - rules.confidence:
            return 0
        return more_seeds(a.accuracies, b.accuracies, confidence=rules.confidence, tests=tests)

    return [
        Comparison(
            *pair,
            budget,
            result,
            p,
            more=more(a, b, p),
            noise=_is_noise(result, terms.floor),
            images=_images(a, b, terms),
        )
        for pair, (a, b), result, p in zip(family, samples, results, adjusted, strict=True)
    ]


def _is_noise(result: Difference, floor: float | None) -> bool:
    if floor is None or result.difference is None:
        return False
    return abs(result.difference) <= floor + 1e-12


def _images(a: Sample, b: Sample, terms: Terms) -> Difference | None:
    """The difference for new images too, where every run's predictions are kept."""
    ours, theirs = (right(sample, terms.images) for sample in (a, b))
    if ours is None or theirs is None or ours.shape[1] != theirs.shape[1]:
        return None
    return crossed(ours, theirs, terms.rules.level)
