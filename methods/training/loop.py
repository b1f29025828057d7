"""The training loop: a generator of epochs that knows nothing of its consumers.

To stop is to cease iterating; to pause is to store `Epoch.state()` and pass it to `train` later. A
trial that was paused equals one that was not, bit for bit on one CPU.
"""

import dataclasses
import functools
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from methods import parallel
from methods.api import Images, Labels, Method, Network, Phase
from methods.data.augment import Augment
from methods.data.load import Data, check
from methods.data.splits import count_batches
from methods.errors import DataError, Diverged, MethodError
from methods.machine import native_bf16
from methods.parallel.group import align, backward, check_alike, gather, total
from methods.training.average import Average
from methods.training.engines import run_by
from methods.training.randomness import Randomness
from methods.training.recipe import Recipe, check_recipe, learning_rate, optimiser, trained

__all__ = ["Epoch", "Recipe", "plan_epochs", "train"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """The result of one pass over the training split."""

    index: int
    """Number of completed epochs, from 1."""
    epochs: int
    """Epochs of the whole trial."""
    phase: str
    phase_done: bool
    """Whether this was the last epoch of its phase."""
    progress: float
    """Completed fraction of the whole trial, in (0, 1]."""
    loss: float
    """Mean training loss per sample, as the phase defines it."""
    lr: float
    """Learning rate of the last step, before any group's scale."""
    seconds: float
    """Training time of this epoch, in seconds."""
    net: Network
    """The network itself, not a copy; with the average of its weights, where the recipe has one."""
    points: Callable[[], Mapping[str, Network]]
    """Operating points of the phase, valid once it is done."""
    state: Callable[[], dict[str, Any]]
    """A checkpoint of this moment, copied to the host; call it before the next epoch starts."""


def train(
    method: Method,
    data: Data,
    recipe: Recipe,
    *,
    seed: int,
    device: str | torch.device = "cpu",
    state: Mapping[str, Any] | None = None,
    start: Callable[[Network], object] | None = None,
) -> Iterator[Epoch]:
    """Train a fresh network of `method`, or resume from the `state` of an epoch.

    `start` changes the fresh network, as `methods.training.start` does for trained weights.
    Initialisation, order, augmentation and the layers' random numbers derive from `seed` alone;
    torch's global generators are unchanged. A resumed trial has the length of its checkpoint. Where
    this process has workers beside it (`methods.parallel`), all of them train this one network.

    Raises:
        MethodError: fewer epochs than phases, an optimiser that a phase does not take, or the
            checkpoint of another method.
        DataError: one class, fewer samples than a batch, or a phase without samples.
        Diverged: a loss or a weight that is not finite.
        PeerLost: another worker of the trial died.
    """
    check(data, recipe.batch_size)
    phases = method.phases(recipe.label_smoothing)
    check_parts(phases, data)
    check_recipe(phases, recipe)
    epochs = recipe.epochs if state is None else _checked_length(state, method, recipe)
    plan = plan_epochs(phases, epochs)
    place = torch.device(device)
    randomness = Randomness.of(seed, place)
    with randomness.initialising():
        net: Network = method.build(data.task)
        if start is not None and state is None:
            start(net)
    net = net.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    align(net)
    trial = _Trial(method, data, recipe, place, net, randomness, epochs, _bf16(recipe, place))
    return _epochs(trial, plan, state)


def check_parts(phases: Sequence[Phase[Any]], data: Data) -> None:
    """Check that every phase has images of the training split to learn from.

    Raises:
        DataError: a phase has none; the message names it.
    """
    for phase in phases:
        if not len(data.train.part(*phase.part)):
            raise DataError(
                f"a phase must have a sample, but phase {phase.name!r} takes those between "
                f"{phase.part[0]:g} and {phase.part[1]:g} of each class, and {data.task.name!r} "
                f"with {len(data.train)} training samples has none there; use more data"
            )


def plan_epochs(phases: Sequence[Phase[Any]], epochs: int) -> list[tuple[Phase[Any], int, int]]:
    """Each phase with its first epoch and its end: shares are rounded, each gets an epoch at least.

    Raises:
        MethodError: fewer epochs than phases, or shares that do not sum to 1.
    """
    shares = [phase.share for phase in phases]
    if abs(sum(shares) - 1.0) > 1e-6 or min(shares) <= 0:
        raise MethodError(f"the shares of a method's phases must sum to 1, but got {shares}")
    if epochs < len(phases):
        names = ", ".join(phase.name for phase in phases)
        raise MethodError(
            f"each phase needs an epoch, but got (epochs={epochs}) for {len(phases)} phases "
            f"({names}); raise epochs"
        )
    ends = [int(share * epochs + 0.5) for share in np.cumsum(shares)]
    ends[-1] = epochs
    for index in range(len(ends)):
        earliest = index + 1 if index == 0 else ends[index - 1] + 1
        latest = epochs - (len(ends) - 1 - index)
        ends[index] = min(max(ends[index], earliest), latest)
    return list(zip(phases, [0, *ends[:-1]], ends, strict=True))


@dataclass(frozen=True)
class _Trial:
    method: Method
    data: Data
    recipe: Recipe
    place: torch.device
    net: Network
    randomness: Randomness
    epochs: int
    bf16: bool

    def tensors(self) -> dict[str, Tensor]:
        """What must be the same on all workers of a trial."""
        return {**self.net.state_dict(), **self.randomness.state()}

    def state(self, index: int, descent: "_Descent") -> dict[str, Any]:
        return {
            "method": _identity(self.method),
            "epochs": self.epochs,
            "epoch": index,
            "net": _on_host(self.net.state_dict()),
            **_on_host(descent.state()),
            "generators": self.randomness.state(),
        }


class _Descent(NamedTuple):
    """What turns gradients into weights in one phase."""

    phase: Phase[Any]
    steps: torch.optim.Optimizer
    average: Average | None

    @classmethod
    def of(cls, trial: _Trial, phase: Phase[Any]) -> "_Descent":
        steps = optimiser(phase.parameters(trial.net), trial.recipe, phase)
        decay = trial.recipe.average if phase.averaged else 0.0
        return cls(phase, steps, Average(trial.net, trained(steps), decay) if decay else None)

    def restore(self, state: Mapping[str, Any]) -> None:
        self.steps.load_state_dict(dict(state["optimiser"]))
        if self.average is not None:
            self.average.restore(state["average"])

    def state(self) -> dict[str, Any]:
        average = {} if self.average is None else {"average": self.average.state()}
        return {"optimiser": self.steps.state_dict(), **average}


def _epochs(
    trial: _Trial, plan: list[tuple[Phase[Any], int, int]], state: Mapping[str, Any] | None
) -> Iterator[Epoch]:
    done = 0
    if state is not None:
        done = int(state["epoch"])
        trial.net.load_state_dict(state["net"])
        trial.randomness.restore(state["generators"])
    for written, start, end in plan:
        if done >= end:
            continue
        executed = run_by(trial.recipe.engine, written.loss, trial.place)
        phase = dataclasses.replace(written, loss=executed)
        descent = _Descent.of(trial, phase)
        if state is not None and start < done:
            descent.restore(state)
        for index in range(max(start, done), end):
            began = time.perf_counter()
            with trial.randomness.training(), parallel.together():
                loss, lr = _one_epoch(trial, descent, index, (start, end))
                if index + 1 == end:
                    descent = descent._replace(average=None)  # it is what the phase leaves
                    _finish(trial, phase)
            check_alike(trial.tensors(), f"after epoch {index + 1}")
            yield Epoch(
                index=index + 1,
                epochs=trial.epochs,
                phase=phase.name,
                phase_done=index + 1 == end,
                progress=(index + 1) / trial.epochs,
                loss=loss,
                lr=lr,
                seconds=time.perf_counter() - began,
                net=trial.net,
                points=functools.partial(phase.points, trial.net),
                state=functools.partial(trial.state, index + 1, descent),
            )


def _one_epoch(
    trial: _Trial, descent: _Descent, index: int, span: tuple[int, int]
) -> tuple[float, float]:
    """Mean loss and last learning rate of epoch `index` of a phase that spans `span` epochs.

    Between epochs the network shows the average of its weights, if there is one.
    """
    recipe, net = trial.recipe, trial.net
    (phase, steps, average), parameters = descent, trained(descent.steps)
    if average is not None:
        average.hide()
    count = count_batches(len(trial.data.train), recipe.batch_size, drop_short=True)
    passes = itertools.chain.from_iterable(_one_pass(trial, phase) for _ in itertools.count())
    losses, sizes, lr = [], [], 0.0
    net.train()
    for step, pieces in enumerate(itertools.islice(passes, count)):
        progress = (index - span[0] + step / count) / (span[1] - span[0])
        lr = learning_rate(recipe, phase, progress)
        for group in steps.param_groups:
            group["lr"] = lr * group["lr_scale"]
        phase.advance(net, progress)
        steps.zero_grad()
        shares, size = [], 0
        for images, labels in pieces:
            with torch.autocast(trial.place.type, torch.bfloat16, enabled=trial.bf16):
                loss = phase.loss(net, images.to(trial.place), labels.to(trial.place))
            backward(loss, parallel.share())
            shares.append(loss.detach() * parallel.share())
            size += parallel.size(len(labels))
        gather(parameters)
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(parameters, recipe.clip)
        steps.step()
        if average is not None:
            average.update()
        losses.append(sum(shares[1:], shares[0]))
        sizes.append(size)
    mean = _mean(losses, sizes, net, phase.name, index + 1)
    if average is not None:
        average.show()
    return mean, lr


def _one_pass(trial: _Trial, phase: Phase[Any]) -> Iterator[Iterator[tuple[Images, Labels]]]:
    """One pass over the phase's part of the training split, in a fresh order, piece by piece."""
    split, batch_size = trial.data.train.part(*phase.part), trial.recipe.batch_size
    batches = split.batches(
        batch_size,
        shuffle=trial.randomness.order,
        augment=_augment(trial) if trial.recipe.augment else None,
        drop_short=True,
        worker=(parallel.rank(), parallel.workers()),
        most=trial.recipe.accumulate,
    )
    count = count_batches(len(split), batch_size, drop_short=True)
    starts = range(0, count * batch_size, batch_size)
    sizes = [min(batch_size, len(split) - start) for start in starts]
    return parallel.shared(batches, sizes, trial.recipe.accumulate)


def _finish(trial: _Trial, phase: Phase[Any]) -> None:
    trial.net.train()
    with torch.no_grad(), torch.autocast(trial.place.type, torch.bfloat16, enabled=trial.bf16):
        pieces = itertools.chain.from_iterable(_one_pass(trial, phase))
        phase.finish(trial.net, (images.to(trial.place) for images, _ in pieces))


def _augment(trial: _Trial) -> Augment:
    recipe = trial.recipe
    return Augment(
        pad=trial.data.pad,
        flip=trial.data.flip,
        generator=trial.randomness.augment,
        crop=recipe.crop,
        area=recipe.crop_area,
        colour=recipe.colour,
        mixup=recipe.mixup,
    )


def _bf16(recipe: Recipe, place: torch.device) -> bool:
    """Whether the forward pass is in bf16; on request even if that is slow."""
    native = native_bf16(place)
    if recipe.precision == "bf16" and not native:
        _log.warning("%s has no bf16 arithmetic in hardware: precision fp32 is faster", place)
    automatic = recipe.precision == "auto" and place.type == "cuda" and native
    return recipe.precision == "bf16" or automatic


def _mean(losses: list[Tensor], sizes: list[int], net: Network, phase: str, epoch: int) -> float:
    """Mean loss per sample; this waits for the device, once an epoch.

    Raises:
        Diverged: a loss or a weight that is not finite.
    """
    values = total(torch.stack(losses).double()).cpu()
    bad = (~values.isfinite()).nonzero().flatten()
    if len(bad):
        step = int(bad[0])
        raise Diverged(
            f"loss is {values[step].item()} at epoch {epoch}, step {step + 1} of phase {phase}"
        )
    if not bool(torch.stack([p.detach().isfinite().all() for p in net.parameters()]).all()):
        raise Diverged(f"weights are not finite after epoch {epoch} of phase {phase}")
    weights = torch.tensor(sizes, dtype=torch.float64)
    return float((values * weights).sum() / weights.sum())


def _checked_length(state: Mapping[str, Any], method: Method, recipe: Recipe) -> int:
    if state["method"] != _identity(method):
        raise MethodError(
            f"a checkpoint resumes only the method that wrote it, {state['method']}, "
            f"but got {_identity(method)}"
        )
    epochs = int(state["epochs"])
    if epochs != recipe.epochs:
        _log.warning("the checkpoint's %d epochs apply, not the recipe's %d", epochs, recipe.epochs)
    return epochs


def _identity(method: Method) -> str:
    return f"{type(method).__name__} {method.model_dump_json()}"


def _on_host(value: Any) -> Any:
    """A copy in host memory in plain containers, which torch loads with `weights_only`."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _on_host(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_on_host(item) for item in value]
    return value
