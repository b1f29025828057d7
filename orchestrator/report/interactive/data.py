"""What the page's scripts draw from: the report's own tables, as one block of JSON.

The scripts read the text of leaderboard.csv and its like, so that what a figure shows is what the
files hold. What leads on an axis is decided by `orchestrator.report.axes`, not in the browser.
"""

import json
from collections.abc import Mapping

from orchestrator.board import words
from orchestrator.board.model import Board, Cell
from orchestrator.report import frames
from orchestrator.report.axes import Axis, Times, known, spots
from orchestrator.report.content import Report
from orchestrator.report.figures.groups import AXES
from orchestrator.report.figures.style import marks
from orchestrator.report.importance import best_of, candidates
from orchestrator.report.palette import INK
from orchestrator.study.budgets import Cost, number

SHOWN = 2000
"""Operating points of the search that the page holds, evenly spaced; search.csv has all."""
MACS = Axis("macs_mean_m", "MMACs per image", 1, lambda cell, _: _millions(cell))
"""What the networks are priced in."""


def block(report: Report, files: Mapping[str, bytes]) -> str:
    """The JSON that stands in the page; `files` are those of the report that are text.

    No character in it can end the element that it stands in.
    """
    text = json.dumps(_content(report, files), separators=(",", ":"), ensure_ascii=True)
    return text.translate({ord(c): f"\\u{ord(c):04x}" for c in "<>&"})


def places(board: Board) -> dict[tuple[str, float], int]:
    """The line of each cell in leaderboard.csv, from 0 on, by method and budget."""
    return {(cell.method, cell.budget): i for i, cell in enumerate(board.cells)}


def _content(report: Report, files: Mapping[str, bytes]) -> dict[str, object]:
    board, times = report.board, report.times
    search = frames.search_table(report.rows, report.fields)
    points = len(search)
    if points > SHOWN:
        search = search.iloc[[i * (points - 1) // (SHOWN - 1) for i in range(SHOWN)]]
    limited = _limited(board.cost)
    axes = [*dict.fromkeys((limited, MACS)), *known(board, times)] if board.confirmed else []
    return {
        "unit": board.rules.unit,
        "budgets": [
            {"value": budget, "label": number(budget), "primary": budget == board.primary}
            for budget in board.budgets
        ],
        "budgeted": {
            "budget": f"budget_{board.cost.name}",
            "same": f"same_as_{board.cost.name}",
            "cost": limited.name,
            "unit": board.cost.unit,
        },
        "methods": _methods(board),
        "files": {name: content.decode() for name, content in files.items()},
        "search": frames.csv(search).decode(),
        "searched": points,
        "costs": [_cost(board, times, axis) for axis in axes],
        "kinds": {kind: text.format(baseline=board.baseline) for kind, text in AXES.items()},
        "fields": [vars(field) for field in report.fields],
        "importances": [
            {"method": i.method, "field": i.field, "share": i.share, "lo": i.lo, "hi": i.hi}
            for i in report.importances
        ],
        "best": _best(report),
        "runs": _runs(report),
    }


def _methods(board: Board) -> list[dict[str, object]]:
    """Name, colour and shape of each method, in the board's order."""
    table = marks(board)
    return [
        {
            "name": name,
            "colour": "var(--ink)" if table[name][0] == INK else table[name][0],
            "shape": table[name][1],
        }
        for name in board.methods
    ]


def _cost(board: Board, times: Times, axis: Axis) -> dict[str, object]:
    """An axis: which lines of leaderboard.csv are drawn on it, and which of them lead."""
    lines, points = places(board), spots(board, times, axis)
    return {
        "column": axis.name,
        "label": axis.label,
        "scale": axis.scale,
        "points": [lines[spot.cell.method, spot.cell.budget] for spot in points],
        "front": [lines[s.cell.method, s.cell.budget] for s in points if s.leading],
    }


def _limited(cost: Cost) -> Axis:
    """The axis on which configurations are chosen."""
    if not cost.clocked:
        return MACS
    label = f"ms for {words.plural(cost.batch or 1, 'image')}, as budgeted"
    return Axis("ms", label, 1, lambda cell, _: cell.spent, clocked=True)


def _millions(cell: Cell) -> float | None:
    return None if cell.macs_mean is None else cell.macs_mean / 1e6


def _best(report: Report) -> dict[str, list[str]]:
    """The best quarter of each method's trials under the primary budget, from four trials on."""
    return {
        method: sorted(trials, key=lambda name: (trials[name][1], name))[: best_of(len(trials))]
        for method, trials in candidates(
            report.rows, report.board.primary, report.board.cost
        ).items()
        if len(trials) >= 4
    }


def _runs(report: Report) -> dict[str, str]:
    """The MLflow run of each trial that the page shows, where it is known."""
    known = {row.trial: row.run_id for row in report.rows if row.run_id}
    return dict(sorted(known.items()))
