"""Pixels of splits that are too large to be held: read from a cache, or decoded batch by batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Int, UInt8

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
        """See `Store.each`; a pass over several batches has all images decoded once, if it can."""
        index = [self.index[rows.numpy()] for rows in batches]
        if len(index) == 1:
            pixels = self._cached(fill=False)
            yield torch.from_numpy(self.part.pixels(*index) if pixels is None else pixels[index[0]])
            return
        yield from self._ahead(index, max((len(rows) for rows in index), default=1))

    def _ahead(self, index: Sequence[workers.Rows], largest: int) -> Iterator[SomePixels]:
        pixels = self._cached(fill=True)
        if pixels is None and self.key is not None:
            count = workers.processes(sum(len(rows) for rows in index))
            if count:
                return workers.decoded(self.part, index, largest, workers=count, pin=self.pin)
        take = partial(_decode, self.part) if pixels is None else partial(_copy, pixels)
        return workers.threaded(take, self.part.shape, index, largest, pin=self.pin)

    def _cached(self, *, fill: bool) -> cache.Decoded | None:
        return None if self.key is None else cache.pixels(self.part, self.key, fill=fill)


def _decode(
    part: Part, rows: workers.Rows, out: UInt8[np.ndarray, "_ height width channels"]
) -> None:
    out[:] = part.pixels(rows)


def _copy(
    pixels: cache.Decoded, rows: workers.Rows, out: UInt8[np.ndarray, "_ height width channels"]
) -> None:
    np.take(pixels, rows, axis=0, out=out, mode="clip")  # which waits for the disk without the GIL
