"""Pixels of splits that are too large to be held: decoded batch by batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int

from methods.data.parts import Part
from methods.data.splits import Rows, SomePixels


@dataclass(frozen=True)
class Streamed:
    """Pixels decoded from their source batch by batch, on the host."""

    part: Part
    index: Int[np.ndarray, " samples"]
    """Rows of the part that this split holds."""

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def ahead(self) -> int:
        return 1

    def each(self, batches: Sequence[Rows]) -> Iterator[SomePixels]:
        return (torch.from_numpy(self.part.pixels(self.index[rows.numpy()])) for rows in batches)
