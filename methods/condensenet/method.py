"""CondenseNet: dense connections, of which each group of outputs learns to keep only some.

Huang et al., CondenseNet: An Efficient DenseNet using Learned Group Convolutions (arXiv
1711.09224). The cost is the configuration's, the same for every image.
"""

import math
import re
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Annotated, ClassVar, Literal

import pydantic
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from methods.api import (
    Family,
    Images,
    Labels,
    Method,
    Network,
    Output,
    Phase,
    Search,
    Task,
    cross_entropy,
)
from methods.condensenet.densenet import DenseNet, costs, densenet
from methods.condensenet.layers import Grouping, LearnedGroupConv, condensed, learned
from methods.values import Params, shown


class CondensingNet(Network):
    """A DenseNet of learned group convolutions, in one of its condensing stages.

    Its price is that of the network if it were shipped in this stage: of all unpruned inputs.
    """

    stage: Tensor
    prices: Tensor

    def __init__(self, backbone: DenseNet, prices: Sequence[int]) -> None:
        super().__init__()
        self.backbone = backbone
        self.last = len(prices) - 1
        self.register_buffer("stage", torch.zeros((), dtype=torch.int64))
        by_stage = torch.tensor(prices, dtype=torch.float64)
        self.register_buffer("prices", by_stage, persistent=False)

    def forward(self, images: Images) -> Output:
        price = self.prices.index_select(0, self.stage.expand(len(images)))
        return Output(self.backbone(images), price)

    def condense(self, stage: int) -> None:
        """Prune stage by stage from the current stage up to `stage`; stages never decrease.

        A classifier that is a learned group convolution is pruned only in the last stage.
        """
        for reached in range(int(self.stage) + 1, stage + 1):
            for conv in learned(self.backbone if reached == self.last else self.backbone.blocks):
                conv.condense()
            self.stage.fill_(reached)

    def lasso(self) -> Float[Tensor, ""]:
        """Group lasso of all layers; 0 in the last stage, after which nothing is pruned."""
        if int(self.stage) == self.last:
            return torch.zeros((), device=self.stage.device)
        return torch.stack([conv.lasso() for conv in learned(self.backbone.blocks)]).sum()


