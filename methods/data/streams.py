"""Pixels of splits that are too large to be held: read from a cache, or decoded batch by batch."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int

from methods.data.decoding import cache, workers
from methods.data.parts import Part
from methods.data.splits import Rows, SomePixels


@dataclass(frozen=True)
class Streamed:
    """Pixels that are on the host a few batches at a time, ahead of their use."""

    part: Part
    index: Int[np.ndarray, " samples"]
    """Rows of the part that this split holds."""
    key: str | None = None
    """What tells the part's pixels from all others; None where they need no decoding."""
    pin: bool = False
    """Whether batches are pinned, on their way to a GPU."""

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def on(self, device: str | torch.device) -> "Streamed":
        """The same pixels, on their way to a device."""
        return replace(self, pin=torch.device(device).type == "cuda")

    @property
    def ahead(self) -> int:
        return 1

    def each(self, batches: Sequence[Rows]) -> Iterator[SomePixels]:
        """See `Store.each`; a pass over several batches has each image decoded once, if it can."""
        index = [self.index[rows.numpy()] for rows in batches]
        fill = len(index) > 1
        if self.key is None:
            yield from self._ahead(self._decode, index, 0)
            return
        with contextlib.closing(cache.Cached(self.part, self.key, fill=fill)) as cached:
            count = workers.processes(cached.lacks(np.concatenate(index))) if fill else 0
            yield from self._ahead(cached.take, index, count)

    def _ahead(
        self, take: workers.Take, index: Sequence[workers.Rows], count: int
    ) -> Iterator[SomePixels]:
        largest = max((len(rows) for rows in index), default=1)
        shape = self.part.shape
        return workers.ahead(take, shape, index, largest, workers=count, pin=self.pin)

    def _decode(self, rows: workers.Rows, out: cache.Images) -> None:
        out[:] = self.part.pixels(rows)
