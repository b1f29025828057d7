"""Points spread over a space, and what they cost in MACs and milliseconds, untrained."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from methods.api import Images, Method, Task
from methods.errors import MethodError
from methods.shipping.layers import Layers
from methods.values import Params, Scalar
from orchestrator.search.samplers import spread_over
from orchestrator.study.file import Study
from orchestrator.study.space import Space

SAMPLES = 64
"""Number of points of each space whose least cost is computed."""
BUILT = 16
"""Largest number of samples whose networks are built and priced."""


@dataclass(frozen=True)
class Sample:
    """A point of a space that its method takes, and the least MACs that it can cost."""

    searched: Params
    method: Method
    floor: int


@dataclass(frozen=True)
class Reach:
    """Predicted milliseconds of some samples of a space; see `plan.MethodPlan`."""

    least: float
    most: float | None
    fits: tuple[float, ...]


def reach(
    table: Layers | None,
    smallest: Sequence[Method],
    samples: Sequence[Method],
    budgets: Sequence[float],
    share: float,
) -> Reach:
    """The predicted times of these samples, which stand for a `share` of all; NaN where nothing can
    be predicted."""
    if table is None:
        return Reach(math.nan, None, (math.nan,) * len(budgets))
    times = [table.least_ms(method) for method in samples]
    return Reach(
        least=min([*map(table.least_ms, smallest), *times]),
        most=max(times, default=None),
        fits=tuple(
            share * sum(ms <= budget for ms in times) / max(1, len(times)) for budget in budgets
        ),
    )


def sampled(study: Study, space: Space) -> list[dict[str, Scalar]]:
    """Points spread over a space: those that its search starts from, and those that follow them."""
    return spread_over(space, study, 0, SAMPLES)


def accepted(space: Space, places: Sequence[Params], task: Task) -> list[Sample]:
    """The places that the method takes, cheapest first."""
    samples = []
    for searched in places:
        try:
            method = space.method_at(searched)
            samples.append(Sample(searched, method, method.floor(task)))
        except MethodError:
            continue
    return sorted(samples, key=lambda sample: sample.floor)


def spread(samples: Sequence[Sample]) -> list[Sample]:
    """At most `BUILT` of the samples, evenly spaced, both ends included."""
    if len(samples) <= BUILT:
        return list(samples)
    return [samples[round(place)] for place in np.linspace(0, len(samples) - 1, BUILT)]


def price(method: Method, task: Task, images: Images, device: str) -> int:
    """The most that one of these images costs at any operating point of a fresh network."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(0)
        net = method.build(task).to(device)
        views = [view for phase in method.phases() for view in phase.points(net).values()]
        return max(int(view.eval()(images.to(device)).macs.max()) for view in views)
