"""The time of trials and studies on GPUs, by images and MACs, from the throughput of one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from methods.api import Method, Task
from methods.data.load import Data
from methods.errors import StudyError
from methods.macs import quiet
from methods.training.loop import plan_epochs
from methods.training.recipe import Recipe
from orchestrator.study.check import on_gpus
from orchestrator.study.sections import Resources
from orchestrator.trial.timing import Timing

GPUS = (1, 8, 64)
"""Numbers of GPUs that a study's hours are derived for."""
IMAGES = 4
"""Images of the step whose MACs are counted."""
HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class Rate:
    """The training throughput of one GPU for one network, which all times are derived from."""

    images_per_second: float
    network: str
    """The network that it is the throughput of, in words."""
    training_macs: float
    """MACs of one image in a training step of that network, backward pass included."""

    @classmethod
    def of(
        cls, images_per_second: float, network: str, method: Method, recipe: Recipe, task: Task
    ) -> "Rate":
        """The throughput with which a GPU trains this network."""
        (step, _), *_ = counted(method, recipe, task)
        return cls(images_per_second=images_per_second, network=network, training_macs=step)

    def timing(self, method: Method, recipe: Recipe, data: Data) -> Timing:
        """A trial's seconds on one GPU: the steps of every phase, and a validation per epoch."""
        costs = counted(method, recipe, data.task)
        phases = plan_epochs(method.phases(recipe.label_smoothing), recipe.epochs)
        macs = sum(
            (stop - start) * (len(data.train) * step + len(data.validation) * call)
            for (_, start, stop), (step, call) in zip(phases, costs, strict=True)
        )
        per_second = self.images_per_second * self.training_macs
        return Timing(macs / per_second, len(data.test) * costs[-1][1] / per_second, 0)


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one method asks of GPUs, in seconds of one, and what of it follows on what."""

    base: float
    shared: bool
    """Whether another method trains that base."""
    search: float
    confirm: float
    trial: float
    """A search trial's mean."""
    longest: float
    """The longest confirm run."""
    waves: int
    """Trials of a search that follow one on another at least."""
    beside: int
    """Search trials, of all repeats, that can run at once."""
    runs: int
    """Confirm runs, which all can."""


@dataclass(frozen=True, kw_only=True)
class Hours:
    """How long a study takes on so many GPUs."""

    gpus: int
    trials: int
    """Trials at once, at most; 0 where not even one fits."""
    busy: float
    """GPUs that those trials keep busy."""
    cores: float
    """CPU cores that they ask for."""
    hours: float | None
    """Hours of all methods together; None where no trial fits."""

    @classmethod
    def of(cls, loads: Sequence[Load], resources: Resources, gpus: int) -> "Hours":
        """Hours by the two bounds of every schedule: the work that GPUs share, and what must follow
        one on another. Confirm runs follow on the searches of all methods."""
        slots, width = slots_on(resources, gpus), gpu_share(resources) * resources.spread
        if slots == 0:
            return cls(gpus=gpus, trials=0, busy=0, cores=0, hours=None)
        at_once = min(
            slots, max(sum(load.beside for load in loads), sum(load.runs for load in loads))
        )
        shared = slots * width
        chain = max(load.base + load.waves * load.trial for load in loads) / width
        bases = sum(load.base for load in loads if not load.shared)
        searches = max((bases + sum(load.search for load in loads)) / shared, chain)
        longest = max(load.longest for load in loads) / width
        confirms = max(sum(load.confirm for load in loads) / shared, longest)
        return cls(
            gpus=gpus,
            trials=at_once,
            busy=at_once * width,
            cores=at_once * resources.spread * resources.cpu,
            hours=(searches + confirms) / HOUR,
        )


def gpu_share(resources: Resources) -> float:
    """GPUs of each worker of a trial; one where the study asks for none."""
    return resources.worker_gpu or 1.0


def slots_on(resources: Resources, gpus: int) -> int:
    """Trials at once on so many GPUs, and on as many CPU cores as those trials ask for."""
    slots = on_gpus(gpu_share(resources), gpus) // resources.spread
    return min(slots, resources.concurrency or slots)


def check_rate(images_per_second: float) -> None:
    """Refuses what is no throughput.

    Raises:
        StudyError: it is not positive, or beyond all GPUs.
    """
    if not 0 < images_per_second <= 1e9:
        raise StudyError(
            "a rate must be the images per second that one GPU trains, above 0 and at most 1e9, "
            f"but got {images_per_second:g}; write `--rate 2500`, say"
        )


def counted(method: Method, recipe: Recipe, task: Task) -> list[tuple[float, float]]:
    """Per phase, MACs of one image in a training step and in an evaluation, on a fresh network.

    All passes of a step count, such as those of DS-Net's widths and of its teacher, and what a mask
    hides counts like the rest. What a phase does at its end is left out.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net: Any = method.build(task)
        images = torch.randn(IMAGES, task.channels, task.height, task.width)
        labels = torch.arange(IMAGES) % task.classes
        costs = []
        for phase in method.phases(recipe.label_smoothing):
            phase.parameters(net)
            net.train()
            phase.advance(net, 0.5)
            with FlopCounterMode(display=False, custom_mapping=BACKWARD) as step:
                torch.autograd.backward(phase.loss(net, images, labels))
            with quiet(net), FlopCounterMode(display=False) as call:
                net(images)
            costs.append(tuple(counter.get_total_flops() / 2 / IMAGES for counter in (step, call)))
        return costs


def _backward(
    change: Sequence[int],
    inputs: Sequence[int],
    weight: Sequence[int],
    *others: Any,
    **_: object,
) -> int:
    """FLOPs of a convolution's gradients: each of the two costs what the convolution does.

    PyTorch's own rule overlooks groups, of which depthwise convolutions have hundreds.
    """
    transposed, wanted = others[4], others[-1]
    whole = conv_flop_count(list(inputs), list(weight), list(change), transposed)
    return int(whole * (wanted[0] + wanted[1]))


BACKWARD = {torch.ops.aten.convolution_backward: _backward}
