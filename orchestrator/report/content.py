"""The content of a report, as one value."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.board.latency import Timed
from orchestrator.board.model import Board, Effort, Unreduced
from orchestrator.board.rules import Rules
from orchestrator.board.verdict import notes, verdict
from orchestrator.board.words import budget_text
from orchestrator.record.evidence import Images
from orchestrator.record.log import Curves
from orchestrator.record.provenance import Provenance
from orchestrator.record.rows import Row

if TYPE_CHECKING:
    from orchestrator.report.importance import Importance
    from orchestrator.report.interactive.fields import Field

PAGE = "report.html"
"""The report's page among its files."""
SEARCHED = 40
"""Search trials of one method whose curves are shown, evenly spaced; confirm runs are all shown."""

STATISTICS = 2
"""Version of the statistics behind the claims: 1 grouped by the leader and took budgets apart, 2 is
one family of tests. Published claims are compared with those of this version only if the versions
are equal."""

WORDS = 2
"""Version of the wording of verdict and notes, which are compared only with those of this version;
boards without a recorded version have the first one."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """A board, and everything else on the page."""

    board: Board
    rows: Sequence[Row]
    """The rows of the board; the search is drawn from them."""
    provenance: Provenance
    curves: Curves = field(default_factory=dict)
    """Learning curves, by trial."""
    images: Images = field(default_factory=dict)
    """The results of the confirm runs on each test image."""
    times: Sequence[Timed] = ()
    """The measured latencies of the board's networks."""
    importances: "Sequence[Importance]" = ()
    """The importance of the searched hyperparameters."""
    fields: "Sequence[Field]" = ()
    """The searched hyperparameters."""


def shown(board: Board, rows: Iterable[Row]) -> list[Row]:
    """One row of each trial whose curve the report shows: those of the cells, some of the search.

    The order of the rows changes nothing.
    """
    confirmed = {row.trial: row for cell in board.cells for row in cell.seeds}
    searched: dict[str, dict[str, Row]] = {name: {} for name in board.methods}
    for row in sorted(rows, key=lambda row: (row.trial, row.point)):
        if row.role == "search" and row.state in ("COMPLETE", "PRUNED"):
            searched[row.method].setdefault(row.trial, row)
    chosen = [confirmed[trial] for trial in sorted(confirmed)]
    for name in board.methods:
        chosen += _spread(list(searched[name].values()))
    return chosen


def facts(board: Board) -> dict[str, object]:
    """The rules of the board, and every row that it left out; for programs."""
    rules = board.rules
    unit = rules.cost.name
    return {
        "verdict": verdict(board),
        "notes": list(notes(board)),
        "words": WORDS,
        f"budgets_{unit}": list(rules.budgets),
        f"primary_{unit}": rules.primary,
        **({} if rules.cost.batch is None else {"batch": rules.cost.batch}),
        "baseline": rules.baseline,
        "confidence": rules.confidence,
        "controls": rules.controls,
        "noise_floor": board.noise_floor,
        "targets": {
            "declared": bool(rules.targets),
            "values": sorted({reach.accuracy for reach in board.reach}),
        },
        "statistics": STATISTICS,
        "repeats": rules.repeats,
        "margin": rules.margin,
        "not_worse": [vars(test) for test in board.not_worse],
        "test_images": rules.images,
        "known": {budget_text(budget): known for budget, known in board.known.items()},
        "looks": rules.looks,
        "effort": [_effort(effort, rules) for effort in board.effort],
        **({"searches": dict(board.race.searches)} if board.race and board.race.searches else {}),
        **(
            {"unreduced": [_unreduced(pair) for pair in board.unreduced]} if rules.unreduced else {}
        ),
        "area": {
            f"range_{unit}": [rules.budgets[0], rules.budgets[-1]],
            "floor": rules.chance,
            "values": {name: vars(area) for name, area in board.area.items()},
        },
        "excluded": [
            {"trial": e.row.trial, "role": e.row.role, "point": e.row.point, "reason": e.reason}
            for e in board.excluded
        ],
    }


def _spread(rows: Sequence[Row]) -> list[Row]:
    """At most `SEARCHED` of them, the first and the last included."""
    if len(rows) <= SEARCHED:
        return list(rows)
    return [rows[i * (len(rows) - 1) // (SEARCHED - 1)] for i in range(SEARCHED)]


def _effort(effort: Effort, rules: Rules) -> dict[str, object]:
    """The effort as a JSON object; unreduced runs and bases appear only if the study trains
    them."""
    left_out = {"unreduced": rules.unreduced, "base": effort.base}
    return {name: v for name, v in vars(effort).items() if left_out.get(name, True)}


def _unreduced(pair: Unreduced) -> dict[str, object]:
    return {
        "method": pair.method,
        "accuracy": vars(pair.base.accuracy),
        "macs_mean": pair.base.macs_mean,
        "saved": pair.saved,
        "difference": vars(pair.result),
        "trials": [row.trial for row in pair.base.seeds],
    }
