"""Accuracy and MACs of each method by the difficulty and the class of the test images."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
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
SPREAD = 0.7
"""Fraction of a group's width that the methods take, side by side."""


def groups_panel(
    board: Board, groups: Sequence[Group], kind: Kind, figure: Literal["accuracy", "macs"]
) -> Panel:
    """One line per method over the groups of this kind, with intervals."""

    def draw(axes: Axes) -> None:
        names: list[str] = []
        for i, method in enumerate(board.methods):
            parts = [group for group in groups if (group.method, group.kind) == (method, kind)]
            if not parts:
                continue
            names = [part.name for part in parts]
            colour, marker = marks(board)[method]
            scale = 100 if figure == "accuracy" else 1e-6
            x = np.arange(len(parts)) + (i - (len(board.methods) - 1) / 2) * SPREAD / len(
                board.methods
            )
            style = "none" if kind == "class" else "-"
            summaries = [getattr(part, figure) for part in parts]
            values = [scale * (summary.mean or 0.0) for summary in summaries]
            axes.plot(x, values, marker=marker, color=colour, markersize=3.5, linestyle=style)
            for at, summary in zip(x, summaries, strict=True):
                if summary.lo is not None and summary.hi is not None:
                    axes.vlines(
                        at, scale * summary.lo, scale * summary.hi, color=colour, linewidth=1
                    )
        shown = range(len(names)) if len(names) <= LABELS_SHOWN else ()
        axes.set_xticks(list(shown), labels=[names[i] for i in shown])
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="y")
        axes.set_xlabel(AXES[kind].format(baseline=board.baseline))
        axes.set_title("test accuracy, %" if figure == "accuracy" else "MMACs of an image")

    return draw
