"""Differences against scipy's Welch, and for new images; what they never claim."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestrator.board.stats.contrasts import contrast
from orchestrator.board.stats.units import Units

accuracies = st.integers(0, 10_000).map(lambda k: k / 10_000)
samples = st.lists(accuracies, min_size=2, max_size=8)


def of(correct):
    """Units of a boolean array: runs images."""
    correct = np.asarray(correct, float)
    return Units(correct.mean(axis=1).tolist(), correct, correct.shape[1])


@pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")  # scipy, on a constant sample
@given(samples, samples)
def test_of_unknown_images_it_is_scipys_welch(a, b):
    ours = contrast(Units(a), Units(b)).at(0.95)
    if len(set(a)) == len(set(b)) == 1:
        assert (ours.state, ours.p) == ("not testable", None)
        return
    theirs = stats.ttest_ind(a, b, equal_var=False)
    interval = theirs.confidence_interval(0.95)
    assert ours.p == pytest.approx(theirs.pvalue, abs=1e-9)
    assert (ours.lo, ours.hi) == pytest.approx((interval.low, interval.high), abs=1e-9)


@given(samples, samples, st.sampled_from([None, 100, 10_000]))
def test_it_is_antisymmetric_and_images_never_sharpen_it(a, b, images):
    one, other = (
        contrast(Units(a, None, images), Units(b, None, images)),
        contrast(Units(b, None, images), Units(a, None, images)),
    )
    assert one.at(0.95).reversed.difference == pytest.approx(other.difference)
    assert one.p == pytest.approx(other.p)
    alone = contrast(Units(a), Units(b))
    if alone.p is not None:
        assert one.p >= alone.p
        assert one.at(0.9).lo <= alone.at(0.9).lo


@given(samples, samples, st.floats(0.5, 0.999))
def test_the_interval_leaves_out_zero_exactly_where_p_is_below(a, b, confidence):
    gap = contrast(Units(a, None, 500), Units(b, None, 500))
    found = gap.at(confidence)
    assert (found.lo > 0 or found.hi < 0) == (found.p < 1 - confidence)


def test_two_constants_are_not_testable_and_never_p_zero():
    result = contrast(Units([0.9] * 5), Units([0.5] * 5)).at(0.95)
    assert (result.state, result.p, result.lo) == ("not testable", None, None)
    assert result.difference == pytest.approx(0.4)
    """With their images they are: these are a sample, if the runs are none."""
    assert 0 < contrast(Units([0.9] * 5, None, 50), Units([0.5] * 5, None, 50)).p < 1e-4


def test_one_seed_has_a_difference_and_no_test():
    result = contrast(Units([0.9]), Units([0.5, 0.6])).at(0.95)
    assert (result.state, result.p) == ("too few seeds", None)
    assert result.difference == pytest.approx(0.35)
    assert contrast(Units([]), Units([0.5])).difference is None


def test_runs_that_all_agree_are_no_certainty():
    right = np.ones((3, 50), bool)
    same = contrast(of(right), of(right)).at(0.95)
    assert (same.difference, same.p) == (0, 1)
    assert same.hi == pytest.approx(stats.t.ppf(0.975, 49) / 52)
    assert contrast(of(right[:1]), of(right)).at(0.95).state == "too few seeds"


def test_not_worse_is_one_sided_and_follows_the_margin():
    a, b = Units([0.90, 0.91, 0.92, 0.90, 0.91]), Units([0.91, 0.91, 0.92, 0.90, 0.90])
    gap = contrast(a, b)
    assert gap.not_worse(0.05) < 0.001 < gap.not_worse(0.001) < 0.6
    assert gap.not_worse(0.0) + contrast(b, a).not_worse(0.0) == pytest.approx(1)
    theirs = stats.ttest_ind(
        np.array(a.accuracies) + 0.01, b.accuracies, equal_var=False, alternative="greater"
    )
    assert gap.not_worse(0.01) == pytest.approx(theirs.pvalue)
    assert contrast(Units([0.5]), b).not_worse(0.1) is None


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
        a, b = (of(x) for x in runs(generator, seeds=seeds, images=images, gap=gap))
        both = contrast(a, b).at(0.95)
        one = contrast(Units(a.accuracies), Units(b.accuracies)).at(0.95)
        assert both.difference == pytest.approx(one.difference)
        assert both.lo <= one.lo < one.hi <= both.hi
        held += both.lo <= truth <= both.hi
        alone += one.lo <= truth <= one.hi
    assert alone < min(held, (0.92 if seeds == 5 else 1) * 400)
    assert held >= 0.94 * 400
