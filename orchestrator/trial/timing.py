"""How long a trial will take, extrapolated from a few real steps of each of its phases."""

import contextlib
import functools
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from methods.api import Method, Phase
from methods.data.load import Data, Split
from methods.data.splits import count_batches
from methods.machine import tune_allocator
from methods.training.evaluate import evaluate
from methods.training.loop import plan_epochs, train
from methods.training.recipe import Recipe
from orchestrator.record.provenance import Clock
from orchestrator.trial.measure import measure

EPOCHS = 3
"""Short epochs per phase: one warms up, one is timed, one shows what the phase's end costs."""
VALIDATION = 256
"""Validation images that an evaluation is timed on, at most."""


@dataclass(frozen=True)
class Timing:
    """A whole trial's time, extrapolated."""

    seconds: float
    """Training, an evaluation per epoch, and the operating points of every phase."""
    test_seconds: float
    """Seconds that reading the test split adds."""
    steps: int
    """Optimiser steps that were run to measure it."""


def time_trial(
    method: Method,
    recipe: Recipe,
    data: Data,
    *,
    steps: int,
    seed: int,
    device: str,
    batch: int | None = None,
) -> Timing:
    """Trains through every phase on a small part of the data, in short epochs, and scales up.

    With a `batch` the operating points are timed in calls on so many images, too.

    Loop, loss, evaluation and proof of the price are those of a real trial. Reading and writing
    checkpoints is left out.

    Raises:
        Diverged: a loss that is not finite in these few steps.
    """
    tune_allocator()  # as a worker does
    phases = method.phases(recipe.label_smoothing)
    clock = None if batch is None else Clock(1.0, batch, device, torch.get_num_threads())
    few = small(data, phases, recipe.batch_size, steps)
    short = recipe.model_copy(update={"epochs": _short(phases)})
    planned = {
        phase.name: stop - start for phase, start, stop in plan_epochs(phases, recipe.epochs)
    }
    pass_scale = len(data.train) / len(few.train)
    step_scale = _steps(data, recipe) / _steps(few, recipe)
    seconds = test_seconds = 0.0
    spent: list[float] = []
    with quiet():
        for epoch in train(method, few, short, seed=seed, device=device):
            spent.append(epoch.seconds)
            if not epoch.phase_done:
                continue
            views = epoch.points()
            evaluation = _clocked(
                functools.partial(evaluate, epoch.net, few.validation, device=device)
            )
            ending = _clocked(
                functools.partial(
                    measure, method, views, epoch.phase, few, device, test=False, clock=clock
                )
            )
            per_image = evaluation / len(few.validation)
            whole = per_image * len(data.validation)
            proof = max(0.0, ending - len(views) * evaluation)
            ordinary, finish = _split(spent)
            seconds += planned[epoch.phase] * (ordinary * step_scale + whole)
            seconds += finish * pass_scale + len(views) * whole + proof
            test_seconds += len(views) * per_image * len(data.test)
            spent = []
    return Timing(seconds, test_seconds, short.epochs * _steps(few, recipe))


def small(data: Data, phases: Sequence[Phase[Any]], batch_size: int, steps: int) -> Data:
    """A part of the data that holds `steps` batches, and at least one in each phase's part."""
    narrowest = min(phase.part[1] - phase.part[0] for phase in phases)
    samples = batch_size * max(steps, math.ceil(1 / narrowest))
    return replace(
        data, train=_first(data.train, samples), validation=_first(data.validation, VALIDATION)
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside the block nothing is logged: warnings about a throw-away network help no one."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _split(spent: Sequence[float]) -> tuple[float, float]:
    """Seconds of an ordinary epoch of a phase, and what the phase's end adds to its last one."""
    ordinary = float(np.median(spent[1:-1] or spent[:1]))
    return ordinary, max(0.0, spent[-1] - ordinary)


def _short(phases: Sequence[Phase[Any]]) -> int:
    """The fewest epochs that give every phase `EPOCHS`."""
    return next(
        epochs
        for epochs in itertools.count(EPOCHS * len(phases))
        if min(stop - start for _, start, stop in plan_epochs(phases, epochs)) >= EPOCHS
    )


def _first(split: Split, samples: int) -> Split:
    """The first samples of a split, about this many, with equal shares of the classes."""
    return split if samples >= len(split) else split.part(0.0, samples / len(split))


def _steps(data: Data, recipe: Recipe) -> int:
    """Optimiser steps per epoch."""
    return count_batches(len(data.train), recipe.batch_size, drop_short=True)


def _clocked(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
