"""Ray Tune's part: three adapters by which Tune drives an agenda.

Ray keeps no state that matters. The history behind the agenda is the state, and a trial whose
worker died is a new trial to Tune.
"""

import itertools
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune import Callback, CheckpointConfig, FailureConfig, RunConfig, TuneConfig, Tuner
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from methods.errors import BucketAway
from orchestrator.record.ledger import Ledger, Planned
from orchestrator.record.result import decode_result
from orchestrator.record.trials import Ticket
from orchestrator.search.agenda import DONE, Agenda
from orchestrator.study.params import derive
from orchestrator.study.sections import Resources
from orchestrator.sweep import signals
from orchestrator.sweep.shared import Handle
from orchestrator.sweep.spread import CREW, GROUP, Crew, Groups, Spread
from orchestrator.sweep.worker import JOB, RESULT, SHARED
from orchestrator.trial.job import Job, Settings, encode_job

EVERY = 2.0
"""Seconds between two looks at the workers and at Ray, at least."""
LOOK = 10.0
"""Seconds between two looks that count as time, at most: in a longer pause the driver itself stood
still, and heard no worker."""
SILENCE = 60.0
"""Seconds for which any worker may be silent: it loads libraries and reads data first."""
AWAY = re.compile(rf"{BucketAway.__name__}: (.+)")
"""What stands in a worker's trace where the bucket of a study did not answer it."""
LEG = 1_000
"""Trials per Tuner: one costs a Tuner more the more it has, so a long sweep is several Tuners."""
ROUNDS = 50
"""Least trials per Tuner for each that runs at once: at the end of a Tuner workers are idle."""


