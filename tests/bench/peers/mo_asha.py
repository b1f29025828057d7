"""Syne Tune's MO-ASHA with its own settings: random configurations, grace 1, reduction 3.

It stops trials and continues none, so that no epoch runs twice.
"""

import datetime
from typing import Any

from fields import indices, value
from syne_tune import config_space
from syne_tune.backend.trial_status import Trial
from syne_tune.optimizer.scheduler import SchedulerDecision
from syne_tune.optimizer.schedulers.multiobjective import moasha


class MOASHA:
    def __init__(self, space: dict[str, Any], seed: int, trials: int, epochs: int) -> None:
        self.space = space
        self.trials: dict[int, Trial] = {}
        self.scheduler = moasha.MOASHA(
            {name: domain(field) for name, field in space.items()},
            metrics=["error", "macs"],
            time_attr="epoch",
            max_t=epochs,
            random_seed=seed,
        )

    def ask(self, trial: int) -> Any:
        config = self.scheduler.suggest().config
        self.trials[trial] = Trial(trial, config, datetime.datetime.now(datetime.UTC))
        self.scheduler.on_trial_add(self.trials[trial])
        return {name: decoded(field, config[name]) for name, field in self.space.items()}

    def tell(self, **_: Any) -> None:
        """It heard of every epoch."""

    def stop(self, trial: int, epochs: int, error: float, macs: float) -> bool:
        result = {"error": error, "macs": macs, "epoch": epochs}
        decision = self.scheduler.on_trial_result(self.trials[trial], result)
        return decision == SchedulerDecision.STOP


def domain(field: dict[str, Any]) -> Any:
    if field["kind"] == "choice":
        return config_space.choice(list(range(len(field["choices"]))))
    count = indices(field)
    if count is not None:
        return config_space.randint(0, count - 1)
    kinds = {
        ("float", False): config_space.uniform,
        ("float", True): config_space.loguniform,
        ("int", False): config_space.randint,
        ("int", True): config_space.lograndint,
    }
    return kinds[field["kind"], field["log"]](field["low"], field["high"])


def decoded(field: dict[str, Any], own: Any) -> Any:
    return field["choices"][int(own)] if field["kind"] == "choice" else value(field, own)
