"""The board against brute force, and each rule of the comparison by an example."""

import dataclasses
import math
import random

import pytest
from boards import BUDGETS, confirm, row, study_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.errors import StudyError
from orchestrator.board.choose import choose, clean
from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.rules import Rules
from orchestrator.board.verdict import notes, verdict

search_rows = st.lists(
    st.builds(
        lambda method, k, acc, macs, point, ok: row(
            method=method,
            trial=f"{method}-{k:05d}",
            point=point,
            val_acc=acc / 10,
            val_macs_mean=macs * 1e5,
            state="COMPLETE" if ok else "PRUNED",
        ),
        st.sampled_from(["dense", "skipnet"]),
        st.integers(0, 9),
        st.integers(5, 10),
        st.integers(1, 12),
        st.sampled_from(["", "policy"]),
        st.booleans(),
    ),
    unique_by=lambda r: (r.trial, r.point),
    max_size=12,
)


@given(search_rows, st.randoms())
def test_choice_is_brute_force_in_any_order(rows, chance):
    budgets = (0.3, 0.7, 1.0)
    expected = {}
    for r in rows:
        for budget in budgets:
            if r.state != "COMPLETE" or r.val_macs_mean > budget * 1_000_000:
                continue
            rank = (-r.val_acc, r.val_macs_mean, r.config, r.point)
            expected[r.method, budget] = min(expected.get((r.method, budget), rank), rank)
    chance.shuffle(rows)
    found = {(c.method, c.budget): c for c in choose(clean(rows)[0], budgets)}
    assert {
        key: (-c.val_acc, c.val_macs_mean, c.config, c.point) for key, c in found.items()
    } == expected


@given(search_rows)
def test_a_larger_budget_never_chooses_worse(rows):
    for method in ("dense", "skipnet"):
        mine = [c.val_acc for c in choose(clean(rows)[0], (0.3, 0.7, 1.0)) if c.method == method]
        assert mine == sorted(mine)


@pytest.mark.parametrize("budget", [0.57, 0.29, 1.1, 4.35, 2.3])
def test_the_budget_is_inclusive_in_spite_of_rounding(budget):
    exact = row(val_macs_mean=float(round(budget * 100) * 10_000))
    assert len(choose([exact], [budget])) == 1
    assert not choose([dataclasses.replace(exact, val_macs_mean=exact.val_macs_mean + 1)], [budget])


def test_choice_looks_at_validation_alone():
    rows = [
        row(trial="dense-00000", val_acc=0.8),
        row(trial="dense-00001", val_acc=0.7),
        confirm(config="dense-00001", test_acc=0.99),
    ]
    assert choose(clean(rows)[0], [1])[0].config == "dense-00000"
    assert (
        leaderboard(rows, Rules(budgets=(1,), primary=1)).cell("dense", 1).state
        == "not confirmed yet"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"val_acc": math.nan}, "val_acc is missing"),
        ({"val_acc": None}, "val_acc is missing"),
        ({"val_acc": 1.01}, "val_acc must lie in"),
        ({"val_acc": math.inf}, "val_acc must lie in"),
        ({"val_macs_mean": 0.0}, "val_macs_mean must lie in"),
        ({"val_macs_mean": 1.797e308}, "val_macs_mean must lie in"),
        ({"val_macs_max": math.inf}, "val_macs_max must lie in"),
        ({"state": "FAIL", "reason": "loss is nan at epoch 3"}, "FAIL: loss is nan at epoch 3"),
        (
            {"state": "FAIL", "reason": "over budget: costs 9 MMACs at least, the largest is 1"},
            "over budget: costs 9 MMACs",
        ),
        ({"state": "PRUNED"}, "PRUNED"),
        ({"state": "RUNNING"}, "RUNNING"),
        ({"role": "sweep"}, "role must be search or confirm"),
        ({"role": "confirm"}, "test_acc is missing"),
    ],
)
def test_a_bad_row_is_listed_with_its_reason(changes, reason):
    kept, excluded = clean([row(**changes)])
    assert not kept
    assert excluded[0].reason.startswith(reason)


