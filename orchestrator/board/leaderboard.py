"""Rows and rules -> cells at equal cost -> tests -> letters: the board, as one typed value.

A cell is the best configuration at or under a budget, chosen on validation, with the test figures
of its confirm runs on fresh seeds. Search rows give no figure here.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from orchestrator.board.cells import Grid, Sample, cell, samples, unused
from orchestrator.board.choose import (
    Choice,
    Excluded,
    choose,
    choose_confirmed,
    clean,
    costs,
    under,
)
from orchestrator.board.comparisons import (
    Terms,
    contest,
    known,
    lettered,
    noise_floor,
    not_worse,
    pairs,
    reduced,
)
from orchestrator.board.model import Board, Cell, Comparison, Effort, Matched, Race, Unreduced
from orchestrator.board.racing import undecided
from orchestrator.board.reach import area, fronts, levels, means, reach
from orchestrator.board.rules import Rules
from orchestrator.board.stats.contrasts import contrast
from orchestrator.board.stats.fronts import attainment
from orchestrator.record.evidence import Images
from orchestrator.record.result import OVER_BUDGET, REFUSED
from orchestrator.record.rows import Row
from orchestrator.study.identity import is_unreduced, unreduced_name


def leaderboard(rows: Iterable[Row], rules: Rules, images: Images | None = None) -> Board:
    """The board of a study; it depends on these arguments alone, and not on the order of the rows.

    `images` holds the results of the confirm runs on each test image, where they were recorded.
    Every method with a complete row is on the board, and so is every method that the rules name.
    """
    everything, images = list(rows), images or {}
    complete, excluded = clean(everything)
    names = sorted(
        {row.method for row in complete}
        | {rules.baseline, *rules.methods, *rules.controls, *rules.controls.values()}
    )
    contenders = [name for name in names if name not in rules.controls]
    choices = choose_confirmed(complete, rules.budgets, rules.declared, rules.cost)
    grid = samples(names, rules.budgets, complete, excluded, choices, repeated=rules.repeats > 1)
    terms = Terms(rules, noise_floor(grid, rules.controls), images)
    families = {b: [grid[name, b] for name in contenders] for b in rules.budgets}
    contests = {b: contest(family, terms) for b, family in families.items()}
    ordered = tuple(sorted(names, key=lambda name: _standing(grid[name, rules.primary], rules)))
    all_pairs = pairs(ordered, grid, terms)
    standing = [grid[name, rules.primary] for name in ordered if name in contenders]
    letters = lettered(standing, all_pairs)
    cells = {
        name: [
            cell(
                grid[name, b],
                rules,
                images,
                letters=letters.get(name, "") if b == rules.primary else "",
                p_best=contests[b].get(name),
            )
            for b in rules.budgets
        ]
        for name in ordered
    }
    runs = {name: fronts(cells[name], rules.cost) for name in ordered}
    beside = _beside(choices, complete, excluded, rules)
    wholes = _wholes(choices, complete, excluded, rules)
    every_cell = tuple(row[i] for i in range(len(rules.budgets)) for row in cells.values())
    goals = tuple(sorted(set(rules.targets))) or levels([mean for _, mean in means(every_cell)])
    left_open = undecided(grid, contenders, all_pairs, rules)
    return Board(
        rules=rules,
        methods=ordered,
        passed_over=tuple(
            c for c in choose(complete, rules.undeclared, rules.cost) if c not in choices
        ),
        cells=every_cell,
        pairs=all_pairs,
        not_worse=not_worse(ordered, grid, wholes, terms),
        unreduced=tuple(
            _unreduced(cells[name][rules.budgets.index(rules.primary)], grid, wholes[name], terms)
            for name in ordered
            if name in wholes
        ),
        matched=tuple(
            Matched(name, base, contrast(terms.units(own), base.units).at(rules.level))
            for name in ordered
            if (own := grid[name, rules.primary]).n and name in beside
            if (base := cell(beside[name], rules, images, letters="", p_best=None)).n
        ),
        reach=tuple(r for name in ordered for r in reach(name, cells[name], goals)),
        area={name: area(runs[name], rules) for name in ordered},
        attainment={name: attainment(runs[name]) for name in ordered},
        noise_floor=terms.floor,
        race=_race(everything, left_open, rules) if rules.extra else None,
        known={b: what for b, family in families.items() if (what := known(family, terms))},
        effort=tuple(_effort(name, everything, complete, rules) for name in ordered),
        excluded=(
            *excluded,
            *unused(complete, [*grid.values(), *beside.values(), *wholes.values()]),
        ),
    )


def _beside(
    choices: Sequence[Choice], complete: Sequence[Row], excluded: Sequence[Excluded], rules: Rules
) -> dict[str, Sample]:
    """The baseline at what each method's choice at the primary budget costs, by method."""
    at = costs(choices, rules.primary, rules.baseline, rules.cost)
    own = [row for row in complete if row.method == rules.baseline]
    declared = list(at.values()) if rules.matched else []
    found = choose_confirmed(own, list(at.values()), declared, rules.cost)
    grid = samples(
        [rules.baseline],
        sorted(set(at.values())),
        complete,
        excluded,
        found,
        repeated=rules.repeats > 1,
    )
    return {name: grid[rules.baseline, cost] for name, cost in at.items()}


