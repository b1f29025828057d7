"""One agenda: a sweep's shell over a ledger on disk, and a simulation in memory, agree."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from optuna.trial import FrozenTrial, create_trial
from ray.tune.schedulers import FIFOScheduler

from methods.api import Task
from orchestrator.record.history import History
from orchestrator.record.ledger import Ledger
from orchestrator.record.result import encode_result
from orchestrator.search.agenda import Agenda
from orchestrator.search.replay.simulate import Simulation, result, searched_only
from orchestrator.search.replay.surrogate import Course
from orchestrator.study.file import Study
from orchestrator.study.params import derive
from orchestrator.study.space import Space, spaces
from orchestrator.sweep.spread import Groups
from orchestrator.sweep.tune import _Scheduler, _Searcher
from orchestrator.sweep.worker import RESULT, job_of
from orchestrator.trial.job import Settings

TASK = Task("digits", 1, 8, 8, 10)
EPOCHS = 6
LAG = 3
Trial = tuple[Mapping[str, Any], Any, str, str | None, int]
"""Parameters, the fraction over budget, state, reason, epochs."""


def study(sampler: str, trials: int, stop: str) -> Study:
    """Half of dense's space is over budget; some of condensenet's values do not go together."""
    whole = Study.model_validate(
        {
            "name": "s",
            "data": "digits",
            "budgets": [0.3],
            "recipe": {"epochs": EPOCHS, "lr": {"low": 0.001, "high": 1, "log": True}},
            "methods": {
                "dense": {
                    "depth": {"low": 8, "high": 20, "step": 6},
                    "width": {"low": 0.25, "high": 1.0},
                },
                "condensenet": {
                    "stages": "1-1-1",
                    "growth": {"choices": [8, 12, 20]},
                    "condense_factor": {"choices": [4, 8]},
                    "groups": 4,
                },
            },
            "search": {
                "trials": trials,
                "sampler": sampler,
                "stop": stop,
                "points": {"dense": [{"recipe.lr": 0.5}]},
            },
        }
    )
    return searched_only(whole, list(whole.methods), trials, seed=3)


class Falling:
    """Errors that fall to a level which the learning rate and a little noise decide."""

    def course(self, params: Mapping[str, Any], draw: np.random.Generator) -> tuple[Course, bool]:
        level = 0.02 + 0.3 * abs(np.log10(params["recipe.lr"]) + 1)
        steps = np.arange(1, EPOCHS + 1)
        errors = np.minimum(level + 0.6 * np.exp(-steps) + draw.normal(0, 0.01), 0.95)
        errors = np.maximum(errors, 0.002)
        macs = np.full(EPOCHS, 2e5 * params.get("width", 1.0))
        return Course(errors, macs, draw.uniform(1, 5, EPOCHS), float(errors[-1])), False


COURSES = {"dense": Falling(), "condensenet": Falling()}


def simulated(what: Study, warm: Mapping[str, Sequence[FrozenTrial]]) -> History:
    """As `isoflop simulate` drives the agenda: in memory, by a virtual clock."""
    agenda = Agenda(History(what, spaces(what)), TASK, lag=LAG, warm=warm)
    Simulation(agenda, COURSES, LAG).run()
    return agenda.history


def swept(what: Study, warm: Mapping[str, Sequence[FrozenTrial]], folder: Path) -> Ledger:
    """As Tune drives it, result by result as text, in any order; twice the driver dies."""
    order = random.Random(0)
    for events in (50, 200, 10**6):
        ledger = Ledger(folder, what)
        agenda = Agenda(ledger.history, TASK, lag=LAG, warm=warm)
        if driven(agenda, ledger, order, events):
            return ledger
        ledger.close()
    raise AssertionError("the search does not end")


def driven(agenda: Agenda, ledger: Ledger, order: random.Random, events: int) -> bool:
    """Whether the search came to its end within so many results."""
    settings = Settings("digits", 0, ledger.folder, "cpu", 1)
    searcher, scheduler = (
        _Searcher(agenda, ledger, settings, None, None),
        _Scheduler(agenda, 0, {}, Groups()),
    )
    running: list[tuple[Any, Course, int]] = []
    for event in range(events):
        while len(running) < LAG:
            config = searcher.suggest(f"tune-{event}")
            if not isinstance(config, dict):
                break
            job = job_of(config)
            number = int(job.trial.rsplit("-", 1)[1])
            draw = np.random.default_rng(derive(ledger.study, f"{job.method}/course", number))
            course, _ = COURSES[job.method].course(job.params, draw)
            tune_trial = SimpleNamespace(config=config, trial_id=config["trial"])
            running.append((tune_trial, course, 0))
        if not running:
            return agenda.finished
        trial, course, step = running.pop(order.randrange(len(running)))
        told = {RESULT: json.dumps(encode_result(result(course, step + 1, event)))}
        last = step + 1 == EPOCHS  # Tune does not ask the scheduler about a last result
        if last or scheduler.on_trial_result(None, trial, told) == FIFOScheduler.STOP:
            scheduler.on_trial_complete(None, trial, told)
        else:
            running.append((trial, course, step + 1))
    return False


def trials(history: History) -> dict[str, Trial]:
    """Every search trial by name: what it was and what became of it."""
    found: dict[str, Trial] = {}
    for method in history.study.methods:
        for number in range(history.numbers(method)):
            trial = history.trial(method, number)
            record = history.records[f"{method}-{number:05d}"]
            assert record.end is not None
            over = trial.user_attrs.get("over")
            found[record.start.trial] = (
                record.start.params,
                over,
                record.end.state,
                record.end.reason,
                record.step,
            )
    return found


def earlier(space: Space) -> list[FrozenTrial]:
    """Trials of an earlier study."""
    draw = np.random.default_rng(0)
    return [
        create_trial(
            params=space.at(draw.random(len(space.free)).tolist()),
            distributions=dict(space.free),
            values=[float(draw.uniform(0.05, 0.5)), float(draw.uniform(1e5, 6e5))],
        )
        for _ in range(6)
    ]


class Case(NamedTuple):
    """One search, and how many trials it proposes at least."""

    sampler: str
    trials: int
    proposals: int
    stop: str = "none"
    warm: bool = False


CASES = [
    Case("random", 16, 60),
    Case("sobol", 16, 60, warm=True),
    Case("ehvi", 16, 40, warm=True),
    Case("random", 16, 60, stop="promote"),
    Case("tpe", 16, 40, stop="promote", warm=True),
]
LONG = [
    Case("random", 48, 200),
    Case("sobol", 48, 200, warm=True),
    Case("tpe", 80, 190, warm=True),
    Case("ehvi", 92, 190),
    Case("auto", 6, 15),
]
"""What takes longer; its samplers are among the others, too."""


@pytest.mark.parametrize(
    "case",
    [*CASES, *(pytest.param(case, marks=pytest.mark.full) for case in LONG)],
    ids=lambda case: f"{case.sampler}-{case.stop}-{case.trials}",
)
def test_a_sweep_and_a_simulation_propose_refuse_and_stop_alike(tmp_path: Path, case: Case) -> None:
    what = study(case.sampler, case.trials, case.stop)
    before = {method: earlier(space) for method, space in spaces(what).items()} if case.warm else {}
    ledger = swept(what, before, tmp_path)
    disk = trials(ledger.history)
    ledger.close()
    memory = trials(simulated(what, before))
    assert list(memory) == list(disk)
    for name, trial in memory.items():
        assert trial == disk[name], name
    assert len(memory) >= case.proposals
    reasons = [reason or "" for *_, reason, _ in memory.values()]
    assert any("the largest budget" in reason for reason in reasons)
    assert any("must be a multiple" in reason for reason in reasons)
    stopped = [name for name, (_, _, state, *_) in memory.items() if state == "PRUNED"]
    assert bool(stopped) == (case.stop != "none")
