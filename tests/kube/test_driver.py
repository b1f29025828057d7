"""What a driver on Kubernetes has beside: Optuna's database, and patience with its predecessor."""

import threading
import time
from pathlib import Path

import pytest
from faults import COMPLETE, STUDY
from optuna.trial import FrozenTrial, TrialState
from postgres import Postgres
from sqlalchemy.exc import OperationalError

from methods.errors import DatabaseAway, StorageError
from orchestrator.record import journal
from orchestrator.record.events import decode_points
from orchestrator.record.ledger import Ledger
from orchestrator.record.result import Ending
from orchestrator.study.space import spaces

SPACE = spaces(STUDY)["dense"]


def flow(ledger: Ledger) -> None:
    """A trial that ends, one that fails, one that is interrupted."""
    for width, end in ((0.5, "COMPLETE"), (0.75, "FAIL"), (1.0, "")):
        ticket = ledger.history.add(SPACE, {**SPACE.defaults(), "width": width})
        ledger.history.start(ticket)
        if end:
            ledger.history.end(
                ticket.trial,
                Ending(end, points=decode_points(COMPLETE["points"] if end == "COMPLETE" else ())),
            )


def holds(ledger: Ledger) -> None:
    """What `flow` did."""
    states = [trial.state for trial in ledger.history._trials["dense"]]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING]
    assert ledger.history._trials["dense"][0].values == [pytest.approx(0.1), 4e5]
    assert [t.trial for t in ledger.history.interrupted()] == ["dense-00002"]


def test_a_database_keeps_what_the_journal_keeps(tmp_path: Path, postgres: Postgres) -> None:
    for name, url in (
        ("journal", None),
        ("sqlite", f"sqlite:///{tmp_path / 'o.db'}"),
        ("postgres", postgres.url),
    ):
        ledger = Ledger(tmp_path / name, STUDY, optuna=url)
        flow(ledger)
        ledger.close()
        again = Ledger(tmp_path / name, STUDY, optuna=url)
        holds(again)
        again.close()
        assert (tmp_path / name / "optuna.journal").exists() == (url is None)


def test_a_database_that_goes_away_is_a_line_and_loses_nothing(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path, STUDY, optuna=postgres.url)
    flow(ledger)
    postgres.stop()
    monkeypatch.setattr(journal, "PATIENCE", 3.0)
    with pytest.raises(DatabaseAway) as caught:
        ledger.history.end(
            "dense-00002", Ending("COMPLETE", points=decode_points(COMPLETE["points"]))
        )
    assert "must answer" in str(caught.value)
    assert "hidden-word" not in str(caught.value)
    ledger.close()
    with pytest.raises(DatabaseAway):
        Ledger(tmp_path, STUDY, optuna=postgres.url)
    postgres.start()
    again = Ledger(tmp_path, STUDY, optuna=postgres.url)
    states = [trial.state for trial in again.history._trials["dense"]]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    again.close()


def test_a_database_that_returns_has_every_trial_once(
    tmp_path: Path,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(journal, "PAUSE", 0.1)
    ledger = Ledger(tmp_path, STUDY, optuna=postgres.url)
    flow(ledger)

    def return_when_missed(times: int) -> None:
        while caplog.text.count("waiting 600 s for it") < times:
            time.sleep(0.05)
        postgres.start()

    for times, action in enumerate(("end", "add"), 1):
        postgres.stop()
        timer = threading.Thread(target=return_when_missed, args=(times,), daemon=True)
        timer.start()
        if action == "end":
            points = decode_points(COMPLETE["points"])
            ledger.history.end("dense-00002", Ending("COMPLETE", points=points))
        else:
            ledger.history.add(SPACE, {**SPACE.defaults(), "width": 0.25})
        timer.join()
    assert caplog.text.count("waiting 600 s for it") == caplog.text.count("answers again") == 2
    assert "hidden-word" not in caplog.text

    trials = ledger._journal._studies["dense"]
    add = trials.add_trial

    def cut_off(trial: FrozenTrial) -> None:
        monkeypatch.setattr(trials, "add_trial", add)
        add(trial)
        raise OperationalError("COMMIT", None, Exception("the connection was cut"))

    monkeypatch.setattr(trials, "add_trial", cut_off)  # the write arrived, its answer did not
    ledger.history.add(SPACE, {**SPACE.defaults(), "width": 0.75})
    ledger.close()
    again = Ledger(tmp_path, STUDY, optuna=postgres.url)
    states = [trial.state for trial in again.history._trials["dense"]]
    expected = ["COMPLETE", "FAIL", "COMPLETE", "RUNNING", "RUNNING"]
    assert [state.name for state in states] == expected
    again.close()


@pytest.mark.parametrize("url", ["nonsense", "oracle+none://host/db"])
def test_what_is_no_database_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(StorageError, match="database") as caught:
        Ledger(tmp_path, STUDY, optuna=url)
    assert caught.value.exit_code == 2


def test_a_study_resumes_in_the_storage_that_it_began_in(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'o.db'}"
    ledger = Ledger(tmp_path / "one", STUDY, optuna=url)
    flow(ledger)
    ledger.close()
    with pytest.raises(StorageError, match="dense-00000 is missing; name the storage"):
        Ledger(tmp_path / "one", STUDY)
    with pytest.raises(StorageError, match="dense-00000 is missing; name the folder"):
        Ledger(tmp_path / "two", STUDY, optuna=url)
    again = Ledger(tmp_path / "one", STUDY, optuna=url)
    holds(again)
    again.close()


def test_a_driver_with_patience_waits_for_the_one_before_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Ledger(tmp_path, STUDY)
    with pytest.raises(StorageError, match="another one holds"):
        Ledger(tmp_path, STUDY, patience=0.1)
    timer = threading.Timer(0.3, first.close)
    timer.start()
    second = Ledger(tmp_path, STUDY, patience=60)
    timer.join()
    assert "waiting 60 s for it" in caplog.text
    second.close()
