"""Ray's worker: a trial as Tune's trainable. It imports only what a trial needs."""

import json
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from ray import tune

from methods.machine import tune_allocator
from orchestrator.record.result import encode_result
from orchestrator.sweep.memory import watched
from orchestrator.sweep.shared import get
from orchestrator.trial.job import Job, decode_job
from orchestrator.trial.run import results

JOB = "job"
"""Where a configuration of Tune's carries a job, as text: Tune copies what is nested many times."""
RESULT = "told"
"""Where a result of Tune's carries ours."""
SHARED = "shared"
"""Where a configuration of Tune's carries Ray's reference to the data set."""


def job_of(config: Mapping[str, Any]) -> Job:
    """The job that a configuration of Tune's carries."""
    return decode_job(json.loads(config[JOB]))


class Trial(tune.Trainable):  # type: ignore[misc]
    """Ray's shell: one step is one result of `results`."""

    def setup(self, config: dict[str, Any]) -> None:
        """A fresh actor's first trial."""
        tune_allocator()
        job = job_of(config)
        torch.set_num_threads(job.settings.threads)
        self._results = results(job, partial(get, job.settings, config.get(SHARED)))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """A used actor's next trial."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The next epoch's result, as text: Tune flattens what is nested."""
        with watched():
            result = next(self._results)
        return {"done": result.done, RESULT: json.dumps(encode_result(result))}

    def train_buffered(self, most: int, seconds: float) -> list[dict[str, Any]]:
        """The results of the next `seconds`, `most` at most, and at least one.

        Tune gives both in this order, its own method takes them in the other one, and so never
        sends two together (Ray 2.60). Its clock is the wall's, too, which may jump.
        """
        results: list[dict[str, Any]] = []
        deadline = time.monotonic() + seconds
        while not results or (time.monotonic() < deadline and len(results) < most):
            results.append(self.train())
            if results[-1]["done"]:
                break
        return results

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: trials keep their own checkpoints, which outlive the driver."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: a trial finds its own checkpoint when it starts."""
