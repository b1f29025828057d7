"""What a study asks for that trains what its methods are reduced from, and what it may not ask."""

from pathlib import Path
from typing import Any

import pytest

from methods import METHODS
from methods.api import Method
from methods.dense import Dense
from methods.errors import IsoflopError, StudyError
from methods.resrep.method import ResRep
from methods.values import Params
from orchestrator.cli import main
from orchestrator.study.file import Study, load
from orchestrator.study.identity import (
    confirm_name,
    is_unreduced,
    search_of,
    trial_name,
    unreduced_name,
)
from orchestrator.study.params import parts, unreduced
from orchestrator.study.space import searches, spaces


def study(methods: dict[str, Any], **changes: Any) -> Study:
    plain = {"name": "s", "data": "digits", "budgets": [1], "confirm": {"unreduced": True}}
    return Study.model_validate(plain | {"methods": methods} | changes)


def test_a_study_that_does_not_ask_keeps_its_hash() -> None:
    asked = study({"dense": {}, "resrep": {}})
    plain = study({"dense": {}, "resrep": {}}, confirm={})
    assert plain.model_dump()["confirm"] == {"seeds": 5}
    assert plain.hash != asked.hash
    assert Study.model_validate(asked.model_dump(mode="json")) == asked


@pytest.mark.parametrize("search", ["resrep", "resrep-r3", "dense-again-r12", "my-unreduced"])
def test_a_name_tells_its_search_and_that_it_is_unreduced(search: str) -> None:
    config = trial_name(search, 7)
    whole = unreduced_name(config)
    assert search_of(config) == search_of(whole) == search
    assert is_unreduced(whole)
    assert not is_unreduced(config)
    assert confirm_name(whole, 2) == f"{search}-00007-unreduced-seed2"


def test_resrep_is_reduced_from_the_resnet_that_it_prunes() -> None:
    (space,) = spaces(study({"resrep": {"depth": 14, "width": 0.5}})).values()
    params = unreduced("resrep", space.params(space.defaults()))
    assert params is not None
    whole, recipe = parts("resrep", params)
    assert whole == Dense(depth=14, width=0.5)
    assert recipe == parts("resrep", space.params(space.defaults()))[1], "trained alike"


def test_condensenet_is_reduced_from_the_densenet_with_every_convolution_whole() -> None:
    fixed = {"stages": "1-2-1", "growth": 8, "halve_classifier": True, "dropout": 0.1}
    (space,) = spaces(study({"condensenet": fixed})).values()
    params = unreduced("condensenet", space.params(space.defaults()))
    assert params is not None
    assert "method" not in params
    whole = parts("condensenet", params)[0].model_dump()
    expected = {"stages": "1-2-1", "growth": 8, "dropout": 0.1, "grouping": "none"}
    expected |= {"groups": 1, "spatial_groups": 1, "halve_classifier": False}
    assert whole.items() >= expected.items()


def test_a_variant_under_another_name_is_reduced_from_the_same() -> None:
    methods = {
        "condensenet": {},
        "condensenet-published": {"method": "condensenet", "profile": "published"},
        "resrep-published": {"method": "resrep", "profile": "published", "depth": 20},
    }
    of = searches(study(methods))
    params = {name: space.unreduced() for name, space in of.items()}
    condensed, pruned = params["condensenet-published"], params["resrep-published"]
    assert condensed is not None
    assert pruned is not None
    assert condensed["method"] == "condensenet"
    assert pruned["method"] == "dense"
    assert pruned["recipe.schedule"] == "step", "as the paper trains"
    assert parts("resrep-published", pruned)[0] == Dense(depth=20)


def test_a_trial_of_an_earlier_version_is_reduced_from_what_that_version_had() -> None:
    old = {"depth": 14, "width": 0.5, "target": 0.5, "recipe.epochs": 4}
    params = unreduced("resrep", old)
    assert params is not None
    assert (params["depth"], params["recipe.epochs"]) == (14, 4)


def test_a_study_without_such_a_method_is_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "name: s\ndata: digits\nbudgets: [1]\nmethods: {dense: {}, skipnet: {}}\n"
        "confirm: {seeds: 5, unreduced: true}\n"
    )
    sentence = (
        "confirm.unreduced: at least one method must be reduced from a larger network, but got "
        "dense, skipnet; add condensenet or resrep, or delete `unreduced`"
    )
    with pytest.raises(StudyError, match="at least one method must be reduced"):
        spaces(load(path))
    for command in ("plan", "run"):
        with pytest.raises(SystemExit) as ended:
            main(
                [command, str(path), *(["--out", str(tmp_path / "o")] if command == "run" else [])]
            )
        assert ended.value.code == 2
        printed = capsys.readouterr().err
        assert sentence in printed
        assert f"{path}:5" in printed
        assert len(printed.splitlines()) == 1


@pytest.mark.parametrize("value", ["1", "dense", "[resrep]"])
def test_what_is_no_flag_is_refused(tmp_path: Path, value: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "name: s\ndata: digits\nbudgets: [1]\nmethods: {resrep: {}}\n"
        f"confirm: {{unreduced: {value}}}\n"
    )
    with pytest.raises(StudyError, match="unreduced must be true or false"):
        load(path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"method": "dense", "depht": 8}, "gives 'depht'; did you mean 'depth'"),
        ({"method": "densenet", "depth": 8}, "fields of densenet, but"),
        ({"method": "dense", "depth": 9}, "6n"),
        ({"width": 9}, "width"),
    ],
)
def test_a_method_that_is_reduced_from_nothing_that_exists_is_refused(
    monkeypatch: pytest.MonkeyPatch, changes: Params, sentence: str
) -> None:
    class Wrong(ResRep):
        def unreduced(self) -> Params:
            return changes

    wrong: type[Method] = Wrong
    monkeypatch.setitem(METHODS, "wrong", wrong)
    with pytest.raises(IsoflopError, match=sentence):
        spaces(study({"wrong": {}}))
