"""The report's figures: panels of gains and of seeds, and all panels as SVG, PNG and files.

Colours are Okabe and Ito's, every method has its shape too, and the same input gives the
same bytes: no clock, a fixed hash salt, sorted input.
"""

import io
import itertools
import re
from collections.abc import Callable, Iterable, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from orchestrator.board.model import Board
from orchestrator.record.evidence import Images
from orchestrator.record.rows import Row
from orchestrator.report.axes import Times
from orchestrator.report.figures.gains import forest_panel, marks_text
from orchestrator.report.figures.groups import AXES, groups_panel
from orchestrator.report.figures.latency import batches_of, latency_height, latency_panel
from orchestrator.report.figures.pareto import attainment_panel, search_panel, test_panel
from orchestrator.report.figures.routing import (
    deciding,
    decisions_panel,
    routing_height,
    worth_panel,
)
from orchestrator.report.figures.style import COLUMN, PAGE, PAPER, STYLE, Panel, marks
from orchestrator.report.groups import Group, groups
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


def files(
    board: Board, rows: Iterable[Row], times: Times = (), images: Images | None = None
) -> dict[str, bytes]:
    """The figures for papers, each as SVG, PDF and PNG, and readable without colour.

    `accuracy` is as wide as a column; `pareto`, `forest` and, where there is what they show,
    `latency`, `routing` and `groups` are as wide as two.
    """
    figures = {
        "accuracy": _accuracy(board),
        "pareto": _pareto(board, rows),
        "forest": _forest(board),
    }
    if batches := batches_of(times):
        figures["latency"] = _latency(board, times, batches)
    if deciding(board):
        figures["routing"] = _routing(board)
    if parts := groups(board, images or {}):
        figures["groups"] = _groups(board, parts)
    with mpl.rc_context(PAPER):
        return {
            f"{name}.{kind}": save(figure)
            for name, draw in figures.items()
            for kind, save in (("svg", _svg_file), ("pdf", _pdf), ("png", _png))
            for figure in [draw()]
        }


def _accuracy(board: Board) -> Callable[[], Figure]:
    """The confirmed cells on test, alone."""

    def draw() -> Figure:
        figure = _figure(2.9, COLUMN)
        test_panel(board)(figure.subplots())
        figure.legend(
            handles=_handles(board, static=True), loc="outside upper left", ncols=3, frameon=False
        )
        return figure

    return draw


def _pareto(board: Board, rows: Iterable[Row]) -> Callable[[], Figure]:
    """Search and confirm side by side, never on one axis; below what each method's seeds attain."""
    lines = -(-len(board.methods) // 3)

    def draw() -> Figure:
        figure = _figure(3.0 + 1.75 * lines)
        upper, lower = np.asarray(figure.subfigures(2, 1, height_ratios=(3.0, 1.75 * lines)))
        left, right = upper.subplots(1, 2)
        search_panel(board, rows)(left)
        test_panel(board)(right)
        upper.legend(
            handles=_handles(board, static=True), loc="outside upper left", ncols=7, frameon=False
        )
        panels = lower.subplots(lines, 3, squeeze=False).flat
        for axes, name in itertools.zip_longest(panels, board.methods):
            attainment_panel(board, name)(axes) if name else axes.set_axis_off()
        lower.suptitle("Attained by one, half and all of the seeds; dashed: " + board.baseline)
        return figure

    return draw


def _forest(board: Board) -> Callable[[], Figure]:
    """The gains at every budget, one block each."""
    height = max(1, len(board.methods) - 1) * 0.26 + 0.75

    def draw() -> Figure:
        figure = _figure(height * len(board.budgets))
        blocks = figure.subplots(len(board.budgets), 1, squeeze=False)
        for axes, budget in zip(blocks[:, 0], board.budgets, strict=True):
            forest_panel(board, budget)(axes)
        if text := marks_text(board):
            figure.supxlabel(text, fontsize="medium", x=0.01, ha="left")
        return figure

    return draw


def _latency(board: Board, times: Times, batches: Sequence[int]) -> Callable[[], Figure]:
    """The clock's figures, a panel for each size of a batch."""

    def draw() -> Figure:
        figure = _figure(latency_height(board, times))
        panels = figure.subplots(1, len(batches), squeeze=False, sharey=True)
        for axes, batch in zip(panels[0], batches, strict=True):
            latency_panel(board, times, batch)(axes)
        return figure

    return draw


def _routing(board: Board) -> Callable[[], Figure]:
    """Accuracy under each kind of decisions, and what own ones are worth."""

    def draw() -> Figure:
        figure = _figure(routing_height(board))
        left, right = figure.subplots(1, 2, sharey=True)
        decisions_panel(board)(left)
        worth_panel(board)(right)
        return figure

    return draw


def _groups(board: Board, parts: Sequence[Group]) -> Callable[[], Figure]:
    """Accuracy and MACs by difficulty and by class, a line of panels each."""
    kinds = [kind for kind in AXES if any(part.kind == kind for part in parts)]

    def draw() -> Figure:
        figure = _figure(0.4 + 1.9 * len(kinds))
        panels = figure.subplots(len(kinds), 2, squeeze=False)
        for kind, (left, right) in zip(kinds, panels, strict=True):
            groups_panel(board, parts, kind, "accuracy")(left)
            groups_panel(board, parts, kind, "macs")(right)
        figure.legend(handles=_handles(board), loc="outside upper left", ncols=7, frameon=False)
        return figure

    return draw


def _handles(board: Board, *, static: bool = False) -> list[Line2D]:
    """The legend's mark of each method, and if `static` of a static network where there is one."""
    table = marks(board)
    handles = [
        Line2D([], [], color=table[name][0], marker=table[name][1], linestyle="", label=name)
        for name in board.methods
    ]
    if static and any(cell.static for cell in board.cells):
        handles.append(Line2D([], [], color=GREY, marker="o", mfc="none", ls="", label="static"))
    return handles


def _figure(height: float, width: float = PAGE) -> Figure:
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _svg_file(figure: Figure) -> bytes:
    return _svg(figure).encode()


def _pdf(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    nothing = {"CreationDate": None, "Creator": None, "Producer": None}
    figure.savefig(buffer, format="pdf", metadata=nothing)
    return buffer.getvalue()


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return buffer.getvalue()


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=300, metadata={"Software": None})
    return buffer.getvalue()
