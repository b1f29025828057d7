"""ResRep's compactor: a 1x1 convolution whose rows can be forgotten, and how it vanishes.

Ding et al., ResRep (arXiv 2007.03260). It stands between a convolution's norm and its ReLU, at
first as the identity. A masked row feels only a pull towards zero; once it is there, convolution,
norm and the other rows merge into one narrower convolution, and the layer that reads them loses
an input that ReLU holds at zero.
"""

import copy
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from methods.api import Features
from methods.errors import MethodError

Mask = Bool[Tensor, " rows"]
Rows = Float[Tensor, " rows"]
"""One number a row."""

FORGOTTEN = 1e-5
"""A masked row of a smaller norm is removed."""
SMALLEST = 1e-12
"""Least norm to divide by: a row of zeros has no direction to be pulled in."""


class Compactor(nn.Module):
    """A 1x1 convolution whose rows, one a channel, can be forgotten."""

    mask: Tensor
    """Which rows still learn the task."""
    pull: Tensor
    """Strength of the group lasso (lambda)."""
    length: Tensor
    """What the norm of each row may be; only masked rows have a limit, and it only falls."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(channels)[:, :, None, None])
        self.register_buffer("mask", torch.ones(channels, dtype=torch.bool))
        self.register_buffer("pull", torch.zeros(channels))
        self.register_buffer("length", torch.full((channels,), torch.inf))

    def forward(self, features: Features) -> Features:
        """The channels mixed by all rows: a mask changes what a row learns, not what it does."""
        return F.conv2d(features, reset_gradient(self.weight, self.mask, self.pull))

    def norms(self) -> Rows:
        """Of each row, in double precision."""
        norms: Tensor = self.weight.detach().double().flatten(1).norm(dim=1)
        return norms

    def kept(self) -> Mask:
        """Which rows would stay if the network were deployed now."""
        return self.mask | (self.norms() >= FORGOTTEN)

    @torch.no_grad()
    def shrink(self, by: float) -> None:
        """Shorten every masked row by so much, to no less than zero: the lasso's proximal step.

        What momentum still adds to a masked row since the last call is taken back first.
        """
        norms = self.norms()
        lengths = (torch.minimum(self.length.double(), norms) - by).clamp_min(0)
        self.length.copy_(lengths.masked_fill(self.mask, torch.inf))
        factors = (lengths / norms.clamp_min(SMALLEST)).masked_fill(self.mask, 1.0)
        self.weight.mul_(factors[:, None, None, None].to(self.weight.dtype))


def reset_gradient(weight: Tensor, mask: Mask, pull: Rows) -> Tensor:
    """The weight itself; backward, row q of gradient g gets mask * g + pull * q / |q|.

    The pull is the gradient of pull * |q|, on masked rows and others alike; a masked row no longer
    feels the task.
    """
    return _ResetGradient.apply(weight, mask, pull)  # type: ignore[no-any-return, no-untyped-call]


def pull_for(strength: float, *, step: float, lr: float, momentum: float) -> float:
    """The lambda under which a row loses `strength` of its norm over a phase, if nothing resists.

    A step of SGD takes lr * lambda / (1 - momentum); a phase has 1 / `step` of them and a cosine
    learning rate, whose mean is lr / 2.
    """
    return strength * step * (1 - momentum) / (lr / 2)


def merge(
    conv: nn.Conv2d, norm: nn.BatchNorm2d | None, rows: Float[Tensor, "kept channels 1 1"]
) -> nn.Conv2d:
    """One convolution with bias for convolution, norm and these rows of a compactor.

    Computed in double precision, returned in the convolution's own.

    Raises:
        MethodError: the rows do not read all of the convolution's channels.
    """
    if rows.shape[1] != conv.out_channels or conv.groups != 1:
        raise MethodError(
            f"a compactor must read every channel of an ungrouped convolution, but reads "
            f"{rows.shape[1]} of {conv.out_channels} (groups={conv.groups})"
        )
    source = copy.deepcopy(conv).double().eval()
    if norm is not None:
        source = fuse_conv_bn_eval(source, copy.deepcopy(norm).double().eval())
    mix = rows.detach().double().flatten(1)  # kept channels
    kernel = source.weight.detach().flatten(1)  # channels, inputs x height x width
    bias = mix.new_zeros(mix.shape[1]) if source.bias is None else source.bias.detach()
    return _like(conv, (mix @ kernel).reshape(-1, *source.weight.shape[1:]), mix @ bias)


def narrowed(conv: nn.Conv2d, kept: Mask) -> nn.Conv2d:
    """The convolution without those of its inputs that are not kept.

    Raises:
        MethodError: it does not have one input a channel.
    """
    if conv.in_channels != len(kept) or conv.groups != 1:
        raise MethodError(
            f"a layer behind {len(kept)} compacted channels must read each of them once, but "
            f"reads {conv.in_channels} (groups={conv.groups})"
        )
    return _like(conv, conv.weight.detach()[:, kept], conv.bias)


class _ResetGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor, pull: Tensor) -> Tensor:
        ctx.save_for_backward(weight, mask, pull)
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        weight, mask, pull = ctx.saved_tensors
        norms = weight.flatten(1).norm(dim=1).clamp_min(SMALLEST)
        drag = (pull / norms)[:, None, None, None] * weight
        return gradients[0] * mask[:, None, None, None] + drag, None, None


def _like(conv: nn.Conv2d, kernel: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """A convolution with the stride and padding of another."""
    twin = copy.deepcopy(conv)
    twin.out_channels, twin.in_channels = kernel.shape[:2]
    twin.weight = nn.Parameter(kernel.to(conv.weight))
    twin.bias = None if bias is None else nn.Parameter(bias.detach().to(conv.weight))
    return twin
