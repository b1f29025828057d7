"""The board and the report of a study, made from its rows and their evidence."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.board.latency import Timed, timed
from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.model import Board
from orchestrator.board.rules import Rules
from orchestrator.record.events import Latency
from orchestrator.record.evidence import Images
from orchestrator.record.log import Curves
from orchestrator.record.provenance import Provenance
from orchestrator.record.rows import Row
from orchestrator.report.content import PAGE, Report, shown
from orchestrator.report.stamp import Stamp, sources
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

    A report that was drawn from the same sources by the same code is left as it is. `primary` is
    another of the study's budgets to test at; the report of the declared one stays.
    """
    report = report_of(source, primary)
    rules = report.board.rules
    name = "report" if rules.primary_declared else f"report-at-{rules.primary:g}{rules.cost.suffix}"
    place = folder / name
    stamp = Stamp(folder / "cache" / f"{name}.json", sources(source.study, report))
    if not stamp.holds(place):
        from orchestrator.report.drawing import complete, write_report  # noqa: PLC0415, a second

        write_report(complete(report, source.study), place)
        stamp.put(place)
    return Published(report.board, place / PAGE, report.times)


def report_of(source: Source, primary: float | None = None) -> Report:
    """The content of a report, but for what takes long to compute and is only drawn."""
    rules = Rules.of(source.study, source.provenance, primary=primary)
    board = leaderboard(source.rows, rules, source.images)
    return Report(
        board=board,
        rows=source.rows,
        provenance=source.provenance,
        curves=source.curves(shown(board, source.rows)),
        images=source.images,
        times=timed(source.rows, rules.budgets, rules.baseline, source.latencies, rules.cost),
    )
