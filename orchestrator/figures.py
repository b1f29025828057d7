"""The report's figures: panels drawn on an axis, the same for the page and for the files.

Colours are Okabe and Ito's, every method has a shape of its own too, and the same input gives the
same bytes: no clock, a fixed hash salt, sorted input.
"""

import io
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from orchestrator.board import Board, Cell
from orchestrator.front import front
from orchestrator.rows import Row, clean
from orchestrator.verdict import mmacs, points

INK, RULE, GREY = "#1b1c1e", "#d8d9db", "#8f9194"
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
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


def marks(board: Board) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method: the baseline in ink with a disc, the rest by name."""
    others = sorted(name for name in board.methods if name != board.baseline)
    table = {board.baseline: (INK, "o")}
    for i, name in enumerate(others):
        table[name] = (OKABE_ITO[i % len(OKABE_ITO)], SHAPES[(i + i // 6) % len(SHAPES)])
    return table


def search_panel(board: Board, rows: Iterable[Row]) -> Panel:
    """The search cloud: validation accuracy, one seed each, with each method's validation front."""
    kept = [row for row in clean(rows)[0] if row.role == "search"]

    def draw(axes: Axes) -> None:
        for name, (colour, marker) in sorted(marks(board).items()):
            mine = [row for row in kept if row.method == name]
            macs = [row.val_macs_mean or 0.0 for row in mine]
            accuracy = [row.val_acc or 0.0 for row in mine]
            axes.scatter(
                np.array(macs) / 1e6,
                100 * np.array(accuracy),
                s=16,
                c=colour,
                marker=marker,
                alpha=0.45,
                linewidths=0,
                rasterized=len(mine) > 2000,
            )
            _steps(axes, macs, accuracy, color=colour, linewidth=1, alpha=0.9)
        _cost_axis(axes, board, "validation accuracy, %")
        axes.set_title("Search: validation, one seed per trial")

    return draw


def test_panel(board: Board) -> Panel:
    """The confirmed cells on test: the front in colour, what it dominates in grey."""
    cells = list({(c.method, c.macs_mean): c for c in board.cells if c.n}.values())
    macs = [c.macs_mean or 0.0 for c in cells]
    accuracy = [c.accuracy.mean or 0.0 for c in cells]

    def draw(axes: Axes) -> None:
        table = marks(board)
        leading = set(front(macs, accuracy))
        _steps(axes, macs, accuracy, color=INK, linewidth=1.2, zorder=2)
        for i, cell in enumerate(cells):
            colour, marker = table[cell.method]
            shade = colour if i in leading else GREY
            x, y = macs[i] / 1e6, 100 * accuracy[i]
            low, high = cell.accuracy.lo, cell.accuracy.hi
            if low is not None and high is not None:
                axes.vlines(x, 100 * low, 100 * high, color=shade, linewidth=1, zorder=3)
            axes.scatter(
                [x],
                [y],
                s=44 if i in leading else 30,
                c=shade,
                marker=marker,
                zorder=4,
                linewidths=0,
            )
        _cost_axis(axes, board, "test accuracy, %")
        _keep_in_view(axes, cells)
        axes.set_title("Confirm: test, mean over fresh seeds")
        if not cells:
            _say(axes, "not confirmed yet")

    return draw


def forest_panel(board: Board, budget: float) -> Panel:
    """Gain over the baseline at one budget, in percentage points, with Welch's interval."""
    names = [name for name in board.methods if name != board.baseline]
    limit = _forest_limit(board)

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=INK, linewidth=1)
        for y, name in enumerate(names):
            colour, marker = marks(board)[name]
            gain = board.gain(name, budget)
            result = gain.result if gain else None
            if result is None or result.difference is None:
                _beside(axes, y, board.cell(name, budget).state)
                continue
            text = points(result.difference)
            if result.lo is not None and result.hi is not None:
                lo, hi = 100 * result.lo, 100 * result.hi
                _whisker(axes, y, lo, hi, limit=limit, color=colour)
                text += f"  [{points(result.lo)}, {points(result.hi)}]"
            else:
                text += f"  {result.state}"
            if abs(100 * result.difference) <= limit:
                axes.plot([100 * result.difference], [y], marker, color=colour, markersize=5)
            _beside(axes, y, text)
        _name_axis(axes, names)
        axes.set_xlim(-limit, limit)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(f"points over {board.baseline}")
        axes.set_title(_budget_title(board, budget))

    return draw


