"""A study of trials that train nothing, and the one result of each."""

import json
import random
import time
from collections.abc import Mapping
from typing import Any

from ray import tune

from orchestrator.study.file import Study
from orchestrator.sweep.worker import RESULT, job_of

METHODS: Mapping[str, Any] = {
    "dense": {"depth": 8, "width": {"low": 0.25, "high": 1.0}},
    "condconv": {"depth": 8, "width": {"low": 0.25, "high": 1.0}},
}
RATE = {"lr": {"low": 0.01, "high": 1.0, "log": True}}
MOMENTUM = {"momentum": {"low": 0.5, "high": 0.95}}


def study(trials: int, sampler: str) -> Study:
    """A study of about so many trials in all."""
    return Study.model_validate(
        {
            "name": "scale",
            "data": "digits",
            "budgets": [1, 4],
            "recipe": {"epochs": 1, **RATE, **MOMENTUM},
            "methods": METHODS,
            "search": {"trials": max(1, trials // len(METHODS)), "sampler": sampler},
            "confirm": {"seeds": 5},
            "resources": {"cpu": 1},
        }
    )


class Plain(tune.Trainable):  # type: ignore[misc]
    """A trial that reports once and does nothing."""

    def step(self) -> dict[str, Any]:
        return {"done": True, "loss": 0.0}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing."""


class Noop(Plain):
    """A trial of the sweep that reports one epoch and a made-up point at once."""

    def setup(self, config: dict[str, Any]) -> None:
        job = job_of(config)
        self._told = noop_result(job.trial, job.role)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        return {"done": True, RESULT: json.dumps(self._told)}


def noop_result(trial: str, role: str) -> dict[str, Any]:
    """The one result of a no-op trial: figures drawn from its name."""
    draw = random.Random(trial)
    point: dict[str, Any] = {"point": ""}
    for split in ("val", "test") if role == "confirm" else ("val",):
        cost = draw.uniform(2e5, 3e6)
        point |= {f"{split}_acc": draw.uniform(0.2, 0.9), f"{split}_loss": 1.0}
        point |= {f"{split}_macs_{name}": cost for name in ("mean", "p95", "max")}
        point[f"{split}_macs_std"] = 0.0
    names = ("train_loss", "val_acc", "val_loss", "macs_mean_m", "lr", "seconds")
    return {
        "step": 1,
        "time": time.time_ns() // 1_000_000,
        "metrics": {f"curve/{name}": draw.random() for name in names},
        "done": True,
        "end": {
            "state": "COMPLETE",
            "reason": None,
            "seconds": 0.0,
            "points": [point],
            "device": "none",
        },
    }
