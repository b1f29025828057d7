"""ResRep: channels are forgotten by compactors, which then merge into a narrower ResNet.

Ding et al., ResRep: Lossless CNN Pruning via Decoupling Remembering and Forgetting (arXiv
2007.03260). The compactor is in `compactor`, where it stands and what is left of the
network in `sites`; here are the schedule and the method.
"""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from typing import Annotated

import pydantic
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from methods.api import (
    Family,
    Group,
    Images,
    Method,
    Network,
    Output,
    Phase,
    Search,
    Task,
    cross_entropy,
)
from methods.errors import MethodError
from methods.fold import fold
from methods.macs import sketched
from methods.resnet import ResNet, check_depth, resnet
from methods.resrep.compactor import Compactor, pull_for
from methods.resrep.sites import Plan, attach, attached, plan, removed, select
from methods.schedules import cosine

TOLERANCE = 0.02
"""How far from its target a network may end without an alarm, as a fraction of it."""


class CompactedResNet(Network):
    """A ResNet with compactors; costs what is left of it without the rows forgotten by now."""

    units: Tensor
    inputs: Tensor
    outputs: Tensor

    def __init__(self, backbone: ResNet, found: Plan) -> None:
        super().__init__()
        self.backbone = backbone
        self.plan = found
        self.seen = -1.0
        """Progress of the pruning phase at its last step; below 0 before the first one."""
        attach(backbone, found.sites)
        units, inputs, outputs = zip(*found.products, strict=True)
        self.register_buffer("units", torch.tensor(units).double(), persistent=False)
        self.register_buffer("inputs", torch.tensor(inputs), persistent=False)
        self.register_buffer("outputs", torch.tensor(outputs), persistent=False)

    def forward(self, images: Images) -> Output:
        return Output(self.backbone(images), self.cost().expand(len(images)))

    @property
    def compactors(self) -> list[Compactor]:
        """In the order of the plan's sites."""
        return attached(self.backbone, self.plan.sites)

    def cost(self) -> Float[Tensor, ""]:
        """MACs of one sample if it were deployed now."""
        left = torch.stack([compactor.kept().sum() for compactor in self.compactors])
        many = torch.cat([left, left.new_ones(1)]).double()
        return (self.units * many[self.inputs] * many[self.outputs]).sum()

    def cost_to_come(self) -> int:
        """MACs of one sample once all masked rows are forgotten."""
        return self.plan.macs([int(compactor.mask.sum()) for compactor in self.compactors])

    def get_extra_state(self) -> Tensor:
        """The progress seen, which belongs into a checkpoint and onto no device."""
        return torch.tensor(self.seen, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """The progress seen, from a checkpoint."""
        self.seen = float(state)


class ResRep(Method):
    """Channel pruning: compactors learn which channels to forget, and merge into a narrower ResNet.

    Paper: Ding et al., ResRep: Lossless CNN Pruning via Decoupling Remembering and Forgetting,
    ICCV 2021, arXiv 2007.03260.

    As published:
    - 1x1 compactors, the identity at first, behind the norms of inner layers: conv1 of a block,
      conv1 and conv2 of a bottleneck
    - every row feels a group lasso from the start; a masked row feels the task no more
    - all rows ranked by norm, masked at a fixed rate until the masked network meets the target,
      from then on ranked afresh, so that rows may be unmasked
    - pruning at learning rate 0.01 on a cosine; compactors at momentum 0.99 without decay; biases
      at twice the learning rate; no decay of biases and norms
    - norm and compactor merge into the convolution; rows below a norm of 1e-5 are removed with the
      inputs that read them

    Deviations:
    - the base network is trained in the first phase, by the shared recipe; published: a pretrained
      one, 240 epochs before the 480 of pruning
    - the lasso is set by what a row loses in the phase (strength), not by lambda, so that it works
      at any length; published: 1e-4, which is strength 2 at our 164 epochs and 18.8 at the paper's;
      ours 3, since 2 misses low targets in short runs
    - start, interval and rate of the selection are fractions of the phase, not iterations
    - masked rows shrink by the lasso's proximal step: the same speed, without momentum's swing
      around zero, which takes thousands of steps to die; published: its gradient (proximal: false)
    - the lasso's gradient of a row of zeros is zero; the authors' code makes it NaN
    - a projection counts as the 1x1 convolution that it is; the authors' code counts it as 2x2
    - a row that dies unmasked is not removed: the network costs what the target says
    - momentum is Nesterov's, as the shared recipe has it; batch size and augmentation are its too
    """

    target: Annotated[float, Field(gt=0, le=1), Search(low=0.3, high=0.9)] = 0.471
    """Fraction of the dense network's MACs to keep (CIFAR at depth 56; ImageNet at 50: 0.455)."""
    strength: Annotated[float, Field(ge=0, le=1000), Search(low=3, high=20, log=True)] = 3.0
    """Norm that the lasso alone takes from a row over the phase; rows begin at 1. As published,
    lambda = 1e-4: 2 at 164 epochs of 391 steps, 18.8 at the paper's 720 of 782; ImageNet 45.
    Short runs to low targets miss them below 3: rows masked late have too little time."""
    proximal: bool = True
    """Masked rows shrink by the lasso's proximal step, to exact zeros; false: by its gradient."""
    depth: Annotated[int, Field(ge=8, le=1202), Search(low=8, high=56, step=6)] = 56
    """Layers of the backbone: 6n+2 in the cifar family; 18, 34, 50, 101 or 152 in imagenet's."""
    width: Annotated[float, Field(ge=0.1, le=4), Search(low=0.25, high=1.0, step=0.25)] = 1.0
    """Multiplies every channel count before pruning; the result is rounded to a multiple of 4."""
    family: Family = "cifar"
    """cifar: three stages from 16 channels, behind ImageNet's stem for images above 64 px;
    imagenet: four stages from 64 channels."""
    base_share: Annotated[float, Field(gt=0, lt=1)] = 1 / 3
    """Fraction of training that makes the base network (240 of 720 epochs)."""
    prune_lr: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Peak learning rate of the pruning phase, on a cosine; short runs need more, such as 0.1."""
    compactor_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Momentum of the compactors; without `proximal`, runs of a few hundred steps need 0.9."""
    start: Annotated[float, Field(ge=0, lt=1)] = 5 / 480
    """Fraction of the pruning phase before the first selection (ImageNet: 5 of 180 epochs)."""
    interval: Annotated[float, Field(gt=0, le=1)] = 200 / 375_360
    """Fraction of the pruning phase between two selections (200 iterations; ImageNet 2.2e-4)."""
    ramp: Annotated[float, Field(gt=0, le=1)] = 0.134
    """Fraction of the pruning phase in which all rows could be masked: the rate of the selection,
    until the target is met (4 rows in 200 iterations; ImageNet: 0.42)."""
    snap: Annotated[int, Field(ge=1, le=64)] = 1
    """Keep a multiple of so many channels at each site, and at least so many; narrower sites stay
    whole. Processors like 16, tensor cores 8. Selections are as many times rarer (published: 1)."""

    @pydantic.model_validator(mode="after")
    def _possible(self) -> "ResRep":
        check_depth(self.depth, self.family)
        if self.start + self.ramp > 1:
            raise ValueError(
                f"`start + ramp <= 1` must hold for the selection to end within its phase, but got "
                f"(start={self.start}, ramp={self.ramp}); lower either"
            )
        return self

    def build(self, task: Task) -> CompactedResNet:
        """A freshly initialised network for `task`; draws from torch's global generator.

        Raises:
            MethodError: images too small for the family, or a target below the network's least.
        """
        found = self._plan(task)
        if self._limit(found) < found.least:
            raise MethodError(
                f"target must leave {_channels(self.snap)} at each site, which takes "
                f"{math.ceil(1e4 * found.least / found.dense) / 1e4} of the MACs of depth "
                f"{self.depth} and width {self.width} on {task.name}, but got {self.target}; "
                "raise it, or depth or width"
            )
        backbone = resnet(task, self.depth, self.width, family=self.family)
        return CompactedResNet(backbone, found)

    def phases(self, smoothing: float = 0.0) -> Sequence[Phase[CompactedResNet]]:
        """Cross-entropy for the base network; then cross-entropy while rows are forgotten."""
        loss = partial(cross_entropy, smoothing=smoothing)
        return [
            Phase(name="base", share=self.base_share, loss=loss, parameters=_backbone),
            Phase(
                name="prune",
                share=1 - self.base_share,
                loss=loss,
                parameters=self._groups,
                advance=self._advance,
                finish=self._finish,
                lr=self.prune_lr,
                schedule="cosine",
            ),
        ]

    def deploy(self, net: CompactedResNet) -> ResNet:
        """The narrower ResNet: what is forgotten removed, norms and compactors merged."""
        return fold(removed(net.backbone, net.plan.sites))

    def floor(self, task: Task) -> int:
        """MACs at the target, less the largest unit: the selection ends between the two."""
        found = self._plan(task)
        return max(found.least, math.ceil(self._limit(found)) - found.largest)

    def alarm(self, net: CompactedResNet, _images: Images) -> str | None:
        """Whether the pruned network misses its target."""
        goal, cost = self._limit(net.plan), float(net.cost())
        if net.seen < 0 or abs(cost / goal - 1) <= TOLERANCE:
            return None
        off = (
            f"costs {abs(cost / goal - 1):.1%} {'more' if cost > goal else 'less'} than its target"
        )
        if net.cost_to_come() > goal:
            return f"{off}: the selection has not ended; train longer, or shorten ramp or interval"
        if cost > goal:
            way = "raise strength" if self.proximal else "set proximal, lower compactor_momentum"
            return f"{off}: not all masked rows are forgotten; {way} or train longer"
        step = net.plan.largest / goal
        return f"{off}: {_channels(self.snap)} may be up to {step:.1%} of it here"

    def _plan(self, task: Task) -> Plan:
        return _planned(task, self.depth, self.width, self.family)._replace(unit=self.snap)

    def _limit(self, found: Plan) -> float:
        return self.target * found.dense

    def _groups(self, net: CompactedResNet) -> Sequence[Group]:
        rows = [compactor.weight for compactor in net.compactors]
        for weight in rows:
            weight.requires_grad_()
        own = {id(weight) for weight in rows}
        others = [(name, p) for name, p in net.named_parameters() if id(p) not in own]
        biases = [p for name, p in others if name.endswith("bias")]
        scales = [p for name, p in others if p.ndim == 1 and not name.endswith("bias")]
        return [
            Group([p for _, p in others if p.ndim > 1]),
            Group(scales, weight_decay=0.0),
            Group(biases, lr_scale=2.0, weight_decay=0.0),
            Group(rows, weight_decay=0.0, momentum=self.compactor_momentum),
        ]

    def _advance(self, net: CompactedResNet, progress: float) -> None:
        step = 0.0 if net.seen < 0 else progress - net.seen
        if self.proximal:
            self._shrink(net, step)
        turns = self._turn(progress) - self._turn(net.seen)
        if turns > 0:
            self._select(net, turns)
        pull = pull_for(
            self.strength, step=step, lr=self.prune_lr, momentum=self.compactor_momentum
        )
        for compactor in net.compactors:
            compactor.pull.fill_(pull)
            if self.proximal:
                compactor.pull.mul_(compactor.mask)
        net.seen = progress

    def _finish(self, net: CompactedResNet, _batches: Iterable[Images]) -> None:
        if self.proximal:
            self._shrink(net, 1 - net.seen)

    def _shrink(self, net: CompactedResNet, step: float) -> None:
        """What the lasso took in the step that the optimiser has just made."""
        for compactor in net.compactors:
            compactor.shrink(self.strength * step * cosine(net.seen) / 0.5)

    def _turn(self, progress: float) -> int:
        """Index of the last selection that is due."""
        if progress < self.start:
            return -1
        return int((progress - self.start) / (self.interval * self.snap) + 1e-6)

    def _select(self, net: CompactedResNet, turns: int) -> None:
        """Mask the shortest rows: at the fixed rate until the target is met, then freely."""
        rows = sum(net.plan.widths)
        limit, rate = self._limit(net.plan), rows * self.interval * self.snap / self.ramp
        out = sum(int((~compactor.mask).sum()) for compactor in net.compactors)
        most = None if net.cost_to_come() <= limit else out + max(1, round(rate * turns))
        norms = [compactor.norms() for compactor in net.compactors]
        masks = select(net.plan, norms, limit, most)
        for compactor, mask in zip(net.compactors, masks, strict=True):
            compactor.mask.copy_(mask)


def _channels(count: int) -> str:
    return "one channel" if count == 1 else f"{count} channels"


def _backbone(net: CompactedResNet) -> Sequence[Group]:
    """All but the compactors, which stay the identity, under the recipe's settings."""
    for compactor in net.compactors:
        compactor.requires_grad_(False)
    return [Group([p for p in net.parameters() if p.requires_grad])]


@lru_cache(maxsize=1024)
def _planned(task: Task, depth: int, width: float, family: Family) -> Plan:
    with sketched():
        skeleton = resnet(task, depth, width, family=family)
    image = torch.zeros(1, task.channels, task.height, task.width, device="cpu")
    return plan(skeleton.to_empty(device="cpu"), image)
