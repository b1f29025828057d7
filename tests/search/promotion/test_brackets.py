"""Which trials resume is a pure function of curves up to the rung, and of whole ones."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.record.events import Bracket, Rung, decode, encode
from orchestrator.search.model.ehvi import gain
from orchestrator.search.promotion.brackets import most_promising, rung
from orchestrator.search.promotion.curves import SMALLEST, Curve
from orchestrator.search.promotion.forecast import ENOUGH, UNSURE, forecasts

EPOCHS = 8
FIRST = 2


@pytest.mark.parametrize(
    ("epochs", "first"), [(1, None), (2, 1), (3, 1), (4, 1), (5, 1), (6, 2), (8, 2), (100, 25)]
)
def test_a_trial_pauses_after_a_quarter_of_its_epochs(epochs: int, first: int | None) -> None:
    assert rung(epochs) == first


@pytest.mark.parametrize("event", [Rung("a-00001", 2, 5), Bracket(("a", "b"), ("b",), 7)])
def test_the_log_holds_pauses_and_decisions(event: Any) -> None:
    assert decode(encode(event)) == event


def curve(level: float, macs: float, epochs: int = EPOCHS) -> Curve:
    errors = tuple(level + 0.5 * math.exp(-step) for step in range(1, epochs + 1))
    ends = (errors[-1], macs) if epochs == EPOCHS else (None, None)
    return Curve(errors, (macs,) * epochs, EPOCHS, macs, *ends)


@pytest.mark.parametrize("count", range(ENOUGH))
def test_with_few_whole_curves_an_error_falls_as_theirs_did(count: int) -> None:
    whole = [curve(0.1, 1e5 * (n + 1)) for n in range(count)]
    now = curve(0.1, 2e5, FIRST)
    ((macs, error, deviation),) = forecasts([now], whole)
    assert macs == pytest.approx(math.log(2e5))
    assert math.exp(error) == pytest.approx(curve(0.1, 1e5).errors[-1] if count else now.errors[-1])
    assert deviation == UNSURE


def test_prices_are_those_to_come() -> None:
    """Dear now and dear for ever, or condensed in the end as its like were."""
    whole = [Curve((0.3,) * 8, (4e6,) * 8, EPOCHS, 1e6, 0.3, 1e6) for _ in range(2)]
    condensing = Curve((0.3, 0.3), (4e6, 4e6), EPOCHS, 1e6)
    dear = Curve((0.3, 0.3), (4e6, 4e6), EPOCHS, 4e6)
    predicted = forecasts([dear, condensing], whole)
    assert np.exp(predicted[:, 0]) == pytest.approx([4e6, 1e6])
    assert most_promising(predicted, [], math.log(9e6), 2) == [0, 1]
    best = np.array([[math.log(1e5), math.log(0.2), UNSURE]])
    assert most_promising(np.vstack([predicted, best]), whole, math.log(3e6), 2) == [2, 1]


def test_two_that_are_alike_do_not_both_resume() -> None:
    predicted = np.log([[2e5, 0.10, 1], [2e5, 0.101, 1], [5e4, 0.2, 1], [3e5, 0.4, 1]])
    predicted[:, 2] = 0.05
    assert most_promising(predicted, [], math.log(4e5), 2) == [0, 2]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(10, 14), st.floats(-5, 0), st.floats(0.01, 1)), min_size=2, max_size=6
    ),
    st.lists(st.tuples(st.floats(1e4, 1e6), st.floats(0.001, 0.9)), max_size=6),
)
def test_the_lowest_error_resumes_and_then_what_is_expected_to_gain_most(
    predicted: list[tuple[float, float, float]], ends: list[tuple[float, float]]
) -> None:
    rows = np.array(predicted)
    whole = [Curve((0.5,) * 8, (m,) * 8, EPOCHS, m, error, m) for m, error in ends]
    limit = math.log(1e6)
    order = most_promising(rows, whole, limit, len(rows))
    assert sorted(order) == list(range(len(rows)))
    lowest = rows[order[0]]
    assert lowest[1] == rows[:, 1].min()
    front: list[tuple[float, float]] = []
    for macs, error in sorted([*ends, (math.exp(lowest[0]), max(math.exp(lowest[1]), SMALLEST))]):
        if macs <= math.exp(limit) and (not front or error < front[-1][1]):
            front.append((math.log(macs), error))
    errors = [math.log(error) for _, error in ends] + rows[:, 1].tolist()
    corner = (limit, math.exp(float(np.quantile(errors, 0.75))))
    gains = gain(*rows.T, front=np.array(front).reshape(-1, 2), corner=corner)
    assert gains[order[1]] == pytest.approx(max(gains[order[1:]]), abs=1e-9)
