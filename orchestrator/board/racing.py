"""Which cells get further seeds: where the order at the primary budget is open, within a budget.

A pure function of the rows, which decides at the ends of rounds alone: the same seeds are added in
whatever order the workers end, and after any restart. The board looks at the seeds `LOOKS` times at
most, and its intervals and tests are corrected for that (`comparisons.Terms`), whenever it ends.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.board.cells import Grid, cells
from orchestrator.board.choose import choose, clean
from orchestrator.board.comparisons import Terms, gains, noise_floor, pairs
from orchestrator.board.model import BASELINE, Comparison
from orchestrator.board.stats.intervals import MOST_SEEDS
from orchestrator.record.rows import Row
from orchestrator.study.file import Study

LOOKS = 3
"""Rounds of confirm runs, the first of which every cell has: each look costs all of them level."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Seeds:
    """How many seeds each chosen configuration is to have, by what has ended so far."""

    given: Mapping[str, int]
    spent: int = 0
    """Runs beyond the study's number for every cell."""


def planned(rows: Iterable[Row], study: Study) -> Seeds:
    """The seeds of every chosen configuration, those of the round that runs included.

    Where the study races, a round begins when all runs of the one before have ended, and spends an
    even share of what is left; the last one ends with the budget, or when no order is open that
    seeds can decide.
    """
    everything = list(rows)
    choices = choose(everything, study.budgets)
    given = dict.fromkeys((choice.config for choice in choices), study.confirm.seeds)
    ended = {(row.config, row.seed) for row in everything if row.role == "confirm"}
    left = study.confirm.budget or 0
    at = {c.method: c.config for c in choices if c.budget == study.primary_budget}
    for rounds in range(LOOKS - 1, 0, -1):
        whole = {(config, i) for config, n in given.items() for i in range(1, n + 1)} <= ended
        if not left or not whole:
            break
        seen = [r for r in everything if r.role != "confirm" or r.seed <= given.get(r.config, 0)]
        grid, found = _look(seen, study)
        have = {method: grid[method, study.primary_budget].n for method in at}
        further = allotted(found, have, min(left, max(2, -(-left // rounds))))
        for method, count in further.items():
            given[at[method]] += count
        left -= further.total()
        if not further:
            break
    return Seeds(given, (study.confirm.budget or 0) - left)


def allotted(found: Sequence[Comparison], have: Mapping[str, int], runs: int) -> Counter[str]:
    """Further seeds by method, `runs` at most: the comparison that needs the fewest comes first.

    It gets as many as separate it with a power of 80 %, if what is seen is true, before the next
    one gets any. Nothing goes where the spread cannot say, where more than `MOST_SEEDS` are needed,
    or where the difference is noise by the A/A control.
    """
    further: Counter[str] = Counter()
    hopeful = [c for c in found if c.more and c.more <= MOST_SEEDS and not c.noise]
    for comparison in sorted(hopeful, key=lambda c: (c.more, c.method, c.other)):
        pair = (comparison.method, comparison.other)
        goal = max(have[name] for name in pair) + (comparison.more or 0)
        while further.total() < runs:
            fewest = min(pair, key=lambda name: (have[name] + further[name], name))
            if have[fewest] + further[fewest] >= goal:
                break
            further[fewest] += 1
    return further


def undecided(
    grid: Grid,
    names: Sequence[str],
    against: Iterable[Comparison],
    all_pairs: Iterable[Comparison],
    *,
    baseline: str,
    primary: float,
    confidence: float,
) -> tuple[Comparison, ...]:
    """What is not separated at the primary budget: methods and the baseline, and neighbours.

    Of `names`, those are neighbours whose means follow each other; `against` and `all_pairs` are
    the comparisons with the baseline and of all pairs, each with its own correction.
    """
    measured = {name: cell for name in names if (cell := grid[name, primary]).n}
    order = sorted(measured, key=lambda name: (-(measured[name].accuracy.mean or 0.0), name))
    neighbours = [{a, b} for a, b in itertools.pairwise(order) if baseline not in (a, b)]
    family = [c for c in against if c.method in order and c.other in order]
    family += [c for c in all_pairs if {c.method, c.other} in neighbours]
    return tuple(
        c
        for c in family
        if c.budget == primary and (c.p_holm is None or c.p_holm >= 1 - confidence)
    )


def _look(rows: Sequence[Row], study: Study) -> tuple[Grid, tuple[Comparison, ...]]:
    """The cells as the board would have them now, and what of their order is open."""
    kept, excluded = clean(rows)
    real = sorted({BASELINE, *study.methods} - study.controls.keys())
    names, primary = [*real, *study.controls], study.primary_budget
    terms = Terms(controls=study.controls, confidence=CONFIDENCE, looks=LOOKS)
    choices = choose(kept, study.budgets)
    grid = cells(names, study.budgets, kept, excluded, choices, confidence=terms.level, chance=0.0)
    terms = replace(terms, floor=noise_floor(grid, study.controls))
    now = {key: cell for key, cell in grid.items() if key[1] == primary}
    found = undecided(
        now,
        real,
        gains(real, now, terms, baseline=BASELINE, primary=primary),
        pairs(names, now, terms),
        baseline=BASELINE,
        primary=primary,
        confidence=CONFIDENCE,
    )
    return grid, found
