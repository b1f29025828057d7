"""DS-Net: a supernet that runs at many widths, and a small gate that picks the width per image.

Li et al., Dynamic Slimmable Network (arXiv 2103.13258).
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Annotated, ClassVar, Literal

import pydantic
import torch
from jaxtyping import Bool
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from methods.api import Group, Images, Labels, Method, Phase, Search, Task
from methods.dsnet.gate import GateInput, Odds, TaskLoss, task_losses
from methods.dsnet.layers import ALIVE
from methods.dsnet.losses import (
    Lessons,
    Teacher,
    frozen,
    monotony,
    recalibrate,
    sandwich,
    sparsification,
)
from methods.dsnet.networks import (
    BucketedNet,
    GatedSupernet,
    SlicedNet,
    UniformNet,
    uniform_points,
)
from methods.dsnet.supernet import (
    PUBLISHED_DEPTH,
    Layout,
    SlimMobileNet,
    path_macs,
    published,
    small,
)
from methods.errors import MethodError
from methods.macs import quiet
from methods.parallel import batch_mean, everyone, per_sample
from methods.resnet import LARGE
from methods.values import Params

SupernetFamily = Literal["cifar", "mobilenet"]
MOMENTUM = 0.05
"""Momentum of the running fraction of images that the smallest routed network classifies right."""
TOLERANCE = 0.02
"""Deviation from the target without a shift of the gate, in shares of the widest's MACs."""


