"""EfficientNet-B0 as a function of its parts.

Tan and Le, EfficientNet (arXiv 1905.11946), table 1. We differ from the authors' code in two
places: padding is symmetric where an even map is halved, and blocks are not dropped.
"""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from methods.api import Changed, Features, Images, Task
from methods.errors import MethodError
from methods.macs import macs, sketched
from methods.resnet import Context, Convolution, Normed, scaled

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
        conv: Convolution = nn.Conv2d,
    ) -> None:
        super().__init__()
        inner = inputs * expand
        self.residual = stride == 1 and inputs == outputs
        self.expand = _normed(inputs, inner, 1, conv=conv) if expand > 1 else None
        self.filter = _normed(inner, inner, size, stride, groups=inner, conv=conv)
        self.squeeze = nn.Linear(inner, max(1, inputs // SQUEEZED))
        self.excite = nn.Linear(max(1, inputs // SQUEEZED), inner)
        self.project = _normed(inner, outputs, 1, conv=conv)

    def forward(self, features: Features, context: Context = ()) -> Changed:
        inner = features if self.expand is None else F.silu(self.expand(features, context))
        inner = F.silu(self.filter(inner, context))
        weights = torch.sigmoid(self.excite(F.silu(self.squeeze(inner.mean((2, 3))))))
        out: Tensor = self.project(inner * weights[:, :, None, None], context)
        return features + out if self.residual else out


class EfficientNet(nn.Module):
    """A stem, a flat list of blocks, a last convolution, and a linear head on its mean."""

    def __init__(
        self, stem: Normed, blocks: Iterable[InvertedBottleneck], last: Normed, head: nn.Linear
    ) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        self.last = last
        self.head = head

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        features = F.silu(self.stem(images))
        for block in self.blocks:
            features = block(features)
        return self.head(F.silu(self.last(features)).mean((2, 3)))  # type: ignore[no-any-return]


def efficientnet(task: Task, width: float = 1.0, *, conv: Convolution = nn.Conv2d) -> EfficientNet:
    """A freshly initialised EfficientNet-B0; `width` multiplies every channel count.

    Raises:
        MethodError: the images are too small.
    """
    if min(task.height, task.width) < LEAST:
        raise MethodError(
            f"EfficientNet-B0 needs images of at least {LEAST} px, but {task.name} has "
            f"{task.height}x{task.width}; use family cifar"
        )
    inputs, last = scaled(STEM, width), scaled(LAST, width)
    stem = _normed(task.channels, inputs, 3, 2, conv=conv)
    blocks = []
    for expand, size, stride, channels, count in GROUPS:
        outputs = scaled(channels, width)
        for position in range(count):
            blocks.append(
                InvertedBottleneck(
                    inputs, outputs, size, stride if position == 0 else 1, expand, conv=conv
                )
            )
            inputs = outputs
    net = EfficientNet(
        stem, blocks, _normed(inputs, last, 1, conv=conv), nn.Linear(last, task.classes)
    )
    _initialise(net)
    return net


@lru_cache(maxsize=256)
def cost(task: Task, width: float = 1.0) -> int:
    """MACs of one sample in `efficientnet(task, width)`, by fvcore, without a trained network.

    Raises:
        MethodError: the images are too small.
    """
    with sketched():
        skeleton = efficientnet(task, width)
    image = torch.zeros(1, task.channels, task.height, task.width)
    return macs(skeleton.to_empty(device="cpu"), image)


def _normed(
    inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1, *, conv: Convolution
) -> Normed:
    return Normed(
        conv(inputs, outputs, size, stride=stride, padding=size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01),
    )


def _initialise(net: EfficientNet) -> None:
    """Convolutions, and squeeze and excitation, from N(0, 2 groups / (k^2 outputs)), biases 0."""
    for part in net.modules():
        if type(part) is nn.Conv2d:
            fan_out = math.prod(part.kernel_size) * part.out_channels / part.groups
            nn.init.normal_(part.weight, std=(2 / fan_out) ** 0.5)
        elif isinstance(part, nn.Linear) and part is not net.head:
            nn.init.normal_(part.weight, std=(2 / part.out_features) ** 0.5)
            nn.init.zeros_(part.bias)
