"""Accuracy and MACs of each method by the difficulty and the class of the test images."""

from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from orchestrator.board.model import Board
from orchestrator.report.figures.style import Panel, marks
from orchestrator.report.groups import Group, Kind

AXES: dict[Kind, str] = {
    "difficulty": "difficulty of the image",
    "loss": "fifth of the images by {baseline}'s loss, easiest first",
    "class": "class",
}
LABELS_SHOWN = 12
"""Groups up to which each has its name on the axis."""


def groups_panel(
    board: Board, groups: Sequence[Group], kind: Kind, figure: Literal["accuracy", "macs"]
) -> Panel:
    """One line per method over the groups of this kind."""

    def draw(axes: Axes) -> None:
        names: list[str] = []
        for method in board.methods:
            parts = [group for group in groups if (group.method, group.kind) == (method, kind)]
            if not parts:
                continue
            names = [part.name for part in parts]
            colour, marker = marks(board)[method]
            scale = 100 if figure == "accuracy" else 1e-6
            values = [scale * getattr(part, figure) for part in parts]
            style = "none" if kind == "class" else "-"
            axes.plot(values, marker=marker, color=colour, markersize=4, linestyle=style)
        shown = range(len(names)) if len(names) <= LABELS_SHOWN else ()
        axes.set_xticks(list(shown), labels=[names[i] for i in shown])
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="y")
        axes.set_xlabel(AXES[kind].format(baseline=board.baseline))
        axes.set_title("test accuracy, %" if figure == "accuracy" else "MMACs of an image")

    return draw
