"""ResRep's compactor: a 1x1 convolution whose rows can be forgotten, and its removal.

Ding et al., ResRep (arXiv 2007.03260). It lies between a convolution's norm and its ReLU and
starts as the identity. A masked row receives only a pull towards zero. Once it is zero,
convolution, norm and the other rows merge into one narrower convolution, and the next layer loses
an input that is always zero.
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
from methods.fold import like
from methods.parallel import share

Mask = Bool[Tensor, " rows"]
Rows = Float[Tensor, " rows"]
"""One number per row."""

FORGOTTEN = 1e-5
"""A masked row with a smaller norm is removed."""
SMALLEST = 1e-12
"""Lower bound of norms in a division: a row of zeros has no direction."""


class Compactor(nn.Module):
    """A 1x1 convolution whose rows, one per channel, can be forgotten."""

    mask: Tensor
    """Which rows still learn the task."""
    pull: Tensor
    """Strength of the group lasso (lambda)."""
    length: Tensor
    """Upper bound of the norm of each row; finite only for masked rows, and never increasing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(channels)[:, :, None, None])
        self.register_buffer("mask", torch.ones(channels, dtype=torch.bool))
        self.register_buffer("pull", torch.zeros(channels))
        self.register_buffer("length", torch.full((channels,), torch.inf))

    def forward(self, features: Features) -> Features:
        """The channels mixed by all rows: a mask affects the gradient of a row, not its output."""
        return F.conv2d(features, reset_gradient(self.weight, self.mask, self.pull))

    def norms(self) -> Rows:
        """The norm of each row, in double precision."""
        norms: Tensor = self.weight.detach().double().flatten(1).norm(dim=1)
        return norms

    def remaining(self) -> Mask:
        """Which rows would remain if the network were deployed now."""
        return self.mask | (self.norms() >= FORGOTTEN)

    @torch.no_grad()
    def shrink(self, by: float) -> None:
        """Reduce the norm of masked rows by `by`, to zero at most: the lasso's proximal step.

        Growth of a masked row by momentum since the last call is undone first.
        """
        norms = self.norms()
        lengths = (torch.minimum(self.length.double(), norms) - by).clamp_min(0)
        self.length.copy_(lengths.masked_fill(self.mask, torch.inf))
        factors = (lengths / norms.clamp_min(SMALLEST)).masked_fill(self.mask, 1.0)
        self.weight.mul_(factors[:, None, None, None].to(self.weight.dtype))


def reset_gradient(weight: Tensor, mask: Mask, pull: Rows) -> Tensor:
    """The weight itself; backward, row q of gradient g gets mask * g + pull * q / |q|.

    The pull is the gradient of pull * |q|, for masked and other rows; a masked row receives no
    gradient of the task.
    """
    return _ResetGradient.apply(weight, mask, pull)  # type: ignore[no-any-return, no-untyped-call]


def pull_for(strength: float, *, step: float, lr: float, momentum: float) -> float:
    """The lambda by which a row loses `strength` of its norm over a phase without other gradients.

    A step of SGD subtracts lr * lambda / (1 - momentum); a phase has 1 / `step` steps and a cosine
    learning rate, whose mean is lr / 2.
    """
    return strength * step * (1 - momentum) / (lr / 2)


def merge(
    conv: nn.Conv2d, norm: nn.BatchNorm2d | None, rows: Float[Tensor, "remaining channels 1 1"]
) -> nn.Conv2d:
    """One convolution with bias that equals convolution, norm and these rows of a compactor.

    It is computed in double precision and returned in that of `conv`.

    Raises:
        MethodError: the rows do not read all channels of an ungrouped convolution.
    """
    if rows.shape[1] != conv.out_channels or conv.groups != 1:
        raise MethodError(
            f"a compactor must read every channel of an ungrouped convolution, but reads "
            f"{rows.shape[1]} of {conv.out_channels} (groups={conv.groups})"
        )
    source = copy.deepcopy(conv).double().eval()
    if norm is not None:
        source = fuse_conv_bn_eval(source, copy.deepcopy(norm).double().eval())
    mix = rows.detach().double().flatten(1)  # remaining channels
    kernel = source.weight.detach().flatten(1)  # channels, inputs x height x width
    bias = mix.new_zeros(mix.shape[1]) if source.bias is None else source.bias.detach()
    return like(conv, (mix @ kernel).reshape(-1, *source.weight.shape[1:]), mix @ bias)


def narrowed(conv: nn.Conv2d, remaining: Mask) -> nn.Conv2d:
    """The convolution with only the remaining ones of its inputs.

    Raises:
        MethodError: the convolution does not read each channel once.
    """
    if conv.in_channels != len(remaining) or conv.groups != 1:
        raise MethodError(
            f"a layer behind {len(remaining)} compacted channels must read each of them once, but "
            f"reads {conv.in_channels} (groups={conv.groups})"
        )
    return like(conv, conv.weight.detach()[:, remaining], conv.bias)


class _ResetGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor, pull: Tensor) -> Tensor:
        ctx.save_for_backward(weight, mask, pull)
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        weight, mask, pull = ctx.saved_tensors
        norms = weight.flatten(1).norm(dim=1).clamp_min(SMALLEST)
        drag = (pull / norms)[:, None, None, None] * weight * share()
        return gradients[0] * mask[:, None, None, None] + drag, None, None