class DSNet(Method):
    """Per-image width: slices of one supernet, and a gate that picks the slice.

    Paper: Li et al., Dynamic Slimmable Network, CVPR 2021, arXiv 2103.13258.

    As published:
    - family mobilenet is the released supernet: 14 widths in the last two stages, one gate on the
      squeezed vector of the first block there, no residuals
    - a norm keeps statistics per width and one affine map; squeezed vectors have a fixed size
    - supernet phase: sandwich rule with in-place ensemble bootstrapping by an averaged teacher; the
      authors' configuration has the ensemble off
    - gate phase: only the gate's head trains
    - the operating points are every uniform width, the largest network, and the gate

    Deviations, which the published profile does not have:
    - the gate has a target: its loss is 3 times the probability of wrong classes that its shares
      expect, and twice the squared relative deviation from the target; published: sandwich gate
      sparsification, the cross-entropy of straight-through Gumbel choices, and a MAC loss
    - a shift of the gate's logits mends by what its decisions miss the target
    - the gate has a bias, and a norm without parameters, by plain means, on what it reads
    - no weight decay of the gate; published: 0.01
    - five widths, the narrowest a quarter; published: 14, the narrowest 0.35
    - the bias of squeezing starts at 0.5: from 0, most squeezed entries are 0 for every image
    - the teacher averages the last ninth of the steps until that is more than its decay allows: in
      short trainings the published average is still half random initialisation
    - batch size, learning rate, warm-up and label smoothing are the recipe's; published: 512, 0.08,
      5 epochs of 150, 0.1

    Deviations of both:
    - family cifar is ours, of the same parts: the paper has no supernet for small images; its
      squeezed vectors have at least 16 entries, since its gate would otherwise read as few as 4
    - the largest network has separate statistics where its width equals the last choice's
    - the two random choices differ, may be the narrowest, and are the same for the teacher
    - the three narrow forwards of a step share stem and first stages, whose statistics move once
    - statistics are recomputed as plain means over the phase's images, for the largest network too
    - the gate's labels use log-softmax of raw logits; the authors' code applies softmax twice
    - the MAC loss is relative to the routing space's most expensive choice, not to 1e9, which makes
      it negligible at CIFAR's size; the weight is converted
    - straight-through gradients reach the gate through scale and shift of the norms, once per layer
    - the gate takes the argmax at evaluation; the authors' code keeps the noise
    - every step runs every slice, so that no gradient is entirely zero: none is set to None
    - augmentation is the recipe's; published: RandAugment with erasing and colour jitter
    """

    PUBLISHED: ClassVar[Params] = {
        "choices": 14,
        "narrowest": 0.35,
        "target": 0.0,
        "mac_weight": 0.0197,
        "sgs_weight": 1.0,
        "task_weight": 1.0,
        "gate_norm": False,
        "gate_decay": 0.01,
        "balanced": False,
        "squeeze_bias": 0.0,
        "teacher_warmup": False,
        "recipe.batch_size": 512,
        "recipe.lr": 0.08,
        "recipe.label_smoothing": 0.1,
        "recipe.warmup": 5 / 150,
    }
    FORMER: ClassVar[Params] = {"target": 0.0, "gate_norm": False}

    depth: Annotated[int, Field(ge=8, le=1202), Search(low=8, high=26, step=6)] = 26
    """Layers with weights, two per block: 6n+2 in the cifar family; 28 in mobilenet's."""
    width: Annotated[float, Field(ge=0.1, le=4), Search(low=0.25, high=1.0, step=0.25)] = 1.0
    """Multiplies every channel count; the widest are rounded to a multiple of 4."""
    family: SupernetFamily = "cifar"
    """cifar: three stages of up to 64, 128 and 256 channels, with two more strides for images above
    64 px; mobilenet: the released supernet, for 224 px."""
    narrowest: Annotated[float, Field(gt=0, lt=1), Search(low=0.125, high=0.5)] = 0.25
    """Narrowest over widest width of the first dynamic stage; the second omits as many channels
    (published: 0.35)."""
    choices: Annotated[int, Field(ge=2, le=64), Search(low=5, high=8)] = 5
    """Evenly spaced widths of the dynamic stages; their step is a whole number of channels
    (published: 14)."""
    routing_start: Annotated[int, Field(ge=0, le=62), Search(low=0, high=1)] = 0
    """First choice that the gate may select; 0 is the narrowest."""
    routing_size: Annotated[int, Field(ge=2, le=64), Search(low=2, high=4)] = 4
    """Number of consecutive choices that the gate may select."""
    target: Annotated[float, Field(ge=0, lt=1), Search(low=0.2, high=0.8)] = 0.3
    """Mean MACs to spend, between the narrowest routed choice (0) and the widest (1); 0 sets none:
    the published losses then decide what is spent (published: 0)."""
    mac_weight: Annotated[float, Field(ge=0, le=100)] = 2.0
    """Weight of the MAC loss: the squared deviation from the target, relative to it. Without a
    target, the squared mean MACs, relative to the widest routed choice's (published: 0.5 per
    squared GMAC, which is 0.0197 in these units)."""
    sgs_weight: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Weight of sandwich gate sparsification (published: 1)."""
    task_weight: Annotated[float, Field(ge=0, le=100)] = 3.0
    """Weight of the task loss that the gate's shares expect; without a target, of the cross-entropy
    of choices sampled from them (published: 1)."""
    task_loss: TaskLoss = "miss"
    """miss: the probability that a width gives to wrong classes, so that width is spent where it
    makes images right; cross_entropy: in nats, in which hopeless images weigh most. Without a
    target it is cross-entropy (published)."""
    gate_input: GateInput = "squeezed"
    """squeezed: the gate reads the squeezed vector; statistics: mean, maximum and deviation of each
    channel that is squeezed."""
    gate_norm: bool = True
    """Norm without parameters on what the gate reads, and a bias of the gate (published: off)."""
    residual: bool = False
    """Blocks after the first of a stage add their input: deep supernets then train faster
    (published: off)."""
    teacher: Teacher = "average"
    """average: past supernets' average teaches all widths but the largest (in-place bootstrapping);
    largest: the largest network itself does (in-place distillation); labels: all widths learn from
    labels."""
    ensemble: bool = True
    """Teach the smallest network by the mean of the teacher's three, not only by its largest (the
    paper: on; the authors' configuration: off)."""
    teacher_decay: Annotated[float, Field(ge=0, lt=1)] = 0.997
    """Decay of the teacher's average of past supernets, per step; lower it for short trainings."""
    teacher_warmup: bool = True
    """Average the last ninth of the steps until that is more than the decay allows (published:
    off)."""
    squeeze_bias: Annotated[float, Field(ge=-10, le=10)] = ALIVE
    """Initial bias of squeezing (published: 0)."""
    recalibration: bool = True
    """Recompute the statistics of every width at the end of the supernet phase."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Fraction of the pooled features of the largest network that is dropped in training."""
    gate_share: Annotated[float, Field(gt=0, lt=1)] = 30 / 180
    """Fraction of training in the gate phase (30 of 180 epochs)."""
    gate_lr: Annotated[float, Field(gt=0, le=10)] = 0.08
    """Peak learning rate of the gate phase."""
    gate_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Weight decay of the gate (published: 0.01)."""
    held_out: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Fraction of the training split that only the gate learns from."""
    balanced: bool = True
    """Weight right and wrong images of the smallest routed network equally in sandwich gate
    sparsification (published: off)."""

    @pydantic.model_validator(mode="after")
    def _supernet_exists(self) -> "DSNet":
        if self.family == "mobilenet" and self.depth != PUBLISHED_DEPTH:
            raise ValueError(
                f"a mobilenet supernet has depth {PUBLISHED_DEPTH}, got {self.depth}; "
                f"set depth={PUBLISHED_DEPTH}"
            )
        if self.family == "cifar" and self.depth % 6 != 2:
            below = self.depth - (self.depth - 2) % 6
            raise ValueError(
                f"a cifar supernet has depth 6n+2, got {self.depth}; try {below} or {below + 6}"
            )
        if self.routing_start + self.routing_size > self.choices:
            raise ValueError(
                f"routing_start + routing_size <= choices must hold, but got "
                f"{self.routing_start} + {self.routing_size} > {self.choices}"
            )
        self._layout(large=False)
        return self

    def build(self, task: Task) -> GatedSupernet:
        """A freshly initialised network for `task`; draws from torch's global generator.

        The supernet's weights do not depend on the routing space.

        Raises:
            MethodError: images too small for the family.
        """
        routing = range(self.routing_start, self.routing_start + self.routing_size)
        supernet = SlimMobileNet(task, self._layout_for(task))
        biased = self.gate_norm or self.target > 0
        return GatedSupernet(supernet, routing, normed=self.gate_norm, biased=biased)

    def phases(self, smoothing: float = 0.0) -> Sequence[Phase[GatedSupernet]]:
        """The supernet with its sandwich of losses, then the gate alone."""
        return [
            Phase(
                name="supernet",
                share=1 - self.gate_share,
                loss=partial(self._supernet_step, smoothing=smoothing),
                parameters=lambda net: [Group(list(net.supernet.parameters()))],
                advance=self._teach,
                finish=self._recalibrate,
                points=uniform_points,
                part=(0.0, 1 - self.held_out),
            ),
            Phase(
                name="gate",
                share=self.gate_share,
                loss=partial(self._gate_step, smoothing=smoothing),
                parameters=lambda net: [
                    Group(list(net.gate.parameters()), weight_decay=self.gate_decay)
                ],
                finish=self._meet,
                part=(1 - self.held_out, 1.0) if self.held_out else (0.0, 1.0),
                lr=self.gate_lr,
                schedule="cosine",
            ),
        ]

    def deploy(self, net: GatedSupernet | UniformNet) -> BucketedNet | SlicedNet:
        """Folded norms and sliced weights: samples bucketed by width, or one width for all."""
        return SlicedNet(net) if isinstance(net, UniformNet) else BucketedNet(net)

    def floor(self, task: Task) -> int:
        """MACs of the narrowest choice without the gate.

        Raises:
            MethodError: images too small for the family.
        """
        layout = self._layout_for(task)
        return path_macs(task, layout, layout.uniform(0))

    def alarm(self, net: GatedSupernet | UniformNet, images: Images) -> str | None:
        """A warning if the gate has collapsed on these images."""
        if isinstance(net, UniformNet):
            return None
        with quiet(net):
            return monotony(net.decide(images)[1], net.routing, self._advice())

    def _advice(self) -> str:
        """What made gates decide per image, as measured in docs/dynamic.md."""
        if not self.target:
            return "give a target, such as 0.3: without one the labels' majority decides"
        if not self.gate_norm:
            return "set gate_norm: without it the gate reads nearly the same of every image"
        return "the widths may differ too little: lower narrowest, or train the supernet longer"

    def _layout_for(self, task: Task) -> Layout:
        least = 8 if self.family == "cifar" else LARGE
        if min(task.height, task.width) < least:
            raise MethodError(
                f"a {self.family} supernet needs images of at least {least} px, but {task.name} "
                f"has {task.height}x{task.width}"
                + ("; use family cifar" if self.family == "mobilenet" else "")
            )
        return self._layout(large=max(task.height, task.width) > LARGE)

    def _layout(self, *, large: bool) -> Layout:
        spacing = self.width, self.narrowest, self.choices
        layout = (
            published(*spacing)
            if self.family == "mobilenet"
            else small(self.depth, *spacing, stride=2 if large else 1)
        )
        return layout._replace(
            residual=self.residual, gate_input=self.gate_input, squeeze_bias=self.squeeze_bias
        )

    def _supernet_step(
        self, net: GatedSupernet, images: Images, labels: Labels, *, smoothing: float
    ) -> Tensor:
        lessons = Lessons(self.teacher, self.ensemble, self.dropout, smoothing)
        return sandwich(net.supernet, net.teacher, images, labels, lessons)

    def _teach(self, net: GatedSupernet, progress: float) -> None:
        if self.teacher == "average":
            net.teach(progress, self.teacher_decay, warm=self.teacher_warmup)

    def _recalibrate(self, net: GatedSupernet, batches: Iterable[Images]) -> None:
        self._teach(net, 1.0)
        if self.recalibration:
            recalibrate(net.supernet, batches)

    def _gate_step(
        self, net: GatedSupernet, images: Images, labels: Labels, *, smoothing: float
    ) -> Tensor:
        if self.target:
            return self._target_step(net, images, labels, smoothing=smoothing)
        supernet, paths = net.supernet, net.paths
        with frozen(supernet):
            with torch.no_grad():
                features, inputs = supernet.front(images, paths[0])
                right = supernet.back(features, paths[0]).argmax(1) == labels
            odds = net.odds(inputs)
            shares = per_sample(partial(F.gumbel_softmax, hard=True), odds)
            logits = supernet.masked(features, shares, paths)
        mean_macs = batch_mean((shares.double() * net.costs).sum(1).mean())
        task_loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        return (
            self.sgs_weight * self._sgs(net, odds, right)
            + self.task_weight * task_loss
            + self.mac_weight * mean_macs.to(odds.dtype) ** 2
        )

    def _target_step(
        self, net: GatedSupernet, images: Images, labels: Labels, *, smoothing: float
    ) -> Tensor:
        """The loss that the gate's shares expect, every width run on every image."""
        supernet, paths = net.supernet, net.paths
        with frozen(supernet), torch.no_grad():
            features, inputs = supernet.front(images, paths[0])
            logits = [supernet.back(features, path) for path in paths]
        losses = [task_losses(self.task_loss, each, labels, smoothing) for each in logits]
        odds = net.odds(inputs)
        shares = odds.softmax(1)
        task_loss = (shares * torch.stack(losses, 1)).sum(1).mean()
        spent = batch_mean((shares.double() @ net.costs).mean()).to(odds.dtype)
        loss = self.task_weight * task_loss
        loss = loss + self.mac_weight * (spent / self._goal(net) - 1) ** 2
        if self.sgs_weight:
            loss = loss + self.sgs_weight * self._sgs(net, odds, logits[0].argmax(1) == labels)
        return loss

    def _sgs(self, net: GatedSupernet, odds: Odds, right: Bool[Tensor, " batch"]) -> Tensor:
        net.easy.lerp_(batch_mean(right.to(net.easy.dtype).mean()), MOMENTUM)
        return sparsification(odds, right, net.easy if self.balanced else None)

    def _goal(self, net: GatedSupernet) -> float:
        """The target as a share of the MACs of the widest routed choice."""
        least = float(net.costs[0])
        return least + self.target * (1 - least)

    def _meet(self, net: GatedSupernet, batches: Iterable[Images]) -> None:
        """Shift the gate where its decisions miss the target, as argmaxes of its shares may."""
        if not self.target:
            return
        with quiet(net):
            odds = everyone(torch.cat([net.weigh(images)[1] for images in batches]))
        spent, goal = float(net.costs[odds.argmax(1)].mean()), self._goal(net)
        if abs(spent - goal) > TOLERANCE:
            net.gate.shift(odds, net.costs, goal)
