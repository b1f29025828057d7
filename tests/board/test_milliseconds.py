"""Boards under budgets in milliseconds: the same rules as under MACs, and what a clock adds."""

from dataclasses import replace

import pytest
from boards import BUDGETS, confirm, row, study_rows
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.board.choose import choose, clean, costs, to_confirm
from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.model import Board
from orchestrator.board.rules import Rules
from orchestrator.board.verdict import notes, verdict
from orchestrator.record.rows import Row
from orchestrator.study.budgets import milliseconds

PACE = 2.0**-21
"""Milliseconds per MAC; a power of two, so that a product is exact."""
MS = milliseconds(1)


def clocked(rows: list[Row], *, seed_ms: float = 0.0) -> list[Row]:
    """The rows with milliseconds that are proportional to their MACs, and MACs that mislead."""
    return [
        replace(
            one,
            ms=None if spent is None else spent * PACE + seed_ms * one.seed,
            spread_ms=None if spent is None else 0.01,
            val_macs_mean=None if spent is None else 7e6 - spent / 1e3,
            test_macs_mean=None if one.test_macs_mean is None else 7e6,
        )
        for one in rows
        for spent in [one.test_macs_mean if one.role == "confirm" else one.val_macs_mean]
    ]


def boards(rows: list[Row]) -> tuple[Board, Board]:
    """Under budgets in MMACs, and under the milliseconds that these take."""
    times = tuple(1e6 * budget * PACE for budget in BUDGETS)
    counted = Rules(budgets=BUDGETS, primary=2.0)
    timed = Rules(budgets=times, primary=times[1], cost=MS)
    return leaderboard(rows, counted), leaderboard(clocked(rows), timed)


def test_where_time_is_proportional_to_macs_the_board_is_the_same() -> None:
    counted, timed = boards(study_rows())
    for one, other in zip(counted.cells, timed.cells, strict=True):
        assert other.budget == pytest.approx(1e6 * one.budget * PACE, rel=1e-15)
        assert [c.config for c in one.choices] == [c.config for c in other.choices]
        assert (one.accuracy, one.letters, one.p_best) == (
            other.accuracy,
            other.letters,
            other.p_best,
        )
        assert (one.used, one.overrun) == (pytest.approx(other.used), other.overrun)
        assert other.spent == pytest.approx((one.spent or 0) * PACE)
    for one, other in zip(counted.pairs, timed.pairs, strict=True):
        assert (one.method, one.other, one.result, one.p_holm, one.separated) == (
            other.method,
            other.other,
            other.result,
            other.p_holm,
            other.separated,
        )
    for name, area in counted.area.items():
        assert timed.area[name].mean == pytest.approx(area.mean)
    assert [r.cost and pytest.approx(r.cost * PACE) for r in counted.reach] == [
        r.cost for r in timed.reach
    ]
    assert counted.effort == timed.effort
    at = f"{timed.primary:.12g}"
    assert verdict(timed).replace(f"At {at} ms", "At 2 MMACs") == verdict(counted)


@given(
    st.lists(st.tuples(st.floats(0.01, 2), st.floats(0.1, 1), st.floats(1, 9e6)), max_size=12),
    st.floats(0.01, 2),
)
def test_the_best_on_validation_within_the_time_is_chosen(
    trials: list[tuple[float, float, float]], budget: float
) -> None:
    """Whatever its MACs are; ties go to the faster one."""
    rows = [
        row(trial=f"dense-{i:05d}", ms=ms, val_acc=accuracy, val_macs_mean=macs)
        for i, (ms, accuracy, macs) in enumerate(trials)
    ]
    fitting = [
        (-accuracy, ms, f"dense-{i:05d}")
        for i, (ms, accuracy, _) in enumerate(trials)
        if ms <= budget
    ]
    chosen = choose(clean(rows)[0], [budget], MS)
    assert [c.config for c in chosen] == ([min(fitting)[2]] if fitting else [])


def test_a_row_that_was_not_timed_holds_no_budget() -> None:
    assert choose([row(ms=None)], [1e9], MS) == []


def test_dense_is_matched_by_time() -> None:
    rows = [
        row(trial="dense-00000", ms=0.2, val_acc=0.7),
        row(trial="dense-00001", ms=0.4, val_acc=0.8),
        row(method="skipnet", trial="skipnet-00000", ms=0.3, val_acc=0.9),
    ]
    chosen = to_confirm(rows, [1.0], 1.0, "dense", MS, matched=True)
    assert costs(chosen[:2], 1.0, "dense", MS) == {"skipnet": 0.3}
    assert [(c.config, c.budget) for c in chosen if c.method == "dense"] == [
        ("dense-00001", 1.0),
        ("dense-00000", 0.3),
    ]


def confirmed(config: str, times: list[float], **changes: object) -> list[Row]:
    return [
        confirm(config=config, seed=seed, ms=ms, spread_ms=0.002, **changes)
        for seed, ms in enumerate(times, start=1)
    ]


def two_cells(fast: list[float], slow: list[float]) -> Board:
    """Dense under 0.3 and 0.6 ms, by confirm runs that took so long."""
    rows = [
        row(trial="dense-00000", ms=0.25, val_acc=0.7),
        row(trial="dense-00001", ms=0.5, val_acc=0.8),
        *confirmed("dense-00000", fast),
        *confirmed("dense-00001", slow),
    ]
    return leaderboard(rows, Rules(budgets=(0.3, 0.6), primary=0.6, cost=MS))


def test_clear_cells_say_nothing_of_their_spread() -> None:
    board = two_cells([0.25, 0.251, 0.249], [0.5, 0.501, 0.499])
    assert [board.blurred(cell) for cell in board.cells] == [[], []]
    assert board.cell("dense", 0.3).spread == pytest.approx(0.001)
    assert not [note for note in notes(board) if "not separated from" in note]


def test_a_spread_wider_than_the_distance_to_the_budget_is_said() -> None:
    board = two_cells([0.29, 0.25, 0.33], [0.5, 0.501, 0.499])
    assert board.blurred(board.cell("dense", 0.3)) == ["its budget"]
    (note,) = [note for note in notes(board) if "not separated from" in note]
    assert note == (
        "dense at 0.3 ms: its 0.29 ± 0.04 ms are not separated from its budget, since the spread "
        "is wider than the distance."
    )


def test_a_spread_wider_than_the_distance_to_the_cell_beside_is_said() -> None:
    board = two_cells([0.2, 0.2, 0.2], [0.1, 0.3, 0.21])
    assert board.blurred(board.cell("dense", 0.6)) == ["the cell of 0.3 ms"]
    assert board.blurred(board.cell("dense", 0.3)) == []


def test_one_run_has_the_clocks_own_spread() -> None:
    board = two_cells([0.25], [0.5])
    assert [cell.spread for cell in board.cells] == [0.002, 0.002]


def test_confirm_runs_that_take_longer_than_the_search_said_overrun() -> None:
    board = two_cells([0.31, 0.311, 0.312], [0.5, 0.5, 0.5])
    assert board.cell("dense", 0.3).overrun
    assert "dense at 0.3 ms overruns its budget on test: 0.311 ms measured." in notes(board)
