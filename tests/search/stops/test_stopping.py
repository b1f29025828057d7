"""Early stopping: the same trials stop, in whatever order they end and after any restart."""

import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from methods.api import Task
from orchestrator.record.ledger import Ledger
from orchestrator.record.result import decode_result
from orchestrator.record.trials import Ticket
from orchestrator.search.agenda import Agenda
from orchestrator.study.file import Study

TASK = Task("digits", 1, 8, 8, 10)
EPOCHS = 10


def study(stop: str) -> Study:
    return Study.model_validate(
        {
            "name": "s",
            "data": "digits",
            "budgets": [4],
            "recipe": {"epochs": EPOCHS, "lr": {"low": 0.001, "high": 1, "log": True}},
            "methods": {"dense": {"depth": 8, "width": {"low": 0.25, "high": 1}}},
            "search": {"trials": 20, "sampler": "random", "stop": stop},
            "confirm": {"seeds": 1},
        }
    )


def error(params: Mapping[str, Any], step: int) -> float:
    """Falls with the epochs, to a level that the learning rate decides."""
    level = 0.02 + 0.4 * abs(math.log10(params["recipe.lr"]) + 1)
    return level + (0.9 - level) * math.exp(-0.7 * step)


class Sweep:
    """A search without Ray: three trials at once, the next epoch is anybody's."""

    def __init__(self, folder: Path, found: Study, seed: int, events: int = 10**6) -> None:
        self.ledger = Ledger(folder, found)
        self.agenda = Agenda(self.ledger.history, TASK, lag=3)
        self.order = random.Random(seed)
        self.steps: dict[str, int] = {}
        self.running: dict[str, Ticket] = {}
        for _ in range(events):
            self._serve()
            if not self.running:
                break
            self._advance(self.order.choice(sorted(self.running)))

    def _serve(self) -> None:
        ticket = self.agenda.next() if len(self.running) < 3 else None
        if isinstance(ticket, Ticket) and ticket.role == "search":
            self.running[ticket.trial] = ticket
            self.steps[ticket.trial] = self.ledger.history.records[ticket.trial].step

    def _advance(self, name: str) -> None:
        self.steps[name] += 1
        step, params = self.steps[name], self.running[name].params
        metrics = {
            "curve/val_acc": 1 - error(params, step),
            "curve/macs_mean_m": params["width"],
        }
        end = None
        if step == EPOCHS:
            point = {"point": "", "val_acc": 1 - error(params, step)}
            end = {
                "state": "COMPLETE",
                "points": [{**point, "val_macs_mean": 1e6 * params["width"]}],
            }
        result = {"step": step, "time": step, "metrics": metrics, "end": end}
        if not self.agenda.heard(name, decode_result(result)):
            del self.running[name]

    def close(self) -> dict[str, tuple[Any, ...]]:
        """Every search trial: parameters, state, reason, epochs."""
        self.ledger.close()
        return {
            name: (record.start.params, record.end.state, record.end.reason, record.step)
            for name, record in sorted(self.ledger.history.records.items())
            if record.start.role == "search" and record.end
        }


def test_hopeless_trials_stop_and_their_epochs_go_to_others(tmp_path: Path) -> None:
    plain = Sweep(tmp_path / "plain", study("none"), 0)
    assert {state for _, state, _, _ in plain.close().values()} == {"COMPLETE"}
    saving = Sweep(tmp_path / "saving", study("predictive"), 0)
    states = [trial.state for trial in saving.ledger.history._trials["dense"]]
    effort = saving.ledger.history.effort("dense")
    found = saving.close()
    stopped = [trial for trial in found.values() if trial[1] == "PRUNED"]
    assert len(stopped) >= 5
    assert states.count(TrialState.PRUNED) == len(stopped)
    assert all(0 < steps < EPOCHS and "probability" in reason for _, _, reason, steps in stopped)
    assert len(found) > 20
    assert 20 * EPOCHS <= effort < 21 * EPOCHS
    assert sum(steps for *_, steps in found.values()) == effort
    best = min(found, key=lambda name: error(found[name][0], EPOCHS))
    assert found[best][1] == "COMPLETE"


def test_the_order_of_arrival_decides_nothing(tmp_path: Path) -> None:
    one, other = (Sweep(tmp_path / str(n), study("predictive"), n).close() for n in range(2))
    assert one == other


def test_a_restart_decides_as_an_unbroken_sweep(tmp_path: Path) -> None:
    whole = Sweep(tmp_path / "whole", study("predictive"), 0).close()
    for n, events in enumerate((40, 90, 30)):
        Sweep(tmp_path / "broken", study("predictive"), n, events).ledger.close()
    assert Sweep(tmp_path / "broken", study("predictive"), 7).close() == whole
