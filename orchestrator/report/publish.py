"""From rows to a board and its report."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.board.latency import Timed, timed
from orchestrator.board.leaderboard import Board, leaderboard
from orchestrator.board.model import BASELINE
from orchestrator.record import evidence
from orchestrator.record.evidence import Correctness
from orchestrator.record.log import Curves
from orchestrator.record.rows import Row
from orchestrator.report.figures.learning import shown
from orchestrator.report.page import write_report
from orchestrator.study.file import Study

CurvesOf = Callable[[Sequence[Row]], Curves]
"""The learning curves of these trials, as far as they have any."""


@dataclass(frozen=True)
class Outcome:
    """What a sweep ends in."""

    board: Board
    report: Path
    uri: str
    """The MLflow store."""
    link: str | None
    """The board in MLflow's pages, from `#` on; None where the store did not answer."""
    fresh: bool
    """Whether anything was left to run."""
    times: Sequence[Timed] = ()
    """The board's networks by the clock."""


def board_of(
    study: Study,
    rows: Iterable[Row],
    facts: Mapping[str, Any],
    correct: Correctness | None = None,
    *,
    primary: float | None = None,
) -> Board:
    """The board of these rows; `facts` is where they come from, `correct` what was predicted."""
    return leaderboard(
        rows,
        study.budgets,
        primary=study.primary_budget if primary is None else primary,
        declared_primary=study.primary_budget,
        chance=1 / facts["classes"],
        methods=tuple(study.methods),
        controls=study.controls,
        targets=study.targets,
        images=facts.get("test_images"),
        correct=correct,
        seeds=study.confirm.seeds,
        extra=study.confirm.budget or 0,
    )


def publish(
    study: Study,
    rows: Iterable[Row],
    facts: Mapping[str, Any],
    folder: Path,
    curves: CurvesOf,
    *,
    correct: Correctness | None = None,
    latencies: Iterable[Mapping[str, Any]] = (),
    primary: float | None = None,
) -> tuple[Board, Path, list[Timed]]:
    """The board of these rows, its report in the study's folder, and its networks by the clock."""
    rows = list(rows)
    board = board_of(study, rows, facts, correct, primary=primary)
    place = folder / ("report" if board.primary_declared else f"report-at-{board.primary:g}m")
    drawn = curves(shown(board, rows))
    times = timed(rows, study.budgets, BASELINE, latencies)
    report = write_report(
        board,
        rows,
        dict(facts),
        place,
        {},
        curves=drawn,
        costs=evidence.costs(folder, (row for cell in board.cells for row in cell.seeds)),
        times=times,
    )
    return board, report, times
