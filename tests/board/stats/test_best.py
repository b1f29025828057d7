"""P(best): what it must be by symmetry, by draws, and under other names."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.board.stats.best import best_probability
from orchestrator.board.stats.units import Units

values = st.lists(st.integers(0, 100).map(lambda k: k / 100), min_size=2, max_size=6)


@given(st.lists(values, min_size=2, max_size=5), st.sampled_from([None, 200]), st.randoms())
def test_names_and_their_order_change_nothing(methods, images, chance):
    named = {f"m{i}": Units(own, None, images) for i, own in enumerate(methods)}
    shares = best_probability(named)
    assert sum(shares.values()) == pytest.approx(1)
    others = list(range(len(methods)))
    chance.shuffle(others)
    renamed = best_probability({f"x{i}": named[f"m{i}"] for i in others})
    for i in others:
        assert renamed[f"x{i}"] == pytest.approx(shares[f"m{i}"], abs=1e-12)


def test_two_alike_share_and_a_lead_counts():
    same = best_probability({"a": Units([0.8, 0.9, 0.7]), "b": Units([0.9, 0.7, 0.8])})
    assert same == pytest.approx({"a": 0.5, "b": 0.5})
    ahead = best_probability({"a": Units([0.8, 0.9, 0.7]), "b": Units([0.85, 0.95, 0.75])})
    far = best_probability({"a": Units([0.8, 0.9, 0.7]), "b": Units([1.0, 1.1, 0.9])})
    assert 0.5 < ahead["b"] < far["b"] < 1
    assert best_probability({"a": Units([0.5] * 3), "b": Units([0.6] * 3)}) == {"a": 0.0, "b": 1.0}


def test_it_is_what_draws_of_the_means_give():
    draw = np.random.default_rng(0)
    methods = {
        name: Units((mean + draw.normal(0, 0.01, n)).tolist())
        for name, mean, n in (("a", 0.80, 5), ("b", 0.805, 5), ("c", 0.79, 8))
    }
    shares = best_probability(methods)
    free = sum(units.n - 1 for units in methods.values())
    pooled = sum(np.var(u.accuracies, ddof=1) * (u.n - 1) for u in methods.values()) / free
    means = np.array(
        [u.mean + (pooled / u.n) ** 0.5 * draw.standard_t(free, 400_000) for u in methods.values()]
    )
    counts = np.bincount(means.argmax(axis=0), minlength=3) / means.shape[1]
    assert list(shares.values()) == pytest.approx(counts, abs=0.004)


def test_images_make_it_less_sure_and_shared_ones_less_so():
    draw = np.random.default_rng(1)
    hard = draw.normal(0, 2, 300)
    runs = {
        name: (hard + shift + draw.normal(0, 0.4, (5, 300)) > -2).astype(float)
        for name, shift in (("a", 0.0), ("b", 0.3))
    }
    accuracies = {name: correct.mean(axis=1).tolist() for name, correct in runs.items()}
    paired, counted, alone = (
        best_probability({n: make(n) for n in runs})["b"]
        for make in (
            lambda n: Units(accuracies[n], runs[n], 300),
            lambda n: Units(accuracies[n], None, 300),
            lambda n: Units(accuracies[n]),
        )
    )
    assert 0.5 < counted < paired < alone


def test_one_method_or_one_unit_is_no_contest():
    for methods in ({}, {"a": Units([0.1, 0.2])}, {"a": Units([0.1]), "b": Units([0.1, 0.2])}):
        with pytest.raises(ValueError, match="two"):
            best_probability(methods)
