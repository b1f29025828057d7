"""Rows -> samples -> cells: what each method has at each budget.

A sample is what was chosen for a method at a budget, with its confirm runs; all comparisons are
made on samples. A cell is a sample with its figures, its letters and its P(best).
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from orchestrator.board.choose import Choice, Excluded
from orchestrator.board.model import Cell, Worth
from orchestrator.board.rules import Rules
from orchestrator.board.stats.intervals import Summary, accuracy, crossed_mean, summary
from orchestrator.board.stats.units import Floats, Units
from orchestrator.record.evidence import Images, PerImage, Values
from orchestrator.record.rows import Row
from orchestrator.study.identity import is_unreduced


@dataclass(frozen=True)
class Sample:
    """The confirm runs of what was chosen for a method at a budget, by each of its searches."""

    method: str
    budget: float
    choices: tuple[Choice, ...]
    """One per search, in their order."""
    seeds: tuple[Row, ...]
    """Confirm rows with a usable figure, by search and seed."""
    failed: tuple[str, ...]
    """Confirm trials that ended without one."""
    fixed: bool = False
    """Other operating points of these runs decide per image, and the chosen one does not."""
    repeated: bool = False
    """Whether the units are the searches, and not the seeds."""

    @cached_property
    def parts(self) -> list[list[Row]]:
        """The runs of each unit: those of each search where there are several, or each seed's."""
        if not self.repeated:
            return [[row] for row in self.seeds]
        return list(_by_repeat(self.seeds).values())

    @cached_property
    def accuracies(self) -> list[float]:
        """The test accuracy of each unit."""
        return [math.fsum(map(tested, part)) / len(part) for part in self.parts]

    @property
    def mean(self) -> float | None:
        return summary(self.accuracies).mean

    @property
    def n(self) -> int:
        return len(self.accuracies)

    def units(self, images: Images, count: int | None) -> Units:
        """The accuracies, with what each unit had right on each image where all of it was kept;
        `count` is the number of test images, where that is known."""
        return Units(self.accuracies, self._correct(images), count)

    def over_images(
        self, images: Images, figure: Callable[[PerImage], Values | None]
    ) -> Floats | None:
        """A figure of every image, by unit: units images; None where a run lacks it."""
        kept = [[images.get((row.trial, row.point)) for row in part] for part in self.parts]
        found = [[None if one is None else figure(one) for one in part] for part in kept]
        known = [[values for values in part if values is not None] for part in found]
        lengths = {len(values) for part in known for values in part}
        if len(lengths) != 1 or sum(map(len, known)) < len(self.seeds):
            return None
        return np.array([np.mean(part, axis=0) for part in known])

    def _correct(self, images: Images) -> Floats | None:
        return self.over_images(images, lambda one: one.correct)


Grid = Mapping[tuple[str, float], Sample]
"""By method and budget."""


def samples(
    names: Sequence[str],
    budgets: Sequence[float],
    complete: Iterable[Row],
    excluded: Iterable[Excluded],
    choices: Iterable[Choice],
    *,
    repeated: bool = False,
) -> dict[tuple[str, float], Sample]:
    """The sample of every method at every budget, empty where nothing was chosen."""
    chosen: dict[tuple[str, float], list[Choice]] = {}
    for choice in sorted(choices, key=lambda choice: choice.repeat):
        chosen.setdefault((choice.method, choice.budget), []).append(choice)
    measured: dict[tuple[str, str], list[Row]] = {}
    attempted: dict[tuple[str, str], dict[int, str]] = {}
    for row in complete:
        if row.role == "confirm":
            measured.setdefault((row.method, row.config), []).append(row)
    for row in (e.row for e in excluded):
        if row.role == "confirm" and row.state != "RUNNING":
            attempted.setdefault((row.method, row.config), {})[row.seed] = row.trial

    def sample(name: str, budget: float) -> Sample:
        found, seeds, failed = tuple(chosen.get((name, budget), ())), [], []
        decide = False
        for choice in found:
            runs = measured.get((name, choice.config), [])
            rows = [row for row in runs if row.point == choice.point]
            seeds += sorted(rows, key=lambda row: row.seed)
            tried = attempted.get((name, choice.config), {})
            failed += [tried[seed] for seed in sorted(tried.keys() - {row.seed for row in rows})]
            decide |= any(row.test_another_acc is not None for row in runs)
        fixed = decide and all(row.test_another_acc is None for row in seeds)
        return Sample(name, budget, found, tuple(seeds), tuple(failed), fixed, repeated)

    return {(name, budget): sample(name, budget) for name in names for budget in budgets}


