"""What every figure shares: ink, a colour and a shape for each method, matplotlib's settings."""

from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes

from orchestrator.board.model import Board
from orchestrator.report.palette import GREY, INK, RULE, colour, places

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
PAPER: Any = {
    **STYLE,
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.linewidth": 0.6,
    "grid.linewidth": 0.4,
    "lines.linewidth": 1,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}
"""Settings of the files for papers: text at 7 points in the printed width, and as a font that is
embedded in the file (Type 42, as journals ask) or as outlines."""
COLUMN, PAGE = 3.5, 7.0
"""Inches: one column of a journal, and two."""
Panel = Callable[[Axes], None]
"""Draws itself on an axis, the same for the page and for a file."""


def marks(board: Board) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method: the baseline in ink with a disc, the rest by place."""
    table = {board.baseline: (colour(None), "o")}
    for name, i in places(board.methods, board.baseline).items():
        table[name] = (colour(i), SHAPES[(i + i // 6) % len(SHAPES)])
    return table
