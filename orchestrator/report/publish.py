"""The board and the report of a study, made from its rows and their evidence."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from methods import files
from orchestrator.board.latency import Timed, timed
from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.model import Board
from orchestrator.board.rules import Rules
from orchestrator.record.events import Latency
from orchestrator.record.evidence import Images
from orchestrator.record.log import Curves
from orchestrator.record.provenance import Provenance, encode_provenance
from orchestrator.record.rows import Row
from orchestrator.report import frames
from orchestrator.report.content import Report, facts
from orchestrator.report.figures import draw
from orchestrator.report.figures.learning import shown
from orchestrator.report.importance import importances
from orchestrator.report.interactive.fields import searched
from orchestrator.report.page import page
from orchestrator.study.file import Study

CurvesOf = Callable[[Sequence[Row]], Curves]
"""The learning curves of these trials, as far as they exist."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The sources of a board and its report."""

    study: Study
    rows: Sequence[Row]
    provenance: Provenance
    images: Images = field(default_factory=dict)
    """The results of the confirm runs on each test image, where they are recorded."""
    latencies: Sequence[Latency] = ()
    curves: CurvesOf = lambda _: {}


@dataclass(frozen=True)
class Published:
    """A board, and the report that shows it."""

    board: Board
    page: Path
    """The HTML page; the report's other files lie beside it."""
    times: Sequence[Timed]
    """The measured latencies of the board's networks."""


@dataclass(frozen=True)
class Outcome:
    """The result of a sweep."""

    board: Board
    report: Path
    uri: str
    """The MLflow store."""
    link: str | None
    """The board in MLflow's pages, from `#` on; None where the store did not answer."""
    fresh: bool
    """Whether anything was left to run."""
    times: Sequence[Timed] = ()
    """The measured latencies of the board's networks."""


def publish(source: Source, folder: Path, *, primary: float | None = None) -> Published:
    """The board of these rows, with its report in the study's folder.

    `primary` is another of the study's budgets to test at; the report of the declared one
    stays.
    """
    report = _report(source, primary)
    rules = report.board.rules
    mattered = importances(source.study, source.rows, rules.primary)
    report = replace(report, importances=mattered)
    name = "report" if rules.primary_declared else f"report-at-{rules.primary:g}{rules.cost.suffix}"
    return Published(report.board, write_report(report, folder / name), report.times)


def interim(source: Source) -> str:
    """The page of a study that runs: what its search trials gave on validation so far.

    It claims nothing, and holds no test figure: confirm runs are left out. So is what mattered in
    the search, which takes minutes for thousands of trials.
    """
    rows = [row for row in source.rows if row.role == "search"]
    return page(_report(replace(source, rows=rows, images={}, latencies=())), interim=True)


def _report(source: Source, primary: float | None = None) -> Report:
    """All but what mattered in the search."""
    rules = Rules.of(source.study, source.provenance, primary=primary)
    board = leaderboard(source.rows, rules, source.images)
    return Report(
        board=board,
        rows=source.rows,
        provenance=source.provenance,
        curves=source.curves(shown(board, source.rows)),
        images=source.images,
        times=timed(source.rows, rules.budgets, rules.baseline, source.latencies, rules.cost),
        fields=searched(source.study),
    )


def write_report(report: Report, folder: Path) -> Path:
    """Writes the report's files into `folder`, each whole or not at all; the page's path.

    The same report gives the same bytes: nothing here reads a clock, a path or a machine.
    """
    for name, content in _files(report).items():
        files.write(folder / name, content)
    return folder / "report.html"


def _files(report: Report) -> dict[str, bytes]:
    board, tables = report.board, frames.tables(report)
    evidence = _json({**encode_provenance(report.provenance), "board": facts(board)})
    return {
        **tables,
        "leaderboard.parquet": frames.parquet(frames.board_table(board, report.times)),
        "provenance.json": evidence,
        **draw.files(board, report.rows, report.times, report.images),
        "report.html": page(report, {**tables, "provenance.json": evidence}).encode(),
    }


def _json(value: Mapping[str, object]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, default=str) + "\n").encode()
