"""Fully dense DenseNets as functions of their parts, and their cost in closed form.

Huang et al., CondenseNet (arXiv 1711.09224), section 4: every layer reads every earlier feature
map, across blocks too, since a transition only pools; the growth rate doubles from block to block.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from methods.api import Changed, Family, Features, Images, Task
from methods.errors import MethodError
from methods.resnet import LARGE, initialise

Pointwise = Callable[[int, int], nn.Module]
"""Builds a layer's 1x1 convolution: (inputs, outputs)."""
Head = Callable[[int, int], nn.Module]
"""Builds the classifier of the pooled features: (inputs, classes)."""

PLAIN: Pointwise = partial(nn.Conv2d, kernel_size=1, bias=False)
BOTTLENECK = 4
"""Outputs of a layer's 1x1 convolution, as a multiple of the growth rate, as published."""


class Layer(nn.Module):
    """A 1x1 and a grouped 3x3 convolution, norm and ReLU before each; returns the new features."""

    def __init__(
        self, inputs: int, growth: int, groups: int, pointwise: Pointwise, bottleneck: int
    ) -> None:
        super().__init__()
        inner = bottleneck * growth
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1: nn.Module = pointwise(inputs, inner)
        self.norm2: nn.Module = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, growth, 3, padding=1, groups=groups, bias=False)

    def forward(self, features: Features) -> Float[Tensor, "batch growth height width"]:
        inner = self.conv1(F.relu(self.norm1(features), inplace=True))
        return self.conv2(F.relu(self.norm2(inner), inplace=True))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Layers on maps of one size, each of which reads all earlier features."""

    def __init__(self, layers: Sequence[Layer], pool: bool) -> None:
        super().__init__()
        self.pool = pool
        self.layers = nn.ModuleList(layers)

    def forward(self, features: Features) -> Changed:
        if self.pool:
            features = F.avg_pool2d(features, 2)
        for layer in self.layers:
            features = torch.cat([features, layer(features)], 1)
        return features


class DenseNet(nn.Module):
    """A stem, blocks of layers, and a head on the mean over the last map."""

    def __init__(
        self, stem: nn.Conv2d, blocks: Sequence[Block], outputs: int, head: nn.Module
    ) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.BatchNorm2d(outputs)
        self.head = head

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        features = self.stem(images)
        for block in self.blocks:
            features = block(features)
        return self.head(F.relu(self.norm(features)).mean((2, 3)))  # type: ignore[no-any-return]


class Shape(NamedTuple):
    """The shape of a layer: the channels that it reads and adds, and the size of its map."""

    inputs: int
    growth: int
    height: int
    width: int


class Costs(NamedTuple):
    """MACs of one sample in the parts of a DenseNet."""

    stem: int
    pointwise: int
    """All 1x1 convolutions, with every output connected to every input."""
    grouped: int
    """All 3x3 convolutions."""
    head: int

    @property
    def total(self) -> int:
        """MACs of the whole network."""
        return sum(self)


def densenet(
    task: Task,
    stages: tuple[int, ...],
    growth: int,
    *,
    groups: int,
    family: Family = "cifar",
    bottleneck: int = BOTTLENECK,
    pointwise: Pointwise = PLAIN,
    head: Head = nn.Linear,
) -> DenseNet:
    """A freshly initialised DenseNet for `task`.

    `stages` are the numbers of layers of the blocks, `growth` is the first block's growth rate,
    `groups` are those of the 3x3 convolutions; 1x1 convolutions are plain by default, and have
    `bottleneck` times as many outputs as the layer adds channels.

    Raises:
        MethodError: images too small for so many blocks.
    """
    layout = shapes(task, stages, growth, family)
    blocks = [
        Block(
            [Layer(at.inputs, at.growth, groups, pointwise, bottleneck) for at in layers], index > 0
        )
        for index, layers in enumerate(layout)
    ]
    stride = _stride(task, family)
    stem = nn.Conv2d(task.channels, 2 * growth, 3, stride=stride, padding=1, bias=False)
    outputs = _outputs(layout)
    net = DenseNet(stem, blocks, outputs, head(outputs, task.classes))
    initialise(net)
    return net


def shapes(
    task: Task, stages: tuple[int, ...], growth: int, family: Family
) -> tuple[tuple[Shape, ...], ...]:
    """The shapes of the layers of each block.

    Raises:
        MethodError: images too small for so many blocks.
    """
    stride, halvings = _stride(task, family), len(stages) - 1
    height, width = -(-task.height // stride), -(-task.width // stride)
    if min(height, width) >> halvings == 0:
        least = (stride << halvings) - stride + 1
        raise MethodError(
            f"a DenseNet of {len(stages)} blocks needs images of at least {least} px, but "
            f"{task.name} has {task.height}x{task.width}; use fewer blocks"
        )
    blocks, inputs = [], 2 * growth
    for index, count in enumerate(stages):
        rate = growth << index
        size = height >> index, width >> index
        blocks.append(tuple(Shape(inputs + rate * i, rate, *size) for i in range(count)))
        inputs += rate * count
    return tuple(blocks)


@lru_cache(maxsize=1024)
def costs(
    task: Task,
    stages: tuple[int, ...],
    growth: int,
    *,
    groups: int,
    family: Family = "cifar",
    bottleneck: int = BOTTLENECK,
) -> Costs:
    """MACs of one sample in the parts of `densenet` with these arguments, in closed form.

    Raises:
        MethodError: images too small for so many blocks.
    """
    layout = shapes(task, stages, growth, family)
    first, layers = layout[0][0], [at for block in layout for at in block]
    return Costs(
        stem=9 * task.channels * 2 * growth * first.height * first.width,
        pointwise=sum(at.inputs * bottleneck * at.growth * at.height * at.width for at in layers),
        grouped=sum(
            9 * bottleneck * at.growth * at.growth // groups * at.height * at.width for at in layers
        ),
        head=_outputs(layout) * task.classes,
    )


def _outputs(layout: Sequence[Sequence[Shape]]) -> int:
    last = layout[-1][-1]
    return last.inputs + last.growth


def _stride(task: Task, family: Family) -> int:
    return 2 if family == "imagenet" or max(task.height, task.width) > LARGE else 1