def seeds_panel(board: Board, budget: float) -> Panel:
    """Every seed's test accuracy at one budget, mean and interval above, collapsed ones ringed."""

    def draw(axes: Axes) -> None:
        for y, name in enumerate(board.methods):
            colour, marker = marks(board)[name]
            cell = board.cell(name, budget)
            values = [100 * row.test_acc for row in cell.seeds if row.test_acc is not None]
            axes.plot(values, [y] * len(values), marker, color=colour, markersize=4.5, alpha=0.7)
            lost = [
                100 * row.test_acc
                for row in cell.seeds
                if row.seed in cell.collapsed and row.test_acc is not None
            ]
            axes.plot(lost, [y] * len(lost), "o", color=INK, fillstyle="none", markersize=11)
            summary = cell.accuracy
            if summary.lo is not None and summary.hi is not None:
                lo, hi = max(0.0, summary.lo), min(1.0, summary.hi)
                axes.hlines(y - 0.28, 100 * lo, 100 * hi, color=colour, linewidth=1.6)
            if summary.mean is not None:
                axes.plot([100 * summary.mean], [y - 0.28], "|", color=colour, markersize=9)
            _beside(axes, y, _seed_text(cell))
        _name_axis(axes, board.methods)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("test accuracy, %")
        axes.set_title(_budget_title(board, budget))

    return draw


def inline_svg(panel: Panel, *, size: tuple[float, float], prefix: str, label: str) -> str:
    """One panel as SVG to stand in a page: inherits its ink, scales, has ids of its own."""
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
    """`pareto.png` and `pareto.svg`: search and confirm side by side, never on one axis."""
    with mpl.rc_context({**STYLE, "svg.fonttype": "path"}):
        figure = Figure(figsize=(10.5, 4.6), layout="constrained", facecolor="white")
        left, right = figure.subplots(1, 2)
        search_panel(board, rows)(left)
        test_panel(board)(right)
        handles = [
            Line2D([], [], color=colour, marker=marker, linestyle="", label=name)
            for name, (colour, marker) in sorted(marks(board).items())
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=7, frameon=False)
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


def _steps(axes: Axes, macs: Sequence[float], accuracy: Sequence[float], **style: Any) -> None:
    """The front as a step function: between two points the cheaper one holds."""
    order = front(macs, accuracy)
    if order:
        x, y = [macs[i] / 1e6 for i in order], [100 * accuracy[i] for i in order]
        axes.step(x, y, where="post", **style)


def _cost_axis(axes: Axes, board: Board, label: str) -> None:
    axes.set_xscale("log")
    for budget in board.budgets:
        strong = budget == board.primary
        axes.axvline(budget, color=GREY if strong else RULE, linewidth=1, linestyle=":", zorder=0)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.set_xlabel("MMACs per image, mean (dotted: budgets)")
    axes.set_ylabel(label)


def _keep_in_view(axes: Axes, cells: Sequence[Cell]) -> None:
    """Means set the scale: the interval of a collapsed cell would flatten all others."""
    means = [100 * (cell.accuracy.mean or 0.0) for cell in cells]
    if means:
        margin = 0.12 * (max(means) - min(means)) + 0.4
        axes.set_ylim(min(means) - margin, max(means) + margin)


def _forest_limit(board: Board) -> float:
    """Half width of every forest axis, in points; a collapsed cell's interval may run out of it."""
    ends = sorted(
        100 * max(abs(g.result.difference), abs(g.result.lo or 0), abs(g.result.hi or 0))
        for g in board.gains
        if g.result.difference is not None
    )
    if not ends:
        return 1.0
    return max(0.1, 1.08 * min(ends[-1], 3 * ends[len(ends) // 2]))


def _whisker(axes: Axes, y: float, lo: float, hi: float, *, limit: float, color: str) -> None:
    """An interval with caps; an arrow where it leaves the axis."""
    axes.hlines(y, max(lo, -limit), min(hi, limit), color=color, linewidth=1.4)
    axes.plot([lo if lo >= -limit else -0.97 * limit], [y], "|<"[lo < -limit], color=color)
    axes.plot([hi if hi <= limit else 0.97 * limit], [y], "|>"[hi > limit], color=color)


def _name_axis(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), labels=list(names))
    axes.set_ylim(len(names) - 0.4, -0.7)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def _budget_title(board: Board, budget: float) -> str:
    return f"≤ {mmacs(budget)} MMACs" + (" (primary)" if budget == board.primary else "")


def _seed_text(cell: Cell) -> str:
    if not cell.n:
        return cell.state
    text = f"n = {cell.n}"
    if cell.collapsed:
        text += f", {len(cell.collapsed)} collapsed"
    return text + (f", {len(cell.failed)} failed" if cell.failed else "")


def _beside(axes: Axes, y: float, text: str) -> None:
    axes.annotate(
        text, (1.05, y), xycoords=("axes fraction", "data"), va="center", fontsize=8, color=INK
    )


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return buffer.getvalue()


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return buffer.getvalue()
