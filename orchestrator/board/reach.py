"""Summaries over all budgets: cost to reach an accuracy, the front of each seed, the area under
it."""

import math
import statistics
from collections.abc import Iterable, Sequence

from orchestrator.board.model import Cell, Reach
from orchestrator.board.rules import Rules
from orchestrator.board.stats.fronts import Front, mean_best_accuracy
from orchestrator.board.stats.intervals import Summary, summary
from orchestrator.study.budgets import Cost

STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Distances that levels may have, in thousandths."""
MOST_LEVELS = 5


def levels(means: Sequence[float]) -> tuple[float, ...]:
    """Round accuracies, from the one at or under the median of these means up to their highest.

    They are multiples of the smallest step (0.1, 0.2, 0.5, 1, 2, 5, ... points) that needs at most
    five of them. The median, so that a method that collapsed does not spread them out.
    """
    if not means:
        return ()
    low, high = (math.floor(1000 * m + 1e-6) for m in (statistics.median(means), max(means)))
    for step in STEPS:
        steps = range(low // step * step, high + 1, step)
        if len(steps) <= MOST_LEVELS:
            return tuple(level / 1000 for level in steps if level)
    raise AssertionError("three levels are 0.5 apart at most")


def reach(method: str, cells: Sequence[Cell], targets: Sequence[float]) -> Iterable[Reach]:
    """The least confirmed cost of a method's cells that have at least each target."""
    for target in targets:
        enough = [m for m, mean in means(cells) if mean >= target - 1e-12]
        yield Reach(method, target, min(enough, default=None))


def means(cells: Iterable[Cell]) -> Front:
    """Cost and mean test accuracy of the cells that have been confirmed."""
    return [
        (c.spent, c.accuracy.mean)
        for c in cells
        if c.spent is not None and c.accuracy.mean is not None
    ]


def fronts(cells: Sequence[Cell], cost: Cost) -> list[Front]:
    """One front per search and seed that all of a method's confirmed cells have: its runs."""
    confirmed = [{(row.repeat, row.seed): row for row in cell.seeds} for cell in cells if cell.n]
    shared = sorted(set.intersection(*(set(rows) for rows in confirmed))) if confirmed else []
    return [
        [
            (spent, row.test_acc)
            for rows in confirmed
            for row in [rows[seed]]
            if (spent := cost.of_test(row)) is not None and row.test_acc is not None
        ]
        for seed in shared
    ]


def area(seeds: Iterable[Front], rules: Rules) -> Summary:
    """Mean best accuracy over log-cost between the least and the largest budget, over seeds.

    The spread is that of training the chosen configurations again; the search is not repeated. A
    run that costs more than the largest budget on test adds nothing.
    """
    low, high = rules.cost.cap(rules.budgets[0]), rules.cost.cap(rules.budgets[-1])
    areas = [
        mean_best_accuracy(
            [m for m, _ in front], [a for _, a in front], low=low, high=high, chance=rules.chance
        )
        for front in seeds
    ]
    return summary([value for value in areas if value is not None], rules.level)
