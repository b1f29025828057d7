"""Timing of calls in turns: latencies, and races between forms."""

import contextlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from methods.api import Images
from methods.training.evaluate import evaluating

LEAST = 5
"""Minimal number of measured rounds."""
HOPELESS = 1.5
"""A form drops out once its fastest call takes this many times the fastest call of all."""
ROUNDS = range(3, 40)
"""Minimal number of rounds of a race, and the first number that is too many."""
PATIENCE = 0.1
"""Seconds after which a race ends, once it has the minimal number of rounds."""
Clock = Callable[[], float]
"""Seconds, from any origin."""


@dataclass(frozen=True)
class Latency:
    """Seconds per call: the median over the rounds, and the interquartile range."""

    median: float
    spread: float
    p95: float
    """95th percentile of the single calls."""
    calls: int


def steady(device: torch.device) -> Clock:
    """The thread's processor time if one thread computes, so that other processes matter little;
    else wall time."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.thread_time if alone else time.perf_counter


def latencies(
    modules: Sequence[nn.Module],
    batches: Sequence[Images],
    *,
    rounds: int = 25,
    warmup: int = 3,
    seconds: float = 10.0,
    clock: Clock = time.perf_counter,
) -> list[Latency]:
    """Time of one call of each module, in turns, so that a drift of the machine affects all.

    A round calls every module on every batch and takes the mean over the batches; the first
    `warmup` rounds do not count, and each call is awaited. No round starts after `seconds`, except
    the first five. The batches must lie on the device of the modules. By default it is wall time.
    """
    times: list[list[list[float]]] = [[] for _ in modules]
    began = time.perf_counter()
    with contextlib.ExitStack() as stack:
        for module in modules:
            stack.enter_context(evaluating(module))
        for round_ in range(-warmup, rounds):
            if round_ >= LEAST and time.perf_counter() - began > seconds:
                break
            order = range(len(modules))
            for index in order if round_ % 2 else reversed(order):
                calls = [_elapsed(modules[index], images, clock) for images in batches]
                if round_ >= 0:
                    times[index].append(calls)
    return [_latency(np.array(rounds)) for rounds in times]


def _latency(seconds: Float[np.ndarray, "rounds batches"]) -> Latency:
    low, median, high = np.quantile(seconds.mean(1), (0.25, 0.5, 0.75))
    p95 = np.quantile(seconds, 0.95, method="inverted_cdf")
    return Latency(float(median), float(high - low), float(p95), seconds.size)


def _elapsed(module: nn.Module, images: Images, clock: Clock) -> float:
    """Seconds of one call."""
    wait(images.device)
    began = clock()
    module(images)
    wait(images.device)
    return clock() - began


def wait(device: torch.device) -> None:
    """Wait until a GPU has finished its work; a CPU needs no wait."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def race(calls: Mapping[str, Callable[[], object]], clock: Clock) -> dict[str, float]:
    """Median seconds of each call, timed in turns; calls that are far slower drop out.

    The first call of each does not count.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    running, began = list(calls), clock()
    for round_ in range(-1, ROUNDS.stop - 1):
        if round_ >= ROUNDS.start and clock() - began > PATIENCE:
            break
        for name in running if round_ % 2 else reversed(running):
            start = clock()
            calls[name]()
            if round_ >= 0:
                times[name].append(clock() - start)
        if round_ >= 0:
            least = min(min(seconds) for seconds in times.values())
            running = [name for name in running if min(times[name]) <= HOPELESS * least]
    return {name: statistics.median(seconds) for name, seconds in times.items()}
