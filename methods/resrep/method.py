"""ResRep: channels are forgotten by compactors, which then merge into a narrower ResNet.

Ding et al., ResRep: Lossless CNN Pruning via Decoupling Remembering and Forgetting (arXiv
2007.03260). The compactor is in `compactor`, its places in a network and their removal in
`sites`; the schedule and the method are here.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Annotated, ClassVar

import pydantic
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

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
from methods.resnet import check_depth, resnet
from methods.resrep.compactor import Compactor, pull_for
from methods.resrep.sites import Plan, attach, attached, plan_of, removed, select
from methods.schedules import cosine
from methods.values import Params

SCHEDULE = (
    *("target", "strength", "lasso", "proximal", "base_share", "prune_lr"),
    *("compactor_momentum", "start", "interval", "ramp", "snap"),
)
"""Fields on which the network before pruning does not depend."""
TOLERANCE = 0.02
"""Deviation of the final cost from its target without an alarm, as a fraction of the target."""


class CompactedResNet(Network):
    """A backbone with compactors; its price excludes the rows that are forgotten by now."""

    units: Tensor
    inputs: Tensor
    outputs: Tensor

    def __init__(self, backbone: nn.Module, plan: Plan) -> None:
        super().__init__()
        self.backbone = backbone
        self.plan = plan
        self.last_progress = -1.0
        """Progress of the pruning phase at its last step; negative before the first step."""
        attach(backbone, plan.sites)
        units, inputs, outputs = zip(*plan.products, strict=True)
        self.register_buffer("units", torch.tensor(units).double(), persistent=False)
        self.register_buffer("inputs", torch.tensor(inputs), persistent=False)
        self.register_buffer("outputs", torch.tensor(outputs), persistent=False)

    def forward(self, images: Images) -> Output:
        return Output(self.backbone(images), self.cost().expand(len(images)))

    @property
    def compactors(self) -> list[Compactor]:
        """The compactors in the order of the plan's sites."""
        return attached(self.backbone, self.plan.sites)

    def cost(self) -> Float[Tensor, ""]:
        """MACs of one sample if it were deployed now."""
        widths = torch.stack([compactor.remaining().sum() for compactor in self.compactors])
        factors = torch.cat([widths, widths.new_ones(1)]).double()
        return (self.units * factors[self.inputs] * factors[self.outputs]).sum()

    def cost_to_come(self) -> int:
        """MACs of one sample once all masked rows are forgotten."""
        return self.plan.macs([int(compactor.mask.sum()) for compactor in self.compactors])

    def get_extra_state(self) -> Tensor:
        """The last progress, which belongs in a checkpoint but on no device."""
        return torch.tensor(self.last_progress, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the last progress from a checkpoint."""
        self.last_progress = float(state)


class ResRep(Method):
    """Channel pruning: compactors learn which channels to forget, and merge into a narrower ResNet.

    Paper: Ding et al., ResRep: Lossless CNN Pruning via Decoupling Remembering and Forgetting,
    ICCV 2021, arXiv 2007.03260.

    As published:
    - 1x1 compactors, the identity at first, behind the norms of inner layers: conv1 of a block,
      conv1 and conv2 of a bottleneck
    - every row has a group lasso from the start; a masked row gets no gradient of the task
    - all rows are ranked by norm and masked at a fixed rate until the masked network meets the
      target; from then on they are ranked anew, so that rows may be unmasked
    - pruning at learning rate 0.01 on a cosine; compactors at momentum 0.99 without decay; biases
      at twice the learning rate; no decay of biases and norms
    - norm and compactor merge into the convolution; rows below a norm of 1e-5 are removed with the
      inputs that read them

    Deviations:
    - without a trained start the base network is trained in the first phase, with the shared
      recipe; published: it is pretrained, 240 epochs before the 480 of pruning
    - the lasso is set by the norm that a row loses in the phase (strength), so that it suits any
      length; published: lasso 1e-4, which is strength 2 at our 164 epochs and 18.8 at the paper's;
      our default is 3, since 2 misses low targets in short runs
    - start, interval and rate of the selection are fractions of the phase, not iterations
    - masked rows shrink by the lasso's proximal step: the same speed, without momentum's
      oscillation around zero, which lasts thousands of steps; published: its gradient (proximal:
      false)
    - the lasso's gradient of a row of zeros is zero; in the authors' code it is NaN
    - a projection counts as a 1x1 convolution, which it is; the authors' code counts it as 2x2
    - a row that becomes zero without a mask is not removed, so that the cost meets the target
    - Nesterov's momentum, batch size and augmentation are those of the shared recipe; pruning takes
      sgd alone, whose steps the lasso is measured in, and without `proximal` no average of weights
    """

    PUBLISHED: ClassVar[Params] = {
        "proximal": False,
        "lasso": 1e-4,
        "recipe.nesterov": False,
        "recipe.schedule": "step",
        "recipe.lr": 0.1,
        "recipe.weight_decay": 1e-4,
        "recipe.decay_norm": False,
        "recipe.batch_size": 64,
    }
    STARTED: ClassVar[Params] = {"base_share": 0.0}

    target: Annotated[float, Field(gt=0, le=1), Search(low=0.3, high=0.9)] = 0.471
    """Fraction of the dense network's MACs to keep (CIFAR at depth 56; ImageNet at 50: 0.455)."""
    strength: Annotated[float, Field(ge=0, le=1000), Search(low=3, high=20, log=True)] = 3.0
    """Norm that the lasso alone subtracts from a row over the phase; rows start at 1. The published
    lambda = 1e-4 is 2 at 164 epochs of 391 steps, and 18.8 at the paper's 720 of 782; ImageNet 45.
    Below 3, short runs miss low targets: rows that are masked late have too little time."""
    lasso: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The paper's lambda, by which every step pulls a row, in place of `strength`; 0: by strength
    (published: 1e-4)."""
    proximal: bool = True
    """Shrink masked rows by the lasso's proximal step, to exact zeros; false: by its gradient."""
    depth: Annotated[int, Field(ge=8, le=1202), Search(low=8, high=56, step=6)] = 56
    """Layers of the backbone: 6n+2 in the cifar family; 18, 34, 50, 101 or 152 in imagenet's."""
    width: Annotated[float, Field(ge=0.1, le=4), Search(low=0.25, high=1.0, step=0.25)] = 1.0
    """Multiplies every channel count before pruning; the result is rounded to a multiple of 4."""
    family: Family = "cifar"
    """cifar: three stages from 16 channels, behind ImageNet's stem for images above 64 px;
    imagenet: four stages from 64 channels."""
    base_share: Annotated[float, Field(ge=0, lt=1)] = 1 / 3
    """Fraction of training that trains the base network (240 of 720 epochs); 0, the default from a
    trained start, prunes from the first step."""
    prune_lr: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Peak learning rate of the pruning phase, on a cosine; short runs need more, such as 0.1."""
    compactor_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Momentum of the compactors; without `proximal`, runs of a few hundred steps need 0.9."""
    start: Annotated[float, Field(ge=0, lt=1)] = 5 / 480
    """Fraction of the pruning phase before the first selection (ImageNet: 5 of 180 epochs)."""
    interval: Annotated[float, Field(gt=0, le=1)] = 200 / 375_360
    """Fraction of the pruning phase between two selections (200 iterations; ImageNet 2.2e-4)."""
    ramp: Annotated[float, Field(gt=0, le=1)] = 0.134
    """Fraction of the pruning phase in which all rows could be masked; sets the rate of selection
    until the target is met (4 rows in 200 iterations; ImageNet: 0.42)."""
    snap: Annotated[int, Field(ge=1, le=64)] = 1
    """Each site keeps a non-zero multiple of this number of channels; narrower sites stay whole. 16
    suits CPUs, 8 tensor cores. Selections are rarer by the same factor (published: 1)."""

    @pydantic.model_validator(mode="after")
    def _possible(self) -> "ResRep":
        self.check_backbone()
        if self.start + self.ramp > 1:
            raise ValueError(
                f"`start + ramp <= 1` must hold for the selection to end within its phase, but got "
                f"(start={self.start}, ramp={self.ramp}); lower either"
            )
        return self

    def backbone(self, task: Task) -> nn.Module:
        """The network that is pruned, freshly initialised: images -> logits.

        A class of your own that derives from this one may give another, by `depth` and `width` as
        it understands them: what can be pruned is read off the network.
        """
        return resnet(task, self.depth, self.width, family=self.family)

    def check_backbone(self) -> None:
        """Refuses fields of which there is no such network.

        Raises:
            MethodError: says which there are.
        """
        check_depth(self.depth, self.family)

    def build(self, task: Task) -> CompactedResNet:
        """A freshly initialised network for `task`; draws from torch's global generator.

        Raises:
            MethodError: images too small for the family, or a target below the minimal cost.
        """
        plan = self._plan(task)
        if self._limit(plan) < plan.least:
            raise MethodError(
                f"target must leave {_channels(self.snap)} at each site, which takes "
                f"{math.ceil(1e4 * plan.least / plan.dense) / 1e4} of the MACs of depth "
                f"{self.depth} and width {self.width} on {task.name}, but got {self.target}; "
                "raise it, or depth or width"
            )
        return CompactedResNet(self.backbone(task), plan)

    def phases(self, smoothing: float = 0.0) -> Sequence[Phase[CompactedResNet]]:
        """Cross-entropy for the base network, then cross-entropy while rows are forgotten."""
        loss = partial(cross_entropy, smoothing=smoothing)
        phases: list[Phase[CompactedResNet]] = [
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
                optimiser="sgd",
                averaged=self.proximal,
            ),
        ]
        return [phase for phase in phases if phase.share]

    def deploy(self, net: CompactedResNet) -> nn.Module:
        """The narrower network: forgotten rows removed, norms and compactors merged."""
        return fold(removed(net.backbone, net.plan.sites))

    def floor(self, task: Task) -> int:
        """MACs at the target minus the largest unit: the selection ends between the two."""
        plan = self._plan(task)
        return max(plan.least, math.ceil(self._limit(plan)) - plan.largest)

    def alarm(self, net: CompactedResNet, _images: Images) -> str | None:
        """A warning if the pruned network misses its target."""
        goal, cost = self._limit(net.plan), float(net.cost())
        if net.last_progress < 0 or abs(cost / goal - 1) <= TOLERANCE:
            return None
        off = (
            f"costs {abs(cost / goal - 1):.1%} {'more' if cost > goal else 'less'} than its target"
        )
        if net.cost_to_come() > goal:
            return f"{off}: the selection has not ended; train longer, or shorten ramp or interval"
        if cost > goal:
            pull = "lasso" if self.lasso else "strength"
            way = f"raise {pull}" if self.proximal else "set proximal, lower compactor_momentum"
            return f"{off}: not all masked rows are forgotten; {way} or train longer"
        step = net.plan.largest / goal
        return f"{off}: {_channels(self.snap)} may be up to {step:.1%} of it here"

    def plain(self) -> Params | None:
        """The ResNet before pruning; None for another backbone."""
        return self.unreduced()

    def places(self, net: CompactedResNet) -> Mapping[str, str]:
        """The backbone's names; behind a norm stands its compactor, which remains the identity."""
        norms = {f"{site.norm}.0.": f"{site.norm}." for site in net.plan.sites}
        skipped = tuple(f"{site.norm}.1." for site in net.plan.sites)
        places = {}
        for plain, name in super().places(net).items():
            if not plain.startswith(skipped):
                norm = next((norm for norm in norms if plain.startswith(norm)), None)
                places[plain.replace(norm, norms[norm], 1) if norm else plain] = name
        return places

    def unreduced(self) -> Params | None:
        """The ResNet that is pruned, which has all epochs for itself; None for another backbone."""
        if type(self).backbone is not ResRep.backbone:
            return None
        return {
            "method": "dense",
            "depth": self.depth,
            "width": self.width,
            "family": self.family,
        }

    def _plan(self, task: Task) -> Plan:
        fields = type(self).model_fields
        bare = self.model_copy(update={name: fields[name].default for name in SCHEDULE})
        return _planned(bare, task)._replace(unit=self.snap)

    def _limit(self, plan: Plan) -> float:
        return self.target * plan.dense

    def _groups(self, net: CompactedResNet) -> Sequence[Group]:
        rows = [compactor.weight for compactor in net.compactors]
        for weight in rows:
            weight.requires_grad_()
        row_ids = {id(weight) for weight in rows}
        others = [(name, p) for name, p in net.named_parameters() if id(p) not in row_ids]
        biases = [p for name, p in others if name.endswith("bias")]
        scales = [p for name, p in others if p.ndim == 1 and not name.endswith("bias")]
        return [
            Group([p for _, p in others if p.ndim > 1]),
            Group(scales, weight_decay=0.0),
            Group(biases, lr_scale=2.0, weight_decay=0.0),
            Group(rows, weight_decay=0.0, momentum=self.compactor_momentum),
        ]

    def _advance(self, net: CompactedResNet, progress: float) -> None:
        step = 0.0 if net.last_progress < 0 else progress - net.last_progress
        if self.proximal:
            self._shrink(net, step)
        due = self._selections(progress) - self._selections(net.last_progress)
        if due > 0:
            self._select(net, due)
        pull = self._pull(step)
        for compactor in net.compactors:
            compactor.pull.fill_(pull)
            if self.proximal:
                compactor.pull.mul_(compactor.mask)
        net.last_progress = progress

    def _finish(self, net: CompactedResNet, _batches: Iterable[Images]) -> None:
        if self.proximal:
            self._shrink(net, 1 - net.last_progress)

    def _shrink(self, net: CompactedResNet, step: float) -> None:
        """Apply the lasso's share of the optimiser's last step."""
        for compactor in net.compactors:
            compactor.shrink(self._fall(step) * cosine(net.last_progress) / 0.5)

    def _pull(self, step: float) -> float:
        """The gradient of the lasso for a step that is this fraction of the phase."""
        momentum = self.compactor_momentum
        if self.lasso:
            return self.lasso if step else 0.0
        return pull_for(self.strength, step=step, lr=self.prune_lr, momentum=momentum)

    def _fall(self, step: float) -> float:
        """The norm that a row loses in such a step, on average over the phase."""
        if self.lasso:
            return self._pull(step) * (self.prune_lr / 2) / (1 - self.compactor_momentum)
        return self.strength * step

    def _selections(self, progress: float) -> int:
        """Index of the last selection up to this progress; -1 if there is none."""
        if progress < self.start:
            return -1
        return int((progress - self.start) / (self.interval * self.snap) + 1e-6)

    def _select(self, net: CompactedResNet, due: int) -> None:
        """Mask the shortest rows: at a fixed rate until the target is met, then without limit."""
        rows = sum(net.plan.widths)
        limit, rate = self._limit(net.plan), rows * self.interval * self.snap / self.ramp
        masked = sum(int((~compactor.mask).sum()) for compactor in net.compactors)
        most = None if net.cost_to_come() <= limit else masked + max(1, round(rate * due))
        norms = [compactor.norms() for compactor in net.compactors]
        masks = select(net.plan, norms, limit, most)
        for compactor, mask in zip(net.compactors, masks, strict=True):
            compactor.mask.copy_(mask)


def _channels(count: int) -> str:
    return "one channel" if count == 1 else f"{count} channels"


def _backbone(net: CompactedResNet) -> Sequence[Group]:
    """All parameters but the compactors', which remain the identity, with the recipe's settings."""
    for compactor in net.compactors:
        compactor.requires_grad_(False)
    return [Group([p for p in net.parameters() if p.requires_grad])]


@lru_cache(maxsize=1024)
def _planned(method: ResRep, task: Task) -> Plan:
    with sketched():
        skeleton = method.backbone(task)
    image = torch.zeros(1, task.channels, task.height, task.width, device="cpu")
    return plan_of(skeleton.to_empty(device="cpu"), image)
