"""isoflop's own sampler on histories that are made by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial
from scipy.spatial.distance import cdist

from orchestrator.record.trials import OVER, running
from orchestrator.search.model.ehvi import APART, improving
from orchestrator.search.model.gaussian import Cube
from orchestrator.study.file import Study
from orchestrator.study.space import Space, spaces

BUDGET = 1e6


def space() -> Space:
    study = {
        "name": "ehvi",
        "data": "digits",
        "budgets": [1],
        "recipe": {"lr": {"low": 0.01, "high": 1, "log": True}},
        "methods": {"dense": {"depth": 8, "width": {"low": 0.25, "high": 2}}},
    }
    return spaces(Study.model_validate(study))["dense"]


def priced(width: float) -> float:
    return 4e5 * width**2


def tried(where: Space, unit: list[float]) -> FrozenTrial:
    """A trial at a place of the cube: over the budget it took no worker, else it is complete."""
    params = where.at(unit)
    over = priced(params["width"]) / BUDGET - 1
    if over > 0:
        state, values, attributes = TrialState.FAIL, None, {OVER: over}
    else:
        error = 0.02 + 0.1 / params["width"] + 0.05 * abs(np.log10(params["recipe.lr"]) + 1)
        state, values, attributes = TrialState.COMPLETE, [error, priced(params["width"])], {}
    return create_trial(
        state=state,
        values=values,
        params=params,
        distributions=dict(where.free),
        user_attrs=attributes,
    )


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.integers(4, 30), st.integers(0, 4))
def test_what_was_tried_or_runs_is_not_proposed_again(seed: int, ended: int, open_: int) -> None:
    where, random = space(), np.random.default_rng(seed)
    history = [tried(where, [0.0, 0.0]), tried(where, [0.1, 0.1])]
    history += [tried(where, random.random(2).tolist()) for _ in range(ended)]
    history += [running(where.at(random.random(2).tolist()), where.free, {}) for _ in range(open_)]
    cube = Cube(where.free)
    known = [t.params for t in history if OVER not in t.user_attrs]
    for _ in range(3):
        chosen = improving(where, history, BUDGET, random)
        near = cdist(cube.places([chosen]), cube.places(known), "chebyshev").min()
        assert near >= APART - 1e-9
        history.append(running(chosen, where.free, {}))
        known.append(chosen)


@pytest.mark.parametrize("seed", range(5))
def test_the_macs_of_trials_over_the_budget_are_learned(seed: int) -> None:
    """Two complete trials say little of wide networks: the refused ones say where they end."""
    where, random = space(), np.random.default_rng(seed)
    assert [*where.free] == ["width", "recipe.lr"]
    cheap = [tried(where, [0.05, 0.3]), tried(where, [0.1, 0.6])]
    dear = [tried(where, [u, random.random()]) for u in (0.8, 0.9, 0.99, 0.85, 0.95)]
    assert all(OVER in trial.user_attrs for trial in dear)

    def over(history: list[FrozenTrial]) -> int:
        chosen = [
            improving(where, history, BUDGET, np.random.default_rng(i))["width"] for i in range(10)
        ]
        return sum(priced(width) > BUDGET for width in chosen)

    assert over([*cheap, *dear]) < over(cheap)
