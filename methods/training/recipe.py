"""The training settings that all methods share, and the optimiser that they define."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pydantic
import torch
from pydantic import Field

from methods.api import Group, Optimiser, Phase, Settings
from methods.errors import MethodError
from methods.schedules import SCHEDULES, warmup
from methods.training.engines import Engine


def _unless(default: object) -> Any:
    """Leaves a field out of records while it has its default, as those of earlier versions do."""
    return Field(exclude_if=lambda value: value == default)


class Recipe(Settings):
    """How a network is trained, whatever its method."""

    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 164
    """Passes over the training split in all phases together (164 are 64k steps on CIFAR)."""
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 128
    """Samples per optimiser step."""
    accumulate: Annotated[int, Field(ge=1, le=1_000_000), _unless(1)] = 1
    """Pieces of each batch whose gradients are summed before a step, where memory holds no whole
    batch. Batch size and learning rate are as written; norms and running means see a piece."""
    lr: Annotated[float, Field(gt=0, le=1e6)] = 0.1
    """Peak learning rate."""
    optimiser: Annotated[Optimiser, _unless("sgd")] = "sgd"
    """Rule by which a gradient becomes a step. Learning rates that a method gives a phase itself,
    such as `policy_lr`, are meant for sgd: give others beside rmsprop or adamw."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of sgd and rmsprop; of adamw, the decay of the mean gradient."""
    nesterov: bool = True
    """Nesterov's momentum instead of the heavy ball's, in sgd."""
    second_moment: Annotated[float | None, Field(ge=0, lt=1), _unless(None)] = None
    """Decay of the mean squared gradient; by default 0.9 in rmsprop, 0.999 in adamw."""
    epsilon: Annotated[float | None, Field(gt=0, le=1), _unless(None)] = None
    """Added to the root of the mean squared gradient; by default 0.001 in rmsprop, 1e-8 in
    adamw."""
    weight_decay: Annotated[float, Field(ge=0, le=1e6)] = 1e-4
    """L2 penalty, added to the gradient; in adamw, the fraction of a weight that a step subtracts,
    times the learning rate."""
    decay_norm: bool = True
    """Whether biases and normalisation weights decay too, as published."""
    clip: Annotated[float | None, Field(gt=0, le=1e6), _unless(None)] = None
    """Largest norm of the gradient of all that a phase trains; a longer one is scaled down to it.
    By default there is no limit."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of each label that is spread over all classes."""
    schedule: Literal["cosine", "step", "exponential", "constant"] = "cosine"
    """Learning rate over a phase; `step` divides it by 10 at a half and at three quarters,
    `exponential` takes 3 % off it 145 times (EfficientNet: every 2.4 of 350 epochs)."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of a phase in which the learning rate rises from a tenth of its peak."""
    average: Annotated[float, Field(ge=0, lt=1), _unless(0.0)] = 0.0
    """Decay, per step, of an exponential moving average of the weights that a phase trains, whose
    weights are evaluated and shipped; it starts with the phase, with a decay that rises to this
    (EfficientNet: 0.9999). 0: no average."""
    augment: bool = True
    """Random crops, and flips where the classes allow them; colours and mixtures, if asked for."""
    crop: Annotated[Literal["shift", "resized"], _unless("shift")] = "shift"
    """shift moves an image by up to an eighth, or takes a window of the study's `size` out of
    `resize` pixels; resized takes a window of random area and ratio (3:4 to 4:3) and scales it to
    the size (bilinear, with a wider filter where it shrinks)."""
    crop_area: Annotated[float, Field(gt=0, le=1), _unless(0.08)] = 0.08
    """Least area of a resized crop, as a fraction of the image's."""
    colour: Annotated[float, Field(ge=0, le=1), _unless(0.0)] = 0.0
    """How far from 1 the random factors of brightness, contrast and saturation may lie; grey
    images have no saturation."""
    mixup: Annotated[float, Field(ge=0, le=100), _unless(0.0)] = 0.0
    """Both parameters of the Beta distribution by which each image is mixed with another one of
    its batch, and its label likewise; 0: no mixtures."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the forward pass; `auto` is bf16 on a GPU that supports it, and fp32 elsewhere,
    so that a study gives the same numbers on CPUs with and without bf16."""
    engine: Annotated[Engine, _unless("eager")] = "eager"
    """How a step's loss and gradient are executed: as written, compiled by torch.compile, or
    compiled into CUDA graphs. The numbers are the same, to rounding. `isoflop plan` measures on a
    GPU which is fastest; compiling takes minutes and pays in long trials of small networks."""

    @pydantic.model_validator(mode="after")
    def _augmented(self) -> "Recipe":
        if not self.augment and (self.crop != "shift" or self.colour or self.mixup):
            raise ValueError(
                f"(crop={self.crop}, colour={self.colour:g}, mixup={self.mixup:g}) augment the "
                "images, but `augment` is false; delete either"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _pieces_have_images(self) -> "Recipe":
        if self.batch_size < 2 * self.accumulate:
            raise ValueError(
                f"each of {self.accumulate} pieces of a batch must have two images, but "
                f"batch_size is {self.batch_size}; lower `accumulate`, or raise `batch_size`"
            )
        return self


def check_recipe(phases: Sequence[Phase[Any]], recipe: Recipe) -> None:
    """Check that every phase can be trained by the recipe's optimiser.

    Raises:
        MethodError: a phase takes another one alone.
    """
    for phase in phases:
        if phase.optimiser not in (None, recipe.optimiser):
            raise MethodError(
                f"phase {phase.name!r} is derived for the steps of {phase.optimiser}, but the "
                f"recipe has (optimiser={recipe.optimiser}); write `optimiser: {phase.optimiser}`, "
                "or leave the method out",
                at=("optimiser",),
            )


def learning_rate(recipe: Recipe, phase: Phase[Any], progress: float) -> float:
    """Learning rate at `progress` in [0, 1] of a phase, before any group's scale."""
    peak = recipe.lr if phase.lr is None else phase.lr
    shape = SCHEDULES[phase.schedule or recipe.schedule]
    return peak * warmup(progress, recipe.warmup) * shape(progress)


def optimiser(groups: Sequence[Group], recipe: Recipe, phase: Phase[Any]) -> torch.optim.Optimizer:
    """A fresh optimiser of torch for a phase, of few kernels over all parameters.

    Torch's rmsprop adds epsilon to the root and starts with a mean square of 0; TensorFlow's, which
    EfficientNet was trained by, adds it below the root and starts with 1. adamw decays weights
    apart from the gradient (Loshchilov and Hutter, arXiv 1711.05101), the others by the gradient.

    Raises:
        MethodError: the phase has no parameter to train.
    """
    settings = [part for group in groups for part in _settings(group, recipe)]
    if not settings:
        raise MethodError(f"phase {phase.name!r} must train some parameters, but got none")
    real = all(p.is_floating_point() for part in settings for p in part["params"])
    if recipe.optimiser == "rmsprop":
        return torch.optim.RMSprop(settings, lr=recipe.lr)
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(settings, lr=recipe.lr, fused=real)
    return torch.optim.SGD(
        settings,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov and recipe.momentum > 0,
        fused=real,
    )


def trained(steps: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    """The parameters that an optimiser changes."""
    return [p for group in steps.param_groups for p in group["params"]]


def _settings(group: Group, recipe: Recipe) -> list[dict[str, Any]]:
    momentum = recipe.momentum if group.momentum is None else group.momentum
    decay = recipe.weight_decay if group.weight_decay is None else group.weight_decay
    common = {"lr_scale": group.lr_scale, **_rule(recipe, momentum)}
    if recipe.decay_norm or group.weight_decay is not None:
        parts = [(list(group.parameters), decay)]
    else:
        parts = [
            ([p for p in group.parameters if p.ndim > 1], decay),
            ([p for p in group.parameters if p.ndim <= 1], 0.0),
        ]
    return [{**common, "params": ps, "weight_decay": wd} for ps, wd in parts if ps]


def _rule(recipe: Recipe, momentum: float) -> dict[str, Any]:
    """The settings of one group of torch's optimiser, as torch calls them."""
    if recipe.optimiser == "sgd":
        return {"momentum": momentum, "nesterov": recipe.nesterov and momentum > 0}
    usual, smallest = {"rmsprop": (0.9, 1e-3), "adamw": (0.999, 1e-8)}[recipe.optimiser]
    decay = usual if recipe.second_moment is None else recipe.second_moment
    epsilon = smallest if recipe.epsilon is None else recipe.epsilon
    if recipe.optimiser == "rmsprop":
        return {"momentum": momentum, "alpha": decay, "eps": epsilon}
    return {"betas": (momentum, decay), "eps": epsilon}
