"""The training settings that all methods share, and the optimiser that they define."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from methods.api import Group, Phase, Settings
from methods.errors import MethodError
from methods.schedules import SCHEDULES, warmup
from methods.training.engines import Engine


class Recipe(Settings):
    """How a network is trained, whatever its method."""

    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 164
    """Passes over the training split in all phases together (164 are 64k steps on CIFAR)."""
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 128
    """Samples per optimiser step."""
    lr: Annotated[float, Field(gt=0, le=1e6)] = 0.1
    """Peak learning rate."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    nesterov: bool = True
    """Nesterov's momentum instead of the heavy ball's."""
    weight_decay: Annotated[float, Field(ge=0, le=1e6)] = 1e-4
    """L2 penalty, added to the gradient."""
    decay_norm: bool = True
    """Whether biases and normalisation weights decay too, as published."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of each label that is spread over all classes."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """Learning rate over a phase; `step` divides it by 10 at a half and at three quarters."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of a phase in which the learning rate rises from a tenth of its peak."""
    augment: bool = True
    """Random shifts, and flips where the classes allow them."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the forward pass; `auto` is bf16 on a GPU that supports it, and fp32 elsewhere,
    so that a study gives the same numbers on CPUs with and without bf16."""
    engine: Annotated[Engine, Field(exclude_if=lambda engine: engine == "eager")] = "eager"
    """How a step's loss and gradient are executed: as written, compiled by torch.compile, or
    compiled into CUDA graphs. The numbers are the same, to rounding. `isoflop plan` measures on a
    GPU which is fastest; compiling takes minutes and pays in long trials of small networks."""


def learning_rate(recipe: Recipe, phase: Phase[Any], progress: float) -> float:
    """Learning rate at `progress` in [0, 1] of a phase, before any group's scale."""
    peak = recipe.lr if phase.lr is None else phase.lr
    shape = SCHEDULES[phase.schedule or recipe.schedule]
    return peak * warmup(progress, recipe.warmup) * shape(progress)


def optimiser(groups: Sequence[Group], recipe: Recipe, phase: Phase[Any]) -> torch.optim.Optimizer:
    """A fresh SGD for a phase; fused, so that a step is one kernel over all parameters.

    Raises:
        MethodError: the phase has no parameter to train.
    """
    settings = [part for group in groups for part in _settings(group, recipe)]
    if not settings:
        raise MethodError(f"phase {phase.name!r} must train some parameters, but got none")
    fused = all(p.is_floating_point() for part in settings for p in part["params"])
    return torch.optim.SGD(
        settings,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov and recipe.momentum > 0,
        fused=fused,
    )


def _settings(group: Group, recipe: Recipe) -> list[dict[str, Any]]:
    momentum = recipe.momentum if group.momentum is None else group.momentum
    decay = recipe.weight_decay if group.weight_decay is None else group.weight_decay
    common = {
        "lr_scale": group.lr_scale,
        "momentum": momentum,
        "nesterov": recipe.nesterov and momentum > 0,
        "weight_decay": decay,
    }
    if recipe.decay_norm or group.weight_decay is not None:
        parts = [(list(group.parameters), decay)]
    else:
        parts = [
            ([p for p in group.parameters if p.ndim > 1], decay),
            ([p for p in group.parameters if p.ndim <= 1], 0.0),
        ]
    return [{**common, "params": ps, "weight_decay": wd} for ps, wd in parts if ps]
