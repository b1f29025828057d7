"""The files of a report, drawn; to import this takes a second, for its libraries."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from methods import files
from orchestrator.record.provenance import encode_provenance
from orchestrator.report import frames
from orchestrator.report.content import PAGE, Report, facts
from orchestrator.report.figures import draw
from orchestrator.report.importance import importances
from orchestrator.report.interactive.fields import searched
from orchestrator.report.page import page
from orchestrator.report.publish import Source, report_of
from orchestrator.study.file import Study


def complete(report: Report, study: Study) -> Report:
    """The report with what was searched, and what of it mattered."""
    mattered = importances(study, report.rows, report.board.rules.primary)
    return replace(report, importances=mattered, fields=searched(study))


def interim(source: Source) -> str:
    """The page of a study that runs: what its search trials gave on validation so far.

    It claims nothing, and holds no test figure: confirm runs are left out. So is what mattered in
    the search, which takes minutes for thousands of trials.
    """
    rows = [row for row in source.rows if row.role == "search"]
    report = report_of(replace(source, rows=rows, images={}, latencies=()))
    return page(replace(report, fields=searched(source.study)), interim=True)


def write_report(report: Report, folder: Path) -> Path:
    """Writes the report's files into `folder`, each whole or not at all; the page's path.

    The same report gives the same bytes: nothing here reads a clock, a path or a machine.
    """
    for name, content in _files(report).items():
        files.write(folder / name, content)
    return folder / PAGE


def _files(report: Report) -> dict[str, bytes]:
    board, tables = report.board, frames.tables(report)
    evidence = _json({**encode_provenance(report.provenance), "board": facts(board)})
    return {
        **tables,
        "leaderboard.parquet": frames.parquet(frames.board_table(board, report.times)),
        "provenance.json": evidence,
        **draw.files(board, report.rows, report.times, report.images),
        PAGE: page(report, {**tables, "provenance.json": evidence}).encode(),
    }


def _json(value: Mapping[str, object]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, default=str) + "\n").encode()
