"""What the page's scripts draw from: the report's own tables, and nothing that ends its element."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
from boards import BUDGETS, row, study_rows

from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.rules import Rules
from orchestrator.record.provenance import Provenance
from orchestrator.report import frames
from orchestrator.report.axes import known, spots
from orchestrator.report.content import Report
from orchestrator.report.interactive import data, scripts
from orchestrator.report.interactive.fields import searched
from orchestrator.study.file import Study

PUBLISHED = {
    "d3.min.js": "912111098ea99503a6f4967361d2bbdc9dbf58cf9c678c8e27e5b02d1a07f0c1",
    "plot.umd.min.js": "4358086467740777dd788d6b27a95cebdbaefdd50c730a3060117073bd7134cb",
}
"""SHA-256 of the libraries as npm has them."""


def report_of(rows):
    board = leaderboard(rows, Rules(budgets=BUDGETS, primary=2, chance=0.1))
    origin = Provenance(study={}, study_hash="", classes=10, image=(1, 8, 8))
    return Report(board=board, rows=rows, provenance=origin)


def content(report, files=None):
    return json.loads(data.block(report, files or frames.tables(report)))


def test_the_tables_are_the_files_to_the_byte_and_what_leads_is_the_boards():
    sizes = {"dense": 9_000, "skipnet": 30_000, "slimming": 4_000}
    report = report_of(
        [dataclasses.replace(one, parameters=sizes[one.method]) for one in study_rows()]
    )
    files = frames.tables(report)
    read = content(report, files)
    assert {name: text.encode() for name, text in read["files"].items()} == files
    cells = report.board.cells
    macs, parameters = read["costs"]
    assert (macs["column"], parameters["column"]) == ("macs_mean_m", "parameters")
    for cost, axis in zip(read["costs"], [data.MACS, *known(report.board, [])], strict=True):
        expected = spots(report.board, [], axis)
        assert [cells[line] for line in cost["points"]] == [spot.cell for spot in expected]
        leading = [spot.cell for spot in expected if spot.leading]
        assert [cells[line] for line in cost["front"]] == leading
    names = [method["name"] for method in read["methods"]]
    assert names == list(report.board.methods)


def test_a_board_without_confirm_runs_has_the_search_alone():
    read = content(report_of(study_rows(seeds=0)))
    assert read["costs"] == []
    assert read["search"].count("\n") == 1 + 36


def test_a_long_search_is_thinned_and_its_number_is_told():
    rows = [
        row(trial=f"dense-{i:05d}", val_macs_mean=1e5 + i, val_acc=i / 1e4) for i in range(5000)
    ]
    read = content(report_of(rows))
    lines = read["search"].splitlines()
    assert len(lines) == 1 + data.SHOWN
    assert (lines[1].split(",")[1], lines[-1].split(",")[1]) == ("dense-00000", "dense-04999")
    assert read["searched"] == 5000


def test_nothing_in_the_data_ends_their_element():
    rows = study_rows(seeds=1)
    bad = "</script><!--<script>&amp;"
    rows = [dataclasses.replace(one, point=bad) for one in rows]
    text = data.block(report_of(rows), frames.tables(report_of(rows)))
    assert not set("<>&") & set(text)
    assert bad in json.loads(text)["search"]


def test_the_runs_that_are_known_are_told():
    rows = study_rows(seeds=1)
    rows[0] = dataclasses.replace(rows[0], run_id="ab12")
    assert content(report_of(rows))["runs"] == {rows[0].trial: "ab12"}


def test_fields_are_what_the_study_searches():
    methods = {
        "dense": {"depth": {"choices": [8, 14]}, "width": 0.5},
        "resrep": {"depth": 8, "width": 0.5, "target": {"low": 0.3, "high": 0.8}},
    }
    recipe = {"lr": {"low": 0.01, "high": 0.2, "log": True}}
    study = Study(name="s", data="digits", budgets=[1], methods=methods, recipe=recipe)
    fields = {(f.method, f.name): (f.kind, list(f.ends)) for f in searched(study)}
    assert fields["dense", "depth"] == ("choice", [8, 14])
    assert fields["dense", "recipe.lr"] == ("log", [0.01, 0.2])
    assert fields["resrep", "target"] == ("linear", [0.3, 0.8])
    assert ("dense", "width") not in fields
    turned = Study.model_validate(
        {**study.model_dump(), "methods": dict(reversed(methods.items()))}
    )
    assert searched(turned) == searched(study), "a store has the methods in another order"


@pytest.mark.parametrize("name", scripts.LIBRARIES)
def test_a_library_is_the_published_one_with_its_licence(name: str) -> None:
    folder = Path(scripts.__file__).parent / "vendor"
    assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == PUBLISHED[name]
    licence = (folder / f"LICENSE-{name.split('.', maxsplit=1)[0]}").read_text()
    assert "Permission to use, copy, modify" in licence
