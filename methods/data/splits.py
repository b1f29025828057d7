"""Samples of one split as normalised batches: resident on the device, or decoded as they come."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from methods.api import Images, Labels
from methods.parallel.group import own_rows

Pixels = UInt8[Tensor, "batch height width channels"]
Rows = Int[Tensor, " _"]
SomePixels = UInt8[Tensor, "_ height width channels"]
"""Batches that need not be alike in size."""

BLOCK = 1 << 18
"""Bytes of pixels that are taken together: batches of tiny images cost calls, not bytes."""


class Shift(NamedTuple):
    """Per sample: pixels down, pixels right, and whether it is mirrored left to right first."""

    pad: int
    """Pixels that down and right do not exceed, either way."""
    down: Int[Tensor, " batch"]
    right: Int[Tensor, " batch"]
    mirror: Bool[Tensor, " batch"]

    def rows(self, start: int, stop: int) -> "Shift":
        return Shift(self.pad, *(draw[start:stop] for draw in self[1:]))

    def at(self, rows: Int[Tensor, " rows"]) -> "Shift":
        return Shift(self.pad, *(draw[rows.to(draw.device)] for draw in self[1:]))

    def to(self, device: torch.device) -> "Shift":
        return Shift(self.pad, *(draw.to(device) for draw in self[1:]))


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random crop from an image padded with black on every side, and a fair mirror flip.

    An epoch's draws are made at its start, so `generator` moves on by whole epochs.
    """

    pad: int
    """Pixels."""
    flip: bool
    generator: torch.Generator

    def draw(self, samples: int) -> Shift:
        """Shifts in [-pad, pad] and flips for `samples` samples."""

        def uniform(low: int, high: int) -> Tensor:
            place = self.generator.device
            return torch.randint(low, high + 1, (samples,), generator=self.generator, device=place)

        down, right = uniform(-self.pad, self.pad), uniform(-self.pad, self.pad)
        return Shift(self.pad, down, right, uniform(0, int(self.flip)).bool())


@runtime_checkable
class Store(Protocol):
    """Where a split's pixels are."""

    @property
    def device(self) -> torch.device:
        """Where `each` wants its rows and leaves its pixels."""

    @property
    def ahead(self) -> int:
        """Samples that are best taken together."""

    def each(self, batches: Sequence[Rows]) -> Iterator[SomePixels]:
        """The pixels of each batch of rows in turn; those that follow may be read ahead."""


