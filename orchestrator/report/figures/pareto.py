"""Accuracy over cost: the search cloud, the confirmed cells, and what the seeds attain."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from orchestrator.board.choose import clean
from orchestrator.board.model import Board, Cell
from orchestrator.board.stats.fronts import Attainment, Surface, front
from orchestrator.board.words import plural
from orchestrator.record.rows import Row
from orchestrator.report.figures.style import Panel, marks
from orchestrator.report.palette import GREY, INK, RULE
from orchestrator.study.budgets import Cost

NARROW = 6
"""How many times the least cost the largest may be where an axis needs more ticks."""


def search_panel(board: Board, rows: Iterable[Row]) -> Panel:
    """The search cloud: validation accuracy, one seed each, with each method's validation front."""
    cost = board.cost
    searched = [row for row in clean(rows)[0] if row.role == "search"]

    def draw(axes: Axes) -> None:
        for name, (colour, marker) in sorted(marks(board).items()):
            trials = [row for row in searched if row.method == name]
            spent = [cost.of_search(row) or 0.0 for row in trials]
            accuracy = [row.val_acc or 0.0 for row in trials]
            axes.scatter(
                np.array(spent) / cost.scale,
                100 * np.array(accuracy),
                s=16,
                c=colour,
                marker=marker,
                alpha=0.45,
                linewidths=0,
                rasterized=len(trials) > 2000,
            )
            _steps(axes, spent, accuracy, cost, color=colour, linewidth=1, alpha=0.9)
        _cost_axis(axes, board, "validation accuracy, %")
        axes.set_title("Search: validation, one seed per trial")

    return draw


def test_panel(board: Board) -> Panel:
    """The confirmed cells on test: the front in colour, what it dominates in grey, static networks
    hollow."""
    cells = list({(c.method, c.spent): c for c in board.cells if c.n}.values())
    spent = [c.spent or 0.0 for c in cells]
    accuracy = [c.accuracy.mean or 0.0 for c in cells]

    def draw(axes: Axes) -> None:
        table = marks(board)
        leading = set(front(spent, accuracy))
        _steps(axes, spent, accuracy, board.cost, color=INK, linewidth=1.2, zorder=2)
        for i, cell in enumerate(cells):
            colour, marker = table[cell.method]
            shade = colour if i in leading else GREY
            x, y = spent[i] / board.cost.scale, 100 * accuracy[i]
            low, high = cell.accuracy.lo, cell.accuracy.hi
            if low is not None and high is not None:
                axes.vlines(x, 100 * low, 100 * high, color=shade, linewidth=1, zorder=3)
            axes.scatter(
                [x],
                [y],
                s=44 if i in leading else 30,
                facecolors="none" if cell.static else shade,
                edgecolors=shade,
                marker=marker,
                zorder=4,
                linewidths=1 if cell.static else 0,
            )
        _cost_axis(axes, board, "test accuracy, %")
        _keep_in_view(axes, cells)
        axes.set_title("Confirm: test, mean over fresh seeds")
        if not cells:
            _say(axes, "not confirmed yet")

    return draw


def attainment_panel(board: Board, name: str) -> Panel:
    """What one, half and all of a method's seeds attain on test, over the baseline's median; the
    axes of all methods are alike."""
    attained, base = board.attainment[name], board.attainment[board.baseline]
    scale = board.cost.scale
    ends = [surface[-1][0] / scale for a in _known(board) for surface in (a.best, a.worst)]
    right = 1.15 * max(board.budgets[-1], *ends, 0.0)
    starts = [surface[0][0] / scale for a in _known(board) for surface in (a.best, a.worst)]
    left = min(board.budgets[0], *starts, right) / 1.15

    def draw(axes: Axes) -> None:
        colour, _ = marks(board)[name]
        axes.set_xscale("log")
        axes.set_xlim(left, right)
        _cost_axis(axes, board, "test accuracy, %")
        low, high = _median_span(board)
        axes.set_ylim(low, high)
        if base is not None and name != board.baseline:
            axes.step(
                *_corners(base.median, right, scale), where="post", color=GREY, linestyle="--"
            )
        if attained is None:
            _say(axes, "not confirmed yet")
        else:
            x = sorted({at for at, _ in (*attained.best, *attained.worst)} | {right * scale})
            floor, top = ([_height(s, m, low) for m in x] for s in (attained.worst, attained.best))
            axes.fill_between(
                np.array(x) / scale, floor, top, step="post", color=colour, alpha=0.18, linewidth=0
            )
            median = _corners(attained.median, right, scale)
            axes.step(*median, where="post", color=colour, linewidth=1.4)
        axes.set_xlabel(f"{board.cost.unit} (dotted: budgets)")
        axes.set_title(name + (f", {plural(attained.seeds, 'seed')}" if attained else ""))

    return draw


def _known(board: Board) -> list[Attainment]:
    return [attained for attained in board.attainment.values() if attained is not None]


def _corners(surface: Surface, right: float, scale: float) -> tuple[list[float], list[float]]:
    """A surface in budgets' units and %, drawn on to the right edge."""
    x = [spent / scale for spent, _ in surface]
    y = [100 * accuracy for _, accuracy in surface]
    return [*x, right], [*y, y[-1]]


def _height(surface: Surface, macs: float, floor: float) -> float:
    """The surface's accuracy in % at a cost; `floor` where it has not begun."""
    return max((100 * a for m, a in surface if m <= macs), default=floor)


def _median_span(board: Board) -> tuple[float, float]:
    """One scale for every method: a single seed's collapse would flatten all others."""
    medians = [100 * a for attained in _known(board) for _, a in attained.median]
    if not medians:
        return 0.0, 100.0
    margin = 0.15 * (max(medians) - min(medians)) + 0.5
    return min(medians) - margin, max(medians) + margin


def _steps(
    axes: Axes, spent: Sequence[float], accuracy: Sequence[float], cost: Cost, **style: Any
) -> None:
    """The front as a step function: between two points the cheaper one holds."""
    order = front(spent, accuracy)
    if order:
        x, y = [spent[i] / cost.scale for i in order], [100 * accuracy[i] for i in order]
        axes.step(x, y, where="post", **style)


def _cost_axis(axes: Axes, board: Board, label: str) -> None:
    axes.set_xscale("log")
    axes.vlines(
        board.budgets,
        0,
        1,
        colors=[GREY if budget == board.primary else RULE for budget in board.budgets],
        transform=axes.get_xaxis_transform(),
        linewidth=1,
        linestyle=":",
        zorder=0,
    )
    around = ((0.9 * min(board.budgets), 0.0), (1.1 * max(board.budgets), 0.0))
    axes.update_datalim(around, updatey=False)  # one budget alone spans nothing
    low, high = axes.get_xlim()
    narrow = high < NARROW * low
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if narrow else (1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    calls = board.cost.batch
    per = "MMACs per image" if calls is None else f"ms for {plural(calls, 'image')}"
    axes.set_xlabel(f"{per}, mean (dotted: budgets)")
    axes.set_ylabel(label)


def _keep_in_view(axes: Axes, cells: Sequence[Cell]) -> None:
    """Means and intervals set the scale, but for the interval of a collapsed cell, which would
    flatten all others."""
    values = [100 * (cell.accuracy.mean or 0.0) for cell in cells]
    for cell in cells:
        ends = (cell.accuracy.lo, cell.accuracy.hi)
        values += [100 * end for end in ends if end is not None and not cell.collapsed]
    if values:
        margin = 0.06 * (max(values) - min(values)) + 0.4
        axes.set_ylim(min(values) - margin, max(values) + margin)


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)
