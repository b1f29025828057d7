"""Ray Tune's part: the trainable, the searcher, the scheduler, and the callbacks."""

import itertools
import json
import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ray
import torch
from optuna.trial import FrozenTrial
from ray import tune
from ray.tune import Callback, CheckpointConfig, FailureConfig, RunConfig, TuneConfig, Tuner
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from methods.api import Task
from methods.errors import MethodError
from methods.machine import tune_allocator
from orchestrator.record.events import Planned
from orchestrator.record.ledger import Ledger
from orchestrator.record.result import Ending, Result, decode_result, encode_result
from orchestrator.record.trials import REFUSED, Ticket
from orchestrator.search.agenda import confirm_plan, wire
from orchestrator.search.proposals import propose
from orchestrator.search.stopping import Stopping
from orchestrator.study.file import Study, cap
from orchestrator.study.params import parts
from orchestrator.study.space import Space
from orchestrator.sweep import signals
from orchestrator.sweep.shared import Handle, held
from orchestrator.trial.run import results

logger = logging.getLogger(__name__)

TOLD = "told"
"""Where a result of Tune's carries ours."""


class Trial(tune.Trainable):  # type: ignore[misc]
    """Ray's shell: one step is one result of `results`."""

    def setup(self, config: dict[str, Any]) -> None:
        """A fresh actor's first trial."""
        tune_allocator()
        torch.set_num_threads(max(1, int(config["threads"])))
        self._results = results(config, partial(held, config))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """A used actor's next trial."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The next epoch's result, as text: Tune flattens what is nested."""
        result = next(self._results)
        return {"done": result.done, TOLD: json.dumps(encode_result(result))}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: trials keep their own checkpoints, which outlive the driver."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: a trial finds its own checkpoint when it starts."""


LEG = 1_000
"""Trials of one Tuner: a trial costs it more among more, so a long sweep is a row of Tuners."""


ROUNDS = 50
"""Trials of one Tuner for each that runs at once, at least: its last ones leave workers idle."""


REFUSALS = 20
"""Trials, as a multiple of the planned ones, after which a search ends that is mostly refused."""