@dataclass(frozen=True)
class Resident:
    """All pixels in one tensor on the device."""

    pixels: UInt8[Tensor, "samples height width channels"]

    @property
    def device(self) -> torch.device:
        return self.pixels.device

    @property
    def ahead(self) -> int:
        return max(1, BLOCK // self.pixels[0].numel())

    def each(self, batches: Sequence[Rows]) -> Iterator[SomePixels]:
        return (self.pixels.index_select(0, rows) for rows in batches)


class Split:
    """Labelled images in a fixed order, handed out as normalised float32 batches.

    Batches have channels-last strides. Both kinds of store give equal batches for equal data.
    """

    def __init__(
        self,
        store: Store,
        labels: Labels,
        mean: Float[Tensor, " channels"],
        std: Float[Tensor, " channels"],
        rows: Int[Tensor, " samples"] | None = None,
    ) -> None:
        """A split whose batches come out on the device of `labels`; mean and std are in pixels.

        `rows` are the rows of the store that it holds, all by default.
        """
        self.store = store
        self.labels = labels
        self.mean, self.std = mean, std
        self._shift = mean.to(labels.device)
        self._scale = std.to(labels.device).reciprocal()
        self._rows = torch.arange(len(labels)) if rows is None else rows
        self._rows = self._rows.to(store.device)

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: torch.Generator | None = None,
        augment: Augment | None = None,
        drop_short: bool = False,
        worker: tuple[int, int] = (0, 1),
        most: int = 1,
    ) -> Iterator[tuple[Images, Labels]]:
        """One pass over the split, in an order drawn from `shuffle` or in its own.

        `drop_short` leaves out a last batch as `count_batches` says. `worker`, a rank and a number
        of workers, gives its part of each batch alone, or of each of its pieces, which are at
        `most` so many: the draws are those of whole batches.
        """
        order, shift = self._draws(shuffle, augment)
        end = batch_size * count_batches(len(self), batch_size, drop_short=drop_short)
        if worker[1] > 1:
            own = own_rows(min(end, len(self)), batch_size, *worker, most)
            order, end = order[own.to(order.device)], len(own)
            shift = shift.at(own) if shift else None
            batch_size = len(own_rows(batch_size, batch_size, *worker, most))
        block = batch_size * max(1, self.store.ahead // batch_size)
        starts = range(0, end, block)
        blocks = [order[start : min(start + block, end)] for start in starts]
        pixels = self.store.each([self._rows[rows] for rows in blocks])
        for start, rows, taken in zip(starts, blocks, pixels, strict=True):
            here = taken.to(self.labels.device)
            moved = shifted(here, shift.rows(start, start + len(rows))) if shift else here
            images = self._normalised(moved)
            labels = self.labels[rows.to(self.labels.device)]
            pairs = (torch.split(part, batch_size) for part in (images, labels))
            yield from zip(*pairs, strict=True)

    def part(self, begin: float = 0.0, end: float = 1.0) -> "Split":
        """The samples between two fractions of every class, in this split's order."""
        if (begin, end) == (0.0, 1.0):
            return self
        labels = self.labels.cpu()
        counts, order = labels.bincount(), labels.argsort(stable=True)  # order: class by class
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(self)) - (counts.cumsum(0) - counts)[labels[order]]
        place = rank.double() / counts[labels]
        kept = ((place >= begin) & (place < end)).nonzero().squeeze(1)
        return Split(
            self.store,
            self.labels[kept.to(self.labels.device)],
            self.mean,
            self.std,
            self._rows[kept.to(self._rows.device)],
        )

    def between(self, start: int, stop: int) -> "Split":
        """The samples from `start` to before `stop`, in this split's order."""
        return Split(
            self.store, self.labels[start:stop], self.mean, self.std, self._rows[start:stop]
        )

    def head(self, samples: int) -> tuple[Images, Labels]:
        """The first samples, at most as many as there are, as they are evaluated."""
        rows = torch.arange(min(samples, len(self)), device=self.store.device)
        (pixels,) = self.store.each([self._rows[rows]])
        return self._normalised(pixels.to(self.labels.device)), self.labels[:samples]

    def _draws(
        self, shuffle: torch.Generator | None, augment: Augment | None
    ) -> tuple[Tensor, Shift | None]:
        place = self.store.device
        if shuffle is None:
            order = torch.arange(len(self))
        else:
            order = torch.randperm(len(self), generator=shuffle, device=shuffle.device)
        shift = None if augment is None else augment.draw(len(self)).to(self.labels.device)
        return order.to(place), shift

    def _normalised(self, pixels: Pixels) -> Images:
        batch, height, width, channels = pixels.shape
        values = pixels.float().view(batch, -1)
        shift, scale = (per.repeat(height * width) for per in (self._shift, self._scale))
        values.sub_(shift).mul_(scale)  # whole images in a row: a channel at a time is slow
        return values.view(batch, height, width, channels).permute(0, 3, 1, 2)


def count_batches(samples: int, batch_size: int, *, drop_short: bool = False) -> int:
    """Batches in one pass over `samples`.

    Under `drop_short` a last batch of one sample, or of less than half the size, is left out
    unless it is the only one: batch statistics of a few samples disturb training, and shuffling
    leaves out others in every epoch.
    """
    full, rest = divmod(samples, batch_size)
    short = drop_short and full > 0 and (rest == 1 or 2 * rest < batch_size)
    return full + (rest > 0 and not short)


def shifted(pixels: Pixels, shift: Shift) -> Pixels:
    """A batch, mirrored and then moved; black comes in at the edges.

    One gather of whole lines: each output line is a window of a line of the framed image.
    """
    batch, height, width, channels = pixels.shape
    pad = shift.pad
    framed = F.pad(_mirrored(pixels, shift.mirror), (0, 0, pad, pad, pad, pad))
    tall, wide = framed.shape[1:3]
    windows = framed.flatten().as_strided(
        (batch * tall * wide - width + 1, width * channels), (channels, 1)
    )
    image = torch.arange(batch, device=pixels.device)[:, None] * tall
    line = image + torch.arange(height, device=pixels.device) + (pad - shift.down)[:, None]
    start = line * wide + (pad - shift.right)[:, None]  # batch height
    return windows.index_select(0, start.flatten()).view(pixels.shape)


def _mirrored(pixels: Pixels, mirror: Bool[Tensor, " batch"]) -> Pixels:
    if pixels.is_cuda:  # where a list of rows would have to be waited for
        return torch.where(mirror[:, None, None, None], pixels.flip(2), pixels)
    rows = mirror.nonzero().squeeze(1)
    turned = pixels.index_select(0, rows).flip(2)
    return pixels.flatten(1).index_copy(0, rows, turned.flatten(1)).view(pixels.shape)
