"""Samples of one split as normalised batches: resident on the device, or decoded as they come."""

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from methods.api import Images, Labels
from methods.data.augment import Augment, Draws, Pixels, coloured, mixed, paired, placed
from methods.parallel.group import own_rows

Rows = Int[Tensor, " _"]
SomePixels = UInt8[Tensor, "_ height width channels"]
"""Batches that need not be alike in size."""
Stored = UInt8[Tensor, "batch tall wide channels"]

BLOCK = 1 << 18
"""Bytes of pixels that are taken together: batches of tiny images cost calls, not bytes."""


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
        *,
        size: tuple[int, int] | None = None,
    ) -> None:
        """A split whose batches come out on the device of `labels`; mean and std are in pixels.

        `rows` are the rows of the store that it holds, all by default. `size` is the height and
        width of what is given out, by default those of what is stored: training cuts it out by
        chance, and evaluation the centre.
        """
        self.store = store
        self.size = size
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
        order, draws = self._draws(shuffle, augment)
        end = batch_size * count_batches(len(self), batch_size, drop_short=drop_short)
        end, count = min(end, len(self)), batch_size
        sizes = [min(count, end - start) for start in range(0, end, count)]
        partners: list[Tensor] = []
        mixing = draws is not None and draws.weight is not None
        if mixing or worker[1] > 1:
            own = own_rows(end, batch_size, *worker, most)
            count = len(own_rows(batch_size, batch_size, *worker, most))
            batches: Sequence[Tensor] = torch.split(own, count)
            if mixing:
                pairs = (paired(batch, batch_size, end) for batch in batches)
                batches, partners = map(list, zip(*pairs, strict=True))
            sizes, samples = [len(batch) for batch in batches], torch.cat([*batches])
            order = order[samples.to(order.device)]
            draws = draws.rows(samples) if draws else None
        block = max(1, self.store.ahead // count)
        groups = [sizes[first : first + block] for first in range(0, len(sizes), block)]
        ends = [0, *itertools.accumulate(sum(group) for group in groups)]
        blocks = [order[start:stop] for start, stop in itertools.pairwise(ends)]
        pixels = self.store.each([self._rows[rows] for rows in blocks])
        mates = iter(partners)
        for group, start, rows, here in zip(groups, ends[:-1], blocks, pixels, strict=True):
            drawn = draws.rows(slice(start, start + len(rows))) if draws else None
            images = self._given(here.to(self.labels.device, non_blocking=True), drawn)
            labels = self.labels[rows.to(self.labels.device)]
            parts = zip(*(torch.split(part, group) for part in (images, labels)), strict=True)
            if drawn is None or drawn.weight is None:
                yield from parts
                continue
            for (each, known), share in zip(parts, torch.split(drawn.weight, group), strict=True):
                yield mixed(each, known, share, next(mates).to(each.device))

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
        return self._of(
            self.labels[kept.to(self.labels.device)], self._rows[kept.to(self._rows.device)]
        )

    def between(self, start: int, stop: int) -> "Split":
        """The samples from `start` to before `stop`, in this split's order."""
        return self._of(self.labels[start:stop], self._rows[start:stop])

    def head(self, samples: int) -> tuple[Images, Labels]:
        """The first samples, at most as many as there are, as they are evaluated."""
        rows = torch.arange(min(samples, len(self)), device=self.store.device)
        (pixels,) = self.store.each([self._rows[rows]])
        return self._given(pixels.to(self.labels.device), None), self.labels[:samples]

    @functools.cached_property
    def _stored(self) -> tuple[int, int]:
        """Height and width of what the store has."""
        (pixels,) = self.store.each([self._rows[:1]])
        return pixels.shape[1], pixels.shape[2]

    def _of(self, labels: Labels, rows: Int[Tensor, " samples"]) -> "Split":
        return Split(self.store, labels, self.mean, self.std, rows, size=self.size)

    def _draws(
        self, shuffle: torch.Generator | None, augment: Augment | None
    ) -> tuple[Tensor, Draws | None]:
        place = self.store.device
        if shuffle is None:
            order = torch.arange(len(self))
        else:
            order = torch.randperm(len(self), generator=shuffle, device=shuffle.device)
        draws = None
        if augment is not None:
            cut = augment.crop == "resized" or self.size is not None
            stored = self._stored if cut else (0, 0)
            drawn = augment.draw(len(self), stored, self.size or stored)
            draws = drawn.to(self.labels.device)
        return order.to(place), draws

    def _given(self, pixels: Stored, draws: Draws | None) -> Images:
        """Pixels as they are stored, as a network gets them."""
        height, width = size = self.size or (pixels.shape[1], pixels.shape[2])
        if draws is not None:
            pixels = placed(pixels, draws.place, size)
            pixels = coloured(pixels, draws.colours) if draws.colours else pixels
        elif self.size is not None:
            top, left = (pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2
            pixels = pixels[:, top : top + height, left : left + width].contiguous()
        return self._normalised(pixels)

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
