"""Intervals of means against scipy, and their coverage of new runs and new images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestrator.board.stats.intervals import accuracy, crossed_mean, summary
from orchestrator.board.stats.units import Units

accuracies = st.integers(0, 10_000).map(lambda k: k / 10_000)


def test_the_number_of_seeds_decides_what_may_be_said():
    assert summary([]).mean is None
    assert (summary([0.7]).mean, summary([0.7]).sd) == (0.7, None)
    two = summary([0.7, 0.8])
    assert two.sd == pytest.approx(0.1 / 2**0.5)
    assert two.lo is None
    three = summary([0.7, 0.8, 0.9])
    assert three.hi - three.mean == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-6)


@given(st.lists(accuracies, min_size=3, max_size=8))
def test_interval_is_scipys(values):
    ours = summary(values, 0.9)
    if len(set(values)) == 1:
        assert (ours.lo, ours.sd, ours.hi) == (values[0], 0.0, values[0])
        return
    lo, hi = stats.t.interval(0.9, len(values) - 1, np.mean(values), stats.sem(values))
    assert (ours.lo, ours.hi) == pytest.approx((lo, hi), abs=1e-12)


@pytest.mark.parametrize(
    ("seeds", "level", "low", "high"), [(5, 0.95, 0.93, 1.0), (1, 0.95, 0.9, 1.0)]
)
def test_the_mean_of_seeds_and_images_is_covered(seeds, level, low, high):
    """New seeds, new images; a single seed's interval is for new images of this seed."""
    draw, covered, studies = np.random.default_rng(3), 0, 600
    for _ in range(studies):
        of_seeds = draw.normal(0, 0.02, (seeds, 1)) if seeds > 1 else 0.0
        values = 0.01 + of_seeds + draw.normal(0, 0.2, 300) + draw.normal(0, 0.3, (seeds, 300))
        interval = crossed_mean(values, level)
        covered += interval.lo <= 0.01 <= interval.hi
    assert low <= covered / studies <= high


def test_values_that_are_all_alike_are_no_certainty():
    alike = crossed_mean(np.zeros((3, 50)))
    assert (alike.mean, -alike.lo) == (0.0, alike.hi)
    assert 0 < alike.hi < 0.05
    assert crossed_mean(np.zeros((1, 1))).lo is None


def right(n, wrong, images):
    """Runs that are all wrong on the same images."""
    correct = np.ones((n, images))
    correct[:, :wrong] = 0
    return Units(correct.mean(axis=1).tolist(), correct, images)


def test_three_equal_runs_are_no_certainty():
    """Two of 269 images wrong in each: the value of a calculation by hand."""
    found = accuracy(right(3, 2, 269))
    assert (round(found.lo, 4), round(found.hi, 4)) == (0.9730, 0.9980)
    counted = accuracy(Units([267 / 269] * 3, None, 269))
    assert (counted.lo, counted.hi) == pytest.approx((found.lo, found.hi), abs=0.002)
    assert accuracy(Units([0.9] * 3)).lo is None
    assert accuracy(right(2, 2, 269)).lo is None


@given(
    st.lists(st.integers(0, 50).map(lambda k: k / 50), min_size=3, max_size=8),
    st.sampled_from([None, 50]),
)
def test_an_accuracy_stays_a_proportion(values, images):
    found = accuracy(Units(values, None, images), 0.999)
    if found.lo is None:
        assert images is None
        return
    assert 0 <= found.lo <= found.mean + 1e-9
    assert found.mean - 1e-9 <= found.hi <= 1
    assert found.lo < found.hi
    assert accuracy(Units(values, None, images), 0.8).hi <= found.hi


@pytest.mark.parametrize(("level", "images"), [(2.2, 269), (4.5, 269), (4.5, 2000)])
def test_an_accuracy_is_covered_for_new_runs_and_new_images(level, images):
    """Five runs on one test set; the truth is that of endless runs and images."""
    draw, covered, studies = np.random.default_rng(5), 0, 400
    spread = (3**2 + 0.3**2 + 1) ** 0.5
    truth = stats.norm.cdf(level / spread)
    for _ in range(studies):
        hard = draw.normal(0, 3, images)
        run = level + draw.normal(0, 0.3, (5, 1))
        correct = (run + hard + draw.normal(0, 1, (5, images)) > 0).astype(float)
        found = accuracy(Units(correct.mean(axis=1).tolist(), correct, images))
        covered += found.lo <= truth <= found.hi
    assert 0.92 <= covered / studies <= 0.995
