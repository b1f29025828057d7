"""A small study of three methods, and workers that make its trials' figures up."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from methods.api import Task
from orchestrator.record.events import Figures, Metrics, Point
from orchestrator.record.result import Ending, Result
from orchestrator.record.trials import Ticket
from orchestrator.study.file import Study
from orchestrator.study.params import derive

TASK = Task("digits", 1, 8, 8, 10)
METHODS: dict[str, Any] = {
    "dense": {"depth": 8, "width": {"low": 0.25, "high": 1.0}},
    "resrep": {"depth": {"choices": [8, 14]}, "width": {"low": 0.25, "high": 1.0}},
    "condensenet": {"stages": {"choices": ["1-1-1", "2-2-2"]}, "growth": 8},
}


def study(methods: dict[str, Any] | None = None, **changes: Any) -> Study:
    confirm = {"seeds": 2, "unreduced": True} | changes.pop("confirm", {})
    plain = {
        "name": "s",
        "data": "digits",
        "budgets": [0.3, 0.9],
        "recipe": {"epochs": 2, "lr": {"low": 0.01, "high": 0.2, "log": True}},
        "methods": methods or METHODS,
        "search": {"trials": 4, "sampler": "random"},
        "confirm": confirm,
    }
    return Study.model_validate(plain | changes)


def worker(what: Study, ticket: Ticket) -> Iterator[Result]:
    """A trial whose figures follow from its seed; the widest cost most."""
    draw = np.random.default_rng(derive(what, ticket.config, ticket.seed))
    macs = float(draw.uniform(2e5, 6e5))
    figures = Figures(float(draw.uniform(0.6, 0.9)), macs, macs_p95=macs, macs_max=macs)
    point = Point("", figures, figures if ticket.role == "confirm" else None)
    metrics = Metrics(val_acc=figures.accuracy, macs_mean_m=macs / 1e6, seconds=1.0)
    for step in (1, 2):
        ending = Ending("COMPLETE", None, 2.0, (point,), "cpu") if step == 2 else None
        yield Result(step, step, metrics, ending)
