"""Learning curves, drawn."""

from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from orchestrator.board.model import Board
from orchestrator.record.log import Curves
from orchestrator.record.rows import Row
from orchestrator.report.figures.style import Panel, marks
from orchestrator.report.palette import GREY


def curves_panel(board: Board, name: str, rows: Iterable[Row], curves: Curves) -> Panel:
    """One method's curves: search trials thin and grey, confirm runs thick in its colour."""
    roles = {row.trial: row.role for row in rows if row.method == name and row.trial in curves}
    span = _span(curves)

    def draw(axes: Axes) -> None:
        colour, _ = marks(board)[name]
        for role, shade, width in (("search", GREY, 0.6), ("confirm", colour, 1.3)):
            for trial in sorted(trial for trial, kind in roles.items() if kind == role):
                x = [epoch for epoch, _ in curves[trial]]
                y = [100 * accuracy for _, accuracy in curves[trial]]
                mark = "." if len(x) == 1 else ""
                axes.plot(x, y, marker=mark, color=shade, linewidth=width, alpha=0.7)
        axes.set_ylim(*span)
        axes.set_xlim(left=0, right=max((c[-1][0] for c in curves.values()), default=1))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        axes.set_xlabel("epochs")
        axes.set_ylabel("validation accuracy, %")
        counts = [sum(role == kind for role in roles.values()) for kind in ("search", "confirm")]
        confirm = f", {counts[1]} confirm" if board.confirmed else ""
        axes.set_title(f"{name}: {counts[0]} search{confirm}")

    return draw


def _span(curves: Curves) -> tuple[float, float]:
    """One scale for all methods, in %."""
    values = [100 * accuracy for curve in curves.values() for _, accuracy in curve]
    margin = 0.04 * (max(values) - min(values)) + 0.5
    return min(values) - margin, max(values) + margin
