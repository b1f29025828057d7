"""What a source of images is made of: arrays, and the parts that they are split into."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8


@runtime_checkable
class Part(Protocol):
    """One part of a data set, such as its training images, not yet split or normalised."""

    @property
    def labels(self) -> Int[np.ndarray, " samples"]: ...

    def pixels(
        self, rows: Int[np.ndarray, " batch"]
    ) -> UInt8[np.ndarray, "batch height width channels"]: ...


@dataclass(frozen=True)
class Array:
    """A part that is in memory already."""

    labels: Int[np.ndarray, " samples"]
    images: UInt8[np.ndarray, "samples height width channels"]

    def pixels(
        self, rows: Int[np.ndarray, " batch"]
    ) -> UInt8[np.ndarray, "batch height width channels"]:
        return np.asarray(self.images[rows])


@dataclass(frozen=True, kw_only=True)
class Source:
    """A labelled data set as it was found."""

    train: Part
    validation: Part | None = None
    test: Part | None = None
    shape: tuple[int, int, int]
    """Height, width, channels."""
    classes: int
    flip: bool
    """Whether a mirrored image keeps its class."""
