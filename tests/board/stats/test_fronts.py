"""Fronts against brute force, volumes against an integral, and the gate before both."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.board.stats.fronts import accuracy_flaw, front, macs_flaw, mean_best_accuracy

points = st.lists(
    st.tuples(st.integers(1, 40), st.integers(0, 20)).map(lambda p: (p[0] * 1e5, p[1] / 20)),
    max_size=12,
)


@given(points)
def test_front_is_brute_force(cloud):
    macs, accuracy = [p[0] for p in cloud], [p[1] for p in cloud]
    kept = front(macs, accuracy)
    free = {p for p in cloud if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in cloud)}
    assert {cloud[i] for i in kept} == free
    assert len(kept) == len(free)
    assert [macs[i] for i in kept] == sorted(macs[i] for i in kept)


@given(points)
def test_dominated_points_change_no_front_and_no_area(cloud):
    macs, accuracy = [p[0] for p in cloud], [p[1] for p in cloud]
    kept = front(macs, accuracy)
    few = [macs[i] for i in kept], [accuracy[i] for i in kept]
    whole = mean_best_accuracy(macs, accuracy, low=1e5, high=4e6)
    assert mean_best_accuracy(*few, low=1e5, high=4e6) == pytest.approx(whole)


@given(points, st.sampled_from([0.0, 0.1, 0.5]))
def test_area_is_the_mean_of_the_best_under_each_budget(cloud, chance):
    low, high = 3e5, 3e6
    grid = np.exp((np.arange(2000) + 0.5) / 2000 * math.log(high / low)) * low
    best = [max([a for m, a in cloud if m <= b] + [chance]) for b in grid]
    area = mean_best_accuracy(
        [p[0] for p in cloud], [p[1] for p in cloud], low=low, high=high, chance=chance
    )
    assert area == pytest.approx(np.mean(best), abs=5e-3)


def test_area_needs_a_range():
    assert mean_best_accuracy([1e6], [0.9], low=1e6, high=1e6) is None
    assert mean_best_accuracy([5e6], [0.9], low=1e6, high=2e6, chance=0.1) == 0.1


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, 1.797e308, 0.0, -1.0, 1e18])
def test_impossible_macs_are_named(value):
    assert "test_macs" in macs_flaw("test_macs", value)
    if value is not None:
        with pytest.raises(ValueError, match="clean the points first"):
            front([1e6, value], [0.5, 0.5])


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -0.01, 1.01])
def test_impossible_accuracies_are_named(value):
    assert "val_acc" in accuracy_flaw("val_acc", value)


def test_the_edges_are_possible():
    assert accuracy_flaw("a", 0.0) is accuracy_flaw("a", 1.0) is macs_flaw("m", 1e-3) is None
    assert front([], []) == []
