"""What a source of images is made of: parts, where their images come from, what was left out."""

import bisect
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, overload, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Int64, UInt8

CHUNK_BYTES = 32 << 20
"""Pixels that are decoded at once to be looked at or counted, but for one image."""

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


class Stamps(NamedTuple):
    """What files say of themselves, one by one; zeros for a file that is not there."""

    sizes: Int64[np.ndarray, " samples"]
    """Bytes."""
    times: Int64[np.ndarray, " samples"]
    """When each was changed last, in nanoseconds since 1970."""

    @classmethod
    def of(cls, files: Iterable[str | Path]) -> "Stamps":
        facts = np.fromiter(map(_stamp, files), np.dtype((np.int64, 2)))
        return cls(facts[:, 0], facts[:, 1])


def _stamp(file: str | Path) -> tuple[int, int]:
    try:
        facts = os.stat(file)  # noqa: PTH116, a Path each takes longer than the call
    except OSError:
        return 0, 0
    return facts.st_size, facts.st_mtime_ns


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

    @property
    def stamps(self) -> Stamps | None:
        """What is known of each image's file; None for what is embedded or comes from the hub."""

    def pixels(
        self, rows: Int[np.ndarray, " batch"]
    ) -> UInt8[np.ndarray, "batch height width channels"]: ...


def chunks(
    rows: Int[np.ndarray, " rows"], part: Part, most: int = 1024
) -> list[Int[np.ndarray, " chunk"]]:
    """Rows of a part, in order, few enough at once that their pixels need little memory."""
    step = max(1, min(most, CHUNK_BYTES // max(1, math.prod(part.shape))))
    return [rows[start : start + step] for start in range(0, len(rows), step)]


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

    @property
    def stamps(self) -> None:
        return None

    def pixels(
        self, rows: Int[np.ndarray, " batch"]
    ) -> UInt8[np.ndarray, "batch height width channels"]:
        return np.asarray(self.images[rows])


@dataclass(frozen=True)
class Texts(Sequence[str]):
    """Many texts, such as the paths of files, in two arrays: no object each."""

    letters: UInt8[np.ndarray, " letters"]
    ends: Int[np.ndarray, " texts"]

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Texts":
        encoded = [os.fsencode(text) for text in texts]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return [self[each] for each in range(len(self))[number]]
        number = range(len(self))[number]
        start = int(self.ends[number - 1]) if number else 0
        return os.fsdecode(self.letters[start : int(self.ends[number])].tobytes())


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
