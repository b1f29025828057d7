"""Ray's worker: a trial as Tune's trainable. It imports only what a trial needs."""

import json
from functools import partial
from typing import Any

import torch
from ray import tune

from methods.machine import tune_allocator
from orchestrator.record.result import encode_result
from orchestrator.sweep.shared import held
from orchestrator.trial.run import results

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