class StudySearch(Searcher):  # type: ignore[misc]
    """Serves Ray Tune with the trials of one study and keeps its ledger."""

    def __init__(
        self,
        ledger: Ledger,
        spaces: Mapping[str, Space],
        task: Task,
        settings: Mapping[str, Any],
        warm: Mapping[str, Sequence[FrozenTrial]],
    ) -> None:
        super().__init__()
        self._ledger = ledger
        self._history = ledger.history
        self._study = ledger.study
        self._spaces = spaces
        self._task = task
        self.lag = 1
        """A proposal sees the trials numbered this far before it: the trials at once, at least."""
        self.shared: Handle | None = None
        """Where workers find the data set; None if they read it by themselves."""
        self._settings = dict(settings)
        self.device = str(settings["device"])
        self._running: dict[str, Ticket] = {}
        self._history.abandon()
        self._again = self._history.interrupted()
        self._again.sort(key=lambda ticket: not self._history.suspect(ticket.trial))
        self._warm = dict(warm)
        self._stopping = Stopping(ledger.history, task)
        self._served: set[str] = set()
        self._planned: tuple[tuple[int, int], list[Ticket]] | None = None
        self.reasons: dict[str, str] = {}
        """Why a trial's worker died, by Tune's own name; filled by the sweep's scheduler."""
        self.stopped: dict[str, str] = {}
        """Why a trial is to stop early, by Tune's own name; heeded by the sweep's scheduler."""
        self.overdue: dict[str, str] = {}
        """Why a trial was ended from outside, by Tune's own name; filled by the sweep's watch."""

    @property
    def finished(self) -> bool:
        """Whether every trial of search and confirm has an end."""
        searched = all(self._searched(method) for method in self._study.methods)
        return searched and not self._again and not self._unconfirmed()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's configuration, None to wait, or FINISHED."""
        ticket = self._next()
        if not isinstance(ticket, Ticket):
            return ticket
        if ticket in self._again:
            self._again.remove(ticket)
        if ticket.role == "confirm":
            self._ledger.announce(Planned(len(self._to_confirm())))
        self._history.start(ticket)
        self._served.add(ticket.trial)
        self._running[trial_id] = ticket
        return {**self._settings, "shared": self.shared, **wire(self._study, ticket)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """One epoch of a running trial."""
        ticket, told = self._running[trial_id], decode_result(json.loads(result[TOLD]))
        self._hear(ticket, told)
        if not told.done and (reason := self._stopping.reason(ticket, self.lag)):
            self.stopped[trial_id] = reason

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The end of a trial by its own word; one whose worker died is served again."""
        ticket = self._running.pop(trial_id)
        told = decode_result(json.loads(result[TOLD])) if result and not error else None
        overdue = self.overdue.pop(trial_id, None)
        stopped = self.stopped.pop(trial_id, None)
        if told and told.ending:
            self._hear(ticket, told)
            self._history.end(ticket.trial, told.ending)
        elif stopped:
            self._history.end(ticket.trial, Ending("PRUNED", stopped))
        elif overdue:
            self._history.end(ticket.trial, Ending("FAIL", overdue))
        else:
            self._history.lose(ticket.trial, self.reasons.pop(trial_id, "its worker died"))
            if not self._given_up(ticket):
                self._served.discard(ticket.trial)
                if ticket.role == "search":
                    self._again.append(ticket)
                return
        self._ledger.tidy(ticket)

    def trained(self, trial_id: str) -> float:
        """Seconds that a running trial's epochs took, those of its former starts included."""
        return self._history.trained(self._running[trial_id].trial)

    def _given_up(self, ticket: Ticket) -> bool:
        """Whether a trial was lost too often; it has failed then."""
        reason = self._history.doomed(ticket.trial)
        if reason is not None:
            self._history.end(ticket.trial, Ending("FAIL", reason))
        return reason is not None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its parts for a restore that is never asked for."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""

    def _hear(self, ticket: Ticket, told: Result) -> None:
        if told.warning:
            logger.warning("%s: %s", ticket.trial, told.warning)
        if told.metrics:
            self._history.epoch(ticket.trial, told.step, told.time, told.metrics)

    def _next(self) -> Ticket | str | None:
        if any(self._history.suspect(ticket.trial) for ticket in self._running.values()):
            return None  # it runs alone until it gets on: another driver's death is no one else's
        while self._again:
            ticket = self._again[0]
            if self._given_up(ticket):
                self._ledger.tidy(self._again.pop(0))
            elif (refusal := self._refusal(ticket.method, ticket.params)) is None:
                return ticket
            else:
                self._refuse(self._again.pop(0), refusal.reason)
        methods = [m for m in self._study.methods if not self._searched(m)]
        for method in sorted(methods, key=self._history.effort):
            if proposed := self._propose(method):
                return proposed
        if any(not self._searched(m) for m in methods) or self._searching():
            return None
        left = [ticket for ticket in self._unconfirmed() if not self._given_up(ticket)]
        if left:
            return min(left, key=lambda ticket: not self._history.suspect(ticket.trial))
        return None if self._running else str(Searcher.FINISHED)

    def _unconfirmed(self) -> list[Ticket]:
        return [
            ticket
            for ticket in self._to_confirm()
            if ticket.trial not in self._served and not self._history.ended(ticket.trial)
        ]

    def _to_confirm(self) -> list[Ticket]:
        """The plan, made again only when another trial has ended that it may depend on."""
        races = self._study.confirm.race
        now = (self._history.searched, self._history.confirmed if races else 0)
        if self._planned is None or self._planned[0] != now:
            self._planned = (now, confirm_plan(self._history))
        return self._planned[1]

    def _searching(self) -> bool:
        return any(ticket.role == "search" for ticket in self._running.values())

    def _searched(self, method: str) -> bool:
        return self._spent(method) or self._hopeless(method)

    def _spent(self, method: str) -> bool:
        plan = self._study.search
        planned = (
            plan.trials * self._spaces[method].epochs if plan.seconds is None else plan.seconds
        )
        return self._history.effort(method) >= planned

    def _hopeless(self, method: str) -> bool:
        return self._history.numbers(method) >= self._study.search.trials * REFUSALS

    def _propose(self, method: str) -> Ticket | None:
        """The method's next trial that fits a budget; None while one that it builds on runs."""
        space = self._spaces[method]
        while not self._searched(method):
            number = self._history.numbers(method)
            history = self._history.trials(method, number - self.lag)
            if history is None:
                return None
            own = [self._stopping.shown(method, trial) for trial in history]
            seen = [*self._warm.get(method, ()), *own]
            spread = self._history.refused(method, number - 1)
            searched = propose(space, seen, self._study, number, spread=spread)
            refusal = self._refusal(method, space.params(searched))
            ticket = self._history.add(space, searched, over=refusal and refusal.over)
            if refusal is None:
                return ticket
            self._refuse(ticket, refusal.reason)
        if not self._spent(method):
            logger.warning("%s: the search ended early, too many trials were refused", method)
        return None

    def _refuse(self, ticket: Ticket, reason: str) -> None:
        self._history.start(ticket)
        self._history.end(ticket.trial, Ending("FAIL", REFUSED + reason))

    def _refusal(self, method: str, params: Mapping[str, Any]) -> "_Refusal | None":
        """Why a trial cannot be, or cannot hold any budget: known before it takes a worker."""
        try:
            floor = parts(method, params)[0].floor(self._task)
        except MethodError as error:
            return _Refusal(str(error), 1.0)
        largest = self._study.budgets[-1]
        if floor <= cap(largest):
            return None
        reason = f"costs {floor / 1e6:.4g} MMACs at least, the largest budget is {largest:g}"
        return _Refusal(reason, floor / cap(largest) - 1)


class _Refusal(NamedTuple):
    """Why a trial takes no worker, and by which fraction it lies over the largest budget."""

    reason: str
    over: float


class _Scheduler(FIFOScheduler):  # type: ignore[misc]
    """Stops what the search gives up, and tells it how a worker died: Tune tells no searcher.

    And keeps idle workers: where the search waits for a trial, Tune would end them, and then hand
    each worker that comes free to the trial that a new one was being started for; trials shorter
    than that start leave a slot idle for the rest of the sweep.
    """

    def __init__(self, search: StudySearch, slots: int) -> None:
        super().__init__()
        self._search = search
        self._kept = slots

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        if self._kept:  # Tune has no setting for it
            cache = tune_controller._tune_controller._actor_cache
            cache.increase_max(trial.placement_group_factory, self._kept)
            self._kept = 0
        super().on_trial_add(tune_controller, trial)

    def on_trial_result(
        self,
        tune_controller: Any,  # noqa: ARG002
        trial: Any,
        result: dict[str, Any],  # noqa: ARG002
    ) -> str:
        stops = trial.trial_id in self._search.stopped
        return str(FIFOScheduler.STOP if stops else FIFOScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:  # noqa: ARG002
        told = Path(trial.error_file or "")
        self._search.reasons[trial.trial_id] = _death(told.read_text() if told.is_file() else "")


class _Pulse(Callback):  # type: ignore[misc]
    """Ends Tune's run when this machine's raylet died: Tune would wait for it for ever.

    And when a stop that was asked for is still not heeded.
    """

    def __init__(self) -> None:
        self._node = ray.get_runtime_context().get_node_id()
        self._asked = 0.0

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:  # noqa: ARG002
        signals.check()
        if time.monotonic() - self._asked < 2:
            return
        self._asked = time.monotonic()
        if not any(node["Alive"] for node in ray.nodes() if node["NodeID"] == self._node):
            raise ConnectionError("the raylet of the driver's machine died")


class _Clock(Callback):  # type: ignore[misc]
    """Ends the worker of a trial that takes too long, be it at work or hanging."""

    def __init__(self, search: StudySearch, minutes: float) -> None:
        self._search = search
        self._minutes = minutes
        self._began: dict[str, float] = {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:  # noqa: ARG002
        now = time.monotonic()
        for trial in trials:
            name, actor = trial.trial_id, trial.temporary_state.ray_actor
            if actor is None or trial.is_finished() or name in self._search.overdue:
                continue
            if name not in self._began:
                self._began[name] = now - self._search.trained(name)
            if now - self._began[name] > 60 * self._minutes:
                self._search.overdue[name] = f"took longer than {self._minutes:g} minutes"
                ray.kill(actor)


def _death(error: str) -> str:
    """What Ray says of a worker's end, in a line."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("The actor died", "Worker exit detail"))]
    told = told or [line for line in lines if "Error: " in line][-1:] or lines[-1:]
    return f"its worker died: {' '.join(told)}"[:500]


def _tune(
    search: StudySearch,
    study: Study,
    slots: int,
    scratch: str,
    trainable: type[tune.Trainable],
) -> None:
    """Runs what the search serves, one Tuner after another."""
    timeout = study.resources.timeout
    trial = tune.with_resources(trainable, {"cpu": study.resources.cpu, "gpu": study.resources.gpu})
    leg = max(LEG, ROUNDS * slots)
    for number in itertools.count():
        tuner = Tuner(
            trial,
            tune_config=TuneConfig(
                search_alg=search,
                scheduler=_Scheduler(search, slots),
                num_samples=leg,
                max_concurrent_trials=slots,
                reuse_actors=True,
            ),
            run_config=RunConfig(
                name=f"tune-{number}",
                storage_path=scratch,
                verbose=0,
                callbacks=[_Pulse(), *([_Clock(search, timeout)] if timeout else [])],
                failure_config=FailureConfig(max_failures=0),  # the search serves them again
                # trials keep their own
                checkpoint_config=CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        if len(tuner.fit()) < leg or search.finished:
            return
