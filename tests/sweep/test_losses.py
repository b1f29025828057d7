"""Lost starts and full disks, on a ledger and its search without Ray."""

import threading
import time
from pathlib import Path

import pytest
from faults import COMPLETE, POINT, STUDY, Ballast, mounted, parsed
from optuna.trial import TrialState

from methods.api import Task
from methods.errors import DiskFull
from orchestrator.record import log as wal
from orchestrator.record.events import Lost, decode_points
from orchestrator.record.ledger import Ledger
from orchestrator.record.log import Log
from orchestrator.record.result import Ending, decode_result
from orchestrator.record.trials import Ticket
from orchestrator.search.agenda import DONE, WAIT, Agenda


class Driver:
    """A driver without Ray: the ledger and the agenda of one."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(folder, STUDY)
        task = Task("digits", 1, 8, 8, 10)
        self.agenda = Agenda(self.ledger.history, task, lag=2)

    def ask(self) -> object:
        """The next trial's name, WAIT or DONE."""
        ticket = self.agenda.next()
        return ticket.trial if isinstance(ticket, Ticket) else ticket

    def hears(self, trial: str, step: int) -> None:
        """An epoch."""
        told = {"step": step, "time": step, "metrics": {"curve/val_acc": 0.5}, "end": None}
        self.agenda.heard(trial, decode_result(told))

    def ends(self, trial: str) -> None:
        """A trial's own end."""
        told = {"step": 2, "time": 2, "metrics": {}, "end": COMPLETE}
        self.agenda.heard(trial, decode_result(told))

    def loses(self, trial: str) -> None:
        """A worker."""
        self.agenda.lost(trial, "its worker died: x")

    def dies(self) -> None:
        """Without a word."""
        self.ledger.close()


def test_a_lost_trial_is_served_again_and_fails_after_its_last_start(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    for _ in range(STUDY.resources.retries + 1):
        assert driver.ask() == "dense-00000"
        driver.loses("dense-00000")
    end = driver.ledger.history.records["dense-00000"].end
    assert end is not None
    assert (end.state, end.reason) == (
        "FAIL",
        "lost 3 times in a row without a new epoch; last cause: its worker died: x",
    )
    assert driver.ledger.history._trials["dense"][0].state == TrialState.FAIL
    assert driver.ask() == "dense-00001"
    driver.dies()


def test_a_new_epoch_gives_all_starts_anew(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    for step in range(1, 3 * STUDY.resources.retries):
        assert driver.ask() == "dense-00000"
        driver.hears("dense-00000", step)
        driver.loses("dense-00000")
    assert not driver.ledger.history.ended("dense-00000")
    driver.dies()


def test_a_confirm_run_is_served_again_too_and_the_search_waits_for_it(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    for trial in ("dense-00000", "dense-00001"):
        assert driver.ask() == trial
        driver.ends(trial)
    seed = driver.ask()
    assert isinstance(seed, str)
    assert seed.endswith("-seed1")
    assert driver.ask() is WAIT
    driver.loses(seed)
    assert driver.ask() == seed
    driver.ends(seed)
    assert driver.ask() is DONE
    assert driver.agenda.finished
    driver.dies()


def test_who_takes_drivers_down_fails_and_who_ran_beside_it_does_not(tmp_path: Path) -> None:
    for _ in range(STUDY.resources.retries):
        driver = Driver(tmp_path)
        assert [driver.ask(), driver.ask()] == ["dense-00000", "dense-00001"]
        driver.dies()
    driver = Driver(tmp_path)
    assert [driver.ask(), driver.ask()] == ["dense-00000", WAIT]  # the last start is alone
    driver.dies()
    driver = Driver(tmp_path)
    assert [driver.ask(), driver.ask()] == ["dense-00001", WAIT]
    end = driver.ledger.history.records["dense-00000"].end
    assert end is not None
    assert end.reason.endswith("last cause: Ray or its driver died")
    driver.hears("dense-00001", 1)
    driver.ends("dense-00001")
    assert driver.ask() == "dense-00002"  # the failed one has left epochs over
    driver.ends("dense-00002")
    assert str(driver.ask()).endswith("-seed1")
    driver.dies()


def test_each_trial_that_takes_too_long_counts_for_a_quarter_of_its_length(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    for number in range(4):  # two trials of two epochs were planned
        trial = f"dense-{number:05d}"
        assert driver.ask() == trial
        driver.agenda.overdue(trial, "took longer than 1 minutes")
        driver.loses(trial)
    assert driver.ask() is DONE
    ends = {(row.state, row.reason) for row in driver.ledger.history.rows()}
    assert ends == {("FAIL", "took longer than 1 minutes")}
    driver.dies()


def test_a_stop_by_hand_blames_no_trial(tmp_path: Path) -> None:
    for _ in range(2 * STUDY.resources.retries + 2):
        driver = Driver(tmp_path)
        assert driver.ask() == "dense-00000"
        driver.ledger.history.pause()
        driver.dies()
    assert parsed(tmp_path / "wal.jsonl")[-1] == {
        "event": "paused",
        "trials": ["dense-00000"],
        "time": parsed(tmp_path / "wal.jsonl")[-1]["time"],
    }


@pytest.mark.parametrize("figure", ["val_acc", "val_macs_mean"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_is_not_finite_never_is_complete(
    tmp_path: Path, figure: str, value: float
) -> None:
    driver = Driver(tmp_path)
    trial = driver.ask()
    assert isinstance(trial, str)
    driver.ledger.history.end(
        trial, Ending("COMPLETE", points=decode_points([{**POINT, figure: value}]))
    )
    told = driver.ledger.history._trials["dense"][0]
    assert (told.state, told.values) == (TrialState.FAIL, None)
    assert driver.ledger.history.rows()[0].reason == f"diverged: {figure} is {value}"
    driver.dies()


def test_the_log_and_the_journal_wait_for_room_and_tear_no_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with mounted(tmp_path / "small", "256k") as folder:
        driver = Driver(folder / "s")
        ballast = Ballast(folder)
        time.sleep(0.2)
        threading.Timer(1.0, ballast.drop).start()
        trial = driver.ask()
        assert trial == "dense-00000"
        driver.hears(trial, 1)
        assert "no space to write" in caplog.text
        driver.dies()
        for name in ("wal.jsonl", "optuna.journal"):
            parsed(folder / "s" / name)
        again = Driver(folder / "s")
        assert again.ask() == "dense-00000"
        again.dies()


def test_a_disk_that_stays_full_is_an_error_and_leaves_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal, "PATIENCE", 0.5)
    with mounted(tmp_path / "small", "64k") as folder:
        log = Log(folder / "wal.jsonl")
        written = 0
        with pytest.raises(DiskFull, match="free some space"):  # noqa: PT012
            while True:
                log.append(Lost("dense-00000", "x" * 1500))
                written += 1
        assert len(parsed(folder / "wal.jsonl")) == written > 30
        log.close()
