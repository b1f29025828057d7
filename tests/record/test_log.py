"""The mark that says that nothing is left to run of a study."""

from pathlib import Path

from orchestrator.record.log import finished, mark_finished


def test_a_mark_holds_for_its_study_until_something_is_logged(tmp_path: Path) -> None:
    log = tmp_path / "wal.jsonl"
    assert not finished(log, "abc")
    log.write_text('{"event": "begin"}\n')
    assert not finished(log, "abc")
    mark_finished(log, "abc")
    assert finished(log, "abc")
    assert not finished(log, "another")
    with log.open("a") as file:
        file.write('{"event": "start"}\n')
    assert not finished(log, "abc")


def test_a_torn_mark_is_none(tmp_path: Path) -> None:
    log = tmp_path / "wal.jsonl"
    log.write_text('{"event": "begin"}\n')
    mark_finished(log, "abc")
    (tmp_path / "finished.json").write_text('{"study": ')
    assert not finished(log, "abc")
