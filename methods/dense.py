"""The static baseline: a plain ResNet, scaled by depth and width. Read this method first."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import pydantic
from pydantic import Field
from torch import nn

from methods.api import Family, Method, Phase, Search, StaticNet, Task, cross_entropy
from methods.fold import fold
from methods.resnet import Norm, check_depth, costs, normalise, resnet
from methods.values import Params


class Dense(Method):
    """The static baseline: a plain ResNet, scaled by depth and width.

    Paper: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, arXiv 1512.03385.

    As published:
    - the layouts of the CIFAR and ImageNet families, and their initialisation

    Deviations:
    - a stage starts with a 1x1 projection instead of zero padding, as in the backbones of the
      methods that are compared with it
    - a bottleneck strides in its 3x3 convolution
    - width multiplies every channel count
    """

    depth: Annotated[int, Field(ge=8, le=1202), Search(low=8, high=56, step=6)] = 20
    """Layers with weights: 6n+2 in the cifar family; 18, 34, 50, 101 or 152 in imagenet's."""
    width: Annotated[float, Field(ge=0.1, le=4), Search(low=0.25, high=1.0, step=0.25)] = 1.0
    """Multiplies every channel count; the result is rounded to a multiple of 4."""
    family: Family = "cifar"
    """cifar: three stages from 16 channels, behind ImageNet's stem for images above 64 px;
    imagenet: four stages from 64 channels."""
    norm: Norm = "batch"
    """batch, as published, folds away when deployed; group depends on no batch, however small: it
    looks at one image at a time, in at most 32 groups of channels, and costs time, not MACs."""

    @pydantic.model_validator(mode="after")
    def _depth_exists(self) -> "Dense":
        check_depth(self.depth, self.family)
        return self

    def build(self, task: Task) -> StaticNet:
        """A freshly initialised ResNet for `task`; draws from torch's global generator.

        Raises:
            MethodError: images too small for the family.
        """
        backbone = resnet(task, self.depth, self.width, family=self.family)
        normalise(backbone, self.norm)
        return StaticNet(backbone, self.floor(task))

    def phases(self, smoothing: float = 0.0) -> Sequence[Phase[StaticNet]]:
        """A single phase: cross-entropy."""
        return [Phase(name="train", share=1.0, loss=partial(cross_entropy, smoothing=smoothing))]

    def deploy(self, net: StaticNet) -> nn.Module:
        """The backbone with its norms folded into the convolutions."""
        return fold(net.backbone)

    def floor(self, task: Task) -> int:
        """MACs of any sample."""
        return costs(task, self.depth, self.width, self.family).total

    def plain(self) -> Params:
        """The same network."""
        return {"method": "dense", **self.model_dump()}