def _wholes(
    choices: Sequence[Choice], complete: Sequence[Row], excluded: Sequence[Excluded], rules: Rules
) -> dict[str, Sample]:
    """What each method's choices at the primary budget are reduced from, where that was run."""
    if not rules.unreduced:
        return {}
    bases = [
        replace(choice, config=unreduced_name(choice.config), point="")
        for choice in choices
        if choice.budget == rules.primary
    ]
    grid = samples(
        sorted({base.method for base in bases}),
        [rules.primary],
        complete,
        excluded,
        bases,
        repeated=rules.repeats > 1,
    )
    return {
        name: replace(whole, choices=())
        for (name, _), whole in grid.items()
        if whole.seeds or whole.failed
    }


def _unreduced(own: Cell, grid: Grid, whole: Sample, terms: Terms) -> Unreduced:
    base = cell(whole, terms.rules, terms.images, letters="", p_best=None)
    gap = reduced(grid[own.method, own.budget], whole, terms).at(terms.rules.level)
    saved = 1 - own.macs_mean / base.macs_mean if own.macs_mean and base.macs_mean else None
    return Unreduced(own.method, base, gap, saved)


def _standing(sample: Sample, rules: Rules) -> tuple[bool, bool, float, bool, str]:
    """Order of the methods: by mean at the primary budget, then the unmeasured, then controls."""
    control, mean = sample.method in rules.controls, sample.mean
    return (control, mean is None, -(mean or 0.0), sample.method != rules.baseline, sample.method)


def _race(rows: Iterable[Row], undecided: tuple[Comparison, ...], rules: Rules) -> Race:
    if rules.repeats == 1:
        runs = {(r.config, r.seed) for r in rows if r.role == "confirm" and r.seed > rules.seeds}
        return Race(rules.units, rules.extra, len(runs), undecided)
    begun = {(r.method, r.repeat) for r in rows if r.role == "search"}
    further = Counter(method for method, repeat in begun if repeat > rules.repeats)
    searches = {method: rules.repeats + further[method] for method, _ in sorted(begun)}
    return Race(rules.units, rules.extra, further.total(), undecided, searches)


def _effort(method: str, rows: Sequence[Row], complete: Sequence[Row], rules: Rules) -> Effort:
    """Counts trials, not rows: a trial has a row per operating point."""
    trials = {(r.study, r.role, r.trial): r for r in rows if r.method == method}.values()
    search = [t for t in trials if t.role == "search"]
    unreduced = [t for t in trials if t.role == "confirm" and is_unreduced(t.config)]
    confirm = [t for t in trials if t.role == "confirm" and not is_unreduced(t.config)]
    bases = list({r.trial: r for r in rows if method in r.serves}.values())
    outcomes = [t.outcome.word for t in search]
    return Effort(
        method=method,
        search=len(search),
        complete=outcomes.count("COMPLETE"),
        pruned=outcomes.count("PRUNED"),
        failed=outcomes.count("FAIL"),
        refused=outcomes.count(REFUSED),
        over_budget=outcomes.count(OVER_BUDGET),
        running=outcomes.count("RUNNING"),
        candidates=sum(
            row.method == method and row.role == "search" and under(row, rules.primary, rules.cost)
            for row in complete
        ),
        confirm=len(confirm),
        confirm_failed=sum(t.state == "FAIL" for t in confirm),
        epochs=sum(t.epochs for t in (*trials, *bases)),
        seconds=math.fsum(t.seconds for t in (*trials, *bases) if math.isfinite(t.seconds)),
        unreduced=len(unreduced),
        base=sum(t.epochs for t in bases),
    )
