"""Levels, seeds' fronts and areas: laws, and what a hand would count."""

import itertools
import math
import statistics

import pytest
from boards import BUDGETS, confirm, row, study_rows
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.reach import MOST_LEVELS, STEPS, levels
from orchestrator.board.rules import Rules
from orchestrator.board.stats.fronts import mean_best_accuracy
from orchestrator.board.stats.intervals import summary

means = st.lists(st.integers(1, 10_000).map(lambda k: k / 10_000), min_size=1, max_size=20)


@given(means, st.randoms())
def test_levels_are_round_few_and_span_the_upper_half(values, chance):
    found = levels(values)
    assert len(found) <= MOST_LEVELS
    assert list(found) == sorted(set(found))
    assert not found or found[-1] <= max(values) + 1e-9
    whole = [round(1000 * level) for level in found]
    steps = {b - a for a, b in itertools.pairwise(whole)}
    assert len(steps) <= 1
    step = min(steps, default=max(whole, default=0)) / 1000
    assert not found or found[0] <= max(statistics.median(values), step) + 1e-9
    assert steps <= set(STEPS)
    chance.shuffle(values)
    assert levels(values) == found


@given(means)
def test_a_finer_step_would_need_more_levels(values):
    whole = [round(1000 * level) for level in levels(values)]
    if len(whole) < 2 or whole[1] - whole[0] == 1:
        return
    finer = STEPS[STEPS.index(whole[1] - whole[0]) - 1]
    low = math.floor(1000 * statistics.median(values) + 1e-6) // finer * finer
    high = math.floor(1000 * max(values) + 1e-6)
    assert len(range(low, high + 1, finer)) > MOST_LEVELS


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([], ()),
        ([0.0004], ()),
        ([0.971], (0.971,)),
        ([0.10, 0.955, 0.962, 0.974], (0.955, 0.96, 0.965, 0.97)),
        ([0.2, 0.3, 0.71], (0.3, 0.4, 0.5, 0.6, 0.7)),
    ],
)
def test_levels_by_example(values, found):
    assert levels(values) == found


def test_a_study_may_fix_its_targets():
    board = leaderboard(study_rows(), Rules(budgets=BUDGETS, primary=2, targets=(0.99, 0.8)))
    assert [r.accuracy for r in board.reach if r.method == "dense"] == [0.8, 0.99]
    free = leaderboard(study_rows(), Rules(budgets=BUDGETS, primary=2))
    assert {r.accuracy for r in free.reach} != {0.8, 0.99}


def seeded(accuracies, *, seeds=(1, 2, 3)):
    """Two configurations of dense, at 1 and at 4 MMACs, with these test accuracies per seed."""
    rows = [
        row(trial="dense-00000", val_acc=0.7, val_macs_mean=1e6),
        row(trial="dense-00001", val_acc=0.8, val_macs_mean=4e6),
    ]
    for i, (own, macs) in enumerate(zip(accuracies, (1e6, 4e6), strict=True)):
        rows += [
            confirm(config=f"dense-{i:05d}", seed=s, test_acc=a, test_macs_mean=macs)
            for s, a in zip(seeds, own, strict=False)
        ]
    return rows


def test_the_area_has_the_spread_of_the_seeds():
    accuracies = ((0.6, 0.7, 0.8), (0.7, 0.8, 0.9))
    board = leaderboard(seeded(accuracies), Rules(budgets=(1, 2, 4), primary=4, chance=0.1))
    each = [
        mean_best_accuracy([1e6, 4e6], pair, low=1e6, high=4e6, chance=0.1)
        for pair in zip(*accuracies, strict=True)
    ]
    assert each == pytest.approx([0.6, 0.7, 0.8])
    assert board.area["dense"] == summary(each)
    assert board.attainment["dense"].median == ((1e6, 0.7), (4e6, 0.8))
    assert board.attainment["dense"].worst == ((1e6, 0.6), (4e6, 0.7))


def test_only_seeds_that_every_cell_has_make_a_front():
    rows = seeded(((0.6, 0.7, 0.8), (0.7, 0.8)))
    board = leaderboard(rows, Rules(budgets=(1, 4), primary=4))
    assert board.attainment["dense"].seeds == board.area["dense"].n == 2


def test_one_budget_has_no_area_and_nothing_confirmed_no_surface():
    board = leaderboard(seeded(((0.6, 0.7, 0.8), ())), Rules(budgets=(1,), primary=1))
    assert board.area["dense"].mean is None
    assert board.attainment["dense"].seeds == 3
    nothing = leaderboard([row()], Rules(budgets=(1, 2), primary=1))
    assert nothing.attainment["dense"] is None
    assert nothing.reach == ()


def test_the_better_method_has_the_larger_area():
    area = leaderboard(study_rows(), Rules(budgets=BUDGETS, primary=2)).area
    assert 0.5 < area["dense"].hi < area["skipnet"].lo < 1
