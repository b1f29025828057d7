"""Attainment surfaces against counting the seeds that reach a point."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.board.stats.fronts import attainment, mean_best_accuracy, surfaces

points = st.tuples(st.integers(1, 30), st.integers(0, 20)).map(lambda p: (p[0] * 1e5, p[1] / 20))
fronts = st.lists(st.lists(points, min_size=1, max_size=5), min_size=1, max_size=6)
GRID = [5e4, *(k * 1e5 for k in range(1, 32))]


def height(surface, budget):
    return max((a for m, a in surface if m <= budget), default=None)


@given(fronts)
def test_a_level_is_what_so_many_seeds_reach(found):
    for level, surface in enumerate(surfaces(found), start=1):
        for budget in GRID:
            best = [height(front, budget) for front in found]
            reached = sorted((a for a in best if a is not None), reverse=True)
            expected = reached[level - 1] if len(reached) >= level else None
            assert height(surface, budget) == expected


@given(fronts)
def test_surfaces_are_staircases_one_under_the_other(found):
    every = surfaces(found)
    for surface in every:
        macs, accuracy = zip(*surface, strict=True)
        assert sorted(set(macs)) == list(macs)
        assert sorted(set(accuracy)) == list(accuracy)
    for upper, lower in itertools.pairwise(every):
        assert all((height(upper, b) or 0) >= (height(lower, b) or 0) for b in GRID)


@given(fronts, st.randoms())
def test_the_order_of_seeds_and_points_changes_nothing(found, chance):
    again = [chance.sample(front, len(front)) for front in found]
    chance.shuffle(again)
    assert attainment(again) == attainment(found)


@given(st.lists(points, min_size=1, max_size=5), st.integers(1, 5))
def test_equal_seeds_have_one_surface(front, copies):
    found = attainment([front] * copies)
    assert found.best == found.median == found.worst
    assert found.seeds == copies


@given(fronts)
def test_the_areas_under_all_levels_are_those_of_the_seeds(found):
    """Levels only sort what the seeds reach at each budget, so the mean area is the same."""

    def areas(many):
        return [
            mean_best_accuracy([m for m, _ in f], [a for _, a in f], low=1e5, high=3.1e6)
            for f in many
        ]

    assert np.mean(areas(surfaces(found))) == pytest.approx(np.mean(areas(found)))


def test_half_of_the_seeds_is_rounded_up():
    found = attainment([[(1e6, k / 10)] for k in (1, 2, 3)])
    assert (found.best, found.median, found.worst) == (
        ((1e6, 0.3),),
        ((1e6, 0.2),),
        ((1e6, 0.1),),
    )
    assert attainment([[(1e6, k / 10)] for k in (1, 2, 3, 4)]).median == ((1e6, 0.3),)


def test_what_the_gate_keeps_out_is_refused():
    assert attainment([]) is None
    with pytest.raises(ValueError, match="a front is empty"):
        attainment([[(1e6, 0.5)], []])
    with pytest.raises(ValueError, match="clean the points first"):
        attainment([[(float("nan"), 0.5)]])
