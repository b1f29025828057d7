"""The workers of one trial: torch's default process group, if somebody has made one.

Every function here that exchanges anything must be called by all workers, in the same order. A
worker that dies shows in the others as `PeerLost`.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Int
from torch import Tensor, nn

from methods.errors import MethodError, PeerLost

T = TypeVar("T")


def workers() -> int:
    """Number of workers that train one network together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this worker, from 0; worker 0 writes for all."""
    return dist.get_rank() if workers() > 1 else 0


def slices(samples: int, count: int) -> list[slice]:
    """The consecutive parts of so many samples, one for each worker; the first have one more."""
    least, more = divmod(samples, count)
    starts = [least * index + min(index, more) for index in range(count + 1)]
    return [slice(*ends) for ends in itertools.pairwise(starts)]


def pieces(images: int, most: int) -> list[slice]:
    """The consecutive pieces of a batch, at most so many; each has two images or is the batch."""
    return slices(images, max(1, min(most, images // 2)))


def own_rows(
    samples: int, batch_size: int, rank: int, count: int, most: int = 1
) -> Int[Tensor, " rows"]:
    """Which of so many samples, batch after batch, are those of one of `count` workers.

    It has its share of each of the pieces, at most so many, of each batch.
    """
    batches = torch.split(torch.arange(samples), batch_size)
    parts = [batch[piece] for batch in batches for piece in pieces(len(batch), most)]
    return torch.cat([part[slices(len(part), count)[rank]] for part in parts])


def total(values: Tensor) -> Tensor:
    """The sum of this tensor over the workers, in a new tensor; no gradient."""
    summed = values.detach().clone(memory_format=torch.contiguous_format)
    if workers() > 1:
        with _peers():
            dist.all_reduce(summed)
    return summed


def stacked(values: Tensor) -> Tensor:
    """A tensor of every worker, of one shape on all of them: workers first; no gradient."""
    values = values.detach().contiguous()
    parts = [torch.empty_like(values) for _ in range(workers())]
    with _peers():
        dist.all_gather(parts, values)
    return torch.stack(parts)


def objects(value: T) -> list[T]:
    """A value of every worker, by rank."""
    if workers() == 1:
        return [value]
    values: list[T | None] = [None] * workers()
    with _peers():
        dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def from_first(read: Callable[[], T]) -> T:
    """What worker 0 reads, on all workers."""
    if workers() == 1:
        return read()
    held: list[T | None] = [read() if rank() == 0 else None]
    with _peers():
        dist.broadcast_object_list(held, src=0)
    return held[0]  # type: ignore[return-value]


def align(net: nn.Module) -> None:
    """Gives every worker the weights and buffers of worker 0.

    Processors of several kinds may draw other initial weights from one seed, by a rounding.
    """
    if workers() > 1:
        for value in [*net.parameters(), *net.buffers()]:
            with _peers():
                dist.broadcast(value.data, src=0)


def backward(loss: Tensor, share: float) -> None:
    """Adds the gradient of a loss that is a mean over images which are this share of a batch."""
    (loss if share == 1 else loss * share).backward()  # type: ignore[no-untyped-call]


def gather(parameters: Sequence[nn.Parameter]) -> None:
    """Sums the gradients over the workers, so that all have those of the whole batch.

    They cross the wire in one piece.
    """
    if workers() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    whole = total(torch.cat([gradient.flatten() for gradient in gradients]))
    parts = torch.split(whole, [gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def check_alike(state: Mapping[str, Tensor], when: str) -> None:
    """Check that these tensors are the same on all workers, bit by bit.

    Raises:
        MethodError: they are not; the message names the first that differs.
    """
    if workers() == 1:
        return
    sums = torch.stack([_bits(value) for value in state.values()])
    every = torch.stack(objects(sums))
    different = (every != every[0]).any(0).nonzero().flatten().tolist()
    if different:
        name = list(state)[different[0]]
        raise MethodError(
            f"the workers of a trial must hold the same network, but {name} differs between them "
            f"{when}; train it with one worker"
        )


def _bits(value: Tensor) -> Tensor:
    """The sum of a tensor's bits, read as whole numbers."""
    flat = value.detach().contiguous().flatten().view(torch.uint8)
    words = flat.view(torch.int32) if len(flat) % 4 == 0 else flat
    return words.sum(dtype=torch.int64).cpu()


@contextlib.contextmanager
def _peers() -> Iterator[None]:
    """Says that another worker is gone where an exchange fails."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise PeerLost(f"another worker of the trial is gone: {error}") from error
