"""What networks that decide per image give under their own decisions, and under others."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from orchestrator.board.model import Board, Cell
from orchestrator.board.words import budget_text
from orchestrator.report.figures.style import Panel, marks
from orchestrator.report.palette import INK

LANES: tuple[tuple[float, dict[str, Any]], ...] = (
    (-0.24, {"markersize": 5}),
    (-0.08, {"markersize": 5, "markerfacecolor": "none"}),
    (0.08, {"markersize": 5, "alpha": 0.4, "markeredgewidth": 0}),
    (0.24, {"markersize": 3}),
)
"""Where in a cell's line own decisions stand, another image's, the majority's and all run, and how
they look."""


def deciding(board: Board) -> list[Cell]:
    """The cells whose decisions were measured, by method in the board's order, then by budget."""
    cells = (board.cell(name, budget) for name in board.methods for budget in board.budgets)
    return [cell for cell in cells if cell.worth is not None]


def routing_height(board: Board) -> float:
    """Inches of a panel: a line for every cell that decides."""
    return 0.75 + 0.3 * len(deciding(board))


def decisions_panel(board: Board) -> Panel:
    """Test accuracy: own decisions filled with their interval, another image's hollow, the
    majority's pale, all run small."""
    cells = deciding(board)

    def draw(axes: Axes) -> None:
        for y, cell in enumerate(cells):
            assert cell.worth is not None
            colour, marker = marks(board)[cell.method]
            worth, own = cell.worth, cell.accuracy
            values = (own.mean, worth.another, worth.majority, worth.everything)
            if own.lo is not None and own.hi is not None:
                axes.hlines(y + LANES[0][0], 100 * own.lo, 100 * own.hi, color=colour, linewidth=1)
            for (lane, look), value in zip(LANES, values, strict=True):
                if value is not None:
                    axes.plot([100 * value], [y + lane], marker, color=colour, **look)
        _lines(axes, cells)
        axes.set_xlabel("test accuracy, %")
        axes.set_title("Own, another's, majority's, all run")

    return draw


def worth_panel(board: Board) -> Panel:
    """Own less another image's decisions in points, with its interval; static networks hollow."""
    cells = deciding(board)

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=INK, linewidth=1)
        for y, cell in enumerate(cells):
            assert cell.worth is not None
            colour, marker = marks(board)[cell.method]
            gain = cell.worth.gain
            if gain.lo is not None and gain.hi is not None:
                axes.hlines(y, 100 * gain.lo, 100 * gain.hi, color=colour, linewidth=1)
            face = "none" if cell.static else colour
            mean = 100 * (gain.mean or 0.0)
            axes.plot([mean], [y], marker, color=colour, markerfacecolor=face, markersize=5)
        _lines(axes, cells)
        axes.set_xlabel("own less another image's decisions, points")
        axes.set_title("Worth (hollow: static)")

    return draw


def _lines(axes: Axes, cells: Sequence[Cell]) -> None:
    names = [
        f"{cell.method} \N{LESS-THAN OR EQUAL TO} {budget_text(cell.budget)}" for cell in cells
    ]
    axes.set_yticks(range(len(cells)), labels=names)
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="x")
    axes.set_axisbelow(True)
