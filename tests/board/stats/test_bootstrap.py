"""P(best) against the exact probability over every possible resample."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.board.stats.bootstrap import Counts, best_probability

accuracies = st.lists(st.integers(0, 20).map(lambda k: k / 20), min_size=1, max_size=5)
contests = st.dictionaries(st.sampled_from("abcd"), accuracies, min_size=1)


def drawn(samples, *, draws=2000, seed=0):
    return best_probability(samples, generator=np.random.default_rng(seed), draws=draws)


def winners(means):
    """Each method's share of the lead."""
    leads = [m >= max(means) - 1e-12 for m in means]
    return np.array(leads) / sum(leads)


def resamples(n):
    return itertools.product(range(n), repeat=n)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(0, 10), min_size=1, max_size=3), min_size=2, max_size=3))
def test_seeds_alone_are_every_resample(values):
    means = [[np.mean([own[i] for i in draw]) for draw in resamples(len(own))] for own in values]
    exact = np.mean([winners(combination) for combination in itertools.product(*means)], axis=0)
    samples = {str(i): Counts([v / 10 for v in own], None) for i, own in enumerate(values)}
    assert list(drawn(samples).values()) == pytest.approx(list(exact), abs=0.055)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 63), min_size=2, max_size=3))
def test_images_are_every_resample_shared_by_the_methods(bits):
    """Two seeds on three images each, as the bits of a number."""
    correct = [np.array([[b >> (3 * s + i) & 1 for i in range(3)] for s in (0, 1)]) for b in bits]
    total = np.zeros(len(bits))
    count = 0
    for images in resamples(3):
        values = [c[:, list(images)].mean(axis=1) for c in correct]
        means = [[v[list(draw)].mean() for draw in resamples(2)] for v in values]
        for combination in itertools.product(*means):
            total += winners(combination)
            count += 1
    samples = {str(i): c.astype(bool) for i, c in enumerate(correct)}
    assert list(drawn(samples).values()) == pytest.approx(list(total / count), abs=0.055)


def test_binomial_images_are_every_count():
    """One seed each, on two images: 0.5 draws 0, 1 or 2 right with 1/4, 1/2, 1/4."""
    share = drawn({"a": Counts([0.5], 2), "b": Counts([0.5], 2), "c": Counts([0.0], 2)})
    ways = [((0, 0.25), (1, 0.5), (2, 0.25))] * 2 + [((0, 1.0),)]
    exact = sum(
        np.prod([p for _, p in combination]) * winners([k for k, _ in combination])
        for combination in itertools.product(*ways)
    )
    assert list(share.values()) == pytest.approx(list(exact), abs=0.055)


@settings(deadline=None)
@given(contests, st.sampled_from([None, 50]))
def test_shares_sum_to_one_and_the_order_changes_nothing(contest, images):
    samples = {name: Counts(values, images) for name, values in contest.items()}
    share = drawn(samples, draws=200)
    assert sum(share.values()) == pytest.approx(1)
    assert drawn(dict(reversed(samples.items())), draws=200) == share


@settings(deadline=None)
@given(contests)
def test_who_is_ahead_in_every_seed_is_best_for_sure(contest):
    ahead = {"best": Counts([1.01], None)}
    share = drawn(ahead | {name: Counts(v, None) for name, v in contest.items()}, draws=100)
    assert share["best"] == 1


def test_shared_images_are_worth_something():
    """One image more than the other, on every seed: never behind, where images are shared."""
    right = np.zeros((3, 100), bool)
    right[:, :90] = True
    more = right.copy()
    more[:, 90] = True
    shared = drawn({"a": right, "b": more})
    alone = drawn({"a": Counts([0.90] * 3, 100), "b": Counts([0.91] * 3, 100)})
    assert shared["b"] > alone["b"] + 0.05


def test_more_images_make_surer():
    contest = ([0.90] * 3, [0.92] * 3)
    few, many = (
        drawn({"a": Counts(contest[0], n), "b": Counts(contest[1], n)})["b"] for n in (100, 10_000)
    )
    assert 0.5 < few < 0.9 < many


def test_nothing_to_compare():
    assert drawn({}) == {}
    assert drawn({"a": Counts([0.4], 10)}) == {"a": 1.0}
    with pytest.raises(ValueError, match="needs a seed"):
        drawn({"a": Counts([], 10)})
    with pytest.raises(ValueError, match="same images"):
        drawn({"a": np.ones((2, 3), bool), "b": np.ones((2, 4), bool)})
