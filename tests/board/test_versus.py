"""Whether two studies are tested on the same images, by what they recorded of their data."""

from typing import Any

import pytest
from arrays import part, repainted, source, surveyed
from boards import study_rows

from methods.api import Task
from methods.data.digest import Digest
from methods.errors import StudyError
from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.rules import Rules
from orchestrator.board.verdict import notes
from orchestrator.board.versus import Side, versus
from orchestrator.record.provenance import provenance
from orchestrator.study.file import Study

ROWS = study_rows(methods=("dense", "skipnet"))
SAME = surveyed(source()).digest
UNDIVIDED = source(test=None)


def side(digest: Digest | None, *, images: int = 9, **changes: Any) -> Side:
    fields = {"name": "a", "data": "made", "budgets": [1, 2, 4], "methods": {"dense": {}}}
    study = Study.model_validate({**fields, **changes})
    began = provenance(study, Task("made", 3, 4, 5, 3), images, digest)
    return Side(study, began, leaderboard(ROWS, Rules.of(study, began)))


def test_the_same_test_images_compare_under_any_name() -> None:
    both = versus(side(SAME), side(SAME, name="b", data="/elsewhere/set", seed=3))
    assert not any("different images" in note for note in both.notes)
    assert not any(field == "data_sha256" for field, _, _ in both.unlike)


def test_other_training_images_are_said() -> None:
    other = surveyed(source(train=repainted(7))).digest
    both = versus(side(SAME), side(other, name="b"))
    assert ("data_sha256", SAME.sha256[:12], other.sha256[:12]) in both.unlike
    assert both.exploratory


def test_other_test_images_are_refused() -> None:
    other = surveyed(source(test=part(9, 5, "test/"))).digest
    with pytest.raises(StudyError, match="same test images"):
        versus(side(SAME), side(other, name="b"))


def test_another_cut_of_the_same_data_is_said() -> None:
    digests = [surveyed(UNDIVIDED, seed=seed).digest for seed in (0, 1)]
    both = versus(side(digests[0]), side(digests[1], name="b", seed=1))
    assert any("tested on different images" in note for note in both.notes)


def test_without_a_record_names_and_counts_decide() -> None:
    versus(side(None), side(SAME, name="b"))
    with pytest.raises(StudyError, match="test_images is 9 in a and 8 in b"):
        versus(side(None), side(None, name="b", images=8))


def test_duplicates_stand_on_the_board() -> None:
    train, test = part(30, 1, "train/"), part(9, 2, "test/")
    test.images[:4] = train.images[:4]
    board = side(surveyed(source(train=train, test=test)).digest).board
    assert notes(board)[0].startswith("4 of 9 test images are in training or validation too")
    assert not any("pixel for pixel" in note for note in notes(side(SAME).board))