def cell(
    sample: Sample, rules: Rules, images: Images, *, letters: str, p_best: float | None
) -> Cell:
    """A sample with its figures."""
    units = sample.units(images, rules.images)
    spent = _mean(rules.cost.of_test(row) for row in sample.seeds)
    return Cell(
        method=sample.method,
        budget=sample.budget,
        choices=sample.choices,
        seeds=sample.seeds,
        accuracy=accuracy(units, rules.level),
        seed_sd=_seed_sd(sample, tested),
        top5=_mean(row.test_top5 for row in sample.seeds),
        macs_mean=_mean(row.test_macs_mean for row in sample.seeds),
        macs_p95=_mean(row.test_macs_p95 for row in sample.seeds),
        macs_max=max(_known(row.test_macs_max for row in sample.seeds), default=None),
        overrun=spent is not None and spent > rules.cost.cap(sample.budget),
        collapsed=_collapsed(sample, rules.chance),
        failed=sample.failed,
        p_best=p_best,
        letters=letters,
        worth=_worth(sample, rules, images),
        fixed=sample.fixed,
        cost=rules.cost,
        spent=spent,
        spread=_spread(sample) if rules.cost.clocked else None,
        units=units,
    )


def _worth(sample: Sample, rules: Rules, images: Images) -> Worth | None:
    """The worth of routing; over images too, if the evidence of every run is available."""
    seeds = [row for row in sample.seeds if row.test_another_acc is not None]
    if not seeds or len(seeds) < len(sample.seeds):
        return None
    gain: Summary
    if (worths := sample.over_images(images, lambda one: one.worth)) is not None:
        gain = crossed_mean(worths, rules.level)
    else:
        gains = [
            math.fsum(tested(row) - (row.test_another_acc or 0.0) for row in part) / len(part)
            for part in sample.parts
        ]
        gain = summary(gains, rules.level)
    return Worth(
        gain=gain,
        images=worths is not None,
        another=_mean(row.test_another_acc for row in seeds) or 0.0,
        majority=_mean(row.test_majority_acc for row in seeds) or 0.0,
        majority_macs=_mean(row.test_majority_macs for row in seeds) or 0.0,
        everything=_mean(row.test_all_acc for row in seeds),
        everything_macs=_mean(row.test_all_macs for row in seeds),
        alike=_mean(row.test_alike for row in seeds) or 0.0,
    )


def tested(row: Row) -> float:
    """The test accuracy of a confirm row that passed the gate."""
    assert row.test_acc is not None, "the gate lets no missing figure through"
    return row.test_acc


def unused(complete: Iterable[Row], used_in: Iterable[Sample]) -> list[Excluded]:
    """Confirm rows that passed the gate and stand in no sample: what they confirm is not chosen."""
    used = {id(row) for sample in used_in for row in sample.seeds}
    where = {True: "the primary budget, unreduced", False: "any budget"}
    return [
        Excluded(row, f"not chosen on validation at {where[is_unreduced(row.config)]}")
        for row in complete
        if row.role == "confirm" and id(row) not in used
    ]


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of the known values; None if there are none."""
    known = _known(values)
    return math.fsum(known) / len(known) if known else None


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and not math.isnan(value)]


def _collapsed(sample: Sample, chance: float) -> tuple[str, ...]:
    """Trials no better than 1.2 times guessing, or under half of the median."""
    if not sample.seeds:
        return ()
    line = max(1.2 * chance, statistics.median(map(tested, sample.seeds)) / 2)
    return tuple(row.trial for row in sample.seeds if tested(row) < line)


def _seed_sd(sample: Sample, figure: Callable[[Row], float]) -> float | None:
    """The standard deviation of a figure between seeds of one configuration, pooled over the
    searches."""
    parts = [part for part in _by_repeat(sample.seeds).values() if len(part) > 1]
    if not parts:
        return None
    squares = sum(statistics.variance(map(figure, part)) * (len(part) - 1) for part in parts)
    return math.sqrt(squares / sum(len(part) - 1 for part in parts))


def _spread(sample: Sample) -> float | None:
    """How far the milliseconds of a cell are uncertain; see `Cell.spread`."""
    if any(row.ms is None for row in sample.seeds):
        return None
    between = _seed_sd(sample, lambda row: row.ms or 0.0)
    return between if between is not None else _mean(row.spread_ms for row in sample.seeds)


def _by_repeat(seeds: Iterable[Row]) -> dict[int, list[Row]]:
    repeats: dict[int, list[Row]] = {}
    for row in seeds:
        repeats.setdefault(row.repeat, []).append(row)
    return repeats
