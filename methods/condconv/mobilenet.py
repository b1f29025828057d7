"""MobileNetV1 and V2 as functions of their parts.

Howard et al., MobileNets (arXiv 1704.04861), table 1; Sandler et al., MobileNetV2 (arXiv
1801.04381), table 2.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from methods.api import Changed, Features, Images, Task
from methods.condconv.efficientnet import LEAST, initialise, normed
from methods.errors import MethodError
from methods.macs import macs, sketched
from methods.resnet import Context, Normed, scaled

Version = Literal[1, 2]

V1: Sequence[tuple[int, int, int]] = (
    (1, 64, 1),
    (2, 128, 2),
    (2, 256, 2),
    (6, 512, 2),
    (2, 1024, 2),
)
"""Stages of separable blocks: blocks, channels, stride of the first."""
V2: Sequence[tuple[int, int, int, int]] = (
    (1, 1, 16, 1),
    (6, 2, 24, 2),
    (6, 3, 32, 2),
    (6, 4, 64, 2),
    (6, 3, 96, 1),
    (6, 3, 160, 2),
    (6, 1, 320, 1),
)
"""Stages of bottlenecks: expansion, blocks, channels, stride of the first."""
STEM, LAST = 32, 1280
"""Channels before the blocks, and of V2 after them; those after them do not shrink with width."""


class Separable(nn.Module):
    """Filter each channel, then mix channels."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.filter = normed(inputs, inputs, 3, stride, groups=inputs)
        self.mix = normed(inputs, outputs, 1)

    def forward(self, features: Features, context: Context = ()) -> Changed:
        return F.relu6(self.mix(F.relu6(self.filter(features, context)), context))


class Bottleneck(nn.Module):
    """Expand, filter each channel, project without an activation; a shortcut where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, expand: int = 6) -> None:
        super().__init__()
        inner = inputs * expand
        self.residual = stride == 1 and inputs == outputs
        self.expand = normed(inputs, inner, 1) if expand > 1 else None
        self.filter = normed(inner, inner, 3, stride, groups=inner)
        self.project = normed(inner, outputs, 1)

    def forward(self, features: Features, context: Context = ()) -> Changed:
        inner = features if self.expand is None else F.relu6(self.expand(features, context))
        out: Tensor = self.project(F.relu6(self.filter(inner, context)), context)
        return features + out if self.residual else out


class MobileNet(nn.Module):
    """A stem, a flat list of blocks, in V2 a last convolution, and a linear head on the mean."""

    def __init__(
        self, stem: Normed, blocks: Iterable[nn.Module], last: Normed | None, head: nn.Linear
    ) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        self.last = last
        self.head = head

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        features = F.relu6(self.stem(images))
        for block in self.blocks:
            features = block(features)
        if self.last is not None:
            features = F.relu6(self.last(features))
        return self.head(features.mean((2, 3)))  # type: ignore[no-any-return]


def counts(version: Version) -> list[int]:
    """Blocks of each stage."""
    return [count for count, *_ in V1] if version == 1 else [count for _, count, *_ in V2]


def mobilenet(task: Task, version: Version, width: float = 1.0) -> MobileNet:
    """A freshly initialised network; `width` multiplies every channel count.

    Raises:
        MethodError: the images are too small.
    """
    if min(task.height, task.width) < LEAST:
        raise MethodError(
            f"MobileNets need images of at least {LEAST} px, but {task.name} has "
            f"{task.height}x{task.width}; use family cifar"
        )
    inputs = scaled(STEM, width)
    stem = normed(task.channels, inputs, 3, 2)
    blocks: list[nn.Module] = []
    stages = [(1, *stage) for stage in V1] if version == 1 else V2
    for expand, count, channels, stride in stages:
        outputs = scaled(channels, width)
        for position in range(count):
            step = stride if position == 0 else 1
            blocks.append(
                Separable(inputs, outputs, step)
                if version == 1
                else Bottleneck(inputs, outputs, step, expand)
            )
            inputs = outputs
    last = None if version == 1 else normed(inputs, max(LAST, scaled(LAST, width)), 1)
    pooled = inputs if last is None else max(LAST, scaled(LAST, width))
    net = MobileNet(stem, blocks, last, nn.Linear(pooled, task.classes))
    initialise(net)
    return net


@lru_cache(maxsize=256)
def cost(task: Task, version: Version, width: float = 1.0) -> int:
    """MACs of one sample in `mobilenet(task, version, width)`, by fvcore, nothing trained.

    Raises:
        MethodError: the images are too small.
    """
    with sketched():
        skeleton = mobilenet(task, version, width)
    image = torch.zeros(1, task.channels, task.height, task.width)
    return macs(skeleton.to_empty(device="cpu"), image)
