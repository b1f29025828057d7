"""The report's figures: panels of gains and of seeds, and all panels as SVG, PNG and files.

Colours are Okabe and Ito's, every method has its shape too, and the same input gives the
same bytes: no clock, a fixed hash salt, sorted input.
"""

import io
import itertools
import re
from collections.abc import Iterable

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from orchestrator.board.model import Board
from orchestrator.record.rows import Row
from orchestrator.report.figures.gains import forest_panel
from orchestrator.report.figures.pareto import attainment_panel, search_panel, test_panel
from orchestrator.report.figures.style import STYLE, Panel, marks
from orchestrator.report.palette import GREY, INK, RULE


def inline_svg(panel: Panel, *, size: tuple[float, float], prefix: str, label: str) -> str:
    """One panel as SVG to stand in a page: inherits its ink, scales, and has unique ids."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        panel(figure.add_subplot())
        svg = _svg(figure)
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\1{prefix}-", svg)
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", svg, count=1)
    svg = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", svg, count=1)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    for colour, name in ((INK, "ink"), (RULE, "rule"), (GREY, "grey")):
        svg = svg.replace(colour, f"var(--{name})")
    return svg


def pareto_files(board: Board, rows: Iterable[Row]) -> dict[str, bytes]:
    """`pareto.png` and `pareto.svg`: search and confirm side by side, never on one axis; below
    them what each method's seeds attain."""
    lines = -(-len(board.methods) // 3)
    with mpl.rc_context({**STYLE, "svg.fonttype": "path"}):
        size = (10.5, 4.6 + 2.6 * lines)
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        halves = figure.subfigures(2, 1, height_ratios=(4.6, 2.6 * lines))
        upper, lower = np.asarray(halves)
        left, right = upper.subplots(1, 2)
        search_panel(board, rows)(left)
        test_panel(board)(right)
        handles = [
            Line2D([], [], color=colour, marker=marker, linestyle="", label=name)
            for name, (colour, marker) in sorted(marks(board).items())
        ]
        upper.legend(handles=handles, loc="outside upper left", ncols=7, frameon=False)
        panels = lower.subplots(lines, 3, squeeze=False).flat
        for axes, name in itertools.zip_longest(panels, board.methods):
            attainment_panel(board, name)(axes) if name else axes.set_axis_off()
        lower.suptitle("Attained by one, half and all of the seeds; dashed: " + board.baseline)
        return {"pareto.png": _png(figure), "pareto.svg": _svg(figure).encode()}


def forest_file(board: Board) -> bytes:
    """`forest.png`: the gains at every budget, one block each."""
    height = max(1, len(board.methods) - 1) * 0.36 + 0.95
    with mpl.rc_context(STYLE):
        size = (7.5, height * len(board.budgets))
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        blocks = figure.subplots(len(board.budgets), 1, squeeze=False)
        for axes, budget in zip(blocks[:, 0], board.budgets, strict=True):
            forest_panel(board, budget)(axes)
        return _png(figure)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return buffer.getvalue()


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return buffer.getvalue()
