"""Syne Tune's MO-ASHA behind a pipe: one JSON object a line, any number of sessions.

Runs in a separate environment that holds syne-tune; nothing of isoflop is imported. A session
begins with its space, its seed and the length of a trial. `ask` is answered with a configuration,
`tell` with whether the trial stops.
"""

import datetime
import json
import random
import sys
from typing import Any

import numpy as np
from syne_tune import config_space
from syne_tune.backend.trial_status import Trial
from syne_tune.optimizer.scheduler import SchedulerDecision
from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA


def domain(own: dict[str, Any]) -> Any:
    if own["kind"] == "choice":
        return config_space.choice(own["values"])
    make = config_space.loguniform if own["log"] else config_space.uniform
    return make(own["low"], own["high"])


def opened(first: dict[str, Any]) -> MOASHA:
    np.random.seed(first["seed"])  # noqa: NPY002 - it draws from the global ones
    random.seed(first["seed"])
    return MOASHA(
        {name: domain(own) for name, own in first["space"].items()},
        metrics=["error", "macs"],
        time_attr="epoch",
        max_t=first["epochs"],
        random_seed=first["seed"],
    )


def asked(scheduler: MOASHA, trials: dict[int, Trial], number: int) -> dict[str, Any]:
    config = scheduler.suggest().config
    trials[number] = Trial(number, config, datetime.datetime.now(datetime.UTC))
    scheduler.on_trial_add(trials[number])
    return {
        name: value.item() if hasattr(value, "item") else value for name, value in config.items()
    }


def serve() -> None:
    sessions: dict[int, tuple[MOASHA, dict[int, Trial]]] = {}
    for line in sys.stdin:
        message = json.loads(line)
        if "space" in message:
            sessions[message["session"]] = (opened(message), {})
            answer: Any = None
        elif "ask" in message:
            answer = asked(*sessions[message["session"]], message["ask"])
        else:
            scheduler, trials = sessions[message["session"]]
            decision = scheduler.on_trial_result(trials[message["tell"]], message["result"])
            answer = decision == SchedulerDecision.STOP
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
