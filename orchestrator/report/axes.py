"""Further axes of cost: size, memory, time and energy of the networks of a cell."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from rich.table import Table

from methods.errors import StudyError, nearest
from orchestrator.board import words
from orchestrator.board.latency import Timed
from orchestrator.board.model import Board, Cell
from orchestrator.board.stats.fronts import front
from orchestrator.record.rows import mean_sizes
from orchestrator.report.table import number, table, text

Times = Sequence[Timed]


@dataclass(frozen=True)
class Axis:
    """A cost that accuracy can be drawn over."""

    name: str
    """Its column in leaderboard.csv, and its name on the command line."""
    label: str
    """Its name and unit, for people."""
    scale: float
    """The label's unit, in units of the column."""
    of: Callable[[Cell, Times], float | None]
    """A cell's value, mean over its confirm runs; None where it was not measured."""
    clocked: bool = False
    """Whether a clock or a meter measured it, so that the evidence cannot recompute it."""


@dataclass(frozen=True)
class Spot:
    """A confirmed network on such an axis."""

    cell: Cell
    """The first, where one network stands at several budgets."""
    accuracy: float
    cost: float
    """In the column's unit."""
    leading: bool
    """No other network is as accurate for less."""


def _size(name: str, cell: Cell, _times: Times) -> float | None:
    return mean_sizes(cell.seeds).get(name)


def _clock(field: str, batch: int, cell: Cell, times: Times) -> float | None:
    """A column of the cell's latency at one batch size."""
    for time in times:
        if (time.method, time.budget, time.batch) == (cell.method, cell.budget, batch):
            value: float | None = getattr(time, field)
            return value
    return None


def _timing(name: str, label: str, field: str, batch: int) -> Axis:
    return Axis(name, label, 1, partial(_clock, field, batch), clocked=True)


AXES = (
    Axis("parameters", "thousand parameters", 1e3, partial(_size, "parameters")),
    Axis("weight_bytes", "kB of weights", 1e3, partial(_size, "weight_bytes")),
    Axis("activation_bytes", "peak kB of activations", 1e3, partial(_size, "activation_bytes")),
    _timing("latency_1_ms", "ms for 1 image", "ms", 1),
    _timing("latency_1_p95_ms", "p95 of ms for 1 image", "p95_ms", 1),
    _timing("latency_64_ms", "ms for 64 images", "ms", 64),
    _timing("latency_64_p95_ms", "p95 of ms for 64 images", "p95_ms", 64),
    _timing("joules", "joules an image", "joules", 64),
)
CLOCKED = [axis.name for axis in AXES if axis.clocked]
"""Columns that the evidence cannot recompute."""


def costs(cell: Cell, times: Times) -> dict[str, float | None]:
    """A cell's value on each axis, by the axis' name."""
    return {axis.name: axis.of(cell, times) for axis in AXES}


def known(board: Board, times: Times) -> list[Axis]:
    """The axes on which some cell of the board has a value."""
    return [axis for axis in AXES if any(_confirmed(board, times, axis))]


def spots(board: Board, times: Times, axis: Axis) -> list[Spot]:
    """The board's confirmed networks on an axis, by rising cost."""
    networks: dict[tuple[object, ...], tuple[Cell, float, float]] = {}
    for cell, accuracy, cost in _confirmed(board, times, axis):
        choice = cell.choice
        key = (cell.method, choice and choice.config, choice and choice.point)
        networks.setdefault(key, (cell, accuracy, cost))
    points = sorted(networks.values(), key=lambda point: (point[2], -point[1]))
    leading = set(front([cost for *_, cost in points], [accuracy for _, accuracy, _ in points]))
    return [Spot(*point, leading=i in leading) for i, point in enumerate(points)]


def axis_table(board: Board, times: Times, name: str) -> Table:
    """The board's networks over one axis, for the terminal.

    Raises:
        StudyError: there is no such axis, or nothing was measured on it.
    """
    valid = [axis.name for axis in known(board, times)]
    axis = next((axis for axis in AXES if axis.name == name and name in valid), None)
    if axis is None:
        hint = nearest(name, valid) if valid else "it has none: its networks were not measured"
        raise StudyError(f"--axis must be an axis that this study has, but got {name!r}; {hint}")
    grid = table(
        text("network", wrap=False),
        *(number(head) for head in ("budget", "test acc %", axis.label)),
        text("front"),
        caption="Exploratory: confirmed networks, means over seeds. front: no other network is as "
        "accurate for less.",
    )
    for spot in spots(board, times, axis):
        grid.add_row(
            spot.cell.method,
            f"<={words.budget_text(spot.cell.budget)}",
            words.percent(spot.accuracy),
            f"{spot.cost / axis.scale:,.4g}",
            "*" if spot.leading else "",
        )
    return grid


def _confirmed(board: Board, times: Times, axis: Axis) -> Iterator[tuple[Cell, float, float]]:
    """Cells with their accuracy and their value, where both are known."""
    for cell in board.cells:
        cost = axis.of(cell, times)
        if cost is not None and cell.accuracy.mean is not None:
            yield cell, cell.accuracy.mean, cost
