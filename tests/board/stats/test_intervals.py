"""Intervals and tests against scipy, Holm against the closure principle."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestrator.board.stats.intervals import (
    crossed,
    crossed_mean,
    holm,
    more_seeds,
    summary,
    welch,
)

accuracies = st.integers(0, 10_000).map(lambda k: k / 10_000)
samples = st.lists(accuracies, min_size=2, max_size=8)
p_values = st.lists(st.none() | st.floats(0, 1), max_size=6)


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


@pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")  # scipy, on a constant sample
@given(samples, samples)
def test_welch_is_scipys_where_scipy_is_right(a, b):
    ours = welch(a, b)
    if len(set(a)) == len(set(b)) == 1:
        assert ours.state == "not testable"
        assert ours.p is None
        return
    theirs = stats.ttest_ind(a, b, equal_var=False)
    interval = theirs.confidence_interval(0.95)
    assert ours.p == pytest.approx(theirs.pvalue, abs=1e-9)
    assert (ours.lo, ours.hi) == pytest.approx((interval.low, interval.high), abs=1e-9)


@given(samples, samples)
def test_welch_is_antisymmetric(a, b):
    one, other = welch(a, b), welch(b, a)
    assert one.difference == pytest.approx(-other.difference)
    assert (one.p is None) == (other.p is None)
    assert one.p is None or one.p == pytest.approx(other.p)


def test_two_constants_are_not_testable_and_never_p_zero():
    result = welch([0.9] * 5, [0.5] * 5)
    assert (result.state, result.p, result.lo) == ("not testable", None, None)
    assert result.difference == pytest.approx(0.4)


def test_one_seed_has_a_difference_and_no_test():
    result = welch([0.9], [0.5, 0.6])
    assert (result.state, result.p) == ("too few seeds", None)
    assert result.difference == pytest.approx(0.35)
    assert welch([], [0.5]).difference is None


@given(p_values)
def test_holm_is_the_closure_of_bonferroni(values):
    known = [i for i, p in enumerate(values) if p is not None]
    families = [
        family
        for size in range(1, len(known) + 1)
        for family in itertools.combinations(known, size)
    ]
    for i, adjusted in enumerate(holm(values)):
        if values[i] is None:
            assert adjusted is None
            continue
        bounds = [min(1, len(f) * min(values[j] for j in f)) for f in families if i in f]
        assert adjusted == pytest.approx(max(bounds))


@pytest.mark.parametrize(("effect", "seeds"), [(0.8, 26), (1.0, 17), (1.2, 12)])
def test_more_seeds_agrees_with_cohens_tables(effect, seeds):
    """Cohen (1988): two-sided 5 % level, power 0.8, so many in each of two samples."""
    a = [0.5, 0.5 + 2**0.5]  # sd 1
    b = [value + effect for value in a]
    assert more_seeds(a, b) == seeds - 2
    assert more_seeds(b, a) == seeds - 2


@pytest.mark.parametrize(("sd_a", "sd_b", "tests"), [(1.0, 3.0, 1), (2.0, 0.5, 5)])
def test_more_seeds_gives_the_power_it_promises(sd_a, sd_b, tests):
    a, b = [0.0, sd_a * 2**0.5], [2.0, 2.0 + sd_b * 2**0.5]
    shift = np.mean(b) - np.mean(a)
    draw = np.random.default_rng(0)

    def rejected(n):
        x, y = draw.normal(0, sd_a, (20_000, n)), draw.normal(shift, sd_b, (20_000, n))
        return (stats.ttest_ind(x, y, axis=1, equal_var=False).pvalue < 0.05 / tests).mean()

    n = 2 + more_seeds(a, b, tests=tests)
    assert rejected(n) == pytest.approx(0.8, abs=0.06)
    assert rejected(n) > 0.785
    assert rejected(n - 1) < 0.805


@given(samples, samples, st.integers(1, 4))
def test_more_seeds_is_symmetric_and_grows_with_the_family(a, b, tests):
    need = more_seeds(a, b, tests=tests)
    assert need == more_seeds(b, a, tests=tests)
    if np.mean(a) == np.mean(b) or len(set(a)) == len(set(b)) == 1:
        assert need is None
    elif need is not None:
        assert 1 <= need <= more_seeds(a, b, tests=tests + 1) <= 101


def test_more_seeds_says_when_it_cannot_say():
    assert more_seeds([0.9], [0.8, 0.7]) is None
    assert more_seeds([0.9, 0.9], [0.8, 0.8]) is None
    assert more_seeds([0.9, 0.8], [0.8, 0.9]) is None
    assert more_seeds([0.9, 0.8], [0.9001, 0.8]) == 101
    assert more_seeds([0.9, 0.9001], [0.1, 0.1001]) == 1


@given(p_values, st.integers(1, 5))
def test_each_look_has_its_share_of_the_level(values, looks):
    once, many = holm(values), holm(values, looks=looks)
    for one, other in zip(once, many, strict=True):
        assert (one is None) == (other is None)
    if known := [p for p in values if p is not None]:
        assert min(p for p in many if p is not None) == pytest.approx(
            min(1, looks * len(known) * min(known))
        )
    assert [p is not None and p < 0.05 for p in many] == [
        p is not None and p < 0.05 for p in holm([p and min(1, looks * p) for p in values])
    ]


def runs(generator, *, seeds, images, gap):
    """Two methods on the same images, of which some are hard for both, and some for one alone."""
    shared = generator.normal(0, 2, images)
    for shift in (0.0, gap):
        own = shared + generator.normal(0, 0.8, images) + 1.5 + shift
        trained = own + generator.normal(0, 0.02, (seeds, 1))
        yield trained + generator.normal(0, 1, (seeds, images)) > 0


@pytest.mark.parametrize(("seeds", "images"), [(3, 500), (5, 1000)])
def test_the_interval_for_new_images_covers_where_welchs_does_not(seeds, images):
    """The truth is that of endless images and seeds; the nominal coverage is 95 %."""
    generator, gap = np.random.default_rng(1), 0.1
    deviation = (2**2 + 0.8**2 + 0.02**2 + 1) ** 0.5
    truth = stats.norm.cdf(1.5 / deviation) - stats.norm.cdf((1.5 + gap) / deviation)
    held = alone = 0
    for _ in range(400):
        a, b = runs(generator, seeds=seeds, images=images, gap=gap)
        both, one = crossed(a, b), welch(list(a.mean(axis=1)), list(b.mean(axis=1)))
        assert both.difference == pytest.approx(one.difference)
        assert both.lo <= one.lo < one.hi <= both.hi
        held += both.lo <= truth <= both.hi
        alone += one.lo <= truth <= one.hi
    assert alone < min(held, (0.92 if seeds == 5 else 1) * 400)
    assert held >= 0.94 * 400


def test_runs_that_all_agree_have_no_interval_for_new_images():
    right = np.ones((3, 50), bool)
    assert crossed(right, right).state == "not testable"
    assert crossed(right[:1], right).state == "too few seeds"


@pytest.mark.parametrize(
    ("seeds", "level", "low", "high"), [(5, 0.95, 0.93, 1.0), (1, 0.95, 0.9, 1.0)]
)
def test_the_mean_of_seeds_and_images_is_covered(seeds, level, low, high):
    """Of new seeds and new images; a single seed's interval is for new images of this seed."""
    draw, covered, studies = np.random.default_rng(3), 0, 600
    for _ in range(studies):
        of_seeds = draw.normal(0, 0.02, (seeds, 1)) if seeds > 1 else 0.0
        values = 0.01 + of_seeds + draw.normal(0, 0.2, 300) + draw.normal(0, 0.3, (seeds, 300))
        interval = crossed_mean(values, level)
        covered += interval.lo <= 0.01 <= interval.hi
    assert low <= covered / studies <= high


def test_the_mean_of_values_that_are_all_alike_has_no_interval_but_itself():
    assert crossed_mean(np.zeros((3, 50))).lo == crossed_mean(np.zeros((3, 50))).hi == 0.0
    assert crossed_mean(np.zeros((1, 1))).lo is None
