"""EfficientNet-B0 and its deeper relatives as a function of their parts.

Tan and Le, EfficientNet (arXiv 1905.11946), table 1.
"""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from methods.api import Changed, Features, Images, Task
from methods.errors import MethodError
from methods.macs import macs, sketched
from methods.parallel import per_sample
from methods.resnet import Context, Convolution, Normed, scaled

Padding = Literal["even", "tensorflow"]
"""Where an even map is halved: as much on both sides, or, as published weights expect, what is left
over below and on the right."""

LEAST = 32
"""Minimal image size, in pixels: the last map is 32 times smaller."""
GROUPS: Sequence[tuple[int, int, int, int, int]] = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
"""Block groups: expansion, kernel size, stride of the first block, channels, blocks."""
STEM, LAST = 32, 1280
"""Channels before the blocks and after them."""
SQUEEZED = 4
"""A block's inputs over the width of its squeeze and excitation."""


def counts(depth: float = 1.0) -> list[int]:
    """Blocks of each group; `depth` multiplies them, rounded up: 1.1 is B1."""
    return [math.ceil(depth * count) for *_, count in GROUPS]


class Halving(nn.Module):
    """Pads a map for a convolution of stride 2 as TensorFlow does: the odd pixel goes last."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: Features) -> Changed:
        down, across = (max(0, self.size - 2 + length % 2) for length in features.shape[2:])
        return F.pad(features, (across // 2, (across + 1) // 2, down // 2, (down + 1) // 2))


class InvertedBottleneck(nn.Module):
    """Expand, filter each channel, weight channels, project; a shortcut if the shapes allow it."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int = 3,
        stride: int = 1,
        expand: int = 6,
        *,
        padding: Padding = "even",
        dropped: float = 0.0,
        conv: Convolution = nn.Conv2d,
    ) -> None:
        super().__init__()
        inner = inputs * expand
        self.residual = stride == 1 and inputs == outputs
        self.dropped = dropped
        """Probability that training leaves an image with its shortcut alone."""
        self.expand = normed(inputs, inner, 1, conv=conv) if expand > 1 else None
        self.pad = _pad(size, stride, padding)
        around = None if self.pad is None else 0
        self.filter = normed(inner, inner, size, stride, around, groups=inner, conv=conv)
        self.squeeze = nn.Linear(inner, max(1, inputs // SQUEEZED))
        self.excite = nn.Linear(max(1, inputs // SQUEEZED), inner)
        self.project = normed(inner, outputs, 1, conv=conv)

    def forward(self, features: Features, context: Context = ()) -> Changed:
        inner = features if self.expand is None else F.silu(self.expand(features, context))
        inner = F.silu(self.filter(inner if self.pad is None else self.pad(inner), context))
        weights = torch.sigmoid(self.excite(F.silu(self.squeeze(inner.mean((2, 3))))))
        out: Tensor = self.project(inner * weights[:, :, None, None], context)
        if not self.residual:
            return out
        if self.training and self.dropped:
            coins = torch.empty(len(out), 1, 1, 1, device=out.device)
            kept = per_sample(torch.rand_like, coins) >= self.dropped
            out = out * (kept.to(out.dtype) / (1 - self.dropped))
        return features + out


class EfficientNet(nn.Module):
    """A stem, a flat list of blocks, a last convolution, and a linear head on its mean."""

    def __init__(
        self,
        pad: nn.Module | None,
        stem: Normed,
        blocks: Iterable[InvertedBottleneck],
        last: Normed,
        head: nn.Linear,
    ) -> None:
        super().__init__()
        self.pad = pad
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        self.last = last
        self.head = head

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        features = F.silu(self.stem(images if self.pad is None else self.pad(images)))
        for block in self.blocks:
            features = block(features)
        return self.head(F.silu(self.last(features)).mean((2, 3)))  # type: ignore[no-any-return]


def efficientnet(
    task: Task,
    width: float = 1.0,
    depth: float = 1.0,
    *,
    padding: Padding = "even",
    dropped: float = 0.0,
    conv: Convolution = nn.Conv2d,
) -> EfficientNet:
    """A freshly initialised network; `width` multiplies channels, `depth` the blocks of a group.

    The probability that a block is dropped in training rises over depth from 0 towards `dropped`.

    Raises:
        MethodError: the images are too small.
    """
    if min(task.height, task.width) < LEAST:
        raise MethodError(
            f"EfficientNets need images of at least {LEAST} px, but {task.name} has "
            f"{task.height}x{task.width}; use family cifar"
        )
    inputs, last = scaled(STEM, width), scaled(LAST, width)
    pad = _pad(3, 2, padding)
    stem = normed(task.channels, inputs, 3, 2, None if pad is None else 0, conv=conv)
    blocks: list[InvertedBottleneck] = []
    repeated = counts(depth)
    for (expand, size, stride, channels, _), count in zip(GROUPS, repeated, strict=True):
        outputs = scaled(channels, width)
        for position in range(count):
            block = InvertedBottleneck(
                inputs,
                outputs,
                size,
                stride if position == 0 else 1,
                expand,
                padding=padding,
                dropped=dropped * len(blocks) / sum(repeated),
                conv=conv,
            )
            blocks.append(block)
            inputs = outputs
    behind = normed(inputs, last, 1, conv=conv)
    net = EfficientNet(pad, stem, blocks, behind, nn.Linear(last, task.classes))
    initialise(net)
    return net


@lru_cache(maxsize=256)
def cost(task: Task, width: float = 1.0, depth: float = 1.0) -> int:
    """MACs of one sample in `efficientnet(task, width, depth)`, by fvcore, nothing trained.

    Raises:
        MethodError: the images are too small.
    """
    with sketched():
        skeleton = efficientnet(task, width, depth)
    image = torch.zeros(1, task.channels, task.height, task.width)
    return macs(skeleton.to_empty(device="cpu"), image)


def _pad(size: int, stride: int, padding: Padding) -> Halving | None:
    return Halving(size) if stride == 2 and padding == "tensorflow" else None


def normed(
    inputs: int,
    outputs: int,
    size: int,
    stride: int = 1,
    around: int | None = None,
    *,
    groups: int = 1,
    conv: Convolution = nn.Conv2d,
) -> Normed:
    """A convolution, padded by half its size unless told, and its norm."""
    padding = size // 2 if around is None else around
    return Normed(
        conv(inputs, outputs, size, stride=stride, padding=padding, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01),
    )


def initialise(net: nn.Module) -> None:
    """Convolutions, and squeeze and excitation, from N(0, 2 groups / (k^2 outputs)), biases 0."""
    for part in net.modules():
        if type(part) is nn.Conv2d:
            fan_out = math.prod(part.kernel_size) * part.out_channels / part.groups
            nn.init.normal_(part.weight, std=(2 / fan_out) ** 0.5)
        elif isinstance(part, nn.Linear) and part is not getattr(net, "head", None):
            nn.init.normal_(part.weight, std=(2 / part.out_features) ** 0.5)
            nn.init.zeros_(part.bias)
