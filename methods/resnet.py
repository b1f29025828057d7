"""Residual networks as functions of their parts: CIFAR's by depth 6n+2, ImageNet's by table.

He et al., Deep Residual Learning (arXiv 1512.03385). We differ in two places, as SkipNet does: a
stage starts with a projection (1x1 convolution and norm) instead of zero padding, and a bottleneck
strides in its 3x3 convolution.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from methods.api import Changed, Family, Features, Images, Task
from methods.errors import MethodError
from methods.fold import Pricer
from methods.macs import sketched

Convolution = Callable[..., nn.Module]
"""Has nn.Conv2d's signature: (inputs, outputs, size, stride=, padding=, bias=False)."""
Context = tuple[Tensor, ...]
"""Further inputs of a block's convolutions beside the features; empty for plain ones."""

Norm = Literal["batch", "group"]
"""What normalises a convolution's outputs: a batch's statistics, or each image's own."""

LARGE = 64
"""Images wider than this, in pixels, use ImageNet's stem in either family."""
LAYOUTS: dict[int, tuple[Sequence[int], bool]] = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
"""ImageNet depth -> blocks of each stage, and whether they are bottlenecks."""


class Normed(nn.Sequential):
    """A convolution and its norm."""

    def forward(self, features: Features, context: Context = ()) -> Changed:
        conv, norm = self
        return norm(conv(features, *context))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """A body of convolutions around a shortcut; the last ReLU is inside."""

    projection: Normed | None
    outputs: int

    def body(self, features: Features, context: Context) -> Changed:
        """The convolutions and their norms; no ReLU behind the last."""
        raise NotImplementedError

    def shortcut(self, features: Features, context: Context = ()) -> Changed:
        """The features themselves, or their projection at the start of a stage; no ReLU."""
        return features if self.projection is None else self.projection(features, context)

    def forward(
        self, features: Features, shortcut: Changed | None = None, context: Context = ()
    ) -> Changed:
        """The block with its shortcut, which is computed here unless the caller gives it."""
        shortcut = self.shortcut(features, context) if shortcut is None else shortcut
        return F.relu(shortcut + self.body(features, context))


