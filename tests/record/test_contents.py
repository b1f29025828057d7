"""A study is held to the data that it began with, and what differs is named."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from arrays import part, repainted, source, surveyed

from methods.api import Task
from methods.data.survey import Survey
from methods.errors import StorageError, StudyError
from orchestrator.record import contents
from orchestrator.record.events import Begun
from orchestrator.record.provenance import provenance
from orchestrator.study.file import Study

STUDY = Study.model_validate(
    {"name": "kept", "data": "made", "budgets": [1], "methods": {"dense": {}}}
)
SAME, OTHER = surveyed(source()), surveyed(source(train=repainted(7)))


def began(survey: Survey | None) -> Begun:
    digest = survey.digest if survey else None
    origin = provenance(STUDY, Task("made", 3, 4, 5, 3), 9, digest)
    return Begun(STUDY.name, STUDY.hash, origin, lag=1, device="cpu")


def streamed(time: int, size: int = 100) -> Survey:
    """As of a set too large to hash: files have sizes and times."""
    listings = {
        role: replace(listing, bytes=np.full(len(listing.names), size), times=listing.bytes + time)
        for role, listing in SAME.contents.parts.items()
    }
    return replace(SAME, contents=replace(SAME.contents, parts=listings))


def test_the_record_holds_every_image(tmp_path: Path) -> None:
    contents.write(tmp_path, SAME)
    recorded, digest = contents.read(tmp_path)
    assert digest == SAME.digest
    assert recorded.class_names == SAME.contents.class_names
    for role, listing in SAME.contents.parts.items():
        for field, values in vars(listing).items():
            assert np.array_equal(getattr(recorded.parts[role], field), values), (role, field)


def test_other_data_are_refused_by_name(tmp_path: Path) -> None:
    contents.refuse_other_data(tmp_path, SAME)  # nothing is recorded yet
    contents.write(tmp_path, SAME)
    contents.refuse_other_data(tmp_path, SAME)
    with pytest.raises(StudyError, match=r"train: 1 with other pixels \(train/007\.png\)"):
        contents.refuse_other_data(tmp_path, OTHER)
    fewer = surveyed(source(test=part(6, 2, "test/")))
    with pytest.raises(StudyError, match=r"test: 3 removed \(test/006\.png"):
        contents.keep(tmp_path, fewer, None)


def test_another_decoder_is_said(tmp_path: Path) -> None:
    contents.write(tmp_path, replace(SAME, contents=replace(SAME.contents, pillow="1.0")))
    with pytest.raises(StudyError, match=r"Pillow 1\.0 decoded them then"):
        contents.refuse_other_data(tmp_path, OTHER)


def test_a_study_without_a_record_gets_one_at_its_first_resume(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        contents.keep(tmp_path, SAME, began(None))
    assert "began without a record of its data" in caplog.text
    caplog.clear()
    contents.keep(tmp_path, SAME, began(None))
    contents.keep(tmp_path, SAME, began(SAME))
    assert not caplog.records
    with pytest.raises(StudyError, match="restore the data"):
        contents.keep(tmp_path, OTHER, began(None))


def test_a_lost_record_is_written_again_if_the_digest_agrees(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="differ: train"):
        contents.keep(tmp_path, OTHER, began(SAME))
    assert not list(tmp_path.iterdir())
    contents.keep(tmp_path, SAME, began(SAME))
    assert contents.read(tmp_path)[1] == SAME.digest


def test_files_that_were_written_again_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    contents.write(tmp_path, streamed(1))
    contents.refuse_other_data(tmp_path, streamed(1))
    assert not caplog.records
    contents.refuse_other_data(tmp_path, streamed(2))
    assert "39 images were written again" in caplog.text


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no Parquet at all" * 99])
def test_a_damaged_record_is_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / contents.FILE).write_bytes(content)
    with pytest.raises(StorageError, match=contents.FILE):
        contents.refuse_other_data(tmp_path, SAME)
