"""The data that lie here are compared with those that a published study read."""

from collections.abc import Callable
from pathlib import Path

import pytest
from arrays import repainted, source, surveyed

from methods.api import Task
from methods.data.digest import Digest
from methods.data.load import divided
from methods.errors import DataError, StudyError
from orchestrator.record import contents
from orchestrator.record.provenance import provenance
from orchestrator.results.contents import check_data, digest_here, refuse_other_data
from orchestrator.results.findings import Findings
from orchestrator.study.file import Study

STUDY = Study.model_validate(
    {"name": "kept", "data": "digits", "budgets": [1], "methods": {"dense": {}}}
)
SAME, OTHER = surveyed(source()), surveyed(source(train=repainted(7)))


def unreadable(_: Study) -> Digest:
    raise DataError("an image must be readable, but one is not")


@pytest.mark.parametrize(
    ("recorded", "reader", "flaws", "note"),
    [
        (SAME.digest, lambda _: SAME.digest, [], ""),
        (SAME.digest, lambda _: OTHER.digest, ["digest of train", "digest"], ""),
        (SAME.digest, lambda _: None, [], "not on this machine"),
        (SAME.digest, unreadable, ["digest"], ""),
        (None, lambda _: SAME.digest, [], "recorded no digest"),
    ],
    ids=["same", "other", "absent", "unreadable", "unrecorded"],
)
def test_verify_compares_the_data_or_says_why_not(
    recorded: Digest | None, reader: Callable[[Study], Digest | None], flaws: list[str], note: str
) -> None:
    findings = Findings("kept")
    check_data(STUDY, recorded, reader, findings)
    assert [flaw.what for flaw in findings.flaws] == flaws
    assert len(findings.notes) == bool(note)
    assert all(note in sentence for sentence in findings.notes)


def test_data_are_read_where_they_are_at_hand(tmp_path: Path) -> None:
    assert digest_here(STUDY) == digest_here(STUDY.model_copy(update={"seed": 0}))
    assert digest_here(STUDY.model_copy(update={"data": str(tmp_path / "gone")})) is None
    with pytest.raises(DataError):
        digest_here(STUDY.model_copy(update={"data": str(tmp_path)}))


def test_nothing_is_exported_on_other_data(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = Task("made", 3, 4, 5, 3)
    same, other = divided("made", source()), divided("made", source(train=repainted(7)))
    began = provenance(STUDY, task, 9, SAME.digest)
    assert refuse_other_data(tmp_path, began, same) == SAME.digest
    with pytest.raises(StudyError, match="differ: train"):
        refuse_other_data(tmp_path, began, other)
    contents.write(tmp_path, SAME)
    with pytest.raises(StudyError, match="train/007"):
        refuse_other_data(tmp_path, began, other)
    assert refuse_other_data(tmp_path, provenance(STUDY, task, 9), same) is None
    assert "recorded no digest" in caplog.text
