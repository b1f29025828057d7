"""What a source of images is made of: parts, where their images come from, what was left out."""

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, overload, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt8

Fit = Literal["crop", "pad", "stretch"]
"""How an image comes to another size: scaled to cover it and cut, scaled into it and framed, or
each side by itself."""
Scaling = Fit | Literal["cover"]
"""The same; `cover` is `crop` without a margin, for images that are cut again."""


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is not read, or an image that cannot be."""

    path: str
    """Relative to the data set's root."""
    why: str


@dataclass(frozen=True)
class Census:
    """Sizes and modes of a part's images as they are stored, EXIF orientation applied."""

    sizes: Mapping[tuple[int, int], int]
    """(height, width) in pixels -> images."""
    modes: Mapping[str, int]
    """Pillow's mode, such as L or RGB -> images."""

    @property
    def counted(self) -> int:
        """Images that were looked at: all, or an evenly spaced sample of a large part."""
        return sum(self.sizes.values())


@runtime_checkable
class Part(Protocol):
    """One part of a data set, such as its training images, not yet split or normalised."""

    @property
    def labels(self) -> Int[np.ndarray, " samples"]: ...

    @property
    def names(self) -> Sequence[str]:
        """Per sample: its file relative to the root, 'file.parquet:row', or 'digits:row'."""

    @property
    def census(self) -> Census: ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of its pixels."""

    @property
    def key(self) -> str | None:
        """What tells its pixels from all others; None where they cost nothing, or nothing does."""

    def pixels(
        self, rows: Int[np.ndarray, " batch"]
    ) -> UInt8[np.ndarray, "batch height width channels"]: ...


@dataclass(frozen=True)
class Array:
    """A part that is in memory already."""

    labels: Int[np.ndarray, " samples"]
    images: UInt8[np.ndarray, "samples height width channels"]
    names: Sequence[str]

    @property
    def census(self) -> Census:
        samples, height, width, channels = self.images.shape
        return Census({(height, width): samples}, {"L" if channels == 1 else "RGB": samples})

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    @property
    def key(self) -> None:
        return None

    def pixels(
        self, rows: Int[np.ndarray, " batch"]
    ) -> UInt8[np.ndarray, "batch height width channels"]:
        return np.asarray(self.images[rows])


@dataclass(frozen=True)
class Numbered(Sequence[str]):
    """Names such as 'train-0.parquet:17', made when they are asked for."""

    files: tuple[str, ...]
    ends: tuple[int, ...]
    """Per file: samples in it and in those before it."""

    @classmethod
    def of(cls, file: str, samples: int) -> "Numbered":
        return cls((file,), (samples,))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    @overload
    def __getitem__(self, sample: int) -> str: ...
    @overload
    def __getitem__(self, sample: slice) -> list[str]: ...
    def __getitem__(self, sample: int | slice) -> str | list[str]:
        if isinstance(sample, slice):
            return [self[number] for number in range(len(self))[sample]]
        number = range(len(self))[sample]
        file = bisect.bisect_right(self.ends, number)
        return f"{self.files[file]}:{number - (self.ends[file - 1] if file else 0)}"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A labelled data set as it was found."""

    train: Part
    validation: Part | None = None
    test: Part | None = None
    shape: tuple[int, int, int]
    """Height, width, channels."""
    class_names: tuple[str, ...]
    """In the order of the labels."""
    flip: bool
    """Whether a mirrored image keeps its class."""
    pad: int | None = None
    """Pixels by which an image may be moved; None for an eighth of its side."""
    difficulty: Mapping[str, Float[np.ndarray, " samples"]] = field(default_factory=dict)
    """By role: how hard each image is, from 0 to 1, where the set knows it."""
    files: Sequence[Path] = ()
    """Files that were read; none for what is embedded or comes from the hub."""
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    """What was chosen on the way: columns, splits, depth, background; a sentence each."""

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def parts(self) -> Mapping[str, Part]:
        """Role, of train, validation and test -> part, for those that there are."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {role: part for role, part in parts.items() if part is not None}
