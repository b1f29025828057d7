"""The best number of trials on one GPU, measured by training that many at once, a process each.

A trial of this size seldom fills a GPU. Several at once do more work together, until they slow each
other down or fill the memory.
"""

import multiprocessing
import queue
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier
from typing import Any, NamedTuple

import torch

from methods.data.load import Reading
from methods.machine import device_name, tune_allocator
from methods.training.engines import Engine, engines
from methods.training.loop import train
from methods.values import Params
from orchestrator.study.params import parts
from orchestrator.trial.timing import small

AT_ONCE = (1, 2, 4, 8)
SECONDS = 3.0
"""Seconds of training for each number of trials at once."""
STEPS = 20
"""Optimiser steps between two looks at the clock."""
PATIENCE = 300.0
"""Seconds that processes have to come up and train."""
ROOM = 0.9
"""Fraction of the device's memory that trials may take together."""
ENOUGH = 0.95
"""Fraction of the best throughput at which no further trials at once are proposed."""


@dataclass(frozen=True, kw_only=True)
class Packing:
    """The throughput of trials at once on one device, and the number that is proposed."""

    device: str
    method: str
    """The method whose trial was trained, at its defaults."""
    throughput: Mapping[int, float]
    """Trials at once -> training samples per second, all together."""
    memory: float
    """Fraction of the device's memory that one trial takes."""
    trials: int
    """Proposed number of trials at once on one device."""
    engines: Mapping[Engine, float | None] = field(default_factory=dict)
    """Training samples per second of one trial by each other engine (`recipe.engine`); None where
    it does not train."""

    @property
    def engine(self) -> Engine:
        """The proposed engine: `eager` unless another is faster by more than a twentieth."""
        rates: dict[Engine, float] = {"eager": self.throughput[1] / ENOUGH}
        rates |= {name: rate for name, rate in self.engines.items() if rate is not None}
        return max(rates, key=rates.__getitem__)


class Trial(NamedTuple):
    """The trial that is trained, as names and numbers that can be sent to other processes."""

    method: str
    params: Params
    data: Reading
    seed: int


def packing(
    trial: Trial, device: str, *, at_once: Sequence[int] = AT_ONCE, seconds: float = SECONDS
) -> Packing | None:
    """Trains ever more trials at once until the memory is full; None if not even one trains."""
    throughput: dict[int, float] = {}
    memory = 0.0
    for count in at_once:
        if count * memory > ROOM:
            break
        before = _used(device)
        measurements = _beside(trial, device, count, seconds)
        if measurements is None:
            break
        throughput[count] = sum(rate for rate, _ in measurements)
        memory = memory or max(0.0, max(used for _, used in measurements) - before) / count
    if not throughput:
        return None
    _, *others = engines(torch.device(device))
    by_engine = {engine: _rate(trial, device, engine, seconds) for engine in others}
    return Packing(
        device=device_name(device),
        method=trial.method,
        throughput=throughput,
        memory=memory,
        trials=choose(throughput),
        engines=by_engine,
    )


def choose(throughput: Mapping[int, float]) -> int:
    """The fewest trials at once that train at nearly the best throughput."""
    wanted = ENOUGH * max(throughput.values())
    return min(count for count, rate in throughput.items() if rate >= wanted)


def _beside(
    trial: Trial, device: str, count: int, seconds: float
) -> list[tuple[float, float]] | None:
    """Samples per second and the device's memory in use, by each process; None if one failed."""
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(count), context.Queue()
    processes = [
        context.Process(target=_work, args=(trial, device, seconds, barrier, answers), daemon=True)
        for _ in range(count)
    ]
    for process in processes:
        process.start()
    try:
        measurements = [answers.get(timeout=PATIENCE) for _ in processes]
    except queue.Empty:
        return None
    finally:
        for process in processes:
            process.kill()
            process.join()
    return None if None in measurements else measurements


def _rate(trial: Trial, device: str, engine: Engine, seconds: float) -> float | None:
    """Samples per second of one trial by another engine, compiled before the clock starts."""
    other = trial._replace(params={**trial.params, "recipe.engine": engine})
    measured = _beside(other, device, 1, seconds)
    return None if measured is None else measured[0][0]


def _work(trial: Trial, device: str, seconds: float, barrier: Barrier, answers: Any) -> None:
    """One process: answers with its figures, None without room; stays until all have answered."""
    try:
        answers.put(_trained(trial, device, seconds, barrier))
        barrier.wait(PATIENCE)
    except Exception:
        answers.put(None)
        barrier.abort()


def _trained(trial: Trial, device: str, seconds: float, barrier: Barrier) -> tuple[float, float]:
    """Short epochs of the first phase, timed from when every process is at work."""
    tune_allocator()
    torch.set_num_threads(1)
    method, recipe = parts(trial.method, trial.params)
    phases = method.phases(recipe.label_smoothing)
    data = small(trial.data.load(device=device), phases, recipe.batch_size, STEPS)
    longer = recipe.model_copy(update={"epochs": 1_000_000})
    epochs = train(method, data, longer, seed=trial.seed, device=device)
    next(epochs)
    barrier.wait(PATIENCE)
    began, samples = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        next(epochs)
        samples += len(data.train)
    return samples / (time.perf_counter() - began), _used(device)


def _used(device: str) -> float:
    """Fraction of the device's memory that all processes together use."""
    if not device.startswith("cuda"):
        return 0.0
    free, total = torch.cuda.mem_get_info(device)
    return 1 - free / total
