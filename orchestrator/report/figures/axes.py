"""Accuracy over any other cost than MACs: a small panel an axis."""

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from orchestrator.board.model import Board
from orchestrator.report.axes import Axis, Times, spots
from orchestrator.report.figures.style import Panel, marks
from orchestrator.report.palette import GREY, INK


def axis_panel(board: Board, times: Times, axis: Axis) -> Panel:
    """The confirmed networks on test: the front in colour, what it dominates in grey."""
    points = spots(board, times, axis)

    def draw(axes: Axes) -> None:
        front = [spot for spot in points if spot.leading]
        x, y = [s.cost / axis.scale for s in front], [100 * s.accuracy for s in front]
        axes.step(x, y, where="post", color=INK, linewidth=1.2, zorder=2)
        for spot in points:
            colour, marker = marks(board)[spot.cell.method]
            axes.scatter(
                [spot.cost / axis.scale],
                [100 * spot.accuracy],
                s=36 if spot.leading else 24,
                c=colour if spot.leading else GREY,
                marker=marker,
                zorder=4,
                linewidths=0,
            )
        axes.set_xscale("log")
        costs = [spot.cost / axis.scale for spot in points]
        axes.set_xlim(min(costs) / 1.3, max(costs) * 1.3)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        axes.set_xlabel(axis.label)
        axes.set_ylabel("test accuracy, %")

    return draw
