"""DS-Net: a supernet that runs at many widths, and a small gate that picks the width per image.

Li et al., Dynamic Slimmable Network (arXiv 2103.13258).
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Annotated, Literal

import pydantic
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from methods.api import Group, Images, Labels, Method, Phase, Search, Task
from methods.dsnet.losses import frozen, monotony, recalibrate, sandwich, sparsification
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
from methods.resnet import LARGE

SupernetFamily = Literal["cifar", "mobilenet"]
MOMENTUM = 0.05
"""Momentum of the running fraction of images that the smallest routed network classifies right."""


class DSNet(Method):
    """Per-image width: slices of one supernet, and a gate that picks the slice.

    Paper: Li et al., Dynamic Slimmable Network, CVPR 2021, arXiv 2103.13258.

    As published:
    - family mobilenet is the released supernet: 14 widths in the last two stages, one gate on the
      squeezed vector of the first block there, no residuals
    - a norm keeps statistics per width and one affine map; squeezed vectors have a fixed size
    - supernet phase: sandwich rule with in-place ensemble bootstrapping by an averaged teacher
    - gate phase: only the gate's head trains, by sandwich gate sparsification, the task loss of
      straight-through Gumbel choices, and a MAC loss
    - the operating points are every uniform width, the largest network, and the gate

    Deviations:
    - family cifar is ours, of the same parts: the paper has no supernet for small images; its
      squeezed vectors have at least 16 entries, since its gate would otherwise read as few as 4
    - the bias of squeezing starts at 0.5: from 0, most squeezed entries are 0 for every image
    - the teacher averages the last ninth of the steps until that is more than its decay allows: in
      short trainings the published average is still half random initialisation
    - the largest network has separate statistics where its width equals the last choice's
    - the two random choices differ, may be the narrowest, and are the same for the teacher
    - the three narrow forwards of a step share stem and first stages, whose statistics move once
    - statistics are recomputed as plain means over the phase's images, for the largest network too
    - the gate learns from images that the supernet has not trained on (held_out), and both kinds of
      label get equal weight (balanced): otherwise nearly all labels are the same where the
      narrowest choice is nearly always right
    - the gate's labels use log-softmax of raw logits; the authors' code applies softmax twice
    - the MAC loss is relative to the routing space's most expensive choice, not to 1e9, which makes
      it negligible at CIFAR's size; the weight is converted
    - straight-through gradients reach the gate through scale and shift of the norms, once per layer
    - the gate takes the argmax at evaluation; the authors' code keeps the noise
    - every step runs every slice, so that no gradient is entirely zero: none is set to None
    - batch size, learning rate, warm-up, label smoothing and augmentation are the recipe's;
      published: 512, 0.08, 5 epochs of 150, 0.1, RandAugment with erasing and colour jitter
    """

    depth: Annotated[int, Field(ge=8, le=1202), Search(low=8, high=26, step=6)] = 26
    """Layers with weights, two per block: 6n+2 in the cifar family; 28 in mobilenet's."""
    width: Annotated[float, Field(ge=0.1, le=4), Search(low=0.25, high=1.0, step=0.25)] = 1.0
    """Multiplies every channel count; the widest are rounded to a multiple of 4."""
    family: SupernetFamily = "cifar"
    """cifar: three stages of up to 64, 128 and 256 channels, with two more strides for images above
    64 px; mobilenet: the released supernet, for 224 px."""
    narrowest: Annotated[float, Field(gt=0, lt=1), Search(low=0.2, high=0.5)] = 0.35
    """Narrowest over widest width of the first dynamic stage; the second omits as many channels."""
    choices: Annotated[int, Field(ge=2, le=64), Search(low=8, high=14)] = 14
    """Evenly spaced widths of the dynamic stages; their step is a whole number of channels."""
    routing_start: Annotated[int, Field(ge=0, le=62), Search(low=0, high=4)] = 0
    """First choice that the gate may select; 0 is the narrowest."""
    routing_size: Annotated[int, Field(ge=2, le=64), Search(low=2, high=4)] = 4
    """Number of consecutive choices that the gate may select."""
    mac_weight: Annotated[float, Field(ge=0, le=100), Search(low=0.005, high=0.5, log=True)] = 0.02
    """Weight of the squared mean MACs, relative to the most expensive routed choice (published: 0.5
    per squared GMAC, which is 0.0197 in these units)."""
    sgs_weight: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Weight of sandwich gate sparsification."""
    task_weight: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Weight of the cross-entropy of the dynamic network in the gate phase."""
    residual: bool = False
    """Blocks after the first of a stage add their input: deep supernets then train faster
    (published: off)."""
    ensemble: bool = False
    """Teach the smallest network by the mean of the teacher's three, not only by its largest."""
    teacher_decay: Annotated[float, Field(ge=0, lt=1)] = 0.997
    """Decay of the teacher's average of past supernets, per step; lower it for short trainings."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Fraction of the pooled features of the largest network that is dropped in training."""
    gate_share: Annotated[float, Field(gt=0, lt=1)] = 30 / 180
    """Fraction of training in the gate phase (30 of 180 epochs)."""
    gate_lr: Annotated[float, Field(gt=0, le=10)] = 0.08
    """Peak learning rate of the gate phase."""
    gate_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Weight decay of the gate."""
    held_out: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Fraction of the training split that only the gate learns from (published: 0)."""
    balanced: bool = True
    """Weight right and wrong images of the smallest routed network equally (published: off)."""

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
        return GatedSupernet(SlimMobileNet(task, self._layout_for(task)), routing)

    def phases(self, smoothing: float = 0.0) -> Sequence[Phase[GatedSupernet]]:
        """The supernet with its sandwich of losses, then the gate alone, on other images."""
        return [
            Phase(
                name="supernet",
                share=1 - self.gate_share,
                loss=partial(self._supernet_step, smoothing=smoothing),
                parameters=lambda net: [Group(list(net.supernet.parameters()))],
                advance=lambda net, progress: net.teach(progress, self.teacher_decay),
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
            return monotony(net.decide(images)[1], net.routing)

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
        return layout._replace(residual=self.residual)

    def _supernet_step(
        self, net: GatedSupernet, images: Images, labels: Labels, *, smoothing: float
    ) -> Tensor:
        return sandwich(
            net.supernet,
            net.teacher,
            images,
            labels,
            ensemble=self.ensemble,
            dropout=self.dropout,
            smoothing=smoothing,
        )

    def _recalibrate(self, net: GatedSupernet, batches: Iterable[Images]) -> None:
        net.teach(1.0, self.teacher_decay)
        recalibrate(net.supernet, batches)

    def _gate_step(
        self, net: GatedSupernet, images: Images, labels: Labels, *, smoothing: float
    ) -> Tensor:
        supernet, paths = net.supernet, net.paths
        with frozen(supernet):
            with torch.no_grad():
                features, reduced = supernet.front(images, paths[0])
                right = supernet.back(features, paths[0]).argmax(1) == labels
                net.easy.lerp_(right.to(net.easy.dtype).mean(), MOMENTUM)
            odds = net.gate(reduced).to(torch.promote_types(reduced.dtype, torch.float32))
            shares = F.gumbel_softmax(odds, hard=True)
            logits = supernet.masked(features, shares, paths)
        mean_macs = (shares.double() * (net.prices / net.prices.max())).sum(1).mean()
        sgs = sparsification(odds, right, net.easy if self.balanced else None)
        task_loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        return (
            self.sgs_weight * sgs
            + self.task_weight * task_loss
            + self.mac_weight * mean_macs.to(odds.dtype) ** 2
        )
