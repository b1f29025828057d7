"""Comparisons of samples: one family of tests, from which every statement about methods is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from orchestrator.board.cells import Grid, Sample
from orchestrator.board.model import (
    ALL_RUN,
    INTERVAL_FROM,
    TESTED_FROM,
    UNREDUCED,
    Comparison,
    Known,
    NotWorse,
)
from orchestrator.board.rules import Rules
from orchestrator.board.stats.best import best_probability
from orchestrator.board.stats.contrasts import Contrast, contrast, paired
from orchestrator.board.stats.families import Adjusted, holm, letters
from orchestrator.board.stats.power import more_seeds
from orchestrator.board.stats.units import Units
from orchestrator.record.evidence import Images, PerImage, Values

Pair = tuple[str, str]


@dataclass(frozen=True)
class Terms:
    """The terms that all comparisons of a board share."""

    rules: Rules
    floor: float | None
    """The noise floor, as a fraction."""
    images: Images = field(default_factory=dict)

    def units(self, sample: Sample) -> Units:
        """The units of a sample, for the tests."""
        return sample.units(self.images, self.rules.images)


def pairs(names: Sequence[str], grid: Grid, terms: Terms) -> tuple[Comparison, ...]:
    """All pairs of methods, controls beside what they repeat and the baseline, at every budget.

    The pairs of the primary budget that have the units are one family; nothing else is tested.
    """
    rules = terms.rules
    family = [*combinations([name for name in names if name not in rules.controls], 2)]
    for control, original in sorted(rules.controls.items()):
        family += [(other, control) for other in dict.fromkeys((original, rules.baseline))]
    return tuple(
        comparison
        for budget in sorted({budget for _, budget in grid})
        for comparison in _compared(family, budget, grid, terms)
    )


def not_worse(
    names: Sequence[str], grid: Grid, wholes: Mapping[str, Sample], terms: Terms
) -> tuple[NotWorse, ...]:
    """Each method against the baseline and itself, with all run or unreduced, by the margin.

    `wholes` are the runs of what a method is reduced from, by method. All are one family.
    """
    rules = terms.rules
    if rules.margin is None:
        return ()
    base = grid[rules.baseline, rules.primary]
    gaps: dict[tuple[str, str], Contrast] = {}
    for name in names:
        sample = grid[name, rules.primary]
        if name in rules.controls or sample.n < TESTED_FROM:
            continue
        if name != rules.baseline and base.n >= TESTED_FROM:
            gaps[name, rules.baseline] = contrast(terms.units(sample), terms.units(base))
        if (lost := sample.over_images(terms.images, _over_all_run)) is not None:
            gaps[name, ALL_RUN] = paired(lost)
        if name in wholes and min(s.n for s in shared(sample, wholes[name])) >= TESTED_FROM:
            gaps[name, UNREDUCED] = reduced(sample, wholes[name], terms)
    adjusted = holm(
        [gap.not_worse(rules.margin) for gap in gaps.values()],
        level=rules.alpha,
        weight=rules.margin_weight,
    )
    return tuple(
        NotWorse(*key, gap.difference, test.p, shown=test.p < rules.alpha)
        for (key, gap), test in zip(gaps.items(), adjusted, strict=True)
        if test is not None and gap.difference is not None
    )


def reduced(sample: Sample, whole: Sample, terms: Terms) -> Contrast:
    """A method minus its unreduced networks: seeds of one configuration, or search by search.

    Each of several searches is compared with its own unreduced networks, since its choice
    determines both. If the results on each image are not available, the unpaired comparison must
    hold, too.
    """
    sample, whole = shared(sample, whole)
    one, other = terms.units(sample), terms.units(whole)
    apart = contrast(one, other)
    if not sample.repeated or min(one.n, other.n) < 2:
        return apart
    right, whole_right = one.correct, other.correct
    if right is not None and whole_right is not None and right.shape == whole_right.shape:
        return paired(right - whole_right)
    gaps = np.subtract(one.accuracies, other.accuracies)[:, None]
    return replace(apart, errors=(*apart.errors, *paired(gaps).errors))


def shared(sample: Sample, whole: Sample) -> tuple[Sample, Sample]:
    """Both, of the searches that both have runs of; a single search is one of them."""
    repeats = {row.repeat for row in sample.seeds} & {row.repeat for row in whole.seeds}
    one, other = (
        replace(of, seeds=tuple(row for row in of.seeds if row.repeat in repeats))
        for of in (sample, whole)
    )
    return one, other


def _over_all_run(one: PerImage) -> Values | None:
    """How much more often an image is classified right than with everything run, in [-1, 1]."""
    return None if one.all_run is None else one.correct.astype(float) - one.all_run


def lettered(family: Sequence[Sample], all_pairs: Sequence[Comparison]) -> dict[str, str]:
    """The letters of the methods that can be tested, in their order of standing."""
    apart = {frozenset((pair.method, pair.other)) for pair in all_pairs if pair.separated}
    return letters([sample.method for sample in family if sample.n >= TESTED_FROM], apart)


def noise_floor(grid: Grid, controls: Mapping[str, str]) -> float | None:
    """The largest gap of a method to its own repetition at any budget; None without a control.

    One draw of the noise per budget is little, so the largest counts for all of them.
    """
    gaps = []
    for control, original in controls.items():
        for budget in {budget for _, budget in grid}:
            one, other = (grid[name, budget].mean for name in (original, control))
            if one is not None and other is not None:
                gaps.append(abs(one - other))
    return max(gaps, default=None)


def contest(family: Sequence[Sample], terms: Terms) -> dict[str, float]:
    """P(best) at one budget, by method, among those whose units allow an interval."""
    competing = {s.method: terms.units(s) for s in family if s.n >= INTERVAL_FROM}
    return best_probability(competing) if len(competing) > 1 else {}


def known(family: Sequence[Sample], terms: Terms) -> Known | None:
    """The knowledge of the test images at one budget; None where nothing has a figure."""
    measured = [terms.units(sample) for sample in family if sample.n]
    if not measured:
        return None
    sizes = {0 if u.correct is None else u.correct.shape[1] for u in measured}
    if len(sizes) == 1 and 0 not in sizes:
        return "predictions"
    return "seeds" if terms.rules.images is None else "counts"


def _compared(family: Sequence[Pair], budget: float, grid: Grid, terms: Terms) -> list[Comparison]:
    """The pairs at one budget; those that are tested are adjusted together."""
    rules = terms.rules
    samples = [(grid[a, budget], grid[b, budget]) for a, b in family]
    units = [(terms.units(a), terms.units(b)) for a, b in samples]
    gaps = [contrast(a, b) for a, b in units]
    candidates = [budget == rules.primary and not {a, b} & rules.controls.keys() for a, b in family]
    adjusted = holm(
        [
            gap.p if candidate and min(a.n, b.n) >= TESTED_FROM else None
            for gap, candidate, (a, b) in zip(gaps, candidates, units, strict=True)
        ],
        level=rules.alpha,
        weight=rules.pairs_weight,
    )
    first = rules.alpha * rules.pairs_weight / max(1, _testable(candidates, units))
    found = []
    for pair, gap, test, candidate, both in zip(
        family, gaps, adjusted, candidates, units, strict=True
    ):
        noise = _is_noise(gap, terms.floor)
        separated = test is not None and test.p < rules.alpha and not noise
        found.append(
            Comparison(
                *pair,
                budget,
                gap.at(test.confidence if test else rules.confidence),
                test.p if test else None,
                separated=separated,
                more=_more(both, gap, test, first, rules) if candidate else None,
                noise=noise,
            )
        )
    return found


def _testable(candidates: Sequence[bool], units: Sequence[tuple[Units, Units]]) -> int:
    """Pairs that are tested, or would be with further units."""
    return sum(c and min(a.n, b.n) > 1 for c, (a, b) in zip(candidates, units, strict=True))


def _more(
    both: tuple[Units, Units], gap: Contrast, test: Adjusted | None, level: float, rules: Rules
) -> int | None:
    """Further units of each that would separate a pair of the family, and let it be tested."""
    if test is not None and test.p < rules.alpha:
        return 0
    more = more_seeds(*both, level=level, floor=gap.floor)
    least = TESTED_FROM - max(units.n for units in both)
    return None if more is None else max(more, least)


def _is_noise(gap: Contrast, floor: float | None) -> bool:
    if floor is None or gap.difference is None:
        return False
    return abs(gap.difference) <= floor + 1e-12
