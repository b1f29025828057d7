"""Learned group convolution: each group of outputs learns which inputs it needs.

Huang et al., CondenseNet (arXiv 1711.09224), section 3. Output o is in group o mod `groups`, so
that the shuffle between the groups of this convolution and those of the next one is built in.
"""

import itertools
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from methods.api import Changed, Features
from methods.fold import M, affine, fold, like

Grouping = Literal["learned", "fixed", "random", "none"]
"""Which inputs a group keeps: those that it learns to keep, every `factor`-th part of them in
order, as many at random, or all."""
LEAST = 1e-6
"""Lower bound of squared norms, so that their root has a finite gradient."""


class LearnedGroupConv(nn.Module):
    """A 1x1 convolution with a mask that prunes the same inputs for all outputs of a group."""

    mask: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        groups: int,
        factor: int,
        bias: bool = False,
        dropout: float = 0.0,
        dropout_at: Literal["before", "after"] = "before",
        grouping: Grouping = "learned",
    ) -> None:
        super().__init__()
        assert inputs % factor == 0
        assert outputs % groups == 0
        self.groups = groups
        self.factor = factor
        self.before = dropout if dropout_at == "before" else 0.0
        self.after = dropout if dropout_at == "after" else 0.0
        plain = nn.Conv2d(inputs, outputs, 1, bias=bias)
        nn.init.kaiming_normal_(plain.weight, mode="fan_out", nonlinearity="relu")
        self.weight, self.bias = plain.weight, plain.bias
        self.register_buffer("mask", _mask(inputs, groups, factor, grouping))

    def forward(self, features: Features) -> Changed:
        features = F.dropout(features, self.before, self.training)
        weight = self.grouped_weight().flatten(0, 1)[..., None, None]
        return F.dropout(F.conv2d(features, weight, self.bias), self.after, self.training)

    def grouped_weight(self) -> Float[Tensor, "outputs groups inputs"]:
        """The weight with pruned entries zero; outputs are numbered within their group."""
        return self.weight.reshape(-1, *self.mask.shape) * self.mask

    @torch.no_grad()
    def condense(self) -> None:
        """Prune 1/factor of all inputs in each group: the least important ones that remain.

        The importance of an input to a group is the sum of its absolute weights (section 3.1).
        """
        importance = self.grouped_weight().abs().sum(0).masked_fill(~self.mask, torch.inf)
        least = importance.topk(self.mask.shape[1] // self.factor, largest=False).indices
        self.mask.scatter_(1, least, False)

    def lasso(self) -> Float[Tensor, ""]:
        """Group lasso: the sum over inputs and groups of the norm of the weights between them."""
        return self.grouped_weight().square().sum(0).clamp(min=LEAST).sqrt().sum()


def _mask(inputs: int, groups: int, factor: int, grouping: Grouping) -> Tensor:
    """The inputs that each group reads before anything is learned (boolean, groups inputs)."""
    if grouping == "fixed":
        part = torch.arange(inputs) * factor // inputs
        return part == (torch.arange(groups) % factor)[:, None]
    mask = torch.ones(groups, inputs, dtype=torch.bool)
    if grouping == "random":
        dropped = torch.rand(groups, inputs).topk(inputs - inputs // factor, dim=1).indices
        mask.scatter_(1, dropped, False)
    return mask


class Affine(nn.Module):
    """A norm in evaluation mode, as shipped if no convolution can absorb it."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        scale, shift = affine(norm)
        self.register_buffer("scale", scale[:, None, None])
        self.register_buffer("shift", shift[:, None, None])

    def forward(self, features: Features) -> Features:
        return torch.addcmul(self.shift, features, self.scale)


class Gather(nn.Module):
    """The channels of each group, one group after the other."""

    index: Tensor

    def __init__(self, index: Tensor) -> None:
        super().__init__()
        self.register_buffer("index", index)

    def forward(self, features: Features) -> Changed:
        return features[:, self.index]  # preserves channels last, which index_select does not


class Condensed(nn.Sequential):
    """A learned group convolution as shipped: index, standard group convolution, shuffle."""

    @property
    def parts(self) -> tuple[Tensor, nn.Conv2d]:
        """The index of inputs, group after group, and the convolution."""
        gather, conv, _ = self
        return cast("Gather", gather).index, cast("nn.Conv2d", conv)

    def forms(self, features: Features) -> dict[str, nn.Module]:
        """By groups after an index, and dense without one."""
        index, conv = self.parts
        kernels = conv.weight.detach().flatten(1)  # groups*outputs inputs/factor
        outputs = len(kernels)
        rows = torch.arange(outputs, device=kernels.device).reshape(conv.groups, -1).t().flatten()
        inputs = index.reshape(conv.groups, -1).repeat_interleave(outputs // conv.groups, 0)
        weight = kernels.new_zeros(outputs, features.shape[1]).scatter_(1, inputs, kernels)
        bias = None if conv.bias is None else conv.bias.detach()[rows]  # shuffled
        return {"grouped": self, "dense": like(conv, weight[rows][..., None, None], bias)}


def learned(module: nn.Module) -> list[LearnedGroupConv]:
    """The learned group convolutions in a module, in order."""
    return [part for part in module.modules() if isinstance(part, LearnedGroupConv)]


def condensed(module: M) -> M:
    """A copy to ship: evaluation mode, norms folded, without the weights that masks have pruned.

    A norm belongs to the convolution that is registered right before it in the same module.
    """
    shipped = fold(module)
    for part in list(shipped.modules()):
        children = [*part.named_children(), ("", None)]
        for (name, conv), (after, norm) in itertools.pairwise(children):
            if isinstance(conv, LearnedGroupConv):
                follower = norm if isinstance(norm, nn.BatchNorm2d) else None
                setattr(part, name, _grouped(conv, follower))
                if follower is not None:
                    setattr(part, after, nn.Identity())
    for part in list(shipped.modules()):
        for name, norm in part.named_children():
            if isinstance(norm, nn.BatchNorm2d):
                setattr(part, name, Affine(norm))
    return shipped.eval()


@torch.no_grad()
def _grouped(conv: LearnedGroupConv, norm: nn.BatchNorm2d | None) -> Condensed:
    """Index, standard group convolution and shuffle that compute `conv` and its norm."""
    weight, bias = conv.grouped_weight().flatten(0, 1), conv.bias
    if norm is not None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        moments = norm.running_mean, norm.running_var, norm.eps
        weight, bias = fuse_conv_bn_weights(weight, bias, *moments, norm.weight, norm.bias)
    index = conv.mask.nonzero()[:, 1].reshape(conv.groups, -1)  # groups inputs/factor
    rows = weight.reshape(-1, *conv.mask.shape).transpose(0, 1)  # groups outputs inputs
    kernels = rows.take_along_dim(index[:, None, :], 2).flatten(0, 1)[..., None, None]
    standard = nn.Conv2d(index.numel(), len(kernels), 1, groups=conv.groups, bias=False)
    standard.weight = nn.Parameter(kernels, requires_grad=False)
    if bias is not None:
        by_group = bias.reshape(-1, conv.groups).t().flatten()
        standard.bias = nn.Parameter(by_group, requires_grad=False)
    shuffle = nn.ChannelShuffle(conv.groups)
    return Condensed(Gather(index.flatten()), standard, shuffle)
