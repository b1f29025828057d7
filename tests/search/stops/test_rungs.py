"""Stopping is a pure function of curves."""

import dataclasses
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.search.stops.rungs import ENOUGH, Curve, Plan, first_rung, outlook, stops

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


plans = st.builds(
    Plan,
    rule=st.sampled_from(["asha", "moasha", "predictive"]),
    grace=st.floats(0.0, 0.6),
    eta=st.floats(1.5, 4.0),
    chance=st.floats(0.0, 1.0),
)
crowds = st.lists(curves(), max_size=12)
law = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@law
@given(plans, curves(whole=False), crowds, costs)
def test_the_lowest_error_continues_whatever_it_costs(
    plan: Plan, own: Curve, others: list[Curve], cost: float
) -> None:
    least = min((o.errors[own.step - 1] for o in others if o.step >= own.step), default=1.0)
    best = dataclasses.replace(
        own,
        errors=(*own.errors[:-1], min(own.errors[-1], least)),
        macs=(cost,) * own.step,
        floor=cost,
    )
    assert stops(plan, best, others) is None


@law
@given(plans, curves(whole=False), crowds)
def test_nothing_stops_before_grace(plan: Plan, own: Curve, others: list[Curve]) -> None:
    if own.step < first_rung(plan, EPOCHS):
        assert stops(plan, own, others) is None


@law
@given(plans, curves(whole=False), crowds, st.randoms(use_true_random=False))
def test_the_order_of_the_others_does_not_matter(
    plan: Plan, own: Curve, others: list[Curve], shuffler: Any
) -> None:
    mixed = list(others)
    shuffler.shuffle(mixed)
    assert (stops(plan, own, mixed) is None) == (stops(plan, own, others) is None)


@law
@given(plans, curves(whole=False), crowds, st.sampled_from([0.25, 2.0, 1024.0]))
def test_the_unit_of_macs_does_not_matter(
    plan: Plan, own: Curve, others: list[Curve], factor: float
) -> None:
    scaled = [_scaled(other, factor) for other in others]
    same = stops(plan, _scaled(own, factor), scaled)
    assert (same is None) == (stops(plan, own, others) is None)


@law
@given(plans, curves(whole=True), crowds)
def test_a_trial_at_its_end_is_not_stopped(plan: Plan, own: Curve, others: list[Curve]) -> None:
    assert stops(plan, own, others) is None


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
    seen = outlook(line(0.055, 2e5, done=4), CROWD)
    assert seen is not None
    assert seen[1] == pytest.approx(-2.9, abs=0.15)
    assert outlook(line(0.055, 2e5, done=4), CROWD[: ENOUGH - 1]) is None


def test_prediction_stops_what_the_front_would_not_take_and_keeps_what_it_would() -> None:
    plan = Plan(rule="predictive")
    assert stops(plan, line(0.3, 2e6, done=4), CROWD)
    assert stops(plan, line(0.06, 1e5, done=4), CROWD) is None  # cheap, so that error is enough


def test_error_alone_stops_the_cheap_end_and_fronts_keep_it() -> None:
    cheap = line(0.095, 1e5, done=3)
    assert stops(Plan(rule="asha"), cheap, CROWD)
    assert stops(Plan(rule="moasha", eta=2), cheap, CROWD) is None


def test_the_macs_to_come_are_those_that_the_method_ends_with() -> None:
    condensing = [
        dataclasses.replace(curve, floor=curve.floor / 4, final_macs=(curve.final_macs or 0) / 4)
        for curve in CROWD
    ]
    own = dataclasses.replace(line(0.05, 8e5, done=4), floor=2e5)
    seen = outlook(own, condensing)
    assert seen is not None
    assert seen[0] == pytest.approx(12.206, abs=1e-3)
