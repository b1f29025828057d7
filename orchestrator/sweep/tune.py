"""Ray Tune's part: three adapters by which Tune drives an agenda.

Ray is told nothing that it would have to remember. The history behind the agenda is the state, and
a trial whose worker died is a new trial to Tune.
"""

import itertools
import json
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import Callback, CheckpointConfig, FailureConfig, RunConfig, TuneConfig, Tuner
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from orchestrator.record.events import Planned
from orchestrator.record.ledger import Ledger
from orchestrator.record.result import decode_result
from orchestrator.record.trials import Ticket
from orchestrator.search.agenda import DONE, Agenda
from orchestrator.study.file import Resources
from orchestrator.study.params import derive
from orchestrator.sweep import signals
from orchestrator.sweep.shared import Handle
from orchestrator.sweep.worker import RESULT, SHARED
from orchestrator.trial.job import Job, Settings, encode_job

LEG = 1_000
"""Trials of one Tuner: a trial costs it more among more, so a long sweep is a row of Tuners."""
ROUNDS = 50
"""Trials of one Tuner for each that runs at once, at least: its last ones leave workers idle."""


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

    Every worker is sent `settings` beside its trial, and maps `data` from the object store.
    """
    resources = ledger.study.resources
    trial = tune.with_resources(trainable, {"cpu": resources.cpu, "gpu": resources.gpu})
    leg = max(LEG, ROUNDS * slots)
    for number in itertools.count():
        tuner = Tuner(
            trial,
            tune_config=TuneConfig(
                search_alg=_Searcher(agenda, ledger, settings, data),
                scheduler=_Scheduler(agenda, slots),
                num_samples=leg,
                max_concurrent_trials=slots,
                reuse_actors=True,
            ),
            run_config=RunConfig(
                name=f"tune-{number}",
                storage_path=scratch,
                verbose=0,
                callbacks=[_Watch(agenda, resources)],
                failure_config=FailureConfig(max_failures=0),  # the agenda serves them again
                # trials keep their own
                checkpoint_config=CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        if len(tuner.fit()) < leg or agenda.finished:
            return


class _Stateless:
    """Tune pickles its parts for a restore that nobody asks for: the history is the state."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Searcher(_Stateless, Searcher):  # type: ignore[misc]
    """Asks the agenda for trials; how they fare is heard by the scheduler, which hears more."""

    def __init__(
        self, agenda: Agenda, ledger: Ledger, settings: Settings, data: Handle | None
    ) -> None:
        super().__init__()
        self._agenda = agenda
        self._ledger = ledger
        self._settings = settings
        self._data = data

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # noqa: ARG002
        """The next trial's configuration, None to wait, or FINISHED."""
        ticket = self._agenda.next()
        if not isinstance(ticket, Ticket):
            return str(Searcher.FINISHED) if ticket is DONE else None
        if ticket.role == "confirm":
            self._ledger.announce(Planned(self._agenda.confirms))
        seed = derive(self._ledger.study, ticket.config, ticket.seed)
        job = Job(ticket.trial, ticket.method, ticket.params, ticket.role, seed, self._settings)
        return {**encode_job(job), SHARED: self._data}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: the scheduler has heard it."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: the scheduler has heard it."""

    def save(self, checkpoint_path: str) -> None:
        """An empty file, which Tune looks for."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class _Scheduler(_Stateless, FIFOScheduler):  # type: ignore[misc]
    """Tells the agenda what becomes of trials, and stops those that it gives up.

    And keeps idle workers: where the agenda waits for a trial, Tune would end them, and then hand
    each worker that comes free to the trial that a new one was being started for; trials shorter
    than that start leave a slot idle for the rest of the sweep.
    """

    def __init__(self, agenda: Agenda, slots: int) -> None:
        super().__init__()
        self._agenda = agenda
        self._idle = slots

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        if self._idle:  # Tune has no setting for it
            cache = tune_controller._tune_controller._actor_cache
            cache.increase_max(trial.placement_group_factory, self._idle)
            self._idle = 0
        super().on_trial_add(tune_controller, trial)

    def on_trial_result(
        self,
        tune_controller: Any,  # noqa: ARG002
        trial: Any,
        result: dict[str, Any],
    ) -> str:
        """An epoch that is not a trial's last one."""
        continues = self._agenda.heard(_name(trial), decode_result(json.loads(result[RESULT])))
        return str(FIFOScheduler.CONTINUE if continues else FIFOScheduler.STOP)

    def on_trial_complete(
        self,
        tune_controller: Any,  # noqa: ARG002
        trial: Any,
        result: dict[str, Any],
    ) -> None:
        """The last result; or one that was heard, of a trial that the agenda stopped."""
        last = decode_result(json.loads(result[RESULT])) if RESULT in result else None
        if last and last.done:
            self._agenda.heard(_name(trial), last)
        elif self._agenda.runs(_name(trial)):
            self._agenda.lost(_name(trial), "its worker died")

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:  # noqa: ARG002
        """A worker that died; Tune keeps what it knows of that in a file.

        Or the agenda raised in `on_trial_complete`: then it does not know this trial any more, and
        raises again, out of Tune.
        """
        file = Path(trial.error_file or "")
        self._agenda.lost(_name(trial), _death(file.read_text() if file.is_file() else ""))

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:  # noqa: ARG002
        """A trial that was stopped before it had a worker."""
        self._agenda.lost(_name(trial), "its worker died")


class _Watch(_Stateless, Callback):  # type: ignore[misc]
    """Looks after the run between events: is a stop asked for, is Ray alive, is a trial overdue?

    Tune would wait for ever for a raylet of this machine that died, or for a trial that hangs.
    """

    def __init__(self, agenda: Agenda, resources: Resources) -> None:
        self._agenda = agenda
        self._minutes = resources.timeout
        self._node = ray.get_runtime_context().get_node_id()
        self._asked = 0.0
        self._began: dict[str, float] = {}
        self._ended: set[str] = set()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:  # noqa: ARG002
        signals.check()
        now = time.monotonic()
        if self._minutes is not None:
            self._end_overdue(now, self._minutes, trials)
        if now - self._asked < 2:
            return
        self._asked = now
        if not any(node["Alive"] for node in ray.nodes() if node["NodeID"] == self._node):
            raise ConnectionError("the raylet of the driver's machine died")

    def _end_overdue(self, now: float, minutes: float, trials: list[Any]) -> None:
        """End the workers of trials that take too long, be they at work or hanging."""
        for trial in trials:
            start, actor = trial.trial_id, trial.temporary_state.ray_actor
            if actor is None or trial.is_finished() or start in self._ended:
                continue
            if start not in self._began:
                self._began[start] = now - self._agenda.trained(_name(trial))
            if now - self._began[start] > 60 * minutes:
                self._ended.add(start)
                self._agenda.overdue(_name(trial), f"took longer than {minutes:g} minutes")
                ray.kill(actor)


def _name(trial: Any) -> str:
    """Our name of one of Tune's trials."""
    return str(trial.config["trial"])


def _death(error: str) -> str:
    """What Ray says of a worker's end, in a line."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("The actor died", "Worker exit detail"))]
    told = told or [line for line in lines if "Error: " in line][-1:] or lines[-1:]
    return f"its worker died: {' '.join(told)}"[:500]