def test_every_row_is_kept_or_listed():
    rows = [*study_rows(), *study_rows()[:3], row(trial="dense-00099", val_acc=2.0)]
    kept, excluded = clean(rows)
    assert len(kept) + len(excluded) == len(rows)
    assert sum(e.reason.startswith("duplicate of") for e in excluded) == 3


def test_a_repeated_seed_counts_once_and_a_complete_run_wins():
    rows = [
        row(),
        confirm(seed=1, test_acc=0.8),
        confirm(seed=1, test_acc=0.8, trial="dense-00000-again"),
        confirm(seed=1, test_acc=None, state="FAIL", reason="node died"),
    ]
    cell = leaderboard(rows, Rules(budgets=(1,), primary=1)).cell("dense", 1)
    assert (cell.n, cell.failed) == (1, ())


def test_the_order_of_rows_changes_nothing():
    rows = study_rows()
    board = leaderboard(rows, Rules(budgets=BUDGETS, primary=2))
    random.Random(3).shuffle(rows)
    assert leaderboard(rows, Rules(budgets=BUDGETS, primary=2)) == board


@pytest.mark.parametrize(
    ("seeds", "state"),
    [
        (0, "not confirmed yet"),
        (1, "value"),
        (2, "mean and sd"),
        (3, "not tested"),
        (4, "not tested"),
        (5, "tested"),
    ],
)
def test_evidence_follows_the_seeds(seeds, state):
    board = leaderboard(study_rows(seeds=seeds), Rules(budgets=BUDGETS, primary=2))
    cell = board.cell("skipnet", 2)
    assert (cell.state, bool(cell.letters)) == (state, seeds >= 5)
    assert (cell.accuracy.lo is not None) == (seeds >= 3)


def test_the_baseline_row_is_always_there():
    board = leaderboard(
        study_rows(methods=["skipnet"]), Rules(budgets=BUDGETS, primary=2, methods=["resrep"])
    )
    assert {"dense", "resrep"} < set(board.methods)
    assert board.cell("dense", 2).state == "no point"
    assert "no gain over it can be stated" in verdict(board)


def test_one_configuration_at_two_budgets_reuses_its_runs():
    rows = [row(), *(confirm(seed=s, budgets=(1.0, 2.0)) for s in range(3))]
    board = leaderboard(rows, Rules(budgets=(1, 2), primary=2))
    assert board.cell("dense", 1).seeds == board.cell("dense", 2).seeds
    assert board.effort[0].confirm == 3


def test_the_cell_takes_the_chosen_operating_point():
    rows = [
        row(method="skipnet", trial="skipnet-00000", point="supervised", val_macs_mean=3e6),
        row(method="skipnet", trial="skipnet-00000", point="policy", val_acc=0.7),
    ]
    for point, accuracy in (("supervised", 0.81), ("policy", 0.71)):
        rows.append(
            confirm(method="skipnet", config="skipnet-00000", point=point, test_acc=accuracy)
        )
    board = leaderboard(rows, Rules(budgets=(1, 3), primary=1))
    assert [board.cell("skipnet", b).accuracy.mean for b in (1, 3)] == [0.71, 0.81]
    skipnet = next(e for e in board.effort if e.method == "skipnet")
    assert (skipnet.search, skipnet.confirm, skipnet.epochs) == (1, 1, 20)