def drive(
    agenda: Agenda,
    ledger: Ledger,
    settings: Settings,
    data: Handle | None,
    *,
    slots: int,
    scratch: str,
    trainable: type[tune.Trainable],
) -> None:
    """Runs what an agenda serves, `slots` trials at once, one Tuner after another.

    Every worker is sent `settings` beside its trial, and maps `data` from the object store. Where
    several workers train a trial, they ask Ray for what they need, all at once, and the actor that
    speaks for them takes nothing.
    """
    resources = ledger.study.resources
    groups = Groups()
    crew = Crew.of(resources) if resources.spread > 1 else None
    nothing = {"cpu": 0, "memory": 1}  # but for a byte, since Tune knows no trial without needs
    needs = nothing if crew else {"cpu": resources.cpu, "gpu": resources.gpu}
    trial = tune.with_resources(Spread if crew else trainable, needs)
    leg = max(LEG, ROUNDS * slots)
    silent: dict[str, str] = {}
    for number in itertools.count():
        tuner = Tuner(
            trial,
            tune_config=TuneConfig(
                search_alg=_Searcher(agenda, ledger, settings, data, crew),
                scheduler=_Scheduler(agenda, slots, silent, groups),
                num_samples=leg,
                max_concurrent_trials=slots,
                reuse_actors=crew is None,
            ),
            run_config=RunConfig(
                name=f"tune-{number}",
                storage_path=scratch,
                verbose=0,
                callbacks=[_Watch(agenda, resources, silent, groups)],
                failure_config=FailureConfig(max_failures=0),  # the agenda serves them again
                # trials write their own
                checkpoint_config=CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        if len(tuner.fit()) < leg or agenda.finished:
            return


class _Stateless:
    """Tune pickles its parts for a restore that never comes, since the history is the state."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Searcher(_Stateless, Searcher):  # type: ignore[misc]
    """Ask the agenda for trials; the scheduler reports their results to it."""

    def __init__(
        self,
        agenda: Agenda,
        ledger: Ledger,
        settings: Settings,
        data: Handle | None,
        crew: Crew | None,
    ) -> None:
        super().__init__()
        self._crew = crew
        self._agenda = agenda
        self._ledger = ledger
        self._settings = settings
        self._data = data

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # noqa: ARG002
        """The next trial's configuration, None to wait, or FINISHED."""
        ticket = self._agenda.next()
        if not isinstance(ticket, Ticket):
            return str(Searcher.FINISHED) if ticket is DONE else None
        further = ticket.repeat > self._ledger.study.search.repeats
        if ticket.role == "confirm" or further:
            confirms = self._agenda.confirms if ticket.role == "confirm" else None
            self._ledger.announce(Planned(confirms, self._agenda.searches))
        seed = derive(self._ledger.study, ticket.config, ticket.seed)
        trial = (ticket.trial, ticket.method, ticket.params, ticket.role, seed)
        told = json.dumps(encode_job(Job(*trial, self._settings, ticket.until)))
        return {"trial": ticket.trial, JOB: told, SHARED: self._data, CREW: self._crew}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: the scheduler hears it."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: the scheduler hears it."""

    def save(self, checkpoint_path: str) -> None:
        """An empty file, since Tune looks for one."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class _Scheduler(_Stateless, FIFOScheduler):  # type: ignore[misc]
    """Report the results of trials to the agenda, and stop the trials that it stops.

    It also keeps idle workers alive. Tune would end them while the agenda waits for a trial, and
    then give each worker that comes free to the trial for which a new one was being started; where
    trials are shorter than such a start, a slot would stay idle for the rest of the sweep.

    `silent` says, by Tune's identifier of a trial, why its worker was ended that gave no sign.
    """

    def __init__(
        self, agenda: Agenda, slots: int, silent: Mapping[str, str], groups: Groups
    ) -> None:
        super().__init__()
        self._groups = groups
        self._agenda = agenda
        self._idle = slots
        self._silent = silent

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        if self._idle:  # Tune has no setting for this
            controller = tune_controller._tune_controller
            controller._actor_cache.increase_max(trial.placement_group_factory, self._idle)
            _survive_memory_monitor(controller._actor_manager)
            self._idle = 0
        super().on_trial_add(tune_controller, trial)

    def on_trial_result(
        self,
        tune_controller: Any,  # noqa: ARG002
        trial: Any,
        result: dict[str, Any],
    ) -> str:
        """An epoch that is not a trial's last one, or a sign of life before the first."""
        if GROUP in result:
            self._groups.claim(trial.trial_id, result[GROUP])
        if RESULT not in result:
            return str(FIFOScheduler.CONTINUE)
        continues = self._agenda.heard(_name(trial), decode_result(json.loads(result[RESULT])))
        return str(FIFOScheduler.CONTINUE if continues else FIFOScheduler.STOP)

    def on_trial_complete(
        self,
        tune_controller: Any,  # noqa: ARG002
        trial: Any,
        result: dict[str, Any],
    ) -> None:
        """The last result of a trial, or the result at which the agenda stopped it."""
        self._groups.release(trial.trial_id)
        last = decode_result(json.loads(result[RESULT])) if RESULT in result else None
        if last and last.done:
            self._agenda.heard(_name(trial), last)
        elif self._agenda.runs(_name(trial)):
            self._agenda.lost(_name(trial), "its worker died")

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:  # noqa: ARG002
        """A worker that died; Tune writes what it knows about that into a file.

        Where the agenda raised in `on_trial_complete`, it does not know the trial any more: it
        raises again here, and so out of Tune.
        """
        self._groups.release(trial.trial_id)
        file = Path(trial.error_file or "")
        text = file.read_text() if file.is_file() else ""
        if away := AWAY.search(text):  # the driver ends, and all resume
            raise BucketAway(away[1].strip())
        death = _death(text)
        self._agenda.lost(_name(trial), self._silent.get(trial.trial_id, death))

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:  # noqa: ARG002
        """A trial that Tune stopped before it had a worker."""
        self._agenda.lost(_name(trial), "its worker died")


class _Watch(_Stateless, Callback):  # type: ignore[misc]
    """Looks after the run between events: was a stop asked for, is Ray alive, does a trial hang?

    Tune would wait without end for a dead raylet of this machine, or for a worker that hangs.
    """

    def __init__(
        self, agenda: Agenda, resources: Resources, silent: dict[str, str], groups: Groups
    ) -> None:
        self._agenda = agenda
        self._groups = groups if resources.spread > 1 else None
        self._minutes = resources.timeout
        self._silent = silent
        self._node = ray.get_runtime_context().get_node_id()
        self._looked = time.monotonic()
        self._clock = 0.0
        self._signs: dict[str, float] = {}
        self._overdue: set[str] = set()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:  # noqa: ARG002
        signals.check()
        pause = time.monotonic() - self._looked
        if pause < EVERY:
            return
        self._looked += pause
        self._clock += min(pause, LOOK)
        if self._groups is not None:
            self._groups.look(self._clock)
        if self._minutes is not None:
            self._end_overdue(self._minutes, trials)
        if not any(node["Alive"] for node in ray.nodes() if node["NodeID"] == self._node):
            raise ConnectionError("the raylet of the driver's machine died")

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002
        trials: list[Any],  # noqa: ARG002
        trial: Any,
        result: dict[str, Any],  # noqa: ARG002
        **info: Any,  # noqa: ARG002
    ) -> None:
        """A sign of life from a worker."""
        self._signs[trial.trial_id] = self._clock

    def _end_overdue(self, minutes: float, trials: list[Any]) -> None:
        """End the worker of a trial that trains too long, or that gives no sign for so long.

        The first has failed. The second may be innocent: its worker is frozen, or its machine has
        lost its disk; so it is lost, and served again.
        """
        for trial in trials:
            start, actor = trial.trial_id, trial.temporary_state.ray_actor
            if actor is None or trial.is_finished() or start in self._overdue:
                continue
            sign = self._signs.setdefault(start, self._clock)
            if self._agenda.trained(_name(trial)) > 60 * minutes:
                self._agenda.overdue(_name(trial), f"took longer than {minutes:g} minutes")
            elif self._clock - sign > max(60 * minutes, SILENCE):
                silence = (self._clock - sign) / 60
                self._silent[start] = f"its worker was silent for {silence:.2g} minutes"
            else:
                continue
            self._overdue.add(start)
            ray.kill(actor)


def _survive_memory_monitor(manager: Any) -> None:
    """Let Tune take a worker that Ray's memory monitor ended as one that died.

    Tune knows Ray's other errors; by this one it would end the whole run.
    """
    failed = manager._actor_task_failed

    def failed_or_died(tracked_actor_task: Any, exception: Exception) -> None:  # Ray's own names
        if isinstance(exception, OutOfMemoryError):
            words = " ".join(str(exception).split())[:200]
            exception = RayActorError(error_msg=f"The actor died for lack of memory: {words}")
        failed(tracked_actor_task, exception)

    manager._actor_task_failed = failed_or_died


def _name(trial: Any) -> str:
    """The name that we gave to one of Tune's trials."""
    return str(trial.config["trial"])


def _death(error: str) -> str:
    """What Ray says about a worker's end, in a line."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    reasons = [line for line in lines if line.startswith(("The actor died", "Worker exit detail"))]
    reasons = reasons or [line for line in lines if "Error: " in line][-1:] or lines[-1:]
    return f"its worker died: {' '.join(reasons)}"[:500]
