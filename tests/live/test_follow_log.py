"""What a watch makes of a log: read once, whatever its driver does to it."""

import json
from pathlib import Path

import logs
import pytest
from logs import BEGAN, STUDY, begun, driver, end, epoch, search, start, whole, write

from methods.errors import StorageError, StudyError
from orchestrator.live.follow import Follower
from orchestrator.live.state import State, state
from orchestrator.live.waiting import Outlook
from orchestrator.record.events import Bracket, Lost, Paused, Rung
from orchestrator.record.log import mark_finished


def seen(follower: Follower, now: float = BEGAN / 1000) -> State:
    """The state once everything that lies there was read."""
    while follower.advance():
        pass
    outlook = None
    if follower.sweep is not None:
        outlook = Outlook(follower.sweep)
        outlook.update()
    return state(follower, outlook, now)


def reasons(now: State) -> dict[str, str]:
    return {each.what: each.why for each in now.waiting}


def test_a_study_that_did_not_begin_is_waited_for_and_one_that_is_gone_again(
    tmp_path: Path,
) -> None:
    follower = Follower(tmp_path / "watched")
    assert seen(follower).phase == "waiting"
    write(follower.folder, [])
    assert seen(follower).phase == "waiting"
    write(follower.folder, [begun()])
    with driver(follower.folder):
        assert seen(follower).headline == "Searching"
    (follower.folder / "wal.jsonl").unlink()
    assert seen(follower).phase == "waiting"


