"""What every figure shares: ink, a colour and a shape for each method, matplotlib's settings."""

from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes

from orchestrator.board.model import Board
from orchestrator.report.palette import GREY, INK, OKABE_ITO, RULE

SHAPES = ("s", "^", "D", "v", "P", "X")
STYLE: Any = {
    "svg.hashsalt": "isoflop",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
}
Panel = Callable[[Axes], None]
"""Draws itself on an axis, the same for the page and for a file."""


def marks(board: Board) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method: the baseline in ink with a disc, the rest by name."""
    others = sorted(name for name in board.methods if name != board.baseline)
    table = {board.baseline: (INK, "o")}
    for i, name in enumerate(others):
        table[name] = (OKABE_ITO[i % len(OKABE_ITO)], SHAPES[(i + i // 6) % len(SHAPES)])
    return table
