"""Gains over the baseline: the forest plot of differences, and the accuracy of each seed."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from orchestrator.board.model import Board, Cell
from orchestrator.board.words import budget_text, points
from orchestrator.report.figures.style import Panel, marks
from orchestrator.report.palette import GREY, INK, RULE


def forest_panel(board: Board, budget: float) -> Panel:
    """Gain over the baseline at one budget, in percentage points, with its interval."""
    names = [name for name in board.methods if name != board.baseline]
    span = _forest_span(board)

    def draw(axes: Axes) -> None:
        if board.noise_floor is not None:
            edge = 100 * board.noise_floor
            axes.axvspan(-edge, edge, color=RULE, alpha=0.6, linewidth=0, zorder=0)
        axes.axvline(0, color=INK, linewidth=1)
        for y, name in enumerate(names):
            colour, marker = marks(board)[name]
            gain = board.gain(name, budget)
            colour = GREY if gain and gain.noise else colour
            result = gain.result if gain else None
            if result is None or result.difference is None:
                _beside(axes, y, board.cell(name, budget).state)
                continue
            text = points(result.difference)
            if result.lo is not None and result.hi is not None:
                lo, hi = 100 * result.lo, 100 * result.hi
                _whisker(axes, y, lo, hi, span=span, color=colour)
                text += f"  [{points(result.lo)}, {points(result.hi)}]"
            else:
                text += f"  {result.state}"
            text += "  noise" if gain and gain.noise else ""
            text += _as_below(board, board.cell(name, budget))
            if span[0] <= 100 * result.difference <= span[1]:
                axes.plot([100 * result.difference], [y], marker, color=colour, markersize=5)
            _beside(axes, y, text)
        _name_axis(axes, [marked(board, board.cell(name, budget)) for name in names])
        axes.set_xlim(span)
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
                if row.trial in cell.collapsed and row.test_acc is not None
            ]
            axes.plot(lost, [y] * len(lost), "o", color=INK, fillstyle="none", markersize=11)
            summary = cell.accuracy
            if summary.lo is not None and summary.hi is not None:
                axes.hlines(
                    y - 0.28, 100 * summary.lo, 100 * summary.hi, color=colour, linewidth=1.6
                )
            if summary.mean is not None:
                axes.plot([100 * summary.mean], [y - 0.28], "|", color=colour, markersize=9)
            _beside(axes, y, _seed_text(cell) + _as_below(board, cell))
        _name_axis(axes, [marked(board, board.cell(name, budget)) for name in board.methods])
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("test accuracy, %")
        axes.set_title(_budget_title(board, budget))

    return draw


def marked(board: Board, cell: Cell) -> str:
    """The method of a cell, with the marks that it has in the terminal."""
    best = " \N{BLACK STAR}" if board.leads(cell) else ""
    return cell.method + ("\N{DEGREE SIGN}" if cell.static else "") + best


def marks_text(board: Board) -> str:
    """What the marks beside the methods say; '' where there is none."""
    cells = [cell for cell in board.cells if cell.method != board.baseline]
    texts = {
        "\N{BLACK STAR} highest mean at its budget": any(map(board.leads, cells)),
        "\N{DEGREE SIGN} static: deciding per image is not shown to pay": any(
            cell.static for cell in cells
        ),
        "as \N{LESS-THAN OR EQUAL TO}: the networks of that lower budget": any(
            board.repeated(cell) is not None for cell in cells
        ),
    }
    return "; ".join(text for text, holds in texts.items() if holds)


def _as_below(board: Board, cell: Cell) -> str:
    """The lower budget whose networks a cell has, where there is one."""
    below = board.repeated(cell)
    return "" if below is None else f"  as \N{LESS-THAN OR EQUAL TO} {budget_text(below)}"


def _forest_span(board: Board) -> tuple[float, float]:
    """The ends of every forest axis, in points; a collapsed cell's interval may run out of it."""
    tested = [g for g in board.gains if g.method not in board.rules.controls]
    gains = [g.result for g in tested if g.result.difference is not None]
    ends = [[100 * (end or 0.0) for end in (g.difference, g.lo, g.hi)] for g in gains]
    if not ends:
        return -1.0, 1.0
    largest = sorted(max(map(abs, three)) for three in ends)
    limit = max(0.1, min(largest[-1], 3 * largest[len(largest) // 2]))
    floor = 100 * (board.noise_floor or 0.0)
    low = max(-limit, min(-floor, *map(min, ends)))
    high = min(limit, max(floor, *map(max, ends)))
    space = 0.08 * (high - low) or 0.1
    return low - space, high + space


def _whisker(
    axes: Axes, y: float, lo: float, hi: float, *, span: tuple[float, float], color: str
) -> None:
    """An interval with caps; an arrow where it leaves the axis."""
    left, right = span
    inset = 0.02 * (right - left)
    axes.hlines(y, max(lo, left), min(hi, right), color=color, linewidth=1.4)
    axes.plot([lo if lo >= left else left + inset], [y], "|<"[lo < left], color=color)
    axes.plot([hi if hi <= right else right - inset], [y], "|>"[hi > right], color=color)


def _name_axis(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), labels=list(names))
    axes.set_ylim(len(names) - 0.4, -0.7)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def _budget_title(board: Board, budget: float) -> str:
    return f"≤ {board.cost.amount(budget)}" + (" (primary)" if budget == board.primary else "")


def _seed_text(cell: Cell) -> str:
    if not cell.n:
        return cell.state
    text = f"n = {cell.n}"
    if cell.collapsed:
        text += f", {len(cell.collapsed)} collapsed"
    return text + (f", {len(cell.failed)} failed" if cell.failed else "")


def _beside(axes: Axes, y: float, text: str) -> None:
    axes.annotate(
        text,
        (1.05, y),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize="medium",
        color=INK,
    )