class Block(Residual):
    """Two 3x3 convolutions."""

    def __init__(
        self, inputs: int, outputs: int, stride: int = 1, conv: Convolution = nn.Conv2d
    ) -> None:
        super().__init__()
        self.outputs = outputs
        self.conv1 = conv(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs, 3, stride=1, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.projection = _projection(inputs, outputs, stride, conv)

    def body(self, features: Features, context: Context) -> Changed:
        inner = F.relu(self.norm1(self.conv1(features, *context)))
        return self.norm2(self.conv2(inner, *context))  # type: ignore[no-any-return]


class Bottleneck(Residual):
    """A 3x3 convolution between two 1x1 ones, four times narrower than its outputs."""

    def __init__(
        self, inputs: int, outputs: int, stride: int = 1, conv: Convolution = nn.Conv2d
    ) -> None:
        super().__init__()
        inner = outputs // 4
        self.outputs = outputs
        self.conv1 = conv(inputs, inner, 1, stride=1, padding=0, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv2 = conv(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv3 = conv(inner, outputs, 1, stride=1, padding=0, bias=False)
        self.norm3 = nn.BatchNorm2d(outputs)
        self.projection = _projection(inputs, outputs, stride, conv)

    def body(self, features: Features, context: Context) -> Changed:
        inner = F.relu(self.norm1(self.conv1(features, *context)))
        inner = F.relu(self.norm2(self.conv2(inner, *context)))
        return self.norm3(self.conv3(inner, *context))  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """A stem, a flat list of blocks, and a linear head on the mean over the map."""

    def __init__(self, stem: nn.Module, blocks: Iterable[Residual], head: nn.Linear) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        self.head = head

    @property
    def units(self) -> Sequence[Residual]:
        """The blocks in order, typed, so that shortcut and body can be called separately."""
        return cast("Sequence[Residual]", list(self.blocks))

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        features = self.stem(images)
        for block in self.blocks:
            features = block(features)
        return self.classify(features)

    def classify(self, features: Features) -> Float[Tensor, "batch classes"]:
        """Logits from the last feature map."""
        return self.head(features.mean((2, 3)))  # type: ignore[no-any-return]


def resnet(
    task: Task,
    depth: int,
    width: float = 1.0,
    *,
    family: Family = "cifar",
    conv: Convolution = nn.Conv2d,
) -> ResNet:
    """A freshly initialised ResNet for `task`; `width` multiplies every channel count.

    Raises:
        MethodError: the family has no such depth, or the images are too small for it.
    """
    check_depth(depth, family)
    least = 8 if family == "cifar" else LARGE
    if min(task.height, task.width) < least:
        raise MethodError(
            f"a {family} ResNet needs images of at least {least} px, but {task.name} has "
            f"{task.height}x{task.width}" + ("; use family cifar" if family == "imagenet" else "")
        )
    base, counts, bottleneck = _layout(depth, family)
    widths = [scaled(base * 2**stage, width) for stage in range(len(counts))]
    large = family == "imagenet" or max(task.height, task.width) > LARGE
    stem = _large_stem(task, widths[0], conv) if large else _small_stem(task, widths[0], conv)
    blocks = _blocks(widths, counts, bottleneck, conv)
    net = ResNet(stem, blocks, nn.Linear(blocks[-1].outputs, task.classes))
    initialise(net)
    return net


def check_depth(depth: int, family: Family) -> None:
    """Check that the family has this depth.

    Raises:
        MethodError: it has not; the message names depths that it has.
    """
    if family == "cifar" and (depth < 8 or depth % 6 != 2):
        below = max(8, depth - (depth - 2) % 6)
        near = f"{below} or {below + 6}" if depth >= 8 else "8"
        raise MethodError(f"a cifar ResNet has depth 6n+2 from 8 up, got {depth}; try {near}")
    if family == "imagenet" and depth not in LAYOUTS:
        raise MethodError(f"an imagenet ResNet has depth {sorted(LAYOUTS)}, got {depth}")


def stage_sizes(depth: int, family: Family) -> Sequence[int]:
    """Number of blocks in each stage."""
    return _layout(depth, family)[1]


def scaled(channels: int, width: float) -> int:
    """Channels times width, to the nearest multiple of 4, at least 4."""
    return max(4, 4 * int(channels * width / 4 + 0.5))


def initialise(module: nn.Module) -> None:
    """Initialise convolutions from N(0, 2 / (k^2 outputs)); the rest keeps torch's defaults."""
    for part in module.modules():
        if type(part) is nn.Conv2d:
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


def normalise(module: nn.Module, norm: Norm) -> None:
    """Replace every batch norm by a group norm if `norm` says so.

    Wu and He, Group Normalization (arXiv 1803.08494): 32 groups, here fewer where a group would
    have less than 4 channels. An image's output does not depend on its batch, so that batches may
    be tiny. Such a norm does not fold away; like every norm, it is free in MACs.
    """
    if norm == "batch":
        return
    for part in list(module.modules()):
        for name, child in part.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(part, name, nn.GroupNorm(_groups(child.num_features), child.num_features))


class Costs(NamedTuple):
    """MACs of one sample in each part of a ResNet."""

    stem: int
    blocks: tuple[int, ...]
    """Each block with its projection."""
    shortcuts: tuple[int, ...]
    """Each block's projection alone; 0 where the shortcut is the identity."""
    head: int
    outputs: tuple[tuple[int, int, int], ...]
    """Channels, height and width of each block's output map."""

    @property
    def total(self) -> int:
        """MACs of the whole network."""
        return self.stem + sum(self.blocks) + self.head


@lru_cache(maxsize=256)
def costs(task: Task, depth: int, width: float = 1.0, family: Family = "cifar") -> Costs:
    """MACs of each part of `resnet(task, depth, width)`, by fvcore, without a trained network.

    Raises:
        MethodError: the family has no such depth, or the images are too small for it.
    """
    with sketched():
        skeleton = resnet(task, depth, width, family=family)
    net = skeleton.to_empty(device="cpu").eval()
    price = Pricer()
    features = torch.zeros(1, task.channels, task.height, task.width)
    stem, features = price(net.stem, features)
    blocks: list[int] = []
    shortcuts: list[int] = []
    outputs: list[tuple[int, int, int]] = []
    for block in net.units:
        if block.projection is None:
            shortcuts.append(0)
        else:
            shortcuts.append(price(block.projection, features)[0])
        cost, features = price(block, features)
        blocks.append(cost)
        outputs.append((features.shape[1], features.shape[2], features.shape[3]))
    head, _ = price(net.head, features.mean((2, 3)))
    return Costs(stem, tuple(blocks), tuple(shortcuts), head, tuple(outputs))


def _groups(channels: int) -> int:
    """The largest divisor of `channels` up to 32 that leaves 4 channels in a group."""
    most = min(32, max(1, channels // 4))
    return next(groups for groups in range(most, 0, -1) if channels % groups == 0)


def _layout(depth: int, family: Family) -> tuple[int, Sequence[int], bool]:
    if family == "cifar":
        return 16, [(depth - 2) // 6] * 3, False
    counts, bottleneck = LAYOUTS[depth]
    return 64, counts, bottleneck


def _blocks(
    widths: Sequence[int], counts: Sequence[int], bottleneck: bool, conv: Convolution
) -> list[Residual]:
    blocks: list[Residual] = []
    inputs, kind = widths[0], Bottleneck if bottleneck else Block
    for stage, (width, count) in enumerate(zip(widths, counts, strict=True)):
        outputs = width * 4 if bottleneck else width
        for position in range(count):
            stride = 2 if stage > 0 and position == 0 else 1
            blocks.append(kind(inputs, outputs, stride, conv))
            inputs = outputs
    return blocks


def _projection(inputs: int, outputs: int, stride: int, conv: Convolution) -> Normed | None:
    if stride == 1 and inputs == outputs:
        return None
    return Normed(
        conv(inputs, outputs, 1, stride=stride, padding=0, bias=False), nn.BatchNorm2d(outputs)
    )


def _small_stem(task: Task, width: int, conv: Convolution) -> nn.Sequential:
    return nn.Sequential(
        conv(task.channels, width, 3, stride=1, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )


def _large_stem(task: Task, width: int, conv: Convolution) -> nn.Sequential:
    return nn.Sequential(
        conv(task.channels, width, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
    )
