"""One trial on several workers: Ray Train runs them, and an actor of Tune's speaks for them.

Each worker runs the trial as one alone would (`orchestrator.trial.run`), on its part of every
batch. The first sends the results to the actor, whose steps hand them to Tune. Train starts the
workers all at once or not at all, in a placement group, with torch's process group between them. A
worker that dies ends the others, and the trial is lost and served again.

However a trial ends, the driver of the sweep removes its placement group, and with it what is left
of its workers: Ray keeps a group for as long as its job runs, whoever made it.
"""

import json
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.util import get_current_placement_group, placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.queue import Empty, Queue

from methods.errors import BucketAway, PeerLost
from methods.machine import tune_allocator
from methods.parallel import rank
from orchestrator.record.result import encode_result
from orchestrator.study.sections import Resources
from orchestrator.sweep.memory import watched
from orchestrator.sweep.shared import get
from orchestrator.sweep.worker import RESULT, SHARED, Trial, job_of
from orchestrator.trial.run import results

CREW = "crew"
"""Where a configuration of Tune's says what the workers of a trial need."""
STORAGE = "fsspec+memory:///train"
"""Where Train keeps its files: the memory of its controller, which alone tries that place with one
empty file. Trials write their own checkpoints, so that no node has to see it."""
NEWS = "news"
"""Where a worker finds the queue for its results."""
GROUP = "group"
"""Where a result of Tune's names the placement group of a trial's workers, once they are there."""
UNCLAIMED = 300.0
"""Seconds for which a placement group may have no trial: its actor may have died as it began."""
LOOK = 5.0
"""Seconds between two looks at workers that say nothing."""
PATIENCE = 24 * 3600
"""Seconds that a worker waits for the others: whether they are silent is watched elsewhere."""


@dataclass(frozen=True)
class Crew:
    """The workers of one trial."""

    workers: int
    cpu: float
    """CPU cores of each."""
    gpu: float
    """GPUs of each, 0 or 1."""

    @classmethod
    def of(cls, resources: Resources) -> "Crew":
        return cls(resources.spread, resources.cpu, resources.worker_gpu)


class Spread(Trial):
    """Tune's actor for a trial on several workers; one step is one result of the first of them."""

    def setup(self, config: dict[str, Any]) -> None:
        """Starts the workers, as soon as Ray has what they need."""
        crew: Crew = config[CREW]
        self._news = Queue(actor_options={"num_cpus": 0})
        self._begun = False
        self._failure: BaseException | None = None
        trainer = _Trainer(
            work,
            train_loop_config={**config, NEWS: self._news},
            torch_config=TorchConfig(timeout_s=PATIENCE),
            scaling_config=ray.train.ScalingConfig(
                num_workers=crew.workers,
                use_gpu=crew.gpu > 0,
                resources_per_worker={"CPU": crew.cpu, **({"GPU": 1} if crew.gpu else {})},
            ),
            run_config=ray.train.RunConfig(name=f"train-{self.trial_id}", storage_path=STORAGE),
        )
        self._train = threading.Thread(target=self._run, args=(trainer,), daemon=True, name="train")
        self._train.start()

    def reset_config(self, new_config: dict[str, Any]) -> bool:  # noqa: ARG002
        """No second trial: the controller of the workers ends with this actor."""
        return False

    def step(self) -> dict[str, Any]:
        """The next epoch's result; nothing but a sign of life until all workers are there.

        Raises:
            PeerLost: a worker died; the message says why.
        """
        while True:
            alive = self._train.is_alive()
            try:
                news = self._news.get(timeout=LOOK if alive else 0.1)
            except Empty:
                if not alive:
                    raise PeerLost(self._end()) from None
                if self._begun:
                    continue
                return {"done": False}
            self._begun = True
            return dict(news)

    def _run(self, trainer: TorchTrainer) -> None:
        try:
            trainer.fit()
        except BaseException as error:  # `step` raises it in its own thread
            self._failure = error

    def _end(self) -> str:
        """Why the workers ended without a last result, in a line."""
        reason = str(self._failure or "they ended without a last result")
        lines = [line.strip() for line in reason.splitlines() if line.strip()]
        away = [line for line in lines if f"{BucketAway.__name__}: " in line]
        deaths = [line for line in lines if line.startswith(("The actor died", "Worker exit"))]
        return f"a worker of the trial died: {' '.join(away or deaths or lines[-1:])}"[:500]


class _Trainer(TorchTrainer):  # type: ignore[misc]
    """Without Train's own cleaner of placement groups, which outlives a run where Ray has no
    dashboard to ask."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [each for each in callbacks if not isinstance(each, PlacementGroupCleanerCallback)]


class Groups:
    """The placement groups of the trials that run, as the sweep's driver knows them."""

    def __init__(self) -> None:
        self._claimed: dict[str, str] = {}
        self._since: dict[str, float] = {}

    def claim(self, trial: str, group: str) -> None:
        """The workers of a trial are in this group; `trial` is Tune's identifier."""
        self._claimed[trial] = group

    def release(self, trial: str) -> None:
        """Remove a trial's group, if it has one, and end the workers in it."""
        if group := self._claimed.pop(trial, None):
            self._remove(group)

    def look(self, clock: float) -> None:
        """Remove groups that no trial has claimed for long; `clock` is in seconds."""
        waiting = {
            group
            for group, state in placement_group_table().items()
            if state["state"] == "CREATED"
            and any("CPU" in bundle for bundle in state["bundles"].values())
        } - set(self._claimed.values())
        self._since = {group: self._since.get(group, clock) for group in waiting}
        for group, since in self._since.items():
            if clock - since > UNCLAIMED:
                self._remove(group)

    def _remove(self, group: str) -> None:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(group)))


def work(config: dict[str, Any]) -> None:
    """One worker of a trial: all its results; the first sends them, any a failure."""
    tune_allocator()
    job, news = job_of(config), config[NEWS]
    torch.set_num_threads(job.settings.threads)
    first = rank() == 0
    if first:
        news.put({"done": False, GROUP: get_current_placement_group().id.hex()})
    trial = results(job, partial(get, job.settings, config.get(SHARED)))
    done = False
    while not done:
        with watched():
            result = next(trial)
        done = result.done
        failed = result.ending is not None and result.ending.state != "COMPLETE"
        if first or failed:
            news.put({"done": done, RESULT: json.dumps(encode_result(result))})
    while failed:
        time.sleep(LOOK)  # the others wait for this one, until the actor ends them all
