"""Layers that run at many widths by slicing their weights; the width is an argument, never a mode.

Yu et al., Slimmable Neural Networks (arXiv 1812.08928), and DS-Net. A layer takes its running input
width from its input features, and its output width from the caller. `at` copies a slice into a
contiguous layer of torch, for shipping.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

from methods.api import Changed, Features

Shares = Float[Tensor, "batch widths"]
"""Share of each width in an image: one-hot, but with a soft gradient."""
Reduced = Float[Tensor, "batch reduced"]
"""The squeezed vectors of feature maps; a gate may read them too."""

MOMENTUM = 0.1
"""Momentum of running statistics while weights train."""
EPSILON = 1e-5
ALIVE = 0.5
"""Initial bias of squeezing. Pooled features vary so little between images that from 0 half of the
units would be dead for all of them, and a gate would have nothing to read."""


class SlimConv2d(nn.Module):
    """A dense convolution without bias that applies the first filters to the first channels."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1) -> None:
        super().__init__()
        self.inputs = inputs
        self.stride = stride
        self.padding = size // 2
        self.weight = nn.Parameter(torch.empty(outputs, inputs, size, size))
        nn.init.normal_(self.weight, std=(2 / (size * size * outputs)) ** 0.5)

    def forward(self, features: Features, outputs: int) -> Changed:
        kernels = self.weight[:outputs, : features.shape[1]]
        return F.conv2d(features, kernels, stride=self.stride, padding=self.padding)

    def at(self, inputs: int, outputs: int) -> nn.Conv2d:
        """The slice as a plain convolution."""
        kernels = self.weight[:outputs, :inputs]
        return _convolution(kernels, inputs, self.stride, groups=1)


class SlimDepthwise2d(nn.Module):
    """A depthwise 3x3 convolution of the first channels."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(channels, 1, 3, 3))
        nn.init.normal_(self.weight, std=(2 / 9) ** 0.5)

    def forward(self, features: Features) -> Changed:
        width = features.shape[1]
        return F.conv2d(features, self.weight[:width], stride=self.stride, padding=1, groups=width)

    def at(self, width: int) -> nn.Conv2d:
        """The slice as a plain convolution."""
        return _convolution(self.weight[:width], width, self.stride, groups=width)


class SlimLinear(nn.Module):
    """A linear map from the first inputs to the first outputs."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        plain = nn.Linear(inputs, outputs)
        self.weight, self.bias = plain.weight, plain.bias

    def forward(
        self, inputs: Float[Tensor, "batch inputs"], outputs: int
    ) -> Float[Tensor, "batch outputs"]:
        return F.linear(inputs, self.weight[:outputs, : inputs.shape[1]], self.bias[:outputs])

    def at(self, inputs: int, outputs: int) -> nn.Linear:
        """The slice as a plain linear map."""
        plain: nn.Linear = _empty(nn.Linear, self.weight, inputs, outputs)
        _copy(plain.weight, self.weight[:outputs, :inputs])
        _copy(plain.bias, self.bias[:outputs])
        return plain


class SlimSqueeze(nn.Module):
    """Squeeze-and-excitation whose squeezed size is the same at every width (arXiv 1709.01507)."""

    def __init__(self, channels: int, reduced: int, bias: float = ALIVE) -> None:
        super().__init__()
        self.reduced = reduced
        self.reduce = SlimLinear(channels, self.reduced)
        self.expand = SlimLinear(self.reduced, channels)
        nn.init.constant_(self.reduce.bias, bias)

    def squeeze(self, features: Features) -> Reduced:
        """The squeezed vector of each image."""
        return F.relu(self.reduce(features.mean((2, 3)), self.reduced))

    def excite(self, features: Features, reduced: Reduced) -> Features:
        """The features, with each channel weighted by a sigmoid of the squeezed vector."""
        weights = self.expand(reduced, features.shape[1]).sigmoid()
        return features * weights[:, :, None, None]  # type: ignore[no-any-return]

    def at(self, width: int) -> "Squeeze":
        """The slice as a plain module."""
        return Squeeze(self.reduce.at(width, self.reduced), self.expand.at(self.reduced, width))


