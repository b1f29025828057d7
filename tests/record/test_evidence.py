"""A run's file: what goes in comes out, in the same bytes, and nothing else is taken for one."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from methods.files import digest
from orchestrator.record import evidence
from orchestrator.record.depot import Folder
from orchestrator.record.evidence import (
    Alike,
    Decided,
    Evidence,
    Shot,
    Subject,
    packed,
    unpacked,
)

classes = arrays.arrays(np.int64, 20, elements=st.integers(0, 999))
macs = arrays.arrays(np.float64, 20, elements=st.floats(1, 1e12))
names = st.sampled_from(["", "policy", "gate/w0.5", "label", "macs"])
alike = st.builds(Alike, classes, macs)
elements = {"bool": st.booleans(), "int64": st.integers(0, 9), "float32": st.floats(0, 1, width=32)}
"""Blocks that run, widths, weights."""
decisions = st.sampled_from(list(elements)).flatmap(
    lambda kind: arrays.arrays(kind, (20, 3), elements=elements[kind])
)
others = arrays.arrays(np.int64, (20, 2), elements=st.integers(0, 999))
decided = st.none() | st.builds(Decided, decisions, others, alike, st.none() | alike)
losses = st.none() | arrays.arrays(np.float32, 20, elements=st.floats(0, 9, width=32))
fives = st.none() | arrays.arrays(np.bool_, 20, elements=st.booleans())
points = st.dictionaries(names, st.builds(Shot, classes, macs, losses, decided, fives), min_size=1)
difficulties = st.none() | arrays.arrays(np.float64, 20, elements=st.floats(0, 1))


@settings(max_examples=30, deadline=None)
@given(classes, points, difficulties)
def test_what_goes_in_comes_out_in_the_same_bytes(labels, shots, difficulty):
    subject = Subject.of("dense-00000-seed1", "dense", {"depth": 8}, 7)
    whole = Evidence(subject, labels, shots, difficulty)
    content = packed(whole)
    again = unpacked(content)
    assert packed(again) == content
    assert (again.difficulty is None) == (difficulty is None)
    assert difficulty is None or (again.difficulty == difficulty).all()
    assert again.subject == whole.subject
    assert list(again.points) == list(shots)
    for name, shot in shots.items():
        right = shot.predictions == labels
        assert (again.correct(name) == right).all()
        figures = again.figures(name)
        assert figures["test_acc"] == right.mean()
        assert figures["test_macs_mean"] == shot.macs.mean()
        five = None if shot.among_five is None else shot.among_five.mean()
        assert figures.get("test_top5") == five
        assert figures["test_macs_max"] == shot.macs.max()
        assert (shot.macs <= figures["test_macs_p95"]).mean() >= 0.95
        again_shot, decided = again.points[name], shot.decided
        assert (again_shot.losses is None) == (shot.losses is None)
        assert (again_shot.decided is None) == (decided is None)
        if decided is not None and again_shot.decided is not None:
            assert (again_shot.decided.decisions == decided.decisions).all()
            assert (again_shot.decided.everything is None) == (decided.everything is None)
            another = (decided.another == labels[:, None]).mean()
            assert figures["test_another_acc"] == pytest.approx(another)
            worth = again.per_image(name).worth
            assert worth is not None
            assert worth.mean() == pytest.approx(right.mean() - another, abs=1e-12)


ABOUT = json.dumps({"format": 1, "points": [""], **vars(Subject.of("x", "dense", {}, 7))})


def table(columns, facts=ABOUT):
    buffer = io.BytesIO()
    found = pa.table(columns).replace_schema_metadata({b"isoflop": facts} if facts else None)
    pq.write_table(found, buffer)
    return buffer.getvalue()


GOOD = {"label": [1, 2], "prediction": [1, 1], "macs": [1.0, 2.0]}


def test_what_is_no_such_file_is_refused():
    assert unpacked(table(GOOD)).figures("")["test_acc"] == 0.5
    for content, words in [
        (b"", "no file of predictions"),
        (b"PAR1 and then nothing PAR1", "no file of predictions"),
        (table(GOOD, b""), "no file of predictions"),
        (table(GOOD, b"[]"), "no file of predictions"),
        (table(GOOD, b'{"format": 1, "points": [""]}'), "must name its run"),
        (table(GOOD, b'{"format": 2, "points": [""]}'), "must have format 1, but has 2"),
        (table({**GOOD, "macs": [1.0, 2.0], "label": [1.5, 2.0]}), "a class for every image"),
        (table({**GOOD, "prediction": [1, None]}), "a class for every image"),
        (table({**GOOD, "macs": ["a", "b"]}), "the MACs of every image"),
        (table({name: pa.array([], pa.int64()) for name in GOOD}), "a class for every image"),
        (table({**GOOD, "difficulty": ["a", "b"]}), "a difficulty as a fraction"),
        (table({**GOOD, "among five": [1, 0]}), "among the five most likely"),
        (table({"label": [1, 2]}), "no file of predictions"),
    ]:
        with pytest.raises(ValueError, match=words):
            unpacked(content)


def test_another_content_is_another_file_and_an_altered_one_is_none(tmp_path: Path):
    subject = Subject.of("t", "dense", {}, 7)
    one, other = (
        Evidence(subject, np.arange(9), {"": Shot(np.arange(9) + shift, np.ones(9))})
        for shift in (0, 1)
    )
    digests = [evidence.write(e, Folder(tmp_path)) for e in (one, other, one)]
    assert digests[0] == digests[2] != digests[1]
    files = sorted((tmp_path / "evidence").iterdir())
    assert len(files) == 2
    assert list(tmp_path.iterdir()) == [tmp_path / "evidence"]
    assert evidence.read(tmp_path, "t", digests[0]) == packed(one)
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[:-1])
        assert evidence.read(tmp_path, "t", digest(content)) is None
    assert evidence.read(tmp_path, "u", digests[0]) is None
