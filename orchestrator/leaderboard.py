"""Rows -> cells at equal FLOPs -> tests -> groups: the board, as one typed value.

A cell is the best configuration at or under a budget, chosen on validation, with the test figures
of its confirm runs on fresh seeds. Search rows give no figure here.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations

from methods.errors import StudyError
from orchestrator.board import RANKED_FROM, Board, Cell, Comparison, Effort, Reach, State
from orchestrator.front import mean_best_accuracy
from orchestrator.intervals import holm, summary, welch
from orchestrator.rows import Choice, Excluded, Role, Row, cap, choose, clean
from orchestrator.verdict import notes, verdict

__all__ = [
    "RANKED_FROM",
    "Board",
    "Cell",
    "Choice",
    "Comparison",
    "Effort",
    "Excluded",
    "Reach",
    "Role",
    "Row",
    "State",
    "cap",
    "choose",
    "clean",
    "leaderboard",
]

TARGETS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
"""Accuracies whose least MACs are tabled; fixed, so never derived from the data."""


def leaderboard(
    rows: Iterable[Row],
    budgets: Sequence[float],
    *,
    primary: float,
    baseline: str = "dense",
    confidence: float = 0.95,
    chance: float = 0.0,
    methods: Sequence[str] = (),
) -> Board:
    """The board of a study at its budgets (MMACs).

    `chance` is the accuracy of guessing, `methods` names those that stand in the study, so that
    one without a single row is shown too. The order of the rows changes nothing.

    Raises:
        StudyError: no budget, a budget that is not positive, or a primary that is none of them.
    """
    ladder = _ladder(budgets, primary)
    everything = list(rows)
    kept, excluded = clean(everything)
    names = sorted({row.method for row in everything} | {baseline, *methods})
    cells = _cells(names, ladder, kept, excluded, confidence=confidence, chance=chance)
    for budget in ladder:
        cells.update(_grouped([cells[name, budget] for name in names], confidence))
    ordered = tuple(sorted(names, key=lambda name: _standing(cells[name, primary], baseline)))
    board = Board(
        study=", ".join(sorted({row.study for row in everything})),
        methods=ordered,
        budgets=ladder,
        primary=primary,
        baseline=baseline,
        confidence=confidence,
        chance=chance,
        verdict="",
        notes=(),
        cells=tuple(cells[name, budget] for budget in ladder for name in ordered),
        gains=_gains(
            ordered, ladder, cells, primary=primary, baseline=baseline, confidence=confidence
        ),
        pairs=_pairs(ordered, ladder, cells, confidence),
        reach=tuple(_reach(ordered, ladder, cells)),
        area={name: _area([cells[name, b] for b in ladder], chance) for name in ordered},
        effort=tuple(_effort(name, everything) for name in ordered),
        excluded=tuple(excluded),
    )
    return replace(board, verdict=verdict(board), notes=tuple(notes(board)))


Grid = dict[tuple[str, float], Cell]


def _ladder(budgets: Sequence[float], primary: float) -> tuple[float, ...]:
    ladder = tuple(sorted({float(budget) for budget in budgets}))
    if not ladder or not ladder[0] > 0:
        raise StudyError(f"budgets must be positive MMACs and at least one, got {list(budgets)}")
    if primary not in ladder:
        raise StudyError(f"the primary budget must be one of {list(ladder)}, got {primary}")
    return ladder


def _cells(
    names: Sequence[str],
    ladder: Sequence[float],
    kept: Sequence[Row],
    excluded: Sequence[Excluded],
    *,
    confidence: float,
    chance: float,
) -> Grid:
    """Every method at every budget, not yet grouped."""
    chosen = {(c.method, c.budget): c for c in choose(kept, ladder)}
    measured: dict[tuple[str, str, str], list[Row]] = {}
    tried: dict[tuple[str, str], set[int]] = {}
    for row in kept:
        if row.role == "confirm":
            measured.setdefault((row.method, row.config, row.point), []).append(row)
    for row in (e.row for e in excluded):
        if row.role == "confirm" and row.state != "RUNNING":
            tried.setdefault((row.method, row.config), set()).add(row.seed)
    cells = {}
    for name in names:
        for budget in ladder:
            choice = chosen.get((name, budget))
            seeds: list[Row] = []
            lost: set[int] = set()
            if choice is not None:
                seeds = measured.get((name, choice.config, choice.point), [])
                lost = tried.get((name, choice.config), set()) - {row.seed for row in seeds}
            cells[name, budget] = _cell(
                method=name,
                budget=budget,
                choice=choice,
                seeds=seeds,
                lost=lost,
                confidence=confidence,
                chance=chance,
            )
    return cells


def _cell(
    *,
    method: str,
    budget: float,
    choice: Choice | None,
    seeds: Sequence[Row],
    lost: set[int],
    confidence: float,
    chance: float,
) -> Cell:
    seeds = sorted(seeds, key=lambda row: row.seed)
    accuracies = [row.test_acc for row in seeds if row.test_acc is not None]
    macs = _mean([row.test_macs_mean for row in seeds])
    tops = [row.test_macs_max for row in seeds if row.test_macs_max is not None]
    return Cell(
        method=method,
        budget=budget,
        choice=choice,
        seeds=tuple(seeds),
        accuracy=summary(accuracies, confidence),
        macs_mean=macs,
        macs_p95=_mean([row.test_macs_p95 for row in seeds]),
        macs_max=max(tops, default=None),
        overrun=macs is not None and macs > cap(budget),
        collapsed=_collapsed(seeds, accuracies, chance),
        failed=tuple(sorted(lost)),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """Of those that are there; None where none is."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return math.fsum(known) / len(known) if known else None


