"""One value has one hash, and every earlier study keeps the hash that it had."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.study import identity
from orchestrator.study.file import Study, load

ROOT = Path(__file__).parents[2]
HASHES = {
    "studies/cifar10.yaml": "5e5f9198a08f",
    "studies/cifar100.yaml": "9e8937687065",
    "studies/claims/aa.yaml": "12c42074fa08",
    "studies/claims/condconv.yaml": "bdb1c0e059e3",
    "studies/claims/condensenet.yaml": "380d903f4739",
    "studies/claims/dsnet.yaml": "c60898d66ff5",
    "studies/claims/mnist5k.yaml": "4e9f56ce4b8d",
    "studies/claims/resrep.yaml": "c1fe75d5e3c6",
    "studies/claims/skipnet.yaml": "adb136b31aa3",
    "studies/claims/trails.yaml": "2634dad2068d",
    "studies/imagenet.yaml": "fe946b06615e",
    "studies/latency.yaml": "ba29a20ae24a",
    "studies/quickstart.yaml": "fe56e6a51af8",
    "studies/tables/digits.yaml": "4df1ef278da6",
    "studies/tables/mnist5k.yaml": "ca16585e9946",
    "studies/tables/sums.yaml": "f6da22996059",
    "tests/data/halfdone/study.yaml": "08e4bb997af8",
}
"""As commit 46015c4, which read YAML 1.1 and told 1 from 1.0, gave them; or as they were since
rewritten for new fields."""


def study(**changes: Any) -> Study:
    plain = {"name": "s", "data": "digits", "budgets": [1], "methods": {"dense": {"width": 1}}}
    return Study.model_validate(plain | changes)


def test_one_repeat_is_none_and_more_are_another_study() -> None:
    plain, once = study(search={"trials": 8}), study(search={"trials": 8, "repeats": 1})
    assert once.hash == plain.hash
    assert "repeats" not in once.search.model_dump()
    assert study(search={"trials": 8, "repeats": 2}).hash != plain.hash
    assert study(search={"trials": 4, "repeats": 10}).search.repeats == 10, "a good split"


@pytest.mark.parametrize("file", HASHES)
def test_a_study_of_the_repository_keeps_its_hash(file: str) -> None:
    assert load(ROOT / file).hash == HASHES[file]


def test_every_shipped_study_is_in_the_list() -> None:
    shipped = {str(path.relative_to(ROOT)) for path in (ROOT / "studies").rglob("*.yaml")}
    assert shipped == {file for file in HASHES if file.startswith("studies/")}


@pytest.mark.parametrize("file", HASHES)
def test_whole_numbers_of_either_form_are_one_study(file: str) -> None:
    content = load(ROOT / file).model_dump(mode="json")

    def rewritten(value: Any, number: type) -> Any:
        if isinstance(value, dict):
            return {name: rewritten(each, number) for name, each in value.items()}
        if isinstance(value, list):
            return [rewritten(each, number) for each in value]
        whole = isinstance(value, int | float) and not isinstance(value, bool)
        return number(value) if whole and value == int(value) else value

    for number in (int, float):
        parts = {part: rewritten(content[part], number) for part in ("methods", "recipe")}
        assert Study.model_validate(content | parts).hash == HASHES[file]


@given(st.integers(-(2**53) + 1, 2**53 - 1), st.sampled_from(["recipe", "methods", "points"]))
def test_a_whole_number_has_one_hash_wherever_it_stands(number: int, part: str) -> None:
    def at(value: float) -> Study:
        fields = {"width": value, "depth": {"choices": [value]}}
        if part == "points":
            return study(search={"points": {"dense": [{"width": value}]}})
        return study(**{part: {"dense": fields} if part == "methods" else fields})

    assert at(number).hash == at(float(number)).hash
    assert at(number).hash != at(number + 0.5).hash or abs(number) >= 2**52


@pytest.mark.parametrize("number", [0, 1, 12, 123])
def test_a_field_of_digits_has_one_hash_as_text_and_as_a_number(number: int) -> None:
    def at(value: object) -> str:
        return study(methods={"condconv": {"placement": value}}).hash

    assert at(number) == at(str(number)) != at(number + 1)
    assert at(f"0{number}") != at(number)


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, True), (0, False), (1, "1"), (0.5, "0.5"), (8, 14), (True, False)],
)
def test_other_values_have_other_hashes(one: Any, other: Any) -> None:
    assert study(recipe={"epochs": one}).hash != study(recipe={"epochs": other}).hash


def test_a_study_of_an_earlier_version_is_known_under_its_hash() -> None:
    written = study(methods={"dense": {"width": 1.0}})
    earlier = identity.as_written(written.model_dump(mode="json", exclude={"resources"}))
    assert earlier != written.hash
    assert written.known_as(earlier).hash == earlier
    assert written.known_as(written.hash) is written
    assert written.known_as("0123456789ab") is written
    assert written.known_as(earlier).model_dump() == written.model_dump()
