"""What a trial costs does not depend on how many came before: counted, never timed."""

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from methods.api import Task
from orchestrator import store
from orchestrator.record import log as wal
from orchestrator.record.events import Lost, decode_metrics
from orchestrator.record.ledger import Ledger
from orchestrator.record.result import decode_result
from orchestrator.record.trials import Ticket
from orchestrator.report.publish import Outcome
from orchestrator.search import agenda as agendas
from orchestrator.search.agenda import Agenda
from orchestrator.search.confirming import confirm_plan
from orchestrator.search.samplers import propose
from orchestrator.store import mirror
from orchestrator.study.file import Study
from orchestrator.study.space import spaces
from orchestrator.sweep import run as sweep
from orchestrator.sweep import tune
from orchestrator.sweep.ready import Place
from tests.bench.scale.noop import Noop, noop_result, study
from tests.bench.scale.parts import searched

TASK = Task("digits", 1, 8, 8, 10)
WRITES = ("create_run", "log_batch", "set_terminated", "update_run", "get_run", "search_runs")


class Calls:
    """How often functions were called, since the last reading."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._counts: Counter[str] = Counter()

    def of(self, owner: Any, *names: str) -> None:
        for name in names:
            self._patch.setattr(owner, name, self._counted(name, getattr(owner, name)))

    def taken(self) -> dict[str, int]:
        found = dict(self._counts)
        self._counts.clear()
        return found

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self._counts[name] += 1
            return function(*arguments, **named)

        return call


def driven(found: Study, ledger: Ledger) -> Agenda:
    return Agenda(ledger.history, TASK)


def step(agenda: Agenda) -> Ticket | None:
    """One trial from its proposal to its end; None where nothing is left."""
    ticket = agenda.next()
    if not isinstance(ticket, Ticket):
        return None
    agenda.heard(ticket.trial, decode_result(noop_result(ticket.trial, ticket.role)))
    return ticket


def test_a_trial_reads_the_journal_as_often_as_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = study(40, "random")
    ledger = Ledger(tmp_path, found)
    agenda, calls = driven(found, ledger), Calls(monkeypatch)
    calls.of(JournalStorage, "get_all_trials")
    calls.of(JournalFileBackend, "read_logs", "append_logs")
    counts = []
    for _ in range(40):
        step(agenda)
        counts.append(calls.taken())
    assert counts[5:] == [counts[5]] * 35
    assert "get_all_trials" not in counts[5]
    ledger.close()


def test_what_the_ledger_keeps_is_what_the_journal_holds(tmp_path: Path) -> None:
    found = study(12, "random")
    _, ledger = searched(12, tmp_path, "random")
    kept = {method: ledger.history.trials(method, 99) for method in found.methods}
    assert all(trial.state == TrialState.COMPLETE for own in kept.values() for trial in own or [])
    ledger.close()
    again = Ledger(tmp_path, found)
    assert {method: again.history.trials(method, 99) for method in found.methods} == kept
    assert again.history.searched == ledger.history.searched == 12
    again.close()


def test_an_ended_trial_keeps_no_curve(tmp_path: Path) -> None:
    _, ledger = searched(6, tmp_path, "random")
    assert [record.curve for record in ledger.history.records.values()] == [[]] * 6
    ledger.history.epoch("dense-00000", 2, 1000, decode_metrics({"curve/val_acc": 0.5}))
    assert ledger.history.records["dense-00000"].curve == []
    ledger.close()
    again = Ledger(tmp_path, study(6, "random"))
    assert [record.curve for record in again.history.records.values()] == [[]] * 6
    assert again.history.records["dense-00000"].step == 2
    again.close()


def test_the_confirm_plan_is_made_once_after_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = study(10, "random")
    ledger = Ledger(tmp_path, found)
    agenda, calls = driven(found, ledger), Calls(monkeypatch)
    calls.of(agendas, "confirm_plan")
    roles: list[str] = []
    while ticket := step(agenda):
        roles.append(ticket.role)
    assert agenda.finished
    assert roles.count("confirm") == len(confirm_plan(ledger.history)) >= found.confirm.seeds
    assert calls.taken() == {"confirm_plan": 1}
    ledger.close()


def test_a_random_proposal_needs_no_history(tmp_path: Path) -> None:
    found = study(20, "random")
    _, ledger = searched(20, tmp_path, "random")
    space, history = spaces(found)["dense"], ledger.history.trials("dense", 10)
    assert history
    assert propose(space, history, found, 11) == propose(space, [], found, 11)
    ledger.close()


@pytest.mark.parametrize(("server", "writes"), [(True, 1), (False, 0)])
def test_a_trial_takes_three_writes_to_a_server_and_none_of_its_own_to_a_file(
    tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch, server: bool, writes: int
) -> None:
    if server:
        monkeypatch.setattr(mirror, "takes_many", lambda _: False)
    counts = []
    calls = Calls(monkeypatch)
    calls.of(MlflowClient, *WRITES)
    for trials in (4, 12):
        folder = tmp_path / str(trials)
        _, ledger = searched(trials, folder, "random")
        ledger.close()
        shutil.copy(template, folder)
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        calls.taken()
        store.project(ledger.wal, uri, "scale")
        counts.append(calls.taken())
    few, many = counts
    more = {name: many.get(name, 0) - few.get(name, 0) for name in WRITES}
    each = dict.fromkeys(("create_run", "log_batch", "set_terminated"), 8 * writes)
    assert more == dict.fromkeys(WRITES, 0) | each
    assert "get_run" not in many


@pytest.mark.parametrize("size", [0, 1, 100, 5000])
def test_slices_of_a_log_are_the_whole_log(tmp_path: Path, size: int) -> None:
    log = wal.Log(tmp_path / "wal.jsonl")
    for number in range(30):
        log.append(Lost(f"dense-{number:05d}", "é" * (7 * number)))
    log.close()
    with (tmp_path / "wal.jsonl").open("a") as file:
        file.write('{"torn')
    whole, end = wal.read(tmp_path / "wal.jsonl")
    found: list[Any] = []
    offset = 0
    while (part := wal.read(tmp_path / "wal.jsonl", offset, size))[0]:
        assert len(part[0]) == 1 or size > 1
        found, offset = [*found, *part[0]], part[1]
    assert (found, offset) == (whole, end)
    reopened = wal.Log(tmp_path / "wal.jsonl")
    assert list(reopened.events()) == whole
    reopened.close()
    assert (tmp_path / "wal.jsonl").stat().st_size == end


def in_a_thread(call: Callable[[], Outcome]) -> Outcome:
    """The result of a call in another thread, under an asyncio loop that runs there."""

    async def under_a_loop() -> Outcome:
        return call()

    with ThreadPoolExecutor() as pool:
        return pool.submit(lambda: asyncio.run(under_a_loop())).result()


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.slow
def test_a_long_sweep_is_a_row_of_tuners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
) -> None:
    monkeypatch.setattr(tune, "LEG", 4)
    monkeypatch.setattr(tune, "ROUNDS", 1)
    calls = Calls(monkeypatch)
    calls.of(tune.Tuner, "fit")
    plan = study(4, "random")
    plan = plan.model_copy(update={"confirm": plan.confirm.model_copy(update={"seeds": 1})})
    outcome = in_a_thread(lambda: sweep.run(plan, Place(out=tmp_path), trainable=Noop, slots=1))
    rows = store.read_rows(outcome.uri, "scale")
    assert sum(row.role == "search" for row in rows) == 4
    assert {row.state for row in rows} == {"COMPLETE"}
    assert calls.taken()["fit"] == 1 + len(rows) // 4 - (len(rows) % 4 == 0)
    again = sweep.run(plan, Place(out=tmp_path), trainable=Noop, slots=1)
    assert not again.fresh
