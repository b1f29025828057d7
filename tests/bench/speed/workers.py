"""Trials beside each other, and one after the other in a worker that lives (goals 12 and 13).

By the wall's clock. `python -m tests.bench.speed.workers TRIALS THREADS` trains so many networks
at once in processes of so many threads and tells their images per second, all together.
"""

import functools
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from typing import Any

import torch

from methods.data.load import Data
from methods.dense import Dense
from methods.machine import cores, tune_allocator
from methods.training.loop import train
from methods.training.recipe import Recipe
from orchestrator.study.check import slots_here
from orchestrator.study.sections import Resources
from tests.bench.speed.clock import Clock, Ratio
from tests.bench.speed.goals import Finding, found
from tests.bench.speed.pictures import Pictures

METHOD = Dense(depth=8)
BATCH = 128
STEPS = 8
"""In an epoch."""
EPOCHS = 4
"""The first one warms up."""
ROUNDS = 3


def findings(clock: Clock) -> Iterator[Finding]:
    """Two trials of a thread over one of two; how busy a default sweep is; a warm trial's start."""
    if clock.device.type == "cpu" and cores() >= 2:
        rates = [(_apart(2, 1), _apart(1, 2)) for _ in range(ROUNDS)]
        ratio = Ratio.of(two / one for two, one in rates)
        what = "two trials of a thread over one of two threads"
        yield found("12", what, ratio, least=1.35, stretch=1.6)
        resources = Resources()
        busy = slots_here(resources) * max(1, int(resources.cpu)) / cores()
        what = "threads of a default sweep over cores"
        yield found("12", what, Ratio(busy, busy, busy), most=1.0)
    begun()
    ratios = []
    for _ in range(ROUNDS):
        fresh = _fresh()
        began = time.perf_counter()
        begun()
        ratios.append(fresh / (time.perf_counter() - began))
    what = "a fresh interpreter's first step over a warm worker's"
    yield found("13", what, Ratio.of(ratios), least=30.0)


@functools.cache
def _data() -> Data:
    return Pictures.drawn(32, 8).data()


def begun() -> None:
    """A trial up to its first step and a little further: one epoch of one step."""
    for _ in train(METHOD, _data(), Recipe(epochs=1, batch_size=32), seed=0):
        pass


def _fresh() -> float:
    code = "from tests.bench.speed.workers import begun; begun()"
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def _apart(trials: int, threads: int) -> float:
    command = [sys.executable, "-m", "tests.bench.speed.workers", str(trials), str(threads)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    ended = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(json.loads(ended.stdout.splitlines()[-1]))


def _train(threads: int, together: Barrier, rates: Any) -> None:
    torch.set_num_threads(threads)
    tune_allocator()
    data = Pictures.drawn(BATCH * STEPS, 32).data()
    epochs = train(METHOD, data, Recipe(epochs=EPOCHS, batch_size=BATCH), seed=0)
    next(epochs)
    together.wait()
    began = time.perf_counter()
    for _ in epochs:
        pass
    rates.put((EPOCHS - 1) * STEPS * BATCH / (time.perf_counter() - began))


def _main(trials: int, threads: int) -> None:
    context = multiprocessing.get_context("spawn")
    together, rates = context.Barrier(trials), context.Queue()
    workers = [
        context.Process(target=_train, args=(threads, together, rates)) for _ in range(trials)
    ]
    for worker in workers:
        worker.start()
    total = sum(rates.get(timeout=300) for _ in workers)
    for worker in workers:
        worker.join()
    print(json.dumps(total))  # noqa: T201


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]))
