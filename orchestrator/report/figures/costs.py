"""What each test image cost: the spread behind a dynamic method's mean."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from orchestrator.board.model import Board
from orchestrator.board.words import budget_text
from orchestrator.record.evidence import Images
from orchestrator.report.figures.style import Panel, marks
from orchestrator.report.palette import INK

BINS = 24


def varying(board: Board, images: Images) -> list[tuple[str, float]]:
    """Methods and budgets whose networks do not cost the same for every image."""
    return [
        (cell.method, cell.budget)
        for cell in board.cells
        if any(len(np.unique(macs)) > 1 for macs in _macs(board, cell.method, cell.budget, images))
    ]


def costs_panel(board: Board, method: str, budget: float, images: Images) -> Panel:
    """Shares of images by their MACs, all seeds together; mean dotted, budget dashed."""
    values = np.concatenate(_macs(board, method, budget, images)) / 1e6

    def draw(axes: Axes) -> None:
        colour, _ = marks(board)[method]
        weights = np.full(len(values), 1 / len(values))
        axes.hist(values, bins=BINS, weights=weights, color=colour, alpha=0.8)
        axes.axvline(float(values.mean()), color=INK, linestyle=":", linewidth=1.2)
        if values.max() > 0.6 * budget:
            axes.axvline(budget, color=INK, linestyle="--", linewidth=1.0)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.set_xlabel("MMACs of an image")
        axes.set_title(f"{method} at ≤ {budget_text(budget)}")

    return draw


def _macs(board: Board, method: str, budget: float, images: Images) -> list[np.ndarray]:
    cell = board.cell(method, budget)
    keys = [(row.trial, row.point) for row in cell.seeds]
    return [images[key].macs for key in keys if key in images]
