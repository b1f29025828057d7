"""How a trial will end is a pure function of curves."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.search.promotion.curves import Curve
from orchestrator.search.promotion.forecast import ENOUGH, UNSURE, forecast

EPOCHS = 9
errors = st.lists(st.floats(0.0, 0.95), min_size=EPOCHS, max_size=EPOCHS)
costs = st.floats(1e4, 1e8)


@st.composite
def curves(draw: Any, whole: bool | None = None) -> Curve:
    seen = draw(errors)
    floor = draw(costs)
    macs = [floor * draw(st.floats(1.0, 4.0)) for _ in range(EPOCHS)]
    ended = draw(st.booleans()) if whole is None else whole
    step = EPOCHS if ended else draw(st.integers(1, EPOCHS - 1))
    return Curve(
        tuple(seen[:step]),
        tuple(macs[:step]),
        EPOCHS,
        floor,
        seen[-1] if ended else None,
        macs[-1] if ended else None,
    )


crowds = st.lists(curves(), max_size=12)
law = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@law
@given(curves(whole=False), crowds, st.randoms(use_true_random=False))
def test_the_order_of_the_others_does_not_matter(
    own: Curve, others: list[Curve], shuffler: Any
) -> None:
    mixed = list(others)
    shuffler.shuffle(mixed)
    assert forecast(own, mixed) == pytest.approx(forecast(own, others), rel=1e-6, abs=1e-6)


@law
@given(curves(whole=False), crowds, st.sampled_from([0.25, 2.0, 1024.0]))
def test_the_unit_of_macs_does_not_matter(own: Curve, others: list[Curve], factor: float) -> None:
    scaled = [_scaled(other, factor) for other in others]
    macs, error, deviation = forecast(own, others)
    other_macs, *rest = forecast(_scaled(own, factor), scaled)
    assert np.exp(other_macs) == pytest.approx(factor * np.exp(macs), rel=1e-6)
    assert rest == pytest.approx([error, deviation], rel=1e-5, abs=1e-5)


def _scaled(curve: Curve, factor: float) -> Curve:
    return dataclasses.replace(
        curve,
        macs=tuple(factor * m for m in curve.macs),
        floor=factor * curve.floor,
        final_macs=None if curve.final_macs is None else factor * curve.final_macs,
    )


def line(last: float, macs: float, done: int = EPOCHS) -> Curve:
    """Errors that fall by a tenth an epoch, to `last`."""
    seen = tuple(last / 0.9 ** (EPOCHS - i) for i in range(1, done + 1))
    ended = done == EPOCHS
    final = (last, macs) if ended else (None, None)
    return Curve(seen, (macs,) * done, EPOCHS, macs, *final)


CROWD = [line(0.02 + 0.01 * i, 1e6 / (1 + i)) for i in range(8)]


def test_a_curve_that_runs_in_parallel_is_predicted() -> None:
    _, error, deviation = forecast(line(0.055, 2e5, done=4), CROWD)
    assert error == pytest.approx(-2.9, abs=0.15)
    assert deviation != UNSURE
    assert forecast(line(0.055, 2e5, done=4), CROWD[: ENOUGH - 1])[2] == UNSURE


def test_the_macs_to_come_are_those_that_the_method_ends_with() -> None:
    condensing = [
        dataclasses.replace(curve, floor=curve.floor / 4, final_macs=(curve.final_macs or 0) / 4)
        for curve in CROWD
    ]
    own = dataclasses.replace(line(0.05, 8e5, done=4), floor=2e5)
    assert forecast(own, condensing)[0] == pytest.approx(12.206, abs=1e-3)
