"""Rows -> cells: what each method has at each budget, and which cells cannot be told apart."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace

from orchestrator.board.choose import Choice, Excluded
from orchestrator.board.model import Cell
from orchestrator.board.stats.intervals import holm, summary, welch
from orchestrator.record.rows import Row
from orchestrator.study.file import cap

Grid = dict[tuple[str, float], Cell]
"""By method and budget (MMACs)."""


def cells(
    names: Sequence[str],
    ladder: Sequence[float],
    kept: Sequence[Row],
    excluded: Sequence[Excluded],
    choices: Iterable[Choice],
    *,
    confidence: float,
    chance: float,
) -> Grid:
    """Every method at every budget, with what was chosen there, not yet grouped."""
    chosen = {(c.method, c.budget): c for c in choices}
    measured: dict[tuple[str, str, str], list[Row]] = {}
    tried: dict[tuple[str, str], set[int]] = {}
    for row in kept:
        if row.role == "confirm":
            measured.setdefault((row.method, row.config, row.point), []).append(row)
    for row in (e.row for e in excluded):
        if row.role == "confirm" and row.state != "RUNNING":
            tried.setdefault((row.method, row.config), set()).add(row.seed)
    grid = {}
    for name in names:
        for budget in ladder:
            choice = chosen.get((name, budget))
            seeds: list[Row] = []
            lost: set[int] = set()
            if choice is not None:
                seeds = measured.get((name, choice.config, choice.point), [])
                lost = tried.get((name, choice.config), set()) - {row.seed for row in seeds}
            grid[name, budget] = _cell(
                method=name,
                budget=budget,
                choice=choice,
                seeds=seeds,
                lost=lost,
                confidence=confidence,
                chance=chance,
            )
    return grid


def grouped(found: Sequence[Cell], confidence: float, looks: int = 1) -> Grid:
    """The ranked cells of one budget, by groups.

    A group is its leader (highest mean) and all that Welch's test, Holm-corrected over the
    remaining cells, does not separate from it; an untestable pair is not separated.
    """
    rest = sorted(
        (cell for cell in found if cell.state == "ranked"),
        key=lambda cell: (-(cell.accuracy.mean or 0.0), cell.method),
    )
    groups: Grid = {}
    letter = ord("A")
    while rest:
        leader, others = rest[0], rest[1:]
        tests = [welch(values(leader), values(o), confidence).p for o in others]
        adjusted = holm(tests, looks=looks)
        apart = [p is not None and p < 1 - confidence for p in adjusted]
        for cell in [leader, *(o for o, away in zip(others, apart, strict=True) if not away)]:
            groups[cell.method, cell.budget] = replace(cell, group=chr(letter))
        rest = [o for o, away in zip(others, apart, strict=True) if away]
        letter += 1
    return groups


def unused(kept: Sequence[Row], grid: Grid) -> list[Excluded]:
    """Confirm rows that passed the gate and stand in no cell: what they confirm is not chosen."""
    shown = {id(row) for cell in grid.values() for row in cell.seeds}
    return [
        Excluded(row, "not chosen on validation at any budget")
        for row in kept
        if row.role == "confirm" and id(row) not in shown
    ]


def values(cell: Cell) -> list[float]:
    """The test accuracy of each seed."""
    return [row.test_acc for row in cell.seeds if row.test_acc is not None]


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
    tops = _known([row.test_macs_max for row in seeds])
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
    known = _known(values)
    return math.fsum(known) / len(known) if known else None


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None and not math.isnan(value)]


def _collapsed(seeds: Sequence[Row], accuracies: Sequence[float], chance: float) -> tuple[int, ...]:
    """Seeds no better than 1.2 times guessing, or under half of the median."""
    if not accuracies:
        return ()
    line = max(1.2 * chance, statistics.median(accuracies) / 2)
    return tuple(row.seed for row, a in zip(seeds, accuracies, strict=True) if a < line)
