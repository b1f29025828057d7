"""Annotations, narrowed by the study, become distributions; nonsense is refused at load."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from methods import METHODS
from methods.api import Task
from methods.errors import StudyError
from orchestrator.study.file import Study, load
from orchestrator.study.params import ALIAS, parts
from orchestrator.study.space import spaces

STUDIES = Path(__file__).parents[2] / "studies"
TASK = Task("digits", 1, 8, 8, 10)


def study(methods: dict[str, Any], recipe: dict[str, Any] | None = None) -> Study:
    return Study.model_validate(
        {
            "name": "s",
            "data": "digits",
            "budgets": [1],
            "methods": methods,
            "recipe": {"epochs": 4, **(recipe or {})},
        }
    )


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_has_a_space_of_its_own(name: str) -> None:
    space = spaces(study({name: {}}))[name]
    assert space.free, "a method without a search range cannot be searched"
    assert space.params(space.defaults())["recipe.epochs"] == 4


def test_the_study_narrows_fixes_and_opens() -> None:
    space = spaces(
        study(
            {
                "skipnet": {
                    "alpha": {"low": 0.01, "high": 1, "log": True},
                    "gate": "rnn",
                    "depth": {"choices": [8, 14]},
                }
            },
            {
                "lr": {"low": 0.01, "high": 0.1, "log": True},
                "batch_size": {"low": 16, "high": 64, "step": 16},
            },
        )
    )["skipnet"]
    assert space.free["alpha"] == FloatDistribution(0.01, 1, log=True)
    assert space.free["depth"] == CategoricalDistribution((8, 14))
    assert space.free["recipe.lr"] == FloatDistribution(0.01, 0.1, log=True)
    assert space.free["recipe.batch_size"] == IntDistribution(16, 64, step=16)
    assert space.fixed["gate"] == "rnn"
    defaults = space.defaults()
    assert defaults["alpha"] == 1.0, "the nearest to 4"
    assert defaults["depth"] in (8, 14)
    assert defaults["recipe.batch_size"] == 64


def test_the_floor_is_the_cheapest_corner() -> None:
    space = spaces(
        study({"dense": {"depth": {"choices": [14, 8]}, "width": {"low": 0.5, "high": 1}}})
    )
    least = METHODS["dense"].of({"depth": 8, "width": 0.5}).floor(TASK)
    assert space["dense"].floor(TASK) == least


@pytest.mark.parametrize(
    ("methods", "recipe", "sentence"),
    [
        ({"skipnt": {}}, {}, "did you mean 'skipnet'?"),
        ({"skipnet": {"alhpa": 1}}, {}, "did you mean 'alpha'?"),
        ({"skipnet": {"alpha": {"low": -1, "high": 1}}}, {}, "SkipNet.alpha"),
        ({"skipnet": {"gate": "lstm"}}, {}, "SkipNet.gate"),
        ({"skipnet": {"gate": {"low": 1, "high": 2}}}, {}, "use `choices:`"),
        ({"dense": {"depth": 9}}, {}, "6n+2"),
        ({"dense": {}}, {"lrr": 1}, "did you mean 'lr'?"),
        ({"dense": {}}, {"lr": {"low": 0, "high": 1}}, "Recipe.lr"),
        ({"skipnet": {}}, {"epochs": 1}, "at least 2 epochs"),
    ],
)
def test_a_mistake_is_one_sentence(
    methods: dict[str, Any], recipe: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(StudyError) as caught:
        spaces(study(methods, recipe))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", sorted(STUDIES.rglob("*.yaml")), ids=lambda file: file.stem)
def test_every_study_that_we_ship_can_run(file: Path) -> None:
    study = load(file)
    for space in spaces(study).values():
        assert space.defaults().keys() == space.free.keys()
        assert space.method_at(space.defaults()).phases()


def test_a_trial_has_values_of_the_fields_own_kind() -> None:
    study = Study.model_validate(
        {"name": "s", "data": "digits", "budgets": [1], "methods": {"condconv": {"placement": 1}}}
    )
    assert spaces(study)["condconv"].params({})["placement"] == "1"


@pytest.mark.parametrize("name", list(METHODS))
@pytest.mark.parametrize("u", [0.0, 0.37, 1 - 1e-12])
def test_every_place_of_the_cube_is_in_the_space(name: str, u: float) -> None:
    space = spaces(study({name: {}}, {"lr": {"low": 0.01, "high": 1, "log": True}}))[name]
    place = space.at([u] * len(space.free))
    for field, distribution in space.free.items():
        assert distribution._contains(distribution.to_internal_repr(place[field])), field


def test_even_places_are_even_values() -> None:
    space = spaces(
        study(
            {"dense": {"depth": {"choices": [8, 14]}, "width": {"low": 0.25, "high": 1}}},
            {
                "lr": {"low": 0.01, "high": 1, "log": True},
                "batch_size": {"low": 16, "high": 64, "step": 16},
            },
        )
    )["dense"]
    names = list(space.free)
    places = [space.at([(index + 0.5) / 8] * len(names)) for index in range(8)]
    assert [place["depth"] for place in places] == [8] * 4 + [14] * 4
    assert [place["width"] for place in places] == [0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1.0, 1.0]
    assert [place["recipe.batch_size"] for place in places] == [16, 16, 32, 32, 48, 48, 64, 64]
    ratios = [b["recipe.lr"] / a["recipe.lr"] for a, b in itertools.pairwise(places)]
    assert ratios == pytest.approx([100 ** (1 / 8)] * 7)


def test_a_control_is_the_method_again_under_another_name() -> None:
    narrowed = {"depth": {"choices": [8, 14]}, "width": 0.5}
    found = spaces(study({"dense-again": {"method": "dense"}, "dense": narrowed, "resrep": {}}))
    own, again = found["dense"], found["dense-again"]
    assert list(found) == ["dense-again", "dense", "resrep"]
    assert (own.method, again.method) == ("dense", "dense-again")
    assert own.free == again.free
    searched = own.defaults()
    assert again.params(searched) == {**own.params(searched), "method": "dense"}
    assert parts("dense-again", again.params(searched)) == parts("dense", own.params(searched))
    assert again.floor(TASK) == own.floor(TASK)
    assert again.epochs == own.epochs
    assert not any(ALIAS in method.model_fields for method in METHODS.values())


def test_a_profile_has_what_the_paper_sets_and_the_study_may_say_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paper = {"gate_bias": 0.5, "baseline": True, "recipe.nesterov": False, "alpha": 0.2}
    monkeypatch.setattr(METHODS["skipnet"], "PUBLISHED", paper)
    methods = {
        "skipnet": {},
        "skipnet-published": {"method": "skipnet", "profile": "published", "gate_bias": 1.0},
        "dense": "published",
    }
    what = study(methods, {"nesterov": True, "lr": 0.2})
    ours, theirs, dense = spaces(what).values()
    assert not what.controls, "a variant is no A/A control"
    assert theirs.fixed | {"baseline": True, "recipe.nesterov": False, "alpha": 0.2} == theirs.fixed
    assert theirs.fixed["gate_bias"] == 1.0, "the study's word is the last"
    assert theirs.fixed["recipe.lr"] == 0.2, "the profile has none"
    assert ours.fixed["recipe.nesterov"] is True
    assert "alpha" in ours.free
    assert dense.fixed == spaces(study({"dense": {}}, {"nesterov": True, "lr": 0.2}))["dense"].fixed
    method, recipe = parts("skipnet-published", theirs.params(theirs.defaults()))
    assert (type(method).__name__, recipe.nesterov) == ("SkipNet", False)
    ranges = {"alpha": {"low": 0.1, "high": 1, "log": True}, "gate_bias": {"low": 1, "high": 2}}
    searched = spaces(study({"skipnet": {"profile": "published", **ranges}}))["skipnet"]
    assert searched.first[0]["alpha"] == 0.2, "the search begins with the paper"
    assert searched.first[0]["gate_bias"] == 1.0, "moved into the range"
    with pytest.raises(StudyError, match=r"profile must be `published`, but got .*paper"):
        loaded({"skipnet": "paper"})


def loaded(methods: dict[str, Any]) -> Study:
    try:
        return study(methods)
    except ValueError as error:
        raise StudyError(str(error)) from None


def test_a_control_may_not_take_the_name_of_a_method() -> None:
    with pytest.raises(StudyError, match="'resrep' is the name of a method"):
        spaces(study({"dense": {}, "resrep": {"method": "dense"}}))
