import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods import schedules

progress = st.floats(0, 1)


@given(progress, progress)
@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_a_multiplier_starts_at_one_and_never_rises(name: str, a: float, b: float) -> None:
    schedule = schedules.SCHEDULES[name]
    low, high = sorted((a, b))
    assert schedule(0.0) == 1.0
    assert 0.0 <= schedule(high) <= schedule(low) <= 1.0


def test_cosine_ends_at_zero_and_is_half_in_the_middle() -> None:
    assert schedules.cosine(1.0) == pytest.approx(0.0, abs=1e-15)
    assert schedules.cosine(0.5) == pytest.approx(0.5)
    assert schedules.cosine(1 / 3) == pytest.approx(0.75)


def test_step_falls_at_its_milestones() -> None:
    at = [0.0, 0.4999, 0.5, 0.7499, 0.75, 1.0]
    assert [schedules.step(p) for p in at] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert schedules.step(0.3, at=(0.2, 0.3), factor=0.5) == 0.25


@given(progress, st.floats(0, 0.9))
def test_warmup_rises_from_a_tenth_to_one(at: float, fraction: float) -> None:
    value = schedules.warmup(at, fraction)
    assert 0.1 <= value <= 1.0 or math.isclose(value, 0.1)
    assert (value == 1.0) or at < fraction


def test_no_warmup_means_the_peak_at_once() -> None:
    assert schedules.warmup(0.0, 0.0) == 1.0
    assert schedules.warmup(0.0, 0.2) == pytest.approx(0.1)
    assert schedules.warmup(0.1, 0.2) == pytest.approx(0.55)
