"""The latency of the board's networks: one line per method and budget, for each batch size."""

import itertools
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from orchestrator.board.latency import Timed
from orchestrator.board.model import Board
from orchestrator.report.axes import Times
from orchestrator.report.figures.style import Panel, marks
from orchestrator.report.palette import INK, RULE
from orchestrator.study.budgets import number


def batches_of(times: Times) -> list[int]:
    """The sizes of a batch that were timed."""
    return sorted({time.batch for time in times if time.ms is not None})


def latency_height(board: Board, times: Times) -> float:
    """Inches of a panel: a line for every cell."""
    return 0.75 + 0.17 * len(_lines(board, times))


def latency_panel(board: Board, times: Times, batch: int) -> Panel:
    """Median of a call, a line to its p95, and a tick where the baseline at this budget is."""
    lines = _lines(board, times)
    timed = {(t.method, t.budget): t for t in times if t.batch == batch and t.ms is not None}

    def draw(axes: Axes) -> None:
        for y, key in enumerate(lines):
            if (time := timed.get(key)) is not None and time.ms is not None:
                _draw(axes, y, board, time, time.ms)
        axes.set_yticks(range(len(lines)), labels=[_label(*key) for key in lines])
        axes.set_ylim(len(lines) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        for y, (key, following) in enumerate(itertools.pairwise(lines)):
            if key[0] != following[0]:
                axes.axhline(y + 0.5, color=RULE, linewidth=0.6)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.set_xlabel("ms a call")
        axes.set_title(f"{batch} image{'s' if batch > 1 else ''} a call")

    return draw


def _draw(axes: Axes, y: int, board: Board, time: Timed, ms: float) -> None:
    colour, marker = marks(board)[time.method]
    if time.p95_ms is not None:
        axes.hlines(y, ms, time.p95_ms, color=colour, linewidth=1)
    if time.baseline_ms is not None and time.method != board.baseline:
        axes.plot([time.baseline_ms], [y], "|", color=INK, markersize=8)
    face = colour if time.budget == board.primary else "none"
    axes.plot([ms], [y], marker, markersize=5, markerfacecolor=face, markeredgecolor=colour)


def _lines(board: Board, times: Times) -> Sequence[tuple[str, float]]:
    """Methods and budgets that were timed, in the board's order."""
    timed = {(time.method, time.budget) for time in times if time.ms is not None}
    return [
        (name, budget)
        for name in board.methods
        for budget in board.budgets
        if (name, budget) in timed
    ]


def _label(method: str, budget: float) -> str:
    """The method and the budget that its network keeps."""
    return f"{method} ≤ {number(budget)}"
