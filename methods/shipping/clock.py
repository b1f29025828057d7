"""Times calls in turns: latencies, and races between forms."""

import contextlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from methods.api import Images
from methods.training.evaluate import evaluating

LEAST = 5
"""Rounds that count, at least."""
HOPELESS = 1.5
"""A form leaves the race once its fastest call takes this many times the fastest call of all."""
ROUNDS = range(3, 40)
"""Rounds of a race, at least and at most."""
PATIENCE = 0.1
"""Seconds after which a race ends, once it has its least rounds."""
Clock = Callable[[], float]
"""Seconds, from any origin."""


@dataclass(frozen=True)
class Latency:
    """Seconds per call: the median of the rounds, and the distance between their quartiles."""

    median: float
    spread: float


def latencies(
    modules: Sequence[nn.Module],
    batches: Sequence[Images],
    *,
    rounds: int = 25,
    warmup: int = 3,
    seconds: float = 10.0,
) -> list[Latency]:
    """Wall time of one call of each module, in turns, so that a drift of the machine meets all.

    A round calls every module on every batch and takes the mean over the batches; the first
    `warmup` rounds do not count. After `seconds` there are no more rounds, but five at least.
    The batches lie on the device of the modules.
    """
    taken: list[list[float]] = [[] for _ in modules]
    began = time.perf_counter()
    with contextlib.ExitStack() as stack:
        for module in modules:
            stack.enter_context(evaluating(module))
        for round_ in range(-warmup, rounds):
            if round_ >= LEAST and time.perf_counter() - began > seconds:
                break
            order = range(len(modules))
            for index in order if round_ % 2 else reversed(order):
                passed = _passed(modules[index], batches)
                if round_ >= 0:
                    taken[index].append(passed / len(batches))
    quartiles = [np.quantile(own, (0.25, 0.5, 0.75)) for own in taken]
    return [Latency(float(median), float(high - low)) for low, median, high in quartiles]


def _passed(module: nn.Module, batches: Sequence[Images]) -> float:
    """Seconds of one call per batch."""
    wait(batches[0].device)
    began = time.perf_counter()
    for images in batches:
        module(images)
    wait(batches[0].device)
    return time.perf_counter() - began


def wait(device: torch.device) -> None:
    """Wait until a GPU has finished its work; a CPU never has any left."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def race(calls: Mapping[str, Callable[[], object]], clock: Clock) -> dict[str, float]:
    """Median seconds of each call, taken in turns; those that fall far behind drop out.

    The first call of each does not count.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    running, began = list(calls), clock()
    for round_ in range(-1, ROUNDS.stop - 1):
        if round_ >= ROUNDS.start and clock() - began > PATIENCE:
            break
        for name in running if round_ % 2 else reversed(running):
            start = clock()
            calls[name]()
            if round_ >= 0:
                taken[name].append(clock() - start)
        if round_ >= 0:
            least = min(min(own) for own in taken.values())
            running = [name for name in running if min(taken[name]) <= HOPELESS * least]
    return {name: statistics.median(own) for name, own in taken.items()}
