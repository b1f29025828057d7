"""Holm against the closure principle, his intervals against his p-values, letters by their rule."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestrator.board.stats.families import holm, letters

p_values = st.lists(st.none() | st.floats(0, 1), max_size=6)


@given(p_values, st.sampled_from([1.0, 0.6, 0.2]))
def test_holm_is_the_closure_of_bonferroni(values, weight):
    known = [i for i, p in enumerate(values) if p is not None]
    families = [
        family
        for size in range(1, len(known) + 1)
        for family in itertools.combinations(known, size)
    ]
    for i, adjusted in enumerate(holm(values, weight=weight)):
        if values[i] is None:
            assert adjusted is None
            continue
        bounds = [min(1, len(f) / weight * min(values[j] for j in f)) for f in families if i in f]
        assert adjusted.p == pytest.approx(max(bounds))


@given(st.lists(st.floats(1e-9, 1), max_size=8), st.sampled_from([0.05, 0.2]))
def test_an_interval_leaves_out_zero_exactly_where_its_test_rejects(values, level):
    """A normal estimate: |z| against the quantile at the interval's confidence."""
    for p, adjusted in zip(values, holm(values, level=level), strict=True):
        z = stats.norm.isf(p / 2)
        edge = stats.norm.isf((1 - adjusted.confidence) / 2)
        if abs(adjusted.p - level) > 1e-9:
            assert (z > edge) == (adjusted.p < level)
        assert 1 - level <= adjusted.confidence + 1e-12 < 1


names = st.permutations("abcdefg")
edges = st.sets(st.sampled_from([frozenset(two) for two in itertools.combinations("abcdefg", 2)]))


@given(names, edges)
def test_two_share_a_letter_exactly_where_they_are_not_apart(order, apart):
    found = letters(order, apart)
    for two in itertools.combinations(order, 2):
        assert bool(set(found[two[0]]) & set(found[two[1]])) == (frozenset(two) not in apart)
    assert found[order[0]][0] == "a"
    kept = sorted({letter for text in found.values() for letter in text})
    assert kept == [chr(ord("a") + i) for i in range(len(kept))]
    without = [{n for n in order if x in found[n]} for x in kept]
    assert not any(one < other for one in without for other in without)


def test_letters_of_none_and_of_one():
    assert letters([], set()) == {}
    assert letters(["dense"], set()) == {"dense": "a"}
