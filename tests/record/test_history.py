"""A history is what its events add up to: typed, exact on disk, the same wherever it is cut."""

import dataclasses
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest

from orchestrator.record.events import End, Epoch, Event, Lost, Start, decode, encode
from orchestrator.record.history import History
from orchestrator.record.ledger import Ledger
from orchestrator.record.log import Log, read
from orchestrator.record.rows import trial_rows
from orchestrator.study.file import Study, load
from orchestrator.study.space import Space

RECORDED = Path(__file__).parents[1] / "data" / "halfdone"
"""A study of an earlier version, whose driver was killed once and then stopped in the search."""
LOG = RECORDED / "wal.jsonl"


def study() -> Study:
    return load(RECORDED / "study.yaml")


@cache
def begun() -> dict[str, Space]:
    """The spaces in which the study began, which have other fields now."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "halfdone"
        shutil.copytree(RECORDED, folder)
        ledger = Ledger(folder, study())
        ledger.close()
    return dict(ledger.history.spaces)


def folded(events: list[Event]) -> History:
    history = History(study(), begun())
    for event in events:
        history.apply(event)
    return history


def test_every_line_of_an_earlier_log_is_written_as_it_was() -> None:
    for line in LOG.read_text().splitlines():
        assert json.dumps(encode(decode(json.loads(line))), sort_keys=True) == line


def test_unknown_keys_are_passed_over_and_absent_ones_have_defaults() -> None:
    lines = [json.loads(line) for line in LOG.read_text().splitlines()]
    start = next(line for line in lines if line["event"] == "start")
    end = next(line for line in lines if line["event"] == "end" and line["points"])
    assert decode({**start, "colour": "red"}) == decode(start)
    older = {key: value for key, value in start.items() if key not in ("torch_seed", "point")}
    event = decode(older)
    assert isinstance(event, Start)
    assert (event.torch_seed, event.point) == (None, "")
    assert encode(event) == {**older, "point": ""}
    bare = {key: value for key, value in end.items() if key != "evidence"}
    event = decode(bare)
    assert isinstance(event, End)
    assert event.evidence == ""
    sizes = {"parameters": 9, "weight_bytes": 36, "activation_bytes": 64}
    sized = {**end, "points": [{**end["points"][0], **sizes}]}
    assert encode(decode(sized)) == sized
    for event, parameters in ((decode(end), None), (decode(sized), 9)):
        (row, *_) = trial_rows("study", decode(start), event)
        assert row.parameters == parameters
    with pytest.raises(ValueError, match="parameters must be a whole number, got '9'"):
        decode({**end, "points": [{**end["points"][0], "parameters": "9"}]})
    with pytest.raises(ValueError, match="no event is called 'party'"):
        decode({"event": "party"})
    with pytest.raises(ValueError, match="val_acc must be a number, got '1'"):
        decode({**end, "points": [{**end["points"][0], "val_acc": "1"}]})


def test_a_recorded_study_is_read_and_has_one_trial_to_resume(tmp_path: Path) -> None:
    folder = tmp_path / "halfdone"
    shutil.copytree(RECORDED, folder)
    ledger = Ledger(folder, study())
    history = ledger.history
    assert {method: history.numbers(method) for method in study().methods} == {
        "dense": 4,
        "skipnet": 4,
        "resrep": 4,
    }
    assert (history.searched, history.confirmed) == (11, 0)
    assert [ticket.trial for ticket in history.interrupted()] == ["resrep-00003"]
    assert [history.effort(method) for method in study().methods] == [16, 16, 16]
    finished = {
        row["trial"]: row for row in json.loads((RECORDED / "finished-rows.json").read_text())
    }
    for row in history.rows():
        points = {point["point"]: point for point in finished[row.trial]["points"]}
        assert row.val_acc == points[row.point]["val_acc"]
        assert row.val_macs_mean == points[row.point]["val_macs_mean"]
    ledger.close()


def test_a_log_cut_at_every_event_and_continued_gives_equal_records(tmp_path: Path) -> None:
    """Each cut tears the next line as a kill does; the next driver abandons what ran, and the
    trials that it starts again repeat their epochs."""
    events, _ = read(LOG)
    whole, path = folded(events), tmp_path / "wal.jsonl"
    lines = LOG.read_bytes().splitlines(keepends=True)
    for cut in range(1, len(lines)):
        path.write_bytes(b"".join(lines[:cut]) + lines[cut][:9])
        log = Log(path)
        history = folded(list(log.events()))
        log.close()
        assert path.read_bytes() == b"".join(lines[:cut])
        history.abandon()
        for name, record in list(history.records.items()):
            if record.orphaned:
                history.apply(dataclasses.replace(record.start, attempt=record.attempts + 1))
                assert history.records[name].open
        for event in events[cut:]:
            match event:  # through the verbs, as a driver hears it, with what was heard before
                case Epoch():
                    for epoch in [e for e in events[:cut] if isinstance(e, Epoch)]:
                        if epoch.trial == event.trial:
                            history.epoch(epoch.trial, epoch.step, epoch.time, epoch.metrics)
                    history.epoch(event.trial, event.step, event.time, event.metrics)
                case _:
                    history.apply(event)
        same(history, whole)


def test_events_after_the_last_newline_wait(tmp_path: Path) -> None:
    path = tmp_path / "wal.jsonl"
    path.write_bytes(b'{"event": "lost", "trial": "dense-00000", "reason": "x"}\n{"event": "sta')
    events, offset = read(path)
    assert events == [Lost("dense-00000", "x")]
    assert read(path, offset) == ([], offset)
    log = Log(path)
    log.append(Lost("dense-00000", "its worker died"))
    log.close()
    assert len(read(path, offset)[0]) == 1


def same(history: History, other: History) -> None:
    assert history.rows() == other.rows()
    assert history.heard == other.heard
    assert (history.searched, history.confirmed) == (other.searched, other.confirmed)
    for method in history.study.methods:
        assert history.effort(method) == other.effort(method)
        pairs = zip(history.trials(method, 3) or [], other.trials(method, 3) or [], strict=True)
        for trial, twin in pairs:
            assert (trial.state, trial.params, trial.values) == (
                twin.state,
                twin.params,
                twin.values,
            )