def test_the_log_is_read_once_and_half_a_line_is_left_for_later(tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    write(folder, [begun(), start("dense-00000")])
    follower = Follower(folder)
    with driver(folder):
        assert seen(follower).running[0].step == 0
        wal = folder / "wal.jsonl"
        size = wal.stat().st_size
        line = json.dumps(logs.encode(epoch("dense-00000", 1, 0.25))) + "\n"
        with wal.open("r+b") as file:
            file.write(b"x" * size)  # were it read again, this would fail
            file.write(line[:20].encode())
        assert seen(follower).running[0].step == 0
        with wal.open("ab") as file:
            file.write(line[20:].encode())
        (running,) = seen(follower).running
        assert (running.step, running.epochs, running.curve) == (1, 4, [(1, 0.25)])


def test_a_torn_line_that_a_new_driver_cuts_off_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    write(folder, [begun(), *whole("dense-00000"), start("skipnet-00000")])
    wal = folder / "wal.jsonl"
    whole_lines = wal.read_bytes()
    wal.write_bytes(whole_lines + b'{"event": "ep')
    follower = Follower(folder)
    assert seen(follower).done == 1
    wal.write_bytes(whole_lines)
    write(folder, [begun(), start("skipnet-00000", attempt=2)], mode="a")
    with driver(folder):
        now = seen(follower)
    assert (now.done, [each.trial for each in now.running]) == (1, ["skipnet-00000"])
    assert [told.text for told in now.latest][:2] == [
        "skipnet-00000 started, attempt 2",
        "A driver resumed after 1 trial",
    ]


def test_a_log_that_was_replaced_is_begun_anew(tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    write(folder, search())
    follower = Follower(folder)
    assert seen(follower).done == 4
    write(tmp_path / "other", [begun(), *whole("dense-00000")])
    (tmp_path / "other" / "wal.jsonl").replace(folder / "wal.jsonl")
    assert seen(follower).done == 1


def test_what_is_no_log_of_the_study_is_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    write(folder, [begun()])
    (folder / "study.json").write_text('{"hash": "ab", "name": "watched"}')
    with pytest.raises(StudyError, match="must be a study that this version of isoflop can read"):
        Follower(folder).advance()
    write(folder, [begun(), end("dense-00000")])
    with pytest.raises(StorageError, match=r"must be the log of the study beside it.*dense-00000"):
        Follower(folder).advance()


def test_each_phase_of_a_sweep_is_told_with_what_waits_and_why(tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    write(folder, [begun(), *whole("dense-00000"), start("dense-00001"), start("skipnet-00000")])
    follower = Follower(folder)
    with driver(folder):
        now = seen(follower)
        assert (now.phase, now.headline, now.where) == (
            "running",
            "Searching",
            "1 of at most 12 trials",
        )
        assert reasons(now) == {
            "the next trial of skipnet": "a free worker; whichever search has had the least effort "
            "comes first",
            "at most 8 confirm runs": "a search must end first: only then is chosen what is "
            "trained on fresh seeds",
            "latency, and the board with its tests": "every confirm run must end first",
        }
        dense = now.methods[0]
        assert (dense.done, dense.running, dense.waiting, dense.of) == (1, 1, 4, 6)
        write(folder, [Lost("skipnet-00000", "its worker died")], mode="a")
        assert reasons(seen(follower))["skipnet-00000"] == (
            "a free worker, to start again: its worker died"
        )
        rest = [*whole("dense-00001")[1:], *whole("skipnet-00000"), *whole("skipnet-00001")]
        write(folder, rest, mode="a")
        now = seen(follower)
        assert now.headline == "Confirming on fresh seeds"
        (confirms,) = [what for what in reasons(now) if "confirm" in what]
        assert reasons(now)[confirms] == "a free worker"
        planned = now.planned
        assert planned is not None
        assert confirms == f"{planned - 4} confirm runs"
    now = seen(follower)
    assert (now.phase, now.running) == ("stopped", ())
    assert reasons(now) == {"everything that is left": "a driver"}


def test_a_trial_on_which_the_next_proposal_rests_is_named(tmp_path: Path) -> None:
    study = STUDY.model_copy(update={"search": STUDY.search.model_copy(update={"trials": 4})})
    folder = tmp_path / "watched"
    two = [start(f"dense-0000{number}", study) for number in range(2)]
    write(folder, [begun(study, lag=1), *two], study)
    with driver(folder):
        assert reasons(seen(Follower(folder)))["the next trial of dense"] == (
            "dense-00000 must end: the next proposal learns of it"
        )


def test_a_driver_that_was_stopped_or_killed_leaves_trials_that_wait(tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    running = [begun(), start("dense-00000"), start("skipnet-00000")]
    write(folder, [*running, Paused(("dense-00000", "skipnet-00000"), BEGAN)])
    assert "; 2 trials had not ended" in seen(Follower(folder)).detail
    write(folder, running)
    assert "; 2 trials had not ended" in seen(Follower(folder)).detail
    write(folder, [begun(), start("dense-00000", attempt=2)], mode="a")
    with driver(folder):
        now = seen(Follower(folder))
    assert [each.trial for each in now.running] == ["dense-00000"]
    assert reasons(now)["skipnet-00000"] == "a free worker, to start again: its driver died"


def test_paused_trials_wait_for_their_bracket_and_then_for_a_worker(tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    names = ("dense-00000", "dense-00001")
    write(folder, [begun(), *map(start, names), *(Rung(name, 1, BEGAN) for name in names)])
    with driver(folder):
        now = seen(Follower(folder))
        assert (now.running, now.done) == ((), 0)
        assert now.latest[0].text == "dense-00001 paused at epoch 1"
        assert reasons(now)["2 paused trials"].startswith("the others of their brackets")
        assert "at most 8 confirm runs" in reasons(now)
        write(folder, [Bracket(names, names[1:], BEGAN)], mode="a")
        now = seen(Follower(folder))
        assert now.latest[0].text == "Of 2 trials, dense-00001 resume"
        assert reasons(now)["dense-00001"] == "a free worker, to resume"
        write(folder, [start(names[1], attempt=2)], mode="a")
        now = seen(Follower(folder))
    assert [each.trial for each in now.running] == ["dense-00001"]
    assert now.latest[0].text == "dense-00001 resumed"


def test_a_suspect_runs_alone(tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    retries = STUDY.resources.retries
    write(folder, [e for n in range(retries + 1) for e in (begun(), start("dense-00000"))])
    write(folder, [begun(), start("dense-00000")], mode="a")
    with driver(folder):
        assert "dense-00000 runs alone" in reasons(seen(Follower(folder)))["every other trial"]


def test_a_driver_elsewhere_is_judged_by_its_silence(tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    write(folder, [begun(), start("dense-00000")])
    (folder / "lock").write_text("process 1 on another-machine\n")
    follower = Follower(folder)
    assert seen(follower).detail == ""
    late = seen(follower, BEGAN / 1000 + 600)
    assert late.phase == "running"
    assert late.detail.startswith("Nothing was logged for 10.0 min.")


def test_the_end_is_the_report_that_was_written_after_the_last_event(tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    write(folder, search())
    report = folder / "report" / "report.html"
    report.parent.mkdir()
    report.write_text("of a board that was asked for while the sweep ran")
    follower = Follower(folder)
    assert not seen(follower).final
    mark_finished(folder / "wal.jsonl", STUDY.hash)
    assert seen(follower).phase == "ending", "the report is older than the last event"
    assert follower.sweep is not None
    follower.sweep.time = int(report.stat().st_mtime * 1000) - 1
    assert (seen(follower).phase, seen(follower).final) == ("finished", True)
    write(folder, [begun()], mode="a")
    assert not seen(follower).final
