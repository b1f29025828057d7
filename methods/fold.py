"""Folding norms into convolutions, and pricing parts: the steps that deployed forms share."""

import copy
import itertools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from methods.macs import macs

M = TypeVar("M", bound=nn.Module)
Fusions = Mapping[type, Callable[..., nn.Module]]
"""Class of a convolution -> function that absorbs the next norm: (conv, norm) -> conv."""
PLAIN: Fusions = MappingProxyType({nn.Conv2d: fuse_conv_bn_eval})


class Pricer:
    """Prices a part on zeros and returns zeros of its output shape; equal parts are priced once."""

    def __init__(self) -> None:
        self._prices: dict[tuple[str, torch.Size], tuple[int, torch.Size]] = {}

    def __call__(self, part: nn.Module, features: Tensor) -> tuple[int, Tensor]:
        key = (repr(part), features.shape)
        if key not in self._prices:
            with torch.no_grad():
                self._prices[key] = macs(part, features), part(features).shape
        cost, shape = self._prices[key]
        return cost, torch.zeros(shape)


def fold(module: M, fusions: Fusions = PLAIN) -> M:
    """A copy to ship: evaluation mode, channels last, each norm folded into its convolution.

    A norm belongs to the convolution that is registered right before it in the same module.
    """
    folded = copy.deepcopy(module).eval().requires_grad_(False)
    for part in folded.modules():
        children = list(part.named_children())
        for (before, conv), (after, norm) in itertools.pairwise(children):
            if type(conv) in fusions and isinstance(norm, nn.BatchNorm2d):
                setattr(part, before, fusions[type(conv)](conv, norm))
                setattr(part, after, nn.Identity())
    return folded.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def affine(norm: nn.BatchNorm2d) -> tuple[Float[Tensor, " channels"], Float[Tensor, " channels"]]:
    """Scale and shift that a norm applies to each channel in evaluation mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale.detach(), (norm.bias - norm.running_mean * scale).detach()


def like(
    conv: nn.Conv2d, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...] | None = None
) -> nn.Conv2d:
    """A convolution without groups with this weight, and the padding and layout of `conv`."""
    last = conv.weight.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    size, step, padding, dilation = (
        cast("tuple[int, int]", tuple(pair))
        for pair in (weight.shape[2:], stride or conv.stride, conv.padding, conv.dilation)
    )
    with torch.device("meta"):  # draws no initial weights
        twin = nn.Conv2d(weight.shape[1], len(weight), size, step, padding, dilation)
    weight = weight.detach().to(conv.weight).contiguous(memory_format=layout)
    twin.weight = nn.Parameter(weight, requires_grad=False)
    twin.bias = (
        None if bias is None else nn.Parameter(bias.detach().to(weight), requires_grad=False)
    )
    return twin
