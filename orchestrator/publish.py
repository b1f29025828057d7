"""From rows to a board and its report."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from methods.errors import StorageError
from orchestrator import evidence
from orchestrator.board import BASELINE
from orchestrator.bootstrap import Correctness
from orchestrator.latency import Timed, timed
from orchestrator.leaderboard import Board, leaderboard
from orchestrator.learning import Curves, shown
from orchestrator.report import write_report
from orchestrator.rows import Row
from orchestrator.study import Study

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


def default_uri(out: Path) -> str:
    """The SQLite store that the studies of one folder share."""
    return f"sqlite:///{out.absolute() / 'mlflow.db'}"


def writable(out: Path) -> None:
    """Refuse an output folder before anything is written into it.

    Raises:
        StorageError: it cannot be written.
    """
    nearest = next(place for place in (out.absolute(), *out.absolute().parents) if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise StorageError(f"--out must be a folder that can be written, but {nearest} is not")
