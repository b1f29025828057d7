"""Tables of curves with a known truth, for the tests of simulations."""

import json
from typing import Any

import numpy as np
import pandas as pd

from methods.api import Task
from orchestrator.record.provenance import provenance
from orchestrator.search.replay.curves import COLUMNS, Table
from orchestrator.study.file import Study
from orchestrator.study.space import spaces

EPOCHS = 6
STUDY = Study.model_validate(
    {
        "name": "synthetic",
        "data": "digits",
        "budgets": [0.5, 2],
        "recipe": {"epochs": EPOCHS, "lr": {"low": 0.01, "high": 1, "log": True}},
        "methods": {
            "dense": {"depth": 8, "width": {"low": 0.25, "high": 1.0, "step": 0.125}},
            "condconv": {
                "depth": 8,
                "width": {"low": 0.25, "high": 1.0, "step": 0.125},
                "experts": {"choices": [2, 4]},
                "placement": "all",
                "head": False,
            },
        },
        "search": {"trials": 8, "sampler": "random"},
    }
)


def rows(method: str, number: int, params: dict[str, Any], noise: Any) -> list[dict[str, Any]]:
    """One trial: wide networks end better, learn slower and cost more; one rate is the best."""
    width, rate = params["width"], params["recipe.lr"]
    last = 0.02 + 0.05 * (1 - width) + 0.04 * np.log10(rate / 0.1) ** 2
    fall = np.exp(-np.arange(1, EPOCHS + 1) / (1 + width))
    errors = np.clip((last + 0.5 * fall) * np.exp(noise.normal(0, 0.05, EPOCHS)), 0.001, 0.9)
    macs = 8e5 * width**2 * (params.get("experts", 1) ** 0.1)
    return [
        {
            "trial": f"{method}-{number:05d}",
            "method": method,
            "role": "search",
            "seed": 0,
            "state": "COMPLETE",
            "params": json.dumps(params),
            "floor_macs": macs,
            "step": step,
            "epochs": EPOCHS,
            "val_acc": 1 - errors[step - 1],
            "val_loss": errors[step - 1],
            "macs_mean": macs,
            "seconds": 1 + width,
            "final_acc": 1 - errors[-1],
            "final_macs": macs,
            "trial_seconds": EPOCHS * (1.1 + width),
        }
        for step in range(1, EPOCHS + 1)
    ]


def synthetic(trials: int = 16) -> Table:
    """A whole table of two methods."""
    found = spaces(STUDY)
    noise = np.random.default_rng(0)
    content = [
        row
        for method, space in found.items()
        for number in range(trials)
        for row in rows(method, number, space.at(noise.random(len(space.free)).tolist()), noise)
    ]
    frame = pd.DataFrame(content, columns=list(COLUMNS)).astype(COLUMNS)
    frame = frame.sort_values(["trial", "step"], ignore_index=True)
    return Table(
        frame,
        STUDY,
        {name: dict(space.free) for name, space in found.items()},
        {name: dict(space.fixed) for name, space in found.items()},
        provenance(STUDY, Task("digits", 1, 8, 8, 10), 360),
    )
