"""What the ideas change of the search's beliefs."""

import numpy as np
from optuna.trial import FrozenTrial, TrialState, create_trial

from orchestrator.record.history import History
from orchestrator.search.model.ehvi import Beliefs
from orchestrator.search.model.gaussian import Cube
from orchestrator.search.replay.searchers import in_memory
from orchestrator.study.file import Study
from orchestrator.study.space import Space, spaces
from tests.bench.ideas import WIDTH, Shared, prior, shared

BUDGET = 1e6
PLACES = np.random.default_rng(1).random((40, 2))
"""Places in the space of dense: a learning rate and a width each."""


def opened() -> tuple[Study, dict[str, Space]]:
    method = {"depth": 8, "width": {"low": 0.25, "high": 2}}
    study = {
        "name": "ideas",
        "data": "digits",
        "budgets": [1],
        "recipe": {"lr": {"low": 0.01, "high": 1, "log": True}},
        "methods": {"dense": method, "condconv": method},
    }
    made = Study.model_validate(study)
    return made, dict(spaces(made))


def tried(space: Space, count: int) -> list[FrozenTrial]:
    """Trials whose errors depend on the learning rate alone."""
    found = []
    for place in np.random.default_rng(2).random((count, len(space.free))).tolist():
        params = space.at(place)
        error = 0.1 * (1 + (np.log10(params["recipe.lr"]) + 1) ** 2)
        values = [error, 2e5 * params["width"]]
        free = dict(space.free)
        found.append(create_trial(values=values, params=params, distributions=free))
    return found


def beliefs(space: Space, count: int) -> Beliefs:
    found = Beliefs.of(space, tried(space, count), BUDGET)
    assert found is not None
    return found


def history(tried_elsewhere: int) -> History:
    study, found = opened()
    made = in_memory(study, found, "ehvi")
    others = tried(found["condconv"], tried_elsewhere)
    made.trial = lambda _, number: others[number]  # type: ignore[method-assign]
    made.numbers = lambda search: 0 if search == "dense" else len(others)  # type: ignore[method-assign]
    return made


def test_a_prior_lowers_gains_away_from_the_recipes_defaults_and_fades() -> None:
    space = opened()[1]["dense"]
    plain = beliefs(space, 8)
    column = list(space.free).index("recipe.lr")
    centre = Cube(space.free).place(space.defaults())[column]
    gained = plain.gains(PLACES)
    off = (PLACES[:, column] - centre) / WIDTH
    for number in (5, 50):
        changed = prior(plain, space, history(0), number).gains(PLACES)
        assert np.allclose(changed, gained * np.exp(-(off**2) / number))


def test_a_trend_is_learned_from_other_methods_once_they_have_trials() -> None:
    space = opened()[1]["dense"]
    plain = beliefs(space, 3)
    assert shared(plain, space, history(2), 9) is plain
    learned = shared(plain, space, history(30), 30)
    assert isinstance(learned, Shared)
    assert 0 <= learned.weight <= 1
    unseen = tried(space, 40)[20:]
    assert all(trial.state == TrialState.COMPLETE for trial in unseen)
    places = Cube(space.free).places([trial.params for trial in unseen])
    truth = np.log([trial.values[0] for trial in unseen])
    levels = (truth - learned.log_errors(places)[0], truth - plain.log_errors(places)[0])
    assert np.std(levels[0]) < 0.5 * np.std(levels[1])
