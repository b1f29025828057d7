"""A worker's part of a batch, and what must be known of the whole one.

A batch is trained on in one piece, or in several whose gradients are summed before a step.

Every worker draws the order, the augmentation and the layers' random numbers of the whole batch and
takes its own images' part. So several workers equal one at the same batch, to rounding. On one
worker each function here is the identity.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.api import Images, Labels
from methods.errors import DataError, MethodError
from methods.parallel.group import objects, pieces, rank, slices, total, workers
from methods.parallel.norm import batch_norm

T = TypeVar("T")


class _Batch:
    """The piece of a batch that this process trains on."""

    sizes: tuple[int, ...] = ()
    """Images of each worker; empty where there is one."""
    fraction: float = 1.0
    """What the piece is of the whole batch."""


_batch = _Batch()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Inside, batch norms and dropout are those of the whole batch, whoever calls them.

    Both are taken from torch's functional interface, which its modules and every method's layers
    use. Outside, as in an evaluation, a worker computes for itself.
    """
    norm, dropout = F.batch_norm, F.dropout
    if workers() > 1:
        F.batch_norm, F.dropout = partial(batch_norm, norm), partial(_dropout, dropout)
    try:
        yield
    finally:
        F.batch_norm, F.dropout = norm, dropout
        _batch.sizes, _batch.fraction = (), 1.0


def shared(
    batches: Iterator[tuple[Images, Labels]], sizes: Sequence[int], most: int = 1
) -> Iterator[Iterator[tuple[Images, Labels]]]:
    """The pieces of each batch, at most so many: what this worker has of them, one by one.

    The batches are those of this worker, and known to be parts of batches of these sizes.

    Raises:
        DataError: a piece has fewer images than there are workers.
    """
    count = workers()
    least = min(piece.stop - piece.start for size in sizes for piece in pieces(size, most))
    if least < count:
        raise DataError(
            f"each of {count} workers must have an image of every batch, but a batch has "
            f"{least}; use fewer workers or larger batches"
        )
    for batch, images in zip(batches, sizes, strict=True):
        yield _pieces(batch, images, most)


def _pieces(
    batch: tuple[Images, Labels], images: int, most: int
) -> Iterator[tuple[Images, Labels]]:
    count, start = workers(), 0
    for piece in pieces(images, most):
        size = piece.stop - piece.start
        each = tuple(part.stop - part.start for part in slices(size, count))
        stop = start + each[rank()]
        _batch.sizes, _batch.fraction = each if count > 1 else (), size / images
        yield batch[0][start:stop], batch[1][start:stop]
        start = stop


def size(here: int) -> int:
    """Images of the piece on all workers, of which `here` are this worker's."""
    return sum(_batch.sizes) or here


def share() -> float:
    """What this worker's part of the piece is of the whole batch, a fraction in (0, 1]."""
    return _own() * _batch.fraction


def batch_mean(mean: Tensor) -> Tensor:
    """The mean over the whole piece, given the mean over this worker's images, with its gradient.

    For what is no mean of losses: a baseline, a multiplier, a penalty on the mean MACs.
    """
    if not _batch.sizes:
        return mean
    return _Total.apply(mean * _own())  # type: ignore[no-any-return, no-untyped-call]


def per_sample(function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """What a function that draws from torch's generator gives for these rows, a row per image.

    It is called on the whole batch, so that the generators of all workers stay the same; the rows
    of other workers are zero, and must not matter to these.
    """
    if not _batch.sizes:
        return function(rows)
    ends = list(accumulate(_batch.sizes))
    mine = slice(ends[rank()] - _batch.sizes[rank()], ends[rank()])
    if len(rows) != mine.stop - mine.start:
        raise MethodError(
            f"random numbers are drawn for each image of a batch, but {len(rows)} rows were given "
            f"for {mine.stop - mine.start} images; train it with one worker"
        )
    whole = rows.new_zeros(ends[-1], *rows.shape[1:])
    if rows.ndim == 4 and rows.is_contiguous(memory_format=torch.channels_last):
        whole = whole.contiguous(memory_format=torch.channels_last)
    whole[mine] = rows
    return function(whole)[mine]


def everyone(rows: Tensor) -> Tensor:
    """These rows of all workers, one worker's after the other's; no gradient."""
    if workers() == 1:
        return rows
    return torch.cat([part.to(rows.device) for part in objects(rows.detach().cpu())])


def _own() -> float:
    """What this worker has of the piece, a fraction in (0, 1]."""
    return _batch.sizes[rank()] / sum(_batch.sizes) if _batch.sizes else 1.0


def _dropout(
    plain: Callable[..., Tensor],
    input: Tensor,  # noqa: A002 - torch's own names
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> Tensor:
    if not training or p == 0 or not _batch.sizes:
        return plain(input, p, training, inplace)
    with torch.no_grad():
        kept = per_sample(partial(plain, p=p), torch.ones_like(input)).clone()
    return input * kept


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, values: Tensor) -> Tensor:
        return total(values)

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        return total(gradients[0])
