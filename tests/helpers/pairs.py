"""Trials on two workers of one process group, for tests: what a worker runs, and what it leaves."""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

from methods.api import Method
from methods.condconv.method import CondConv
from methods.condensenet.method import CondenseNet
from methods.data.load import Data, load
from methods.data.splits import Split
from methods.dense import Dense
from methods.dsnet.method import DSNet
from methods.resrep.method import ResRep
from methods.skipnet.method import SkipNet
from methods.training.evaluate import evaluate
from methods.training.loop import Recipe, train
from methods.training.routing import routing

RECIPE = Recipe(epochs=3, batch_size=33, lr=0.02, label_smoothing=0.1)
"""Its batches are odd, so that two workers have different shares of one."""
FULL: dict[str, Any] = {
    **RECIPE.model_dump(),
    "accumulate": 2,
    "clip": 1.0,
    "average": 0.8,
    "crop": "resized",
    "colour": 0.4,
    "mixup": 0.4,
    "warmup": 0.1,
}
"""Everything that a recipe can have at once, for any optimiser."""
SLIM: dict[str, Any] = {
    "depth": 8,
    "width": 0.25,
    "choices": 3,
    "routing_start": 0,
    "routing_size": 3,
}
TRIALS: dict[str, Method] = {
    "dense": Dense(depth=8, width=0.25),
    "group norms": Dense(depth=8, width=0.25, norm="group"),
    "skipnet": SkipNet(depth=8, width=0.25),
    "skipnet, published": SkipNet.published(depth=8, width=0.25, gate="ffgate-2"),
    "skipnet, straight through": SkipNet(depth=8, width=0.25, learning="straight-through"),
    "dsnet": DSNet(**SLIM, sgs_weight=0.5),
    "dsnet, gumbel": DSNet(**SLIM, target=0.0, teacher="largest", held_out=0.5),
    "condensenet": CondenseNet(
        stages="2-2", growth=8, condense_factor=4, groups=4, lasso=1e-4, dropout=0.2
    ),
    "condensenet, halved": CondenseNet(
        stages="2-2", growth=8, halve_classifier=True, dropout=0.2, dropout_at="after"
    ),
    "condconv": CondConv(depth=8, width=0.25, experts=3, dropout=0.3, head=True),
    "resrep": ResRep(depth=8, width=0.5, target=0.6, start=0.0, interval=0.1, ramp=0.5),
    "resrep, lasso": ResRep(
        depth=8,
        width=0.5,
        target=0.6,
        start=0.0,
        interval=0.1,
        ramp=0.5,
        proximal=False,
        lasso=0.01,
        compactor_momentum=0.9,
    ),
}
"""Tiny trials of every method, with all that draws random numbers or keeps a state."""

RECIPES: dict[str, Recipe] = {
    "dense, full": Recipe.of(FULL),
    "skipnet, full": Recipe.of({**FULL, "optimiser": "adamw", "lr": 0.002}),
    "dsnet, full": Recipe.of({**FULL, "optimiser": "adamw", "lr": 0.002}),
    "condensenet, full": Recipe.of({**FULL, "optimiser": "rmsprop", "lr": 0.002}),
    "condconv, full": Recipe.of({**FULL, "optimiser": "rmsprop", "schedule": "exponential"}),
    "resrep, full": Recipe.of(FULL),
}
"""The recipes of trials that are named after another one; the others have `RECIPE`."""
TRIALS.update({name: TRIALS[name.removesuffix(", full")] for name in RECIPES})

RESUMED = ("skipnet", "condensenet", *RECIPES)
"""Those that are run again from their first epoch's state."""


@contextlib.contextmanager
def exact() -> Iterator[Data]:
    """A few digits, in double precision throughout: what differs then is no rounding."""
    normalised = Split._normalised
    torch.set_default_dtype(torch.float64)
    try:
        with mock.patch.object(
            Split, "_normalised", lambda split, pixels: normalised(split, pixels).double()
        ):
            data = load("digits")
            few = data.train.between(0, 100)
            yield dataclasses.replace(data, train=few, validation=data.validation.between(0, 150))
    finally:
        torch.set_default_dtype(torch.float32)


def run(name: str, data: Data, state: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a trial leaves: losses, its last state, what is drawn next, and evaluations."""
    losses, states = [], []
    for epoch in train(TRIALS[name], data, RECIPES.get(name, RECIPE), seed=3, state=state):
        losses.append(epoch.loss)
        states.append(epoch.state())
    evaluation = evaluate(epoch.net, data.validation, batch_size=64)
    values = {"losses": evaluation.losses, "macs": evaluation.macs}
    if evaluation.decisions is not None:
        values["decisions"] = evaluation.decisions
        values["worth"] = routing(epoch.net, data.validation, evaluation, draws=1).worth  # type: ignore[arg-type]
    return {
        "losses": losses,
        "states": states,
        "evaluation": {name: torch.from_numpy(value) for name, value in values.items()},
        "points": {
            name: evaluate(view, data.validation).loss for name, view in epoch.points().items()
        },
    }


def until_killed(names: Sequence[str], folder: str) -> None:
    """Trains all of these side by side for ever, and writes their states after each epoch."""
    torch.set_num_threads(1)
    with exact() as data:
        trials = {name: train(TRIALS[name], data, RECIPES[name], seed=3) for name in names}
        for number in itertools.count(1):
            states = {name: epoch.state() for name in names if (epoch := next(trials[name], None))}
            torch.save(states, Path(folder) / "aside")
            (Path(folder) / "aside").rename(Path(folder) / f"{number}.pt")


def work(rank: int, count: int, folder: str) -> None:
    """One of `count` workers: every trial, and some again from their second epoch on."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count
    )
    with exact() as data:
        left = {}
        for name in TRIALS:
            whole = run(name, data)
            left[name] = whole
            if name in RESUMED:
                rest = run(name, data, whole["states"][0])
                left[name] = {**whole, "resumed": rest["losses"]}
    torch.save(left, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