def test_overruns_collapses_and_lost_seeds_are_said():
    rows = [row(), *(confirm(seed=s, test_macs_mean=1.01e6) for s in range(1, 4))]
    rows += [confirm(seed=4, test_acc=0.1, test_macs_mean=1.01e6)]
    rows += [confirm(seed=5, test_acc=None, state="FAIL", reason="loss is nan", point="")]
    rows += [confirm(seed=6, test_acc=None, state="RUNNING")]
    board = leaderboard(rows, Rules(budgets=(1,), primary=1, chance=0.1))
    cell = board.cell("dense", 1)
    assert (cell.overrun, cell.collapsed, cell.failed, cell.n) == (
        True,
        ("dense-00000-seed4",),
        ("dense-00000-seed5",),
        4,
    )
    assert cell.accuracy.mean == pytest.approx((3 * 0.8 + 0.1) / 4)
    assert len(notes(board)) == 4


def test_a_clear_gain_is_tested_and_said():
    board = leaderboard(study_rows(), Rules(budgets=BUDGETS, primary=2))
    assert board.methods[0] == "skipnet"
    beats = "At 2 MMACs the configuration found for skipnet beats the one found for dense by "
    assert verdict(board).startswith(beats)
    gain = board.gain("skipnet", 2)
    assert gain.result.lo > 0.02
    assert gain.result.p < gain.p_holm <= min(1, 3 * gain.result.p)
    assert board.gain("skipnet", 1).p_holm is None
    assert board.gain("dense", 2) is None
    assert board.cell("skipnet", 2).letters == "a"
    assert "a" not in board.cell("dense", 2).letters
    assert board.cell("skipnet", 1).letters == ""
    assert len(board.pairs) == 9


def test_what_noise_separates_not_shares_a_letter():
    rows = []
    for method, shift in (("dense", 0.0), ("skipnet", 0.001)):
        trial = f"{method}-00000"
        rows.append(row(method=method, trial=trial))
        rows += [
            confirm(method=method, config=trial, seed=s, test_acc=0.8 + shift + 0.01 * (s % 3))
            for s in range(5)
        ]
    board = leaderboard(rows, Rules(budgets=(1,), primary=1))
    assert {board.cell(m, 1).letters for m in board.methods} == {"a"}
    assert "is not separated from the configuration found for dense" in verdict(board)


def test_constants_are_not_testable_and_not_separated():
    rows = []
    for method, accuracy in (("dense", 0.8), ("skipnet", 0.9)):
        trial = f"{method}-00000"
        rows.append(row(method=method, trial=trial))
        rows += [confirm(method=method, config=trial, seed=s, test_acc=accuracy) for s in range(5)]
    board = leaderboard(rows, Rules(budgets=(1,), primary=1))
    assert board.gain("skipnet", 1).result.state == "not testable"
    assert board.cell("dense", 1).letters == board.cell("skipnet", 1).letters == "a"
    assert "not testable" in verdict(board)


def test_macs_to_reach_are_the_least_confirmed():
    board = leaderboard(study_rows(), Rules(budgets=BUDGETS, primary=2))
    for reach in board.reach:
        cells = [board.cell(reach.method, b) for b in BUDGETS]
        enough = [c.macs_mean for c in cells if c.accuracy.mean >= reach.accuracy]
        assert reach.cost == (min(enough) if enough else None)
    assert any(reach.cost is None for reach in board.reach)


def test_effort_counts_what_came_to_nothing():
    effort = next(e for e in leaderboard(study_rows(), Rules(budgets=BUDGETS, primary=2)).effort)
    assert (effort.search, effort.complete, effort.failed) == (16, 12, 1)
    assert (effort.refused, effort.over_budget, effort.trained) == (1, 2, 13)


def test_uneven_effort_is_said():
    rows = study_rows() + [
        row(method="skipnet", trial=f"skipnet-{i:05d}", state="PRUNED") for i in range(20, 40)
    ]
    assert any(
        "Effort is uneven" in note
        for note in notes(leaderboard(rows, Rules(budgets=BUDGETS, primary=2)))
    )


