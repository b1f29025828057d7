"""Batch norm with the statistics of the whole batch, whose images lie on several workers.

torch's SyncBatchNorm does the same on GPUs only; this one runs wherever the workers' group does, so
that one code is tested and used. The variance is gathered, not the sum of squares, so that nothing
cancels.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from methods.parallel.group import stacked, total


def batch_norm(  # noqa: PLR0917 - as torch has it
    plain: Callable[..., Tensor],
    input: Tensor,  # noqa: A002 - torch's own names
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As torch.nn.functional.batch_norm, which is `plain`, but in training over all workers."""
    if not training:
        return plain(input, running_mean, running_var, weight, bias, training, momentum, eps)
    mean, var, count = moments(input)
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.to(running_mean), momentum)
        if running_var is not None:
            running_var.lerp_((var * count / (count - 1)).to(running_var), momentum)
    kind = torch.promote_types(input.dtype, torch.float32)
    return _Norm.apply(input, weight, bias, mean.to(kind), var.to(kind), count, eps)  # type: ignore[no-any-return, no-untyped-call]


@torch.no_grad()
def moments(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of each channel over all workers, and the number of values, as float64."""
    axes = [axis for axis in range(features.ndim) if axis != 1]
    exact = features.to(torch.promote_types(features.dtype, torch.float32))
    var, mean = torch.var_mean(exact, axes, correction=0)
    count = torch.full_like(mean[:1], features.numel() // features.shape[1], dtype=torch.float64)
    every = stacked(torch.cat([mean.double(), var.double(), count]))  # workers 2*channels+1
    means, variances = every[:, :-1].chunk(2, 1)
    counts = every[:, -1:]
    whole = counts.sum()
    mean = (means * counts).sum(0) / whole
    var = ((variances + (means - mean).square()) * counts).sum(0) / whole
    return mean, var, whole


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - torch hands over what it gets
        ctx: Any,
        features: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        var: Tensor,
        count: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(features, weight, mean, torch.rsqrt(var + eps), count)
        ctx.biased = bias is not None
        return torch.batch_norm(
            features, weight, bias, mean, var, False, 0.0, eps, torch.backends.cudnn.enabled
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, mean, scale, count = ctx.saved_tensors
        shape = [1, -1] + [1] * (features.ndim - 2)
        axes = [axis for axis in range(features.ndim) if axis != 1]
        gradient = gradients[0].to(mean.dtype)
        standard = (features.to(mean.dtype) - mean.view(shape)) * scale.view(shape)
        by_bias, by_weight = gradient.sum(axes), (gradient * standard).sum(axes)
        sums = total(torch.cat([by_bias, by_weight])) / count.to(mean.dtype)
        along, across = sums.chunk(2)
        inner = gradient - along.view(shape) - standard * across.view(shape)
        slope = scale if weight is None else scale * weight
        return (
            (inner * slope.view(shape)).to(features.dtype),
            None if weight is None else by_weight.to(weight.dtype),
            by_bias.to(mean.dtype) if ctx.biased else None,
            *[None] * 4,
        )