def _collapsed(seeds: Sequence[Row], accuracies: Sequence[float], chance: float) -> tuple[int, ...]:
    """Seeds no better than 1.2 times guessing, or under half of the median."""
    if not accuracies:
        return ()
    line = max(1.2 * chance, statistics.median(accuracies) / 2)
    return tuple(row.seed for row, a in zip(seeds, accuracies, strict=True) if a < line)


def _grouped(cells: Sequence[Cell], confidence: float) -> Grid:
    """The ranked cells of one budget, by groups.

    A group is its leader (highest mean) and all that Welch's test, Holm-corrected over the
    remaining cells, does not separate from it; an untestable pair is not separated.
    """
    rest = sorted(
        (cell for cell in cells if cell.state == "ranked"),
        key=lambda cell: (-(cell.accuracy.mean or 0.0), cell.method),
    )
    grouped: Grid = {}
    letter = ord("A")
    while rest:
        leader, others = rest[0], rest[1:]
        adjusted = holm([welch(_values(leader), _values(o), confidence).p for o in others])
        apart = [p is not None and p < 1 - confidence for p in adjusted]
        for cell in [leader, *(o for o, away in zip(others, apart, strict=True) if not away)]:
            grouped[cell.method, cell.budget] = replace(cell, group=chr(letter))
        rest = [o for o, away in zip(others, apart, strict=True) if away]
        letter += 1
    return grouped


def _standing(cell: Cell, baseline: str) -> tuple[bool, float, bool, str]:
    """Order of the methods: by mean at the primary budget, the unmeasured last."""
    mean = cell.accuracy.mean
    return (mean is None, -(mean or 0.0), cell.method != baseline, cell.method)


def _gains(
    names: Sequence[str],
    ladder: Sequence[float],
    cells: Grid,
    *,
    primary: float,
    baseline: str,
    confidence: float,
) -> tuple[Comparison, ...]:
    gains: list[Comparison] = []
    for budget in ladder:
        others = [(name, baseline) for name in names if name != baseline]
        family = _compared(others, budget, cells, confidence)
        if budget != primary:
            family = [replace(c, p_holm=None) for c in family]
        gains += family
    return tuple(gains)


def _pairs(
    names: Sequence[str], ladder: Sequence[float], cells: Grid, confidence: float
) -> tuple[Comparison, ...]:
    return tuple(
        comparison
        for budget in ladder
        for comparison in _compared(list(combinations(names, 2)), budget, cells, confidence)
    )


def _compared(
    pairs: Sequence[tuple[str, str]], budget: float, cells: Grid, confidence: float
) -> list[Comparison]:
    """Welch's test on each pair at one budget, Holm over them all."""
    results = [
        welch(_values(cells[a, budget]), _values(cells[b, budget]), confidence) for a, b in pairs
    ]
    adjusted = holm([result.p for result in results])
    return [
        Comparison(a, b, budget, result, p)
        for (a, b), result, p in zip(pairs, results, adjusted, strict=True)
    ]


def _values(cell: Cell) -> list[float]:
    return [row.test_acc for row in cell.seeds if row.test_acc is not None]


def _reach(names: Sequence[str], ladder: Sequence[float], cells: Grid) -> Iterable[Reach]:
    for name in names:
        at = [cells[name, budget] for budget in ladder]
        known = [
            (c.macs_mean, c.accuracy.mean)
            for c in at
            if c.macs_mean is not None and c.accuracy.mean is not None
        ]
        for target in TARGETS:
            enough = [macs for macs, mean in known if mean >= target]
            yield Reach(name, target, min(enough, default=None))


def _area(cells: Sequence[Cell], chance: float) -> float | None:
    """Over the study's own range of budgets; None before anything is confirmed."""
    known = [
        (c.macs_mean, c.accuracy.mean)
        for c in cells
        if c.macs_mean is not None and c.accuracy.mean is not None
    ]
    if not known:
        return None
    macs, accuracy = zip(*known, strict=True)
    low, high = cap(cells[0].budget), cap(cells[-1].budget)
    return mean_best_accuracy(macs, accuracy, low=low, high=high, chance=chance)


def _effort(method: str, rows: Sequence[Row]) -> Effort:
    """Counts trials, not rows: a trial has a row per operating point."""
    trials = {(r.study, r.role, r.trial): r for r in rows if r.method == method}.values()
    search = [t for t in trials if t.role == "search"]
    confirm = [t for t in trials if t.role == "confirm"]
    refused = [t for t in search if t.state == "FAIL" and (t.reason or "").startswith("refused")]
    states = [t.state for t in search]
    return Effort(
        method=method,
        search=len(search),
        complete=states.count("COMPLETE"),
        pruned=states.count("PRUNED"),
        failed=states.count("FAIL") - len(refused),
        refused=len(refused),
        running=states.count("RUNNING"),
        confirm=len(confirm),
        confirm_failed=sum(t.state == "FAIL" for t in confirm),
        epochs=sum(t.epochs for t in trials),
        seconds=math.fsum(t.seconds for t in trials if math.isfinite(t.seconds)),
    )
