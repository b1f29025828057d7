"""A driver may be killed at any event: what its log and journal hold then ends in equal rows."""

import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from executor import execute
from optuna.trial import FrozenTrial

from methods.api import Task
from orchestrator.record.events import Begun, Event, Figures, Point, decode_metrics
from orchestrator.record.history import History
from orchestrator.record.provenance import provenance
from orchestrator.record.result import Ending, Result
from orchestrator.record.rows import Row
from orchestrator.record.trials import Ticket
from orchestrator.search.agenda import Agenda
from orchestrator.study.file import Study
from orchestrator.study.params import derive
from orchestrator.study.space import searches

TASK = Task("digits", 1, 8, 8, 10)
LAG = 2


def study(
    sampler: str,
    stop: str = "none",
    trials: int = 4,
    epochs: int = 4,
    repeats: int = 1,
    *,
    start: dict[str, str] | None = None,
    **confirm: Any,
) -> Study:
    """Wide networks of `dense` are over the budget, and are refused."""
    return Study.model_validate(
        {
            "name": "killed",
            "data": "digits",
            "budgets": [0.3, 0.6],
            "recipe": {"epochs": epochs, "lr": {"low": 0.001, "high": 1, "log": True}},
            "methods": {
                "dense": {"depth": 8, "width": {"low": 0.25, "high": 1.0}},
                "skipnet": {"depth": 8, "width": {"low": 0.25, "high": 0.5}},
            },
            "search": {
                "trials": trials,
                "repeats": repeats,
                "sampler": sampler,
                "stop": stop,
            },
            "confirm": {"seeds": 2, **confirm},
            "start": start or {},
        }
    )


@dataclass
class Tape:
    """All that a driver makes durable, in its order: new search trials, and events."""

    entries: list[tuple[str, FrozenTrial] | Event] = field(default_factory=list)

    def commit(self, method: str, trial: FrozenTrial) -> None:
        self.entries.append((method, copy.deepcopy(trial)))

    def write(self, event: Event) -> Event:
        event = dataclasses.replace(event, time=1000 + len(self.entries))
        self.entries.append(event)
        return event

    def applied(self, event: Event) -> None:
        """Nothing."""

    def replayed(self, what: Study, length: int) -> History:
        """The state after so many entries."""
        history = History(what, searches(what))
        for entry in self.entries[:length]:
            match entry:
                case (method, trial):
                    history.commit(method, copy.deepcopy(trial))
                case _:
                    history.apply(entry)
        return history


def worker(what: Study, ticket: Ticket) -> Iterator[Result]:
    """A trial whose figures follow from its seed; one of them diverges. It has no checkpoint."""
    draw = np.random.default_rng(derive(what, ticket.config, ticket.seed))
    level = 0.02 + 0.3 * abs(np.log10(ticket.params["recipe.lr"]) + 1) + draw.uniform(0, 0.01)
    macs, epochs = 2e5 * ticket.params["width"], ticket.params["recipe.epochs"]
    for step in range(1, epochs + 1):
        accuracy = float(1.0 - min(level + 0.6 * np.exp(-step), 0.95))
        metrics = {"curve/val_acc": accuracy, "curve/macs_mean_m": macs / 1e6}
        ending = None
        if ticket.trial in ("skipnet-00001", "skipnet-r2-00001") and step == 3:
            ending = Ending("FAIL", "diverged: loss is nan at epoch 3", 3.0)
        elif step == epochs:
            figures = Figures(accuracy, macs, macs_p95=macs, macs_max=macs)
            test = figures if ticket.role == "confirm" else None
            ending = Ending("COMPLETE", None, 6.0, (Point("", figures, test),), "cpu")
        yield Result(step, step, decode_metrics({**metrics, "curve/seconds": 1.0}), ending)


def finished(what: Study, history: History, seed: int) -> list[Row]:
    agenda = Agenda(history, TASK, lag=LAG)
    execute(agenda, lambda ticket: worker(what, ticket), at_once=LAG, seed=seed)
    return history.rows()


STUDIES = {
    "random": (study("random"), 1),
    "tpe, raced": (study("tpe", seeds=3, race=True, budget=4), 1),
    "ehvi": (study("ehvi", trials=12), 17),
    "random, from a base": (study("random", start={"skipnet": "base"}), 4),
    "random, repeated, from bases": (
        study("random", repeats=2, start={"skipnet": "base", "dense": "base"}),
        11,
    ),
    "random, repeated": (study("random", repeats=2), 3),
    "random, repeated, raced": (study("random", repeats=3, race=True, budget=4), 7),
    "random, promoted": (study("random", "promote", trials=6), 3),
    "tpe, promoted": (study("tpe", "promote", trials=9, epochs=6), 8),
    "ehvi, promoted": (study("ehvi", "promote", trials=12), 29),
    "tpe, promoted, repeated": (study("tpe", "promote", 9, 6, repeats=2), 31),
    "random, promoted, from a base": (
        study("random", "promote", trials=5, start={"skipnet": "base"}),
        11,
    ),
}
"""Each with how many entries lie between two kills."""


@pytest.mark.parametrize("name", STUDIES)
def test_a_driver_killed_at_any_event_ends_in_equal_rows(name: str) -> None:
    what, stride = STUDIES[name]
    tape = Tape()
    history = History(what, searches(what), book=tape)
    history.begin(provenance(what, TASK, 269), lag=LAG, device="cpu")
    whole = finished(what, history, seed=0)
    based = {"base"} if what.start else set()
    assert {row.role for row in whole} == {"search", "confirm"} | based
    states = {"COMPLETE", "FAIL"} | ({"PRUNED"} if what.search.stop != "none" else set())
    assert {row.state for row in whole} == states
    assert any(row.repeat > what.search.repeats for row in whole) == ("repeated, raced" in name)
    assert isinstance(tape.entries[0], Begun)
    for length in range(1, len(tape.entries) + 1, stride):
        resumed = tape.replayed(what, length)
        assert finished(what, resumed, seed=length) == whole, length
        assert not any(record.waits for record in resumed.records.values())
