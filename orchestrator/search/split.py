"""The splits of a method's effort into independent searches, their trials, and confirm seeds.

A claim about a method rests on its searches, so their number decides which differences can be
detected; but a search with fewer trials chooses worse configurations.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from orchestrator.board.model import TESTED_FROM
from orchestrator.board.rules import LOOKS
from orchestrator.board.stats.power import detectable
from orchestrator.study.file import Study
from orchestrator.study.space import Space

MOST = 1000
"""Searches of a method that a study may have."""
TRIALS = (4, 8, 16, 32)
"""Trials per search that are compared."""
CONFIG_SD, SEED_SD, ACCURACY = 1.0, 0.5, 0.95
"""Assumptions: standard deviations between configurations and between seeds of one, in points of
accuracy, and the accuracy as a fraction."""
IMAGE_FLOOR = 44.0
"""Factor of the smallest difference that any number of searches detects: points times the square
root of the number of test images, at an accuracy of 95 %, with a standard deviation of 1 (probit)
between the images in which of two methods does better."""
NEAR = 1.05
"""Differences of this ratio count as equal: then the split with more trials is proposed."""


@dataclass(frozen=True, kw_only=True)
class Detectable:
    """The least difference from dense that so many seeds show with probability 0.8."""

    seeds: int
    deviations: float | None
    """In seed-to-seed standard deviations; None where no difference can be shown."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """So many searches of a method, of so many trials, each choice confirmed on so many seeds."""

    repeats: int
    trials: int
    seeds: int
    found: float | None
    """Smallest difference between two methods that is detected with a power of 80 %, in points;
    None with fewer than `TESTED_FROM` searches."""
    accuracy: float
    """Points that the best trial of such a search is expected to lie above the mean trial."""


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The split that a study plans, and others that take no more runs."""

    runs: int
    """Trials and confirm runs of a method, at most."""
    least: int
    """Trials that a search must have."""
    pairs: int
    """Pairs of methods that are tested."""
    planned: Split
    others: tuple[Split, ...]
    """By rising number of trials; with `TESTED_FROM` searches or more."""
    proposed: Split | None
    """The split that detects the smallest difference; None where none does better than planned."""
    floor: float
    """Smallest difference that any number of searches would detect on these images, in points."""


def detectable_by(study: Study, compared: int) -> tuple[Detectable, ...]:
    """Differences between so many pairs: Holm's first step divides the level by the pairs that are
    tested, a race by its looks."""
    if not compared:
        return ()
    seeds, tests = study.confirm.seeds, compared * (LOOKS if study.confirm.race else 1)
    return tuple(
        Detectable(seeds=n, deviations=detectable(n, 0.05 / tests))
        for n in (seeds, *(more for more in (TESTED_FROM, 2 * TESTED_FROM) if more > seeds))
    )


def splits_of(study: Study, opened: Mapping[str, Space], images: tuple[int, int]) -> Splits | None:
    """The splits of the effort of the tested methods; controls are not tested. `images` are those
    of validation and test."""
    methods = len(study.methods) - len(study.controls)
    if methods < 2 or study.search.seconds is not None:
        return None
    return splits(
        (study.search.repeats, study.search.trials, study.confirm.seeds),
        budgets=len(study.budgets),
        methods=methods,
        images=images,
        least=max((TRIALS[0], *(space.named + 1 for space in opened.values() if space.free))),
        looks=LOOKS if study.confirm.race else 1,
    )


def splits(
    planned: tuple[int, int, int],
    *,
    budgets: int,
    methods: int,
    images: tuple[int, int],
    least: int = TRIALS[0],
    looks: int = 1,
) -> Splits:
    """The splits of the effort of `planned` (repeats, trials, seeds), and the differences that they
    detect.

    A search takes its trials, and at most as many confirm runs per seed as there are budgets.
    `images` are those of validation and test, `least` is the number of trials that a search must
    have, `looks` the number of evaluations of a race. The formulas take configurations and seeds as
    normal: a search's choice varies like the best of its trials, as far as validation separates
    them.
    """
    validation, test = images
    pairs = methods * (methods - 1) // 2
    repeats, trials, seeds = planned
    runs = repeats * (trials + seeds * budgets)
    floor = IMAGE_FLOOR / math.sqrt(test)

    def split(repeats: int, trials: int, seeds: int) -> Split:
        of_searches, gained = _search(trials, validation)
        deviation = math.sqrt(of_searches**2 + SEED_SD**2 / seeds)
        least = detectable(repeats, 0.05 / pairs / looks) if repeats >= TESTED_FROM else None
        return Split(
            repeats=repeats,
            trials=trials,
            seeds=seeds,
            found=None if least is None else math.hypot(least * deviation, floor),
            accuracy=gained,
        )

    others = []
    for number in sorted(n for n in {*TRIALS, least, trials} if n >= least):
        of_searches, _ = _search(number, validation)
        best = max(1, round(math.sqrt(number / budgets) * SEED_SD / of_searches))
        counts = {s: min(runs // (number + s * budgets), MOST) for s in range(1, best + 1)}
        feasible = [split(count, number, s) for s, count in counts.items() if count]
        others += sorted((s for s in feasible if s.found is not None), key=_points)[:1]
    current = split(*planned)
    near = [s for s in others if _points(s) <= NEAR * min(map(_points, others))]
    proposed = max(near, key=lambda s: s.trials, default=None)
    worth_it = proposed is not None and _points(proposed) * NEAR < _points(current)
    return Splits(
        runs=runs,
        least=least,
        pairs=pairs,
        planned=current,
        others=tuple(s for s in others if s != current),
        proposed=proposed if worth_it else None,
        floor=floor,
    )


def _points(split: Split) -> float:
    return math.inf if split.found is None else split.found


def _search(trials: int, validation: int) -> tuple[float, float]:
    """Standard deviation of a search's choice, and its mean above a trial's, in points."""
    images = 100 * math.sqrt(ACCURACY * (1 - ACCURACY) / validation)
    reliability = CONFIG_SD**2 / (CONFIG_SD**2 + SEED_SD**2 + images**2)
    mean, variance = _highest(trials)
    spread = CONFIG_SD * math.sqrt(1 - reliability * (1 - variance))
    return spread, CONFIG_SD * math.sqrt(reliability) * mean


def _highest(count: int) -> tuple[float, float]:
    """Mean and variance of the highest of so many standard normal numbers."""
    edges = np.linspace(-9, 9, 7201)
    middles, mass = (edges[1:] + edges[:-1]) / 2, np.diff(norm.cdf(edges) ** count)
    mean = float(middles @ mass)
    return mean, float((middles - mean) ** 2 @ mass)
