"""The static baseline: a plain ResNet, scaled by depth and width. Read this method first."""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Annotated, Self

import pydantic
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from methods.api import Images, Labels, Method, Network, Output, Phase, Search, Task
from methods.macs import macs
from methods.resnet import Family, ResNet, blank, check_depth, fold, resnet
from methods.errors import MethodError


class StaticNet(Network):
    """A backbone that costs the same for every sample."""

    def __init__(self, backbone: nn.Module, cost: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.cost = cost
        """MACs of one sample."""

    def forward(self, images: Images) -> Output:
        logits = self.backbone(images)
        price = torch.full(
            (len(images),), self.cost, dtype=torch.float64, device=images.device
        )
        return Output(logits, price)


class Dense(Method):
    """A ResNet of fixed depth and width (He et al., arXiv 1512.03385)."""

    depth: Annotated[int, Field(ge=8, le=1202), Search(low=8, high=56, step=6)] = 20
    """Layers with weights: 6n+2 in the cifar family; 18, 34, 50, 101 or 152 in imagenet's."""
    width: Annotated[float, Field(ge=0.1, le=4), Search(low=0.25, high=1.0, step=0.25)] = 1.0
    """Multiplies every channel count; the result is rounded to a multiple of 4."""
    family: Family = "cifar"
    """cifar: three stages from 16 channels, behind ImageNet's stem for images above 64 px;
    imagenet: four stages from 64 channels."""

    @pydantic.model_validator(mode="after")
    def _depth_exists(self) -> Self:
        try:
            check_depth(self.depth, self.family)
        except MethodError as error:
            raise ValueError(str(error)) from None
        return self

    def build(self, task: Task) -> StaticNet:
        """A freshly initialised ResNet for `task`; draws from torch's global generator.

        Raises:
            MethodError: images too small for the family.
        """
        return StaticNet(resnet(task, self.depth, self.width, family=self.family), self.floor(task))

    def phases(self, smoothing: float = 0.0) -> Sequence[Phase[StaticNet]]:
        """One: cross-entropy."""
        return [Phase(name="train", share=1.0, loss=partial(cross_entropy, smoothing=smoothing))]

    def deploy(self, net: StaticNet) -> ResNet:
        """The backbone with its norms folded into the convolutions."""
        folded = fold(net.backbone)
        assert isinstance(folded, ResNet)
        return folded

    def floor(self, task: Task) -> int:
        """MACs of any sample."""
        return _price(task, self.depth, self.width, self.family)


def cross_entropy(
    net: Network, images: Images, labels: Labels, *, smoothing: float = 0.0
) -> Tensor:
    """Mean cross-entropy of the batch, in nats."""
    return F.cross_entropy(net(images).logits, labels, label_smoothing=smoothing)


@lru_cache(maxsize=1024)
def _price(task: Task, depth: int, width: float, family: Family) -> int:
    with torch.device("meta"):
        backbone = resnet(task, depth, width, family=family)
    return macs(backbone, blank(task, "meta"))
