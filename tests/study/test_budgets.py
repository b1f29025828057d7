"""Budgets as a study file has them: a list in million MACs, or milliseconds by name."""

import json
from pathlib import Path

import pytest

from methods.errors import StudyError
from orchestrator.study.budgets import MACS, Milliseconds, milliseconds
from orchestrator.study.file import Study, load

TEXT = "name: demo\ndata: digits\nmethods: {{dense: {{}}}}\nbudgets: {budgets}\n"


def read(tmp_path: Path, budgets: str, more: str = "") -> Study:
    file = tmp_path / "demo.yaml"
    file.write_text(TEXT.format(budgets=budgets) + more)
    return load(file)


def test_a_list_is_in_million_macs(tmp_path: Path) -> None:
    study = read(tmp_path, "[0.25, 1]")
    assert study.cost is MACS
    assert (study.budgets, study.cost.cap(0.57)) == ([0.25, 1], 570_000)
    assert study.model_dump(mode="json")["budgets"] == [0.25, 1.0]
    assert MACS.amount(0.25) == "0.25 MMACs"


def test_milliseconds_are_named_and_kept(tmp_path: Path) -> None:
    study = read(tmp_path, "{latency_ms: [0.3, 1], batch: 4}", "primary: 0.3\n")
    assert (study.budgets, study.primary_budget) == ([0.3, 1], 0.3)
    assert study.cost == milliseconds(4)
    written = study.model_dump(mode="json")
    assert written["budgets"] == {"latency_ms": [0.3, 1.0], "batch": 4}
    again = Study.model_validate(json.loads(json.dumps(written)))
    assert (again.budgets, again.cost, again.hash) == (study.budgets, study.cost, study.hash)
    assert Study.model_validate({**written, "budgets": study.budgets}).cost == study.cost
    assert study.cost.amount(0.3) == "0.3 ms"


def test_the_batch_is_one_image_by_default_and_part_of_the_hash(tmp_path: Path) -> None:
    one, same, other, macs = (
        read(tmp_path, text)
        for text in (
            "{latency_ms: [1]}",
            "{latency_ms: [1.0], batch: 1}",
            "{latency_ms: [1], batch: 2}",
            "[1]",
        )
    )
    assert one.hash == same.hash
    assert len({one.hash, other.hash, macs.hash}) == 3


@pytest.mark.parametrize(
    ("budgets", "sentence"),
    [
        ("{latency_ms: [0, 1]}", "budgets: `latency_ms` must be above 0, but got 0"),
        ("{latency_ms: [-1]}", "`latency_ms` must be above 0, but got -1"),
        ("{latency_ms: [.nan]}", "a number must be finite, but got .nan"),
        ("{latency_ms: [.inf]}", "a number must be finite, but got .inf"),
        ("{latency_ms: [true]}", "`latency_ms` must be a number, but got true"),
        ('{latency_ms: ["1"]}', "`latency_ms` must be a number, but got "),
        ("{latency_ms: []}", "`latency_ms` must have at least 1 "),
        ("{latency_ms: 1}", "`latency_ms` must be a list, but got 1; write [1]"),
        ("{latency_ms: [1, 0.5]}", "budgets must rise, without repeats, but got [1.0, 0.5]"),
        ("{latency_ms: [1, 1]}", "budgets must rise, without repeats"),
        ("{latency_ms: [1], batch: 0}", "`batch` must be a whole number of images, 1 to 1,024"),
        ("{latency_ms: [1], batch: 2000}", "`batch` must be a whole number of images"),
        ("{latency_ms: [1], batch: 1.5}", "`batch` must be a whole number of images"),
        ("{latency_ms: [1], batch: true}", "`batch` must be a whole number of images"),
        ("{batch: 1}", "`latency_ms` must be given, but is missing; write"),
        ("{}", "`latency_ms` must be given"),
        ("{latency_msec: [1]}", "'latency_msec' is no field of budgets in milliseconds; did you"),
        ("{latency_ms: [1], batches: 1}", "'batches' is no field of budgets in milliseconds"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(tmp_path: Path, budgets: str, sentence: str) -> None:
    with pytest.raises(StudyError) as refused:
        read(tmp_path, budgets)
    message = str(refused.value)
    assert sentence in message
    assert "\n" not in message
    assert message.startswith(f"{tmp_path / 'demo.yaml'}:4")


def test_what_predicts_macs_does_not_go_with_milliseconds(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="`promote` predicts MACs, not milliseconds"):
        read(tmp_path, "{latency_ms: [1]}", "search: {stop: promote}\n")
    with pytest.raises(StudyError, match=r"`primary` must be one of the budgets \[1.0\]"):
        read(tmp_path, "{latency_ms: [1]}", "primary: 2\n")


def test_the_schema_knows_both_forms() -> None:
    schema = Study.model_json_schema()["properties"]["budgets"]
    numbers, timed = schema["anyOf"]
    assert numbers["type"] == "array"
    assert timed["properties"]["batch"]["maximum"] == 1024


def test_budgets_survive_a_copy(tmp_path: Path) -> None:
    study = read(tmp_path, "{latency_ms: [1], batch: 2}")
    assert isinstance(study.model_copy(deep=True).budgets, Milliseconds)
    assert study.model_copy(deep=True).cost == study.cost
