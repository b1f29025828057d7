"""Further units against Cohen's tables and simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestrator.board.stats.power import more_seeds
from orchestrator.board.stats.units import Units

accuracies = st.integers(0, 10_000).map(lambda k: k / 10_000)
samples = st.lists(accuracies, min_size=2, max_size=8)


def more(a, b, tests=1, floor=0.0):
    return more_seeds(Units(a), Units(b), level=0.05 / tests, floor=floor)


@pytest.mark.parametrize(("effect", "seeds"), [(0.8, 26), (1.0, 17), (1.2, 12)])
def test_more_seeds_agrees_with_cohens_tables(effect, seeds):
    """Cohen (1988): two-sided 5 % level, power 0.8, so many in each of two samples."""
    a = [0.5, 0.5 + 2**0.5]  # sd 1
    b = [value + effect for value in a]
    assert more(a, b) == seeds - 2
    assert more(b, a) == seeds - 2


@pytest.mark.parametrize(("sd_a", "sd_b", "tests"), [(1.0, 3.0, 1), (2.0, 0.5, 5)])
def test_more_seeds_gives_the_power_it_promises(sd_a, sd_b, tests):
    a, b = [0.0, sd_a * 2**0.5], [2.0, 2.0 + sd_b * 2**0.5]
    shift = np.mean(b) - np.mean(a)
    draw = np.random.default_rng(0)

    def rejected(n):
        x, y = draw.normal(0, sd_a, (20_000, n)), draw.normal(shift, sd_b, (20_000, n))
        return (stats.ttest_ind(x, y, axis=1, equal_var=False).pvalue < 0.05 / tests).mean()

    n = 2 + more(a, b, tests)
    assert rejected(n) == pytest.approx(0.8, abs=0.06)
    assert rejected(n) > 0.785
    assert rejected(n - 1) < 0.805


@given(samples, samples, st.integers(1, 4))
def test_more_seeds_is_symmetric_and_grows_with_the_family(a, b, tests):
    need = more(a, b, tests)
    assert need == more(b, a, tests)
    if np.mean(a) == np.mean(b) or len(set(a)) == len(set(b)) == 1:
        assert need is None
    elif need is not None:
        assert 1 <= need <= more(a, b, tests + 1) <= 101


def test_more_seeds_says_when_it_cannot_say():
    assert more([0.9], [0.8, 0.7]) is None
    assert more([0.9, 0.9], [0.8, 0.8]) is None
    assert more([0.9, 0.8], [0.8, 0.9]) is None
    assert more([0.9, 0.8], [0.9001, 0.8]) == 101
    assert more([0.9, 0.9001], [0.1, 0.1001]) == 1


def test_what_the_images_leave_no_seed_takes_away():
    a, b = [0.80, 0.81, 0.82], [0.82, 0.83, 0.84]
    alone = more(a, b)
    assert alone < more(a, b, floor=0.00003) < 101
    assert more(a, b, floor=0.0004) == 101
