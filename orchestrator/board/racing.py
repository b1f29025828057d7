"""The additions of a race where the order at the primary budget is not decided, within a budget.

They are further seeds of configurations, if every method has a single search, or else further
searches: more of the units of claims (`Rules.unit`). They are a pure function of the rows, which
decides at the ends of rounds alone: the additions are the same in whatever order the workers end,
and after any restart. The board is evaluated at most `LOOKS` times, and its intervals and tests are
corrected for that (`Rules.level`), whenever the race ends.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.board.cells import Grid, samples
from orchestrator.board.choose import choose, clean, to_confirm
from orchestrator.board.comparisons import Terms, noise_floor, pairs
from orchestrator.board.model import Comparison
from orchestrator.board.rules import LOOKS, Rules
from orchestrator.board.stats.power import MOST_SEEDS
from orchestrator.record.rows import Row
from orchestrator.study.file import Study

Done = Callable[[str, int], bool]
"""Whether a method's search, by its number from 1 on, has all of its trials."""


@dataclass(frozen=True)
class Round:
    """What is asked for by what has ended so far: all rounds up to the one that runs."""

    given: Mapping[str, int]
    """Seeds of every chosen configuration."""
    spent: int = 0
    """Units spent of the race's budget: confirm runs or searches beyond the study's number."""
    searches: Mapping[str, int] = field(default_factory=dict)
    """How many searches each method has, where they are repeated."""

    def holds(self, row: Row) -> bool:
        """Whether a row is of these rounds, and not of a later one."""
        if row.role == "confirm":
            return row.seed <= self.given.get(row.config, 0)
        return row.repeat <= self.searches.get(row.method, row.repeat)


def planned(rows: Iterable[Row], study: Study, done: Done | None = None) -> Round:
    """What is asked for, the round that runs included.

    Where the study races, a round begins when all searches and runs of the one before have ended,
    and spends an even share of what is left; the last one ends with the budget, or when no order is
    open that more can decide. By default a search is `done` where it has a row.
    """
    rules, everything = Rules.of(study), list(rows)
    begun = {(row.method, row.repeat) for row in everything if row.role == "search"}
    done = done or (lambda method, repeat: (method, repeat) in begun)
    ended = {(row.config, row.seed) for row in everything if row.role == "confirm"}
    added: Counter[str] = Counter()
    now, left = _asked(everything, rules, added), rules.extra
    for rounds in range(LOOKS - 1, 0, -1):
        runs = {(config, i) for config, n in now.given.items() for i in range(1, n + 1)}
        if not (left and runs <= ended and _searched(now, done)):
            break
        grid, comparisons = _look(filter(now.holds, everything), rules)
        units = {method: sample.n for (method, _), sample in grid.items()}
        further = allotted(comparisons, units, min(left, max(2, -(-left // rounds))))
        if not further:
            break
        added += further
        left -= further.total()
        now = _asked(everything, rules, added)
    return now


def _asked(rows: Sequence[Row], rules: Rules, added: Counter[str]) -> Round:
    """The rounds in which each method got so many further units."""
    searches = {}
    if rules.repeats > 1:
        searches = {method: rules.repeats + added[method] for method in rules.methods}
    first = Round({}, searches=searches)
    choices = to_confirm(
        filter(first.holds, rows),
        rules.budgets,
        rules.primary,
        rules.baseline,
        rules.cost,
        matched=rules.matched,
    )
    given = dict.fromkeys((choice.config for choice in choices), rules.seeds)
    for choice in choices if rules.repeats == 1 else ():
        if choice.budget == rules.primary:
            given[choice.config] = rules.seeds + added[choice.method]
    return Round(given, added.total(), searches)


def _searched(now: Round, done: Done) -> bool:
    return all(
        done(method, repeat)
        for method, count in now.searches.items()
        for repeat in range(1, count + 1)
    )


def allotted(
    comparisons: Iterable[Comparison], units: Mapping[str, int], most: int
) -> Counter[str]:
    """Further units by method, `most` at most: the comparison that needs the fewest comes first.

    `units` is what each method has. A comparison gets as many as separate it with a power of 80 %,
    if the observed figures are the true ones, before the next one gets any. Nothing goes where the
    spread cannot say, where more than `MOST_SEEDS` are needed, or where the difference is noise by
    the A/A control.
    """
    further: Counter[str] = Counter()
    hopeful = [c for c in comparisons if c.more and c.more <= MOST_SEEDS and not c.noise]
    for comparison in sorted(hopeful, key=lambda c: (c.more, c.method, c.other)):
        pair = (comparison.method, comparison.other)
        goal = max(units[name] for name in pair) + (comparison.more or 0)
        while further.total() < most:
            fewest = min(pair, key=lambda name: (units[name] + further[name], name))
            if units[fewest] + further[fewest] >= goal:
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
    """The samples at the primary budget as the board would have them now, and what of their order
    is open.

    It uses the units alone: the results on each image are not available while the study runs.
    """
    complete, excluded = clean(rows)
    contenders = sorted({rules.baseline, *rules.methods} - rules.controls.keys())
    names = [*contenders, *rules.controls]
    choices = choose(complete, rules.budgets, rules.cost)
    grid = samples(names, rules.budgets, complete, excluded, choices, repeated=rules.repeats > 1)
    terms = Terms(rules, noise_floor(grid, rules.controls))
    now = {key: sample for key, sample in grid.items() if key[1] == rules.primary}
    return now, undecided(now, contenders, pairs(names, now, terms), rules)