class Squeeze(nn.Module):
    """Squeeze-and-excitation of one width, as shipped."""

    def __init__(self, reduce: nn.Linear, expand: nn.Linear) -> None:
        super().__init__()
        self.reduce = reduce
        self.expand = expand

    def forward(self, features: Features) -> Features:
        return self.excite(features, self.squeeze(features))

    def squeeze(self, features: Features) -> Reduced:
        """The squeezed vector of each image."""
        return F.relu(self.reduce(features.mean((2, 3))))

    def excite(self, features: Features, reduced: Reduced) -> Features:
        """The features, with each channel weighted by a sigmoid of the squeezed vector."""
        return features * self.expand(reduced).sigmoid()[:, :, None, None]  # type: ignore[no-any-return]


class SlimNorm2d(nn.Module):
    """Batch norm with separate statistics for every entry of `widths`, and one sliced affine map.

    Entries are identified by index, since two networks of one width may see different features.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.momentum = MOMENTUM
        widest = max(widths)
        self.weight = nn.Parameter(torch.ones(widest))
        self.bias = nn.Parameter(torch.zeros(widest))
        self.register_buffer("running_mean", torch.zeros(len(widths), widest))
        self.register_buffer("running_var", torch.ones(len(widths), widest))

    def forward(self, features: Features, entry: int) -> Features:
        width = self.widths[entry]
        return F.batch_norm(
            features,
            self.running_mean[entry, :width],
            self.running_var[entry, :width],
            self.weight[:width],
            self.bias[:width],
            self.training,
            self.momentum,
            EPSILON,
        )

    def mixed(self, features: Features, shares: Shares, entries: Sequence[int]) -> Features:
        """Each image normalised by the running statistics of its one of `entries`, zero beyond it.

        `features` are as wide as the widest entry; the gradient reaches `shares`.
        """
        rows = list(entries)
        scale = self.weight * (self.running_var[rows] + EPSILON).rsqrt()
        shift = self.bias - self.running_mean[rows] * scale
        place = torch.arange(features.shape[1], device=features.device)
        ends = torch.tensor([self.widths[row] for row in rows], device=features.device)
        inside = place < ends[:, None]  # widths channels
        scale, shift = (
            (shares[:, :, None] * (table[:, : len(place)] * inside)).sum(1)[:, :, None, None]
            for table in (scale, shift)
        )  # elementwise, since autocast would round a matrix product
        return torch.addcmul(shift, features, scale)

    def at(self, entry: int) -> nn.BatchNorm2d:
        """The norm of this entry as a plain module."""
        width = self.widths[entry]
        plain: nn.BatchNorm2d = _empty(nn.BatchNorm2d, self.weight, width, eps=EPSILON)
        assert plain.running_mean is not None
        assert plain.running_var is not None
        _copy(plain.weight, self.weight[:width])
        _copy(plain.bias, self.bias[:width])
        _copy(plain.running_mean, self.running_mean[entry, :width])
        _copy(plain.running_var, self.running_var[entry, :width])
        return plain


@contextlib.contextmanager
def recalibrating(net: nn.Module) -> Iterator["Recalibration"]:
    """Reset every statistic of `net`; batches that run inside recompute them as plain means."""
    norms = [part for part in net.modules() if isinstance(part, SlimNorm2d)]
    for norm in norms:
        norm.running_mean.zero_()
        norm.running_var.fill_(1)
    try:
        yield Recalibration(norms)
    finally:
        for norm in norms:
            norm.momentum = MOMENTUM


class Recalibration:
    """Weights the batches of a recalibration equally."""

    def __init__(self, norms: Sequence[SlimNorm2d]) -> None:
        self._norms = norms
        self._batches = 0

    def next_batch(self) -> None:
        """Call before each batch, which may then run each entry of a norm once."""
        self._batches += 1
        for norm in self._norms:
            norm.momentum = 1 / self._batches


def _convolution(kernels: Tensor, inputs: int, stride: int, *, groups: int) -> nn.Conv2d:
    outputs, size = kernels.shape[0], kernels.shape[2]
    plain: nn.Conv2d = _empty(
        nn.Conv2d,
        kernels,
        inputs,
        outputs,
        size,
        stride=stride,
        padding=size // 2,
        groups=groups,
        bias=False,
    )
    _copy(plain.weight, kernels)
    return plain


def _empty(kind: type[nn.Module], like: Tensor, *sizes: int, **settings: Any) -> Any:
    """A module without initial values, which would draw from the global generator."""
    make: Any = skip_init
    return make(kind, *sizes, **settings, device=like.device, dtype=like.dtype)


@torch.no_grad()
def _copy(target: Tensor, source: Tensor) -> None:
    target.copy_(source)
