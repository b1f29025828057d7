"""Rows -> samples -> cells: what each method has at each budget, and what cannot be told apart.

A sample is what was chosen for a method at a budget, with its confirm runs; all comparisons are
made on samples. A cell is a sample with its figures, its group and its P(best).
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from orchestrator.board.choose import Choice, Excluded
from orchestrator.board.model import RANKED_FROM, Cell, Worth
from orchestrator.board.rules import Rules
from orchestrator.board.stats.intervals import Summary, crossed_mean, holm, summary, welch
from orchestrator.record.evidence import Images
from orchestrator.record.rows import Row
from orchestrator.study.file import cap


@dataclass(frozen=True)
class Sample:
    """The confirm runs of the configuration that was chosen for a method at a budget."""

    method: str
    budget: float
    """MMACs."""
    choice: Choice | None
    seeds: tuple[Row, ...]
    """Confirm rows with a usable figure, by seed."""
    failed: tuple[int, ...]
    """Confirm seeds that ended without one."""
    fixed: bool = False
    """Other operating points of these runs decide per image, and the chosen one does not."""

    @cached_property
    def accuracies(self) -> list[float]:
        """The test accuracy of each seed."""
        return [row.test_acc for row in self.seeds if row.test_acc is not None]

    @cached_property
    def mean(self) -> float | None:
        return summary(self.accuracies).mean

    @property
    def n(self) -> int:
        return len(self.accuracies)


Grid = Mapping[tuple[str, float], Sample]
"""By method and budget (MMACs)."""


def samples(
    names: Sequence[str],
    budgets: Sequence[float],
    complete: Iterable[Row],
    excluded: Iterable[Excluded],
    choices: Iterable[Choice],
) -> dict[tuple[str, float], Sample]:
    """The sample of every method at every budget, empty where nothing was chosen."""
    chosen = {(c.method, c.budget): c for c in choices}
    measured: dict[tuple[str, str, str], list[Row]] = {}
    attempted: dict[tuple[str, str], set[int]] = {}
    for row in complete:
        if row.role == "confirm":
            measured.setdefault((row.method, row.config, row.point), []).append(row)
    for row in (e.row for e in excluded):
        if row.role == "confirm" and row.state != "RUNNING":
            attempted.setdefault((row.method, row.config), set()).add(row.seed)

    def sample(name: str, budget: float) -> Sample:
        choice = chosen.get((name, budget))
        if choice is None:
            return Sample(name, budget, None, (), ())
        rows = measured.get((name, choice.config, choice.point), [])
        failed = attempted.get((name, choice.config), set()) - {row.seed for row in rows}
        seeds = tuple(sorted(rows, key=lambda row: row.seed))
        decide = any(
            row.test_another_acc is not None
            for (method, config, _), siblings in measured.items()
            if (method, config) == (name, choice.config)
            for row in siblings
        )
        fixed = decide and all(row.test_another_acc is None for row in seeds)
        return Sample(name, budget, choice, seeds, tuple(sorted(failed)), fixed)

    return {(name, budget): sample(name, budget) for name in names for budget in budgets}


def groups(family: Iterable[Sample], rules: Rules) -> dict[str, str]:
    """The letter of the group of each method that has enough seeds, at one budget.

    A group is its leader (highest mean) and all that Welch's test, Holm-corrected over the
    remaining samples, does not separate from it; an untestable pair is not separated.
    """
    rest = sorted(
        (sample for sample in family if sample.n >= RANKED_FROM),
        key=lambda sample: (-(sample.mean or 0.0), sample.method),
    )
    letters: dict[str, str] = {}
    letter = ord("A")
    while rest:
        leader, others = rest[0], rest[1:]
        tests = [welch(leader.accuracies, o.accuracies, rules.confidence).p for o in others]
        adjusted = holm(tests, looks=rules.looks)
        apart = [p is not None and p < 1 - rules.confidence for p in adjusted]
        together = [leader, *(o for o, away in zip(others, apart, strict=True) if not away)]
        letters |= dict.fromkeys((sample.method for sample in together), chr(letter))
        rest = [o for o, away in zip(others, apart, strict=True) if away]
        letter += 1
    return letters


def cell(sample: Sample, rules: Rules, images: Images, *, group: str, p_best: float | None) -> Cell:
    """A sample with its figures."""
    macs = _mean(row.test_macs_mean for row in sample.seeds)
    return Cell(
        method=sample.method,
        budget=sample.budget,
        choice=sample.choice,
        seeds=sample.seeds,
        accuracy=summary(sample.accuracies, rules.level),
        top5=_mean(row.test_top5 for row in sample.seeds),
        macs_mean=macs,
        macs_p95=_mean(row.test_macs_p95 for row in sample.seeds),
        macs_max=max(_known(row.test_macs_max for row in sample.seeds), default=None),
        overrun=macs is not None and macs > cap(sample.budget),
        collapsed=_collapsed(sample, rules.chance),
        failed=sample.failed,
        p_best=p_best,
        group=group,
        worth=_worth(sample, rules, images),
        fixed=sample.fixed,
    )


def _worth(sample: Sample, rules: Rules, images: Images) -> Worth | None:
    """What deciding per image is worth; over images too, where every run's evidence is there."""
    seeds = [row for row in sample.seeds if row.test_another_acc is not None]
    if not seeds or len(seeds) < len(sample.seeds):
        return None
    kept = [images.get((row.trial, row.point)) for row in seeds]
    worths = [per_image.worth for per_image in kept if per_image and per_image.worth is not None]
    paired = len(worths) == len(seeds) and len({len(worth) for worth in worths}) == 1
    gain: Summary
    if paired:
        gain = crossed_mean(np.array(worths), rules.level)
    else:
        gains = [(row.test_acc or 0.0) - (row.test_another_acc or 0.0) for row in seeds]
        gain = summary(gains, rules.level)
    return Worth(
        gain=gain,
        images=paired,
        another=_mean(row.test_another_acc for row in seeds) or 0.0,
        majority=_mean(row.test_majority_acc for row in seeds) or 0.0,
        majority_macs=_mean(row.test_majority_macs for row in seeds) or 0.0,
        everything=_mean(row.test_all_acc for row in seeds),
        everything_macs=_mean(row.test_all_macs for row in seeds),
        alike=_mean(row.test_alike for row in seeds) or 0.0,
    )


def unused(complete: Iterable[Row], grid: Grid) -> list[Excluded]:
    """Confirm rows that passed the gate and stand in no cell: what they confirm is not chosen."""
    used = {id(row) for sample in grid.values() for row in sample.seeds}
    return [
        Excluded(row, "not chosen on validation at any budget")
        for row in complete
        if row.role == "confirm" and id(row) not in used
    ]


def _mean(values: Iterable[float | None]) -> float | None:
    """Of those that are there; None where none is."""
    known = _known(values)
    return math.fsum(known) / len(known) if known else None


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and not math.isnan(value)]


def _collapsed(sample: Sample, chance: float) -> tuple[int, ...]:
    """Seeds no better than 1.2 times guessing, or under half of the median."""
    if not sample.accuracies:
        return ()
    line = max(1.2 * chance, statistics.median(sample.accuracies) / 2)
    pairs = zip(sample.seeds, sample.accuracies, strict=True)
    return tuple(row.seed for row, accuracy in pairs if accuracy < line)
