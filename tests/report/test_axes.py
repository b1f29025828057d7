"""Accuracy over other costs: what a cell has on each axis, and which networks lead there."""

import io
from dataclasses import replace

import pandas as pd
import pytest
from boards import BUDGETS, study_rows
from matplotlib.figure import Figure
from rich.console import Console

from methods.errors import StudyError
from orchestrator.board.latency import Timed, pairs, timed
from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.model import Board
from orchestrator.board.rules import Rules
from orchestrator.record.events import Latency
from orchestrator.record.rows import Row
from orchestrator.report import frames
from orchestrator.report.axes import AXES, CLOCKED, axis_table, known, spots
from orchestrator.report.figures.axes import axis_panel
from orchestrator.results.board_check import _parquet
from orchestrator.results.findings import Findings
from orchestrator.store.lines import board_run

SIZES = {"dense": 9_000, "skipnet": 30_000, "slimming": 4_000}


def board_of(rows: list[Row]) -> Board:
    return leaderboard(rows, Rules(budgets=BUDGETS, primary=2, chance=0.1))


def sized_rows() -> list[Row]:
    """Rows whose networks have a size: 10 parameters more for each further seed."""
    return [
        replace(
            row,
            parameters=SIZES[row.method] + 10 * row.seed,
            weight_bytes=4 * SIZES[row.method],
            activation_bytes=512,
        )
        for row in study_rows()
    ]


def times_of(rows: list[Row]) -> list[Timed]:
    events = [
        Latency(*pair.key, batch=batch, ms=1.0 * batch, p95_ms=2.0 * batch, reference_ms=1.0)
        for pair in pairs(rows, BUDGETS, "dense")
        for batch in (1, 64)
    ]
    return timed(rows, BUDGETS, "dense", events)


def test_a_cell_has_the_mean_of_its_seeds_on_every_axis() -> None:
    rows = sized_rows()
    board, times = board_of(rows), times_of(rows)
    table = frames.board_table(board, times)
    assert {axis.name for axis in AXES} <= set(table.columns)
    dense = table[table["method"] == "dense"].iloc[0]
    assert dense["parameters"] == 9_030, "seeds 1 to 5"
    assert (dense["weight_bytes"], dense["activation_bytes"]) == (36_000, 512)
    assert (dense["latency_1_ms"], dense["latency_64_p95_ms"]) == (1.0, 128.0)
    assert table["joules"].isna().all()
    assert [axis.name for axis in known(board, times)] == [
        a.name for a in AXES if a.name != "joules"
    ]
    seeds = frames.seeds_table(board)
    assert set(seeds[seeds["method"] == "skipnet"]["parameters"]) == {
        30_000 + 10 * s for s in range(1, 6)
    }
    assert board_run(board, "dense").metrics["parameters/at_2m"] == 9_030


def test_rows_of_an_earlier_version_have_no_axis() -> None:
    board = board_of(study_rows())
    assert known(board, []) == []
    assert frames.board_table(board)["parameters"].isna().all()
    assert not any("parameters" in name for name in board_run(board, "dense").metrics)
    with pytest.raises(StudyError, match="its networks were not measured"):
        axis_table(board, [], "parameters")


def test_what_leads_is_the_most_accurate_for_no_more() -> None:
    rows = sized_rows()
    board = board_of(rows)
    points = spots(board, [], AXES[0])
    assert [spot.cost for spot in points] == sorted(spot.cost for spot in points)
    for spot in points:
        better = [
            o
            for o in points
            if o.cost <= spot.cost and o.accuracy >= spot.accuracy and o is not spot
        ]
        assert spot.leading == (not better)
    assert {spot.cell.method for spot in points} == set(SIZES)
    axes = Figure().subplots()
    axis_panel(board, [], AXES[0])(axes)
    low, high = axes.get_xlim()
    assert low < 4.03, "thousand parameters"
    assert high > 30.03


def test_the_terminal_shows_one_axis_and_names_the_others() -> None:
    rows = sized_rows()
    board, times = board_of(rows), times_of(rows)
    shown = io.StringIO()
    Console(width=80, no_color=True, file=shown).print(axis_table(board, times, "parameters"))
    assert "thousand parameters" in shown.getvalue()
    assert "30.03" in shown.getvalue()
    with pytest.raises(StudyError, match="did you mean 'parameters'"):
        axis_table(board, times, "paramaters")


def test_what_a_clock_took_is_not_recomputed_from_evidence() -> None:
    rows = sized_rows()
    board, findings = board_of(rows), Findings("demo")
    published = frames.parquet(frames.board_table(board, times_of(rows)))
    recomputed = frames.board_table(board).drop(columns=CLOCKED)
    _parquet(published, recomputed, 2, findings, whole=True)
    assert findings.flaws == []
    wrong = recomputed.assign(parameters=1.0)
    _parquet(published, wrong, 2, findings, whole=True)
    assert {flaw.what for flaw in findings.flaws} == {"parameters"}
    assert isinstance(recomputed, pd.DataFrame)