def test_a_confirm_run_of_what_is_not_chosen_is_listed():
    rows = [
        row(trial="dense-00000", val_acc=0.8),
        row(trial="dense-00001", val_acc=0.7),
        confirm(config="dense-00000"),
        confirm(config="dense-00000", point="policy"),
        confirm(config="dense-00001"),
        confirm(method="resrep", config="resrep-00000"),
    ]
    board = leaderboard(rows, Rules(budgets=(1,), primary=1))
    assert len(board.excluded) == 3
    assert {e.reason for e in board.excluded} == {"not chosen on validation at any budget"}


BAD = (math.nan, math.inf, -math.inf, 1.797e308, -1.0, 0.0, None)
dirty_rows = st.lists(
    st.builds(
        lambda make, method, k, seed, accuracy, macs, tail, state: make(
            method=method,
            trial=f"{method}-{k}" + ("" if make is row else f"-seed{seed}"),
            config=f"{method}-{k}",
            seed=seed,
            val_acc=accuracy,
            val_macs_mean=macs,
            state=state,
            **({"test_acc": accuracy, "test_macs_mean": macs} if make is confirm else {}),
            **({"test_macs_max": tail, "test_macs_p95": tail} if make is confirm else {}),
        ),
        st.sampled_from([row, confirm]),
        st.sampled_from(["dense", "skipnet"]),
        st.integers(0, 2),
        st.integers(1, 3),
        st.sampled_from([0.7, 0.8, 0.9, 1.0, 1.01, *BAD]),
        st.sampled_from([1e5, 6e5, 1e6, *BAD]),
        st.sampled_from([1e6, 2e6, *BAD]),
        st.sampled_from(["COMPLETE", "COMPLETE", "COMPLETE", "FAIL", "RUNNING"]),
    ),
    max_size=16,
)


@settings(max_examples=50, deadline=None)
@given(dirty_rows)
def test_bad_rows_give_a_right_board_and_none_vanishes(rows):
    board = leaderboard(rows, Rules(budgets=(0.5, 1.0), primary=1.0))
    shown = {r.trial for cell in board.cells for r in cell.seeds}
    listed = [e.row for e in board.excluded]
    for r in rows:
        searched = r.role == "search" and clean([r])[0]
        assert r in listed or r.trial in shown or searched
    assert len(clean(rows)[0]) + len(clean(rows)[1]) == len(rows)
    for cell in board.cells:
        figures = [cell.accuracy.mean, cell.macs_mean, cell.macs_p95, cell.macs_max]
        assert all(f is None or math.isfinite(f) for f in figures)
        assert cell.accuracy.mean is None or 0 <= cell.accuracy.mean <= 1
    assert verdict(board)
    assert "nan" not in verdict(board)


def test_a_missing_tail_is_no_tail():
    rows = [row(), confirm(seed=1, test_macs_max=math.nan), confirm(seed=2, test_macs_max=2e6)]
    for order in (rows, rows[::-1]):
        assert leaderboard(order, Rules(budgets=(1,), primary=1)).cell("dense", 1).macs_max == 2e6


def test_fewer_seeds_and_no_point_are_said():
    rows = [r for r in study_rows() if not (r.method == "skipnet" and r.seed == 5)]
    board = leaderboard(rows, Rules(budgets=BUDGETS, primary=2, methods=["resrep"]))
    assert "skipnet at 2 MMACs has 4 seeds, other cells have up to 5." in notes(board)
    assert "resrep has no point at any budget." in notes(board)


def test_an_empty_store_gives_an_empty_board():
    board = leaderboard([], Rules(budgets=(1,), primary=1))
    assert board.cell("dense", 1).state == "no point"
    assert verdict(board).startswith("Not confirmed yet: 0 search trials")


@pytest.mark.parametrize("budgets", [[], [0.0, 2.0], [-1.0, 2.0], [1.0], [math.nan]])
def test_a_ladder_that_cannot_be_is_refused(budgets):
    with pytest.raises(StudyError, match="budget"):
        leaderboard([], Rules(budgets=tuple(budgets), primary=2))
