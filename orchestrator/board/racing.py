"""Which cells get further seeds: where the order at the primary budget is open, within a budget.

A pure function of the rows, which decides at the ends of rounds alone: the same seeds are added in
whatever order the workers end, and after any restart. The board looks at the seeds `LOOKS` times at
most, and its intervals and tests are corrected for that (`Rules.level`), whenever the race ends.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.board.cells import Grid, samples
from orchestrator.board.choose import choose, clean, to_confirm
from orchestrator.board.comparisons import Terms, noise_floor, pairs
from orchestrator.board.model import Comparison
from orchestrator.board.rules import LOOKS, Rules
from orchestrator.board.stats.power import MOST_SEEDS
from orchestrator.record.rows import Row
from orchestrator.study.file import Study


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
    rules, everything = Rules.of(study), list(rows)
    choices = to_confirm(
        everything, rules.budgets, rules.primary, rules.baseline, matched=rules.matched
    )
    given = dict.fromkeys((choice.config for choice in choices), rules.seeds)
    ended = {(row.config, row.seed) for row in everything if row.role == "confirm"}
    left = rules.extra
    primary = {c.method: c.config for c in choices if c.budget == rules.primary}
    for rounds in range(LOOKS - 1, 0, -1):
        whole = {(config, i) for config, n in given.items() for i in range(1, n + 1)} <= ended
        if not left or not whole:
            break
        ended_rounds = [
            r for r in everything if r.role != "confirm" or r.seed <= given.get(r.config, 0)
        ]
        grid, comparisons = _look(ended_rounds, rules)
        seeds = {method: grid[method, rules.primary].n for method in primary}
        further = allotted(comparisons, seeds, min(left, max(2, -(-left // rounds))))
        for method, count in further.items():
            given[primary[method]] += count
        left -= further.total()
        if not further:
            break
    return Seeds(given, rules.extra - left)


def allotted(
    comparisons: Iterable[Comparison], seeds: Mapping[str, int], runs: int
) -> Counter[str]:
    """Further seeds by method, `runs` at most: the comparison that needs the fewest comes first.

    `seeds` is what each method has. A comparison gets as many as separate it with a power of 80 %,
    if the observed figures are the true ones, before the next one gets any. Nothing goes where the
    spread cannot say, where more than `MOST_SEEDS` are needed, or where the difference is noise by
    the A/A control.
    """
    further: Counter[str] = Counter()
    hopeful = [c for c in comparisons if c.more and c.more <= MOST_SEEDS and not c.noise]
    for comparison in sorted(hopeful, key=lambda c: (c.more, c.method, c.other)):
        pair = (comparison.method, comparison.other)
        goal = max(seeds[name] for name in pair) + (comparison.more or 0)
        while further.total() < runs:
            fewest = min(pair, key=lambda name: (seeds[name] + further[name], name))
            if seeds[fewest] + further[fewest] >= goal:
                break
            further[fewest] += 1
    return further


def undecided(
    grid: Grid, names: Sequence[str], all_pairs: Iterable[Comparison], rules: Rules
) -> tuple[Comparison, ...]:
    """What is not separated at the primary budget: methods and the baseline, and neighbours.

    Of `names`, those are neighbours whose means follow each other.
    """
    measured = {name: sample for name in names if (sample := grid[name, rules.primary]).n}
    order = sorted(measured, key=lambda name: (-(measured[name].mean or 0.0), name))
    wanted = [{name, rules.baseline} for name in order if name != rules.baseline]
    wanted += [{a, b} for a, b in itertools.pairwise(order) if rules.baseline not in (a, b)]
    at_primary = [pair for pair in all_pairs if pair.budget == rules.primary]
    found = [
        pair if pair.other == rules.baseline or rules.baseline not in two else pair.reversed
        for two in wanted
        for pair in at_primary
        if {pair.method, pair.other} == two
    ]
    return tuple(pair for pair in found if pair.p_holm is None or pair.p_holm >= rules.alpha)


def _look(rows: Iterable[Row], rules: Rules) -> tuple[Grid, tuple[Comparison, ...]]:
    """The samples as the board would have them now, and what of their order is open.

    By the seeds alone: what each image gave is not at hand while the study runs.
    """
    complete, excluded = clean(rows)
    contenders = sorted({rules.baseline, *rules.methods} - rules.controls.keys())
    names = [*contenders, *rules.controls]
    choices = choose(complete, rules.budgets)
    grid = samples(names, rules.budgets, complete, excluded, choices)
    terms = Terms(rules, noise_floor(grid, rules.controls))
    now = {key: sample for key, sample in grid.items() if key[1] == rules.primary}
    return grid, undecided(now, contenders, pairs(names, now, terms), rules)
