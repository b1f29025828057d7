"""Norms folded into convolutions, and the price of parts: what every deployed form is made by."""

import copy
import itertools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from methods.macs import macs

M = TypeVar("M", bound=nn.Module)
Fusions = Mapping[type, Callable[..., nn.Module]]
"""Class of a convolution -> how it absorbs the norm behind it: (convolution, norm) -> convolution.
"""
PLAIN: Fusions = MappingProxyType({nn.Conv2d: fuse_conv_bn_eval})


class Pricer:
    """Prices parts on zeros, equal parts at equal shapes once; hands on zeros of the new shape."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, torch.Size], tuple[int, torch.Size]] = {}

    def __call__(self, part: nn.Module, features: Tensor) -> tuple[int, Tensor]:
        key = (repr(part), features.shape)
        if key not in self._known:
            with torch.no_grad():
                self._known[key] = macs(part, features), part(features).shape
        cost, shape = self._known[key]
        return cost, torch.zeros(shape)


def fold(module: M, fusions: Fusions = PLAIN) -> M:
    """A copy to ship: evaluation mode, channels last, each norm taken in by its convolution.

    A norm follows a convolution where it is registered right after it in the same module.
    """
    folded = copy.deepcopy(module).eval().requires_grad_(False)
    for part in folded.modules():
        children = list(part.named_children())
        for (before, conv), (after, norm) in itertools.pairwise(children):
            if type(conv) in fusions and isinstance(norm, nn.BatchNorm2d):
                setattr(part, before, fusions[type(conv)](conv, norm))
                setattr(part, after, nn.Identity())
    return folded.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def like(
    conv: nn.Conv2d, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...] | None = None
) -> nn.Conv2d:
    """A convolution without groups, of this weight, with the padding and layout of another."""
    last = conv.weight.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    size, step, edge = (
        cast("tuple[int, int]", tuple(pair))
        for pair in (weight.shape[2:], stride or conv.stride, conv.padding)
    )
    with torch.device("meta"):  # draws nothing
        own = nn.Conv2d(weight.shape[1], len(weight), size, step, edge)
    own.weight = nn.Parameter(weight.contiguous(memory_format=layout), requires_grad=False)
    own.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
    return own
