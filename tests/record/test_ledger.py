"""What was planned and what ended outlives the driver, whenever it dies."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from methods.api import Task
from methods.errors import StorageError, StudyError
from orchestrator.record.events import End, decode_metrics, decode_points
from orchestrator.record.ledger import Ledger
from orchestrator.record.provenance import provenance
from orchestrator.record.result import Ending, decode_result
from orchestrator.record.trials import Ticket
from orchestrator.search.agenda import Agenda
from orchestrator.search.confirming import confirm_plan
from orchestrator.search.samplers import propose
from orchestrator.study.file import Study
from orchestrator.study.identity import as_written
from orchestrator.study.space import spaces

STUDY = Study.model_validate(
    {
        "name": "s",
        "data": "digits",
        "budgets": [0.5, 1],
        "recipe": {"epochs": 2},
        "methods": {"dense": {"depth": 8, "width": {"low": 0.25, "high": 1.0}}},
        "confirm": {"seeds": 2},
        "search": {"trials": 8},
    }
)
TASK = Task("digits", 1, 8, 8, 10)
SPACE = spaces(STUDY)["dense"]


def point(accuracy: float, macs: float) -> dict[str, Any]:
    return {
        "point": "",
        "val_acc": accuracy,
        "val_macs_mean": macs,
        "val_macs_p95": macs,
        "val_macs_max": macs,
    }


def opened(folder: Path, study: Study = STUDY) -> Ledger:
    return Ledger(folder, study)


def test_an_interrupted_trial_is_served_again_with_its_parameters(tmp_path: Path) -> None:
    first = opened(tmp_path)
    ticket = first.history.add(SPACE, {"width": 0.5})
    first.history.start(ticket)
    first.history.epoch(ticket.trial, 1, 1000, decode_metrics({"curve/val_acc": 0.5}))
    first.close()
    second = opened(tmp_path)
    assert second.history.interrupted() == [ticket]
    second.history.start(ticket)
    second.history.epoch(ticket.trial, 1, 1000, decode_metrics({"curve/val_acc": 0.5}))
    assert second.history.records[ticket.trial].attempts == 2
    assert len(second.history.records[ticket.trial].curve) == 1
    second.history.end(ticket.trial, Ending("COMPLETE", points=decode_points([point(0.9, 4e5)])))
    assert second.history.interrupted() == []
    second.close()


def test_a_paused_trial_is_served_when_its_bracket_is_decided(tmp_path: Path) -> None:
    first = opened(tmp_path)
    one, other = (first.history.add(SPACE, {"width": width}) for width in (0.25, 0.5))
    for ticket in (one, other):
        first.history.start(ticket)
        first.history.epoch(ticket.trial, 1, 1000, decode_metrics({"curve/val_acc": 0.5}))
        first.history.rest(ticket.trial)
        (tmp_path / "trials" / ticket.trial).mkdir(parents=True)
    first.close()
    second = opened(tmp_path)
    assert second.history.interrupted() == []
    assert second.history.waits(one.trial)
    assert not second.history.suspect(one.trial)
    second.history.promote([one.trial, other.trial], [other.trial])
    second.history.end(one.trial, Ending("PRUNED", "x"))
    second.history.start(other)
    (tmp_path / "trials" / one.trial).mkdir()  # the driver died before it was dropped
    second.close()
    third = opened(tmp_path)
    assert third.history.interrupted() == [other]
    assert third.history.records[other.trial].promoted
    assert [place.name for place in (tmp_path / "trials").iterdir()] == [other.trial]
    third.close()


def test_an_end_that_optuna_did_not_hear_is_told_at_the_next_start(tmp_path: Path) -> None:
    first = opened(tmp_path)
    ticket = first.history.add(SPACE, {"width": 0.5})
    first.history.start(ticket)
    first.write(End(ticket.trial, "COMPLETE", None, 0, 1.0, decode_points([point(0.9, 4e5)])))
    first.close()
    second = opened(tmp_path)
    trial = second.history.trials("dense", 1)
    assert trial is not None
    assert trial[0].state == TrialState.COMPLETE
    assert trial[0].values == pytest.approx([0.1, 4e5])
    second.close()


def test_ends_that_a_power_cut_took_from_the_journal_are_told_again(tmp_path: Path) -> None:
    first = opened(tmp_path)
    for width in (0.5, 0.75):
        ticket = first.history.add(SPACE, {"width": width})
        first.history.start(ticket)
        first.history.end(
            ticket.trial, Ending("COMPLETE", points=decode_points([point(width, 4e5)]))
        )
    before = first.history.trials("dense", 2)
    first.close()
    journal = tmp_path / "optuna.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:9])
    for _ in range(2):
        second = opened(tmp_path)
        assert second.history.trials("dense", 2) == before
        second.close()
        assert journal.read_text().count('"op_code":6') == 2, "each is told once"


def test_a_trial_waits_for_the_disk_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: list[str] = []
    sync = os.fsync
    ledger = opened(tmp_path)

    def counted(file: int) -> None:
        files.append(Path(f"/proc/self/fd/{file}").readlink().name)
        sync(file)

    monkeypatch.setattr(os, "fsync", counted)
    ticket = ledger.history.add(SPACE, {"width": 0.5})
    ledger.history.start(ticket)
    ledger.history.end(ticket.trial, Ending("FAIL", reason="x"))
    ledger.close()
    assert files == ["optuna.journal", "wal.jsonl"]


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    first = opened(tmp_path)
    ticket = first.history.add(SPACE, {"width": 0.5})
    first.history.start(ticket)
    first.close()
    for name in ("wal.jsonl", "optuna.journal"):
        with (tmp_path / name).open("a") as file:
            file.write('{"torn')
    second = opened(tmp_path)
    assert second.history.interrupted() == [ticket]
    second.history.end(ticket.trial, Ending("FAIL", reason="x"))
    second.close()
    for name in ("wal.jsonl", "optuna.journal"):
        for line in (tmp_path / name).read_text().splitlines():
            json.loads(line)


def test_a_second_driver_and_a_second_study_are_refused(tmp_path: Path) -> None:
    first = opened(tmp_path)
    with pytest.raises(StorageError, match="another one holds"):
        opened(tmp_path)
    first.close()
    with pytest.raises(StudyError, match="taken"):
        opened(tmp_path, STUDY.model_copy(update={"seed": 1}))


@pytest.mark.parametrize("width", [1, 1.0])
def test_a_study_of_an_earlier_version_resumes_under_its_hash(tmp_path: Path, width: float) -> None:
    def written(value: float) -> Study:
        return STUDY.model_copy(update={"methods": {"dense": {"depth": 8, "width": value}}})

    content = written(1.0).model_dump(mode="json")
    resources = content.pop("resources")
    earlier = as_written(content)
    assert earlier != written(1.0).hash == written(1).hash
    stored = {"hash": earlier, **content, "resources": resources}
    (tmp_path / "study.json").write_text(json.dumps(stored))
    ledger = opened(tmp_path, written(width))
    assert ledger.study.hash == earlier
    ledger.close()
    with pytest.raises(StudyError, match="taken"):
        opened(tmp_path, written(2))


def test_the_first_runs_lag_and_device_stand(tmp_path: Path) -> None:
    origin = replace(provenance(STUDY, TASK, 269), commit="a")
    first = opened(tmp_path)
    assert first.history.begin(origin, lag=8, device="cpu") == 8
    first.close()
    second = opened(tmp_path)
    assert second.history.begin(replace(origin, commit="b"), lag=2, device="cpu") == 8
    assert second.history.begun is not None
    assert second.history.begun.provenance == origin
    with pytest.raises(StudyError, match="began on cpu"):
        second.history.begin(origin, lag=2, device="cuda")
    second.close()


def test_the_first_trials_see_no_history(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    for number in range(7):
        assert ledger.history.trials("dense", number - 8) == []
        ledger.history.start(ledger.history.add(SPACE, {"width": 0.5}))
    assert ledger.history.trials("dense", 1) is None
    ledger.close()


def test_a_trial_that_failed_has_cost_its_epochs(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ticket = ledger.history.add(SPACE, {"width": 0.5})
    ledger.history.start(ticket)
    for step in (1, 2):
        ledger.history.epoch(ticket.trial, step, 1000, decode_metrics({"curve/seconds": 1.5}))
    ledger.history.end(ticket.trial, Ending("FAIL", reason="the worker was lost"))
    assert ledger.history.rows()[0].seconds == 3.0
    ledger.close()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="folder that can be written"):
        opened(tmp_path / "file" / "s")


def test_a_configuration_chosen_at_two_budgets_is_confirmed_once(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    for accuracy, macs in ((0.9, 4e5), (0.8, 9e5)):
        ticket = ledger.history.add(SPACE, {"width": 0.5})
        ledger.history.start(ticket)
        ledger.history.end(
            ticket.trial, Ending("COMPLETE", points=decode_points([point(accuracy, macs)]))
        )
    plan = confirm_plan(ledger.history)
    assert [ticket.trial for ticket in plan] == ["dense-00000-seed1", "dense-00000-seed2"]
    assert plan[0].budgets == (0.5, 1)
    ledger.close()


def test_a_proposal_is_a_function_of_what_came_before(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    for number in range(6):
        ticket = ledger.history.add(SPACE, propose(SPACE, [], STUDY, number))
        ledger.history.start(ticket)
        ledger.history.end(
            ticket.trial,
            Ending("COMPLETE", points=decode_points([point(0.1 * number, 1e5 * (1 + number))])),
        )
    history = ledger.history.trials("dense", 5)
    assert history is not None
    assert len(history) == 5
    assert propose(SPACE, history, STUDY, 7) == propose(SPACE, history, STUDY, 7)
    assert len({propose(SPACE, [], STUDY, number)["width"] for number in range(1, 20)}) > 1
    assert propose(SPACE, [], STUDY, 0) == SPACE.defaults()
    ledger.close()


def test_values_that_do_not_go_together_are_a_refused_trial(tmp_path: Path) -> None:
    study = Study.model_validate(
        {
            "name": "s",
            "data": "digits",
            "budgets": [0.5, 4],
            "methods": {
                "condensenet": {
                    "stages": "1-1-1",
                    "growth": {"choices": [8, 12]},
                    "condense_factor": {"choices": [4, 8]},
                    "groups": 4,
                    "lasso": 0,
                }
            },
            "search": {"trials": 8, "sampler": "random"},
        }
    )
    found = spaces(study)
    ledger = opened(tmp_path, study)
    agenda = Agenda(ledger.history, Task("digits", 1, 8, 8, 10))
    for _ in range(study.search.trials):
        ticket = agenda.next()
        assert isinstance(ticket, Ticket)
        end = {"state": "COMPLETE", "points": [point(0.5, 1e5)]}
        agenda.heard(ticket.trial, decode_result({"metrics": {}, "end": end}))
    refused = [r for r in ledger.history.records.values() if not r.took_a_worker]
    assert refused
    for record in refused:
        assert record.end is not None
        assert "must be a multiple of groups and of condense_factor" in record.end.reason
        assert (record.start.params["growth"], record.start.params["condense_factor"]) == (
            12,
            8,
        )
    planned = study.search.trials * found["condensenet"].epochs
    assert ledger.history.effort("condensenet") == planned
    ledger.close()
