"""Budgets in milliseconds: what is predicted decides once, and stays decided."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from methods.api import Task
from methods.errors import MethodError
from methods.values import Params
from orchestrator.record.ledger import Ledger
from orchestrator.record.result import OVER_BUDGET, decode_result
from orchestrator.record.trials import OVER, PREDICTED, Ticket
from orchestrator.search.agenda import Agenda
from orchestrator.study.file import Study

TASK = Task("digits", 1, 8, 8, 10)
STUDY = Study.model_validate(
    {
        "name": "s",
        "data": "digits",
        "budgets": {"latency_ms": [0.5, 1.0]},
        "recipe": {"epochs": 1},
        "methods": {"dense": {"depth": {"choices": [8, 20, 56]}}},
        "search": {"trials": 6, "sampler": "tpe", "published": False},
        "confirm": {"seeds": 1},
    }
)
Predict = Callable[[str, Params], float | None]


def by_depth(_method: str, params: Params) -> float:
    return {8: 0.2, 20: 1.2, 56: 1.6}[int(params["depth"])]


def twice(method: str, params: Params) -> float:
    """Another machine, or a slow hour."""
    return 2 * by_depth(method, params)


def agenda(ledger: Ledger, predict: Predict) -> Agenda:
    return Agenda(ledger.history, TASK, predict=predict)


def end(ms: float | None = 0.4) -> Any:
    point = {"point": "", "val_acc": 0.5, "val_macs_mean": 5e5, "test_acc": 0.5}
    point |= {"test_macs_mean": 5e5} | ({} if ms is None else {"ms": ms, "spread_ms": 0.01})
    return decode_result({"metrics": {}, "end": {"state": "COMPLETE", "points": [point]}})


def run(ledger: Ledger, predict: Predict, count: int = 1000) -> None:
    """Serves and ends so many trials, or all."""
    served = agenda(ledger, predict)
    for _ in range(count):
        ticket = served.next()
        if not isinstance(ticket, Ticket):
            return
        served.heard(ticket.trial, end())


def fates(ledger: Ledger) -> dict[str, tuple[object, ...]]:
    records = ledger.history.records.items()
    return {
        name: (r.start.params, r.start.predicted_ms, r.end and r.end.state, r.end and r.end.reason)
        for name, r in records
    }


def test_what_clearly_takes_too_long_takes_no_worker(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, STUDY)
    run(ledger, by_depth)
    depths = {}
    for record in ledger.history.records.values():
        if record.start.role == "search":
            depths.setdefault(record.start.params["depth"], set()).add(record.took_a_worker)
            assert record.start.predicted_ms == by_depth("", record.start.params)
            assert record.start.unit == "ms"
    assert depths == {8: {True}, 20: {True}, 56: {False}}, "1.2 ms may still be under 1 ms"
    (row, *_) = [r for r in ledger.history.rows() if r.params["depth"] == 56]
    assert row.outcome.word == OVER_BUDGET
    assert row.reason == ("over budget: takes about 1.6 ms at least, the largest budget is 1")
    trials = [t for t in ledger.history._trials["dense"] if OVER in t.user_attrs]
    assert {round(t.user_attrs[OVER], 9) for t in trials} == {0.6}
    assert {t.user_attrs[PREDICTED] for t in trials} == {1.6}
    complete = [t for t in ledger.history._trials["dense"] if t.state.name == "COMPLETE"]
    assert {tuple(t.values) for t in complete} == {(0.5, 0.4)}, "the objective is the time"
    ledger.close()


@pytest.mark.parametrize("killed_after", range(1, 7))
def test_another_machine_decides_no_trial_anew(tmp_path: Path, killed_after: int) -> None:
    whole, torn = Ledger(tmp_path / "whole", STUDY), Ledger(tmp_path / "torn", STUDY)
    run(whole, by_depth)
    run(torn, by_depth, killed_after)
    before = fates(torn)
    torn.close()
    again = Ledger(tmp_path / "torn", STUDY)
    assert fates(again) == before, "the log and the journal tell the same"
    run(again, by_depth)
    assert fates(again) == fates(whole)
    whole.close()
    again.close()
    drifted = Ledger(tmp_path / "torn", STUDY)
    run(drifted, twice)
    assert fates(drifted) == fates(whole)
    drifted.close()


def test_a_trial_that_was_only_committed_keeps_its_prediction(tmp_path: Path) -> None:
    """The driver died between the journal and the log."""
    ledger = Ledger(tmp_path, STUDY)
    space = ledger.history.spaces["dense"]
    slow = {**space.defaults(), "depth": 56}
    ledger.history.add(space, slow, over=0.6, predicted_ms=1.6)
    ledger.history.add(space, {**slow, "depth": 20}, predicted_ms=1.2)
    ledger.close()
    again = Ledger(tmp_path, STUDY)
    ticket = agenda(again, twice).next()
    assert isinstance(ticket, Ticket)
    assert (ticket.trial, ticket.predicted_ms) == ("dense-00001", 1.2)
    assert not again.history.records["dense-00000"].took_a_worker
    again.close()


def test_nothing_is_turned_away_where_nothing_is_predicted(tmp_path: Path) -> None:
    def refuses(_method: str, _params: Params) -> float | None:
        raise MethodError("no network for such images")

    for number, predict in enumerate((lambda *_: None, refuses)):
        ledger = Ledger(tmp_path / str(number), STUDY)
        run(ledger, predict)
        assert all(record.took_a_worker for record in ledger.history.records.values())
        assert {r.start.predicted_ms for r in ledger.history.records.values()} == {None}
        ledger.close()


@pytest.mark.parametrize("ms", [None, 0.0, -1.0, float("nan"), float("inf")])
def test_a_trial_without_a_time_has_failed(tmp_path: Path, ms: float | None) -> None:
    ledger = Ledger(tmp_path, STUDY)
    served = agenda(ledger, by_depth)
    ticket = served.next()
    assert isinstance(ticket, Ticket)
    served.heard(ticket.trial, end(ms))
    (row,) = ledger.history.rows()
    assert (row.state, row.ms) == ("FAIL", None)
    ledger.close()


def test_macs_are_not_predicted(tmp_path: Path) -> None:
    def asked(_method: str, _params: Params) -> float:
        raise AssertionError("budgets of MACs ask no clock")

    counted = Study.model_validate({**STUDY.model_dump(mode="json"), "budgets": [1, 4]})
    ledger = Ledger(tmp_path, counted)
    assert isinstance(agenda(ledger, asked).next(), Ticket)
    ledger.close()