class CondenseNet(Method):
    """A DenseNet whose groups of outputs learn in training which few inputs they keep.

    Paper: Huang, Liu, van der Maaten, Weinberger, CondenseNet: An Efficient DenseNet using Learned
    Group Convolutions, CVPR 2018, arXiv 1711.09224.

    As published:
    - every layer reads all earlier maps, across blocks too; the growth rate doubles per block
    - output o of a 1x1 convolution is in group o mod G; the 3x3 convolutions have G groups too
    - at i/(2(C-1)) of training, i = 1 to C-1, a group drops the 1/C of inputs of least sum |w|
    - group lasso until the last of these stages; 1/C of the 1x1 weights remain
    - shipped as an index of inputs, a standard group convolution and a shuffle

    Deviations:
    - the classifier stays whole; the public code halves it, untuned, after training
    - `halve_classifier` prunes it in training instead, so that shipping changes no logit
    - the lasso ends with the last stage for every G and C; the public code compares with G
    - a jump in progress prunes all stages that it skips; the public code prunes one
    - masks and stage belong to each network and are saved with its weights
    - shipped, inputs are gathered after norm and ReLU: one norm per layer also for C < G
    - the head pools the whole map, which generalises the published windows of 8 and 7 px
    - images above 64 px use the stem of stride 2 in either family
    - epochs, batch and learning rate are the study's (published: 300 epochs, batch 64, lr 0.1)
    """

    PUBLISHED: ClassVar[Params] = {
        "halve_classifier": True,
        "recipe.nesterov": True,
        "recipe.schedule": "cosine",
        "recipe.lr": 0.1,
        "recipe.weight_decay": 1e-4,
        "recipe.batch_size": 64,
    }
    condense_factor: Annotated[int, Field(ge=2, le=64), Search(choices=(2, 4, 8))] = 4
    """C: a 1x1 convolution keeps 1/C of its weights after C-1 condensing stages."""
    groups: Annotated[int, Field(ge=1, le=64), Search(choices=(2, 4, 8))] = 4
    """G: groups of outputs in every 1x1 and 3x3 convolution."""
    grouping: Grouping = "learned"
    """Which inputs a group of a 1x1 convolution keeps: those that it learns to keep; from the start
    its 1/C of them in order, or at random; or all of them, which is the network uncondensed."""
    spatial_groups: Annotated[int, Field(ge=0, le=64)] = 0
    """Groups of the 3x3 convolutions; 0: as many as `groups`, as published."""
    bottleneck: Annotated[int, Field(ge=1, le=16)] = 4
    """Outputs of a 1x1 convolution, as a multiple of the channels that its layer adds."""
    stages: Annotated[
        str, Search(choices=("6-6-6", "8-8-8", "10-10-10", "12-12-12", "14-14-14"))
    ] = "14-14-14"
    """Layers of each block, joined by dashes (30-30-30 with growth 12; ImageNet 4-6-8-10-8)."""
    growth: Annotated[int, Field(ge=2, le=256), Search(low=8, high=24, step=8)] = 8
    """Channels that a layer of the first block adds; the number doubles from block to block."""
    lasso: Annotated[float, Field(ge=0, le=1), Search(low=1e-6, high=1e-4, log=True)] = 0.0
    """Weight of the group lasso (ImageNet 1e-5)."""
    family: Family = "cifar"
    """cifar: a stem of stride 1, but of stride 2 for images above 64 px; imagenet: of stride 2."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of activations dropped at each 1x1 convolution in training (30-30-30: 0.1)."""
    dropout_at: Literal["before", "after"] = "before"
    """Whether dropout acts on the input or on the output of a 1x1 convolution."""
    halve_classifier: bool = False
    """Prune the less important half of the classifier's inputs in the last stage."""

    @pydantic.model_validator(mode="after")
    def _divides(self) -> "CondenseNet":
        if not re.fullmatch(r"[1-9]\d*(-[1-9]\d*)*", self.stages):
            raise ValueError(
                f"stages must be the layers of each block, joined by dashes, got "
                f"{shown(self.stages)}; try '14-14-14'"
            )
        if self.halve_classifier and self.grouping != "learned":
            raise ValueError(
                f"the classifier is halved where groups are learned, but got "
                f"(grouping={self.grouping}, halve_classifier=true); set halve_classifier=false"
            )
        unit = math.lcm(
            self._spatial_groups,
            self.groups,
            self.condense_factor,
            2 if self.halve_classifier else 1,
        )
        if self.growth % unit:
            below = self.growth - self.growth % unit
            even = ", and even for halve_classifier" if self.halve_classifier else ""
            raise ValueError(
                f"growth must be a multiple of groups and of condense_factor{even}, got "
                f"(growth={self.growth}, groups={self.groups}, "
                f"condense_factor={self.condense_factor}); "
                f"try growth {f'{below} or ' if below else ''}{below + unit}"
            )
        return self

    def build(self, task: Task) -> CondensingNet:
        """A freshly initialised network for `task`; draws from torch's global generator.

        Raises:
            MethodError: images too small for so many blocks.
        """
        pointwise = partial(
            LearnedGroupConv,
            groups=self.groups,
            factor=self.condense_factor,
            dropout=self.dropout,
            dropout_at=self.dropout_at,
            grouping=self.grouping,
        )
        backbone = densenet(
            task,
            self._layers,
            self.growth,
            groups=self._spatial_groups,
            family=self.family,
            bottleneck=self.bottleneck,
            pointwise=pointwise,
            head=_HalvingHead if self.halve_classifier else nn.Linear,
        )
        return CondensingNet(backbone, self._prices(task))

    def phases(self, smoothing: float = 0.0) -> Sequence[Phase[CondensingNet]]:
        """A single phase: cross-entropy and group lasso; condensing takes its first half."""
        return [
            Phase(
                name="train",
                share=1.0,
                loss=partial(self._loss, smoothing=smoothing),
                advance=self._advance,
                finish=_finish,
            )
        ]

    def deploy(self, net: CondensingNet) -> DenseNet:
        """The backbone with standard group convolutions in place of the learned ones."""
        return condensed(net.backbone)

    def floor(self, task: Task) -> int:
        """MACs of any sample once training has condensed the network."""
        return self._prices(task)[-1]

    def alarm(self, net: CondensingNet, _images: Images) -> str | None:
        """A warning if the network has not reached its last condensing stage."""
        stage = int(net.stage)
        if stage == net.last:
            return None
        return (
            f"not fully condensed: in stage {stage} of {net.last} each group keeps "
            f"{1 - stage / self.condense_factor:.0%} of its inputs; train to the end"
        )

    def unreduced(self) -> Params:
        """The DenseNet: every convolution whole, without condensing and without groups."""
        return {"grouping": "none", "groups": 1, "spatial_groups": 1, "halve_classifier": False}

    @property
    def _spatial_groups(self) -> int:
        return self.spatial_groups or self.groups

    @property
    def _layers(self) -> tuple[int, ...]:
        return tuple(int(count) for count in self.stages.split("-"))

    def _prices(self, task: Task) -> list[int]:
        """MACs of a sample in each condensing stage."""
        parts = costs(
            task,
            self._layers,
            self.growth,
            groups=self._spatial_groups,
            family=self.family,
            bottleneck=self.bottleneck,
        )
        saving = parts.pointwise // self.condense_factor  # MACs per stage
        if self.grouping != "learned":
            kept = 1 if self.grouping == "none" else self.condense_factor
            return [parts.total - parts.pointwise + parts.pointwise // kept]
        prices = [parts.total - saving * stage for stage in range(self.condense_factor)]
        if self.halve_classifier:
            prices[-1] -= parts.head // 2
        return prices

    def _advance(self, net: CondensingNet, progress: float) -> None:
        net.condense(min(stage_at(progress, self.condense_factor), net.last))

    def _loss(
        self, net: CondensingNet, images: Images, labels: Labels, *, smoothing: float
    ) -> Tensor:
        loss = cross_entropy(net, images, labels, smoothing=smoothing)
        return loss + self.lasso * net.lasso() if self.lasso > 0 else loss


def stage_at(progress: float, factor: int) -> int:
    """The condensing stage at this progress; the last, factor - 1, begins at one half."""
    return sum(2 * progress >= stage / (factor - 1) for stage in range(1, factor))


class _HalvingHead(nn.Module):
    """A linear classifier as a learned group convolution of one group; half its inputs remain."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.conv = LearnedGroupConv(inputs, classes, groups=1, factor=2, bias=True)
        nn.init.kaiming_uniform_(self.conv.weight, a=math.sqrt(5))  # as nn.Linear is initialised

    def forward(self, pooled: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch classes"]:
        logits: Tensor = self.conv(pooled[..., None, None])
        return logits.flatten(1)


def _finish(net: CondensingNet, _batches: Iterable[Images]) -> None:
    net.condense(net.last)
