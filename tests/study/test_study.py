"""A study file says what it means, or is refused in one sentence."""

from pathlib import Path

import pytest

from methods.errors import StudyError
from orchestrator.study.file import Study, load
from orchestrator.study.narrowing import Choices, Range

GOOD = """
name: tiny
data: digits
budgets: [0.5, 1]
recipe: {epochs: 3, lr: {low: 1e-3, high: 1e-1, log: true}}
methods:
  dense: {width: {choices: [0.25, 0.5]}, depth: 8}
"""


def study(tmp_path: Path, text: str) -> Study:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return load(path)


def test_values_ranges_and_choices_are_told_apart(tmp_path: Path) -> None:
    what = study(tmp_path, GOOD)
    assert what.recipe["lr"] == Range(low=1e-3, high=1e-1, log=True)
    assert what.recipe["epochs"] == 3
    assert what.methods["dense"]["width"] == Choices(choices=[0.25, 0.5])
    assert what.primary_budget == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("budgets:", "budgetts:"), "budgetts is no field of a study; did you mean 'budgets'?"),
        (("[0.5, 1]", "[0]"), "above 0"),
        (("[0.5, 1]", "[2, 1]"), "budgets must rise"),
        (("name: tiny", "name: Tiny Study"), "lower-case"),
        (("low: 1e-3, high: 1e-1", "low: 1, high: 0.1"), "`low <= high` must hold"),
        (("low: 1e-3, high", "hihg: 1, low: 0.1, high"), "did you mean 'high'?"),
        (("data: digits", "data: digits\nsearch: {trails: 3}"), "did you mean 'trials'?"),
        (("data: digits", "data: digits\nprimary: 3"), "`primary` must be one of the budgets"),
        (("data: digits", "data: [1"), "must be YAML"),
        (("data: digits\n", ""), "data must be given"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, change: tuple[str, str], sentence: str) -> None:
    with pytest.raises(StudyError) as caught:
        study(tmp_path, GOOD.replace(*change))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="there is none at"):
        load(tmp_path / "none.yaml")


def test_the_hash_is_that_of_the_numbers(tmp_path: Path) -> None:
    what = study(tmp_path, GOOD)
    elsewhere = study(tmp_path, GOOD + "resources: {cpu: 4, concurrency: 7}\n")
    other = study(tmp_path, GOOD + "seed: 1\n")
    assert what.hash == elsewhere.hash
    assert what.hash != other.hash


def test_a_control_and_targets_are_read(tmp_path: Path) -> None:
    what = study(tmp_path, GOOD + "  dense-again: {method: dense}\ntargets: [0.9, 0.95]\n")
    assert what.controls == {"dense-again": "dense"}
    assert what.targets == [0.9, 0.95]
    assert Study.model_validate(what.model_dump(mode="json")) == what
    assert what.hash != study(tmp_path, GOOD).hash
    assert "targets" not in study(tmp_path, GOOD).model_dump(), "an older study keeps its hash"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("  dense-again: {method: densen}\n", "`method` must be another method of this study"),
        ("  again: {method: again}\n", "`method` must be another method of this study"),
        ("  dense-again: {method: dense, depth: 8}\n", "repeats dense unchanged"),
        ("  dense-2: {method: dense}\n", "letters and dashes only"),
        ("targets: [90]\n", "below 1"),
    ],
)
def test_a_control_that_is_none_is_refused(tmp_path: Path, more: str, sentence: str) -> None:
    with pytest.raises(StudyError, match=sentence):
        study(tmp_path, GOOD + more)


def test_a_race_has_a_budget_and_changes_the_hash_of_none_without(tmp_path: Path) -> None:
    what = study(tmp_path, GOOD + "confirm: {seeds: 5, race: true, budget: 12}\n")
    assert (what.confirm.race, what.confirm.budget) == (True, 12)
    assert Study.model_validate(what.model_dump(mode="json")) == what
    plain = study(tmp_path, GOOD)
    assert plain.model_dump()["confirm"] == {"seeds": 5}, "an older study keeps its hash"
    assert plain.hash != what.hash


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        (
            "{race: true}",
            "within a `budget`, which must be at least 2 over all methods, but got none",
        ),
        ("{race: true, budget: 1}", "but got 1; write `budget: 12`"),
        ("{race: true, budget: 0}", "confirm.budget"),
        ("{race: true, budget: 8, seeds: 2}", "needs `seeds` to be at least 3, but got 2"),
        ("{budget: 8}", "must stand with `race: true`"),
        ("{race: true}\nsearch: {repeats: 5}", "whole searches of 20 trials each .* but got none"),
        ("{race: true, budget: 4}\nsearch: {repeats: 2}", "needs `repeats` to be at least 3"),
    ],
)
def test_a_race_that_cannot_be_is_refused(tmp_path: Path, plan: str, sentence: str) -> None:
    with pytest.raises(StudyError, match=sentence):
        study(tmp_path, GOOD + f"confirm: {plan}\n")


def test_a_race_of_repeated_searches_asks_for_no_number_of_seeds(tmp_path: Path) -> None:
    search = "search: {trials: 8, repeats: 5}\n"
    what = study(tmp_path, f"{GOOD}{search}confirm: {{seeds: 1, race: true, budget: 4}}\n")
    assert (what.search.repeats, what.confirm.budget) == (5, 4)
    assert what.hash != study(tmp_path, f"{GOOD}{search}confirm: {{seeds: 1}}\n").hash


def test_how_images_come_to_a_size_is_part_of_the_hash_where_it_is_said(tmp_path: Path) -> None:
    plain = study(tmp_path, GOOD)
    assert {"size", "fit"}.isdisjoint(plain.model_dump()), "an older study keeps its hash"
    assert study(tmp_path, f"{GOOD}fit: crop\n").hash == plain.hash
    sizes = [study(tmp_path, f"{GOOD}{field}\n") for field in ("size: 64", "fit: pad", "size: 32")]
    assert len({what.hash for what in (plain, *sizes)}) == 4
    with pytest.raises(StudyError, match="size"):
        study(tmp_path, f"{GOOD}size: 0\n")
