"""A report is drawn once: again only where its sources, its code or its files changed."""

from dataclasses import replace
from pathlib import Path

import pytest
from boards import study_rows
from reports import PROVENANCE
from stores import study

from orchestrator.report import drawing, stamp
from orchestrator.report.content import Report
from orchestrator.report.publish import Source, publish

ROWS = study_rows(seeds=2, methods=("dense", "skipnet"), budgets=(2.0,))
SOURCE = Source(
    study=study("demo", budgets=[2.0], methods={"dense": {}, "skipnet": {}}),
    rows=list(ROWS),
    provenance=PROVENANCE,
)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, undrawn: None) -> list[Report]:
    """Every report that is drawn."""
    reports: list[Report] = []
    write = drawing.write_report

    def written(report: Report, folder: Path) -> Path:
        reports.append(report)
        return write(report, folder)

    monkeypatch.setattr(drawing, "write_report", written)
    return reports


def test_the_same_report_is_not_drawn_again(tmp_path: Path, drawn: list[Report]) -> None:
    first = publish(SOURCE, tmp_path)
    shuffled = [
        replace(row, params=dict(reversed(row.params.items()))) for row in reversed(SOURCE.rows)
    ]
    again = publish(replace(SOURCE, rows=shuffled), tmp_path)
    assert len(drawn) == 1
    assert (again.page, again.times) == (first.page, first.times)
    assert again.page.is_file()
    assert [cell.accuracy for cell in again.board.cells] == [
        cell.accuracy for cell in first.board.cells
    ]


@pytest.mark.parametrize("damage", ["edited", "deleted", "stamp", "code"])
def test_what_is_not_as_it_was_drawn_is_drawn_again(
    tmp_path: Path, drawn: list[Report], damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = publish(SOURCE, tmp_path).page
    content = page.read_bytes()
    if damage == "edited":
        page.write_text("<p>better")
    elif damage == "deleted":
        page.unlink()
    elif damage == "stamp":
        (tmp_path / "cache" / "report.json").write_text('{"sources": ')
    else:
        monkeypatch.setattr(stamp, "_code", lambda: "another version")
    publish(SOURCE, tmp_path)
    assert len(drawn) == 2
    assert page.read_bytes() == content


def test_another_row_is_another_report(tmp_path: Path, drawn: list[Report]) -> None:
    publish(SOURCE, tmp_path)
    row = SOURCE.rows[0]
    assert row.val_acc is not None
    changed = [replace(row, val_acc=row.val_acc + 1e-12), *SOURCE.rows[1:]]
    publish(replace(SOURCE, rows=changed), tmp_path)
    publish(replace(SOURCE, rows=SOURCE.rows[1:]), tmp_path)
    assert len(drawn) == 3
