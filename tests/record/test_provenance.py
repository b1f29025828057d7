"""Where numbers come from: a value in the program, a JSON object in logs, tables and stores."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from methods.api import Task
from methods.errors import StudyError
from methods.outside import Source
from orchestrator.record.provenance import (
    decode_provenance,
    encode_provenance,
    provenance,
    refuse_other_source,
)
from orchestrator.study.file import Study

STUDY = Study.model_validate(
    {"name": "s", "data": "digits", "budgets": [1], "methods": {"dense": {}}}
)
HALFDONE = Path(__file__).parents[1] / "data" / "halfdone" / "wal.jsonl"
EARLIEST = {"study": {"name": "s"}, "study_hash": "ab12", "classes": 10, "image": [1, 8, 8]}
"""What every version wrote."""


def test_the_provenance_of_this_machine_survives_a_file() -> None:
    here = provenance(STUDY, Task("digits", 1, 8, 8, 10), 360)
    content = json.loads(json.dumps(encode_provenance(here)))
    assert decode_provenance(content) == here
    assert encode_provenance(decode_provenance(content)) == content


def test_the_source_of_methods_of_other_packages_survives_a_file_and_is_held_to() -> None:
    source = Source("mynets.se:SENet", ("mynets",), {"mynets/se.py": b"one"})
    here = provenance(STUDY, Task("digits", 1, 8, 8, 10), 360, sources={"senet": source})
    content = json.loads(json.dumps(encode_provenance(here)))
    assert content["methods"] == {"senet": {"place": source.place, "sha256": source.sha256}}
    assert decode_provenance(content) == here
    refuse_other_source("s", here.methods, {"senet": source})
    for other in (replace(source, files={"mynets/se.py": b"two"}), replace(source, files={})):
        with pytest.raises(StudyError, match="source of senet, a method of study 's', must be"):
            refuse_other_source("s", here.methods, {"senet": other})
    other = replace(source, files={"mynets/se.py": b"two", "mynets/new.py": b""})
    with pytest.raises(StudyError, match=r"but differs in mynets/new.py, mynets/se.py \("):
        refuse_other_source("s", here.methods, {"senet": other}, {"senet": source})
    with pytest.raises(StudyError, match="none was recorded then"):
        refuse_other_source("s", {}, {"senet": source})
    plain = encode_provenance(provenance(STUDY, Task("digits", 1, 8, 8, 10), 360))
    assert "methods" not in plain, "a study of isoflop's own methods is recorded as before"


def recorded() -> Any:
    return json.loads(HALFDONE.read_text().splitlines()[0])["provenance"]


@pytest.mark.parametrize("content", [EARLIEST, recorded()], ids=["earliest", "half done"])
def test_what_an_earlier_version_wrote_keeps_its_words(content: dict[str, Any]) -> None:
    assert encode_provenance(decode_provenance(content)) == content


def test_a_key_of_a_later_version_is_left_out() -> None:
    later = {**recorded(), "moon": "full"}
    later["machine"] = {**later["machine"], "colour": "grey"}
    assert encode_provenance(decode_provenance(later)) == recorded()


@pytest.mark.parametrize(
    "content",
    [None, [], {**EARLIEST, "study": "s"}, {**EARLIEST, "image": [1, 8]}]
    + [{k: v for k, v in EARLIEST.items() if k != left_out} for left_out in EARLIEST]
    + [
        {**EARLIEST, **wrong}
        for wrong in ({"classes": "many"}, {"versions": 3}, {"machine": 3}, {"methods": 3})
    ],
)
def test_what_is_no_provenance_is_a_value_error(content: object) -> None:
    with pytest.raises(ValueError, match="provenance"):
        decode_provenance(content)
