"""Parts whose images stay encoded until they are asked for, and one way to decode all of them."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import PIL
import torch
from jaxtyping import Int, UInt8
from PIL import features

from methods.data.parts import Census, LeftOut, Scaling, Source, Stamps
from methods.data.reading import picture
from methods.data.reading.fit import Depth, Rendering
from methods.data.reading.picture import BrokenImage, Cell, Header
from methods.errors import DataError

HEADERS = 20_000
"""Images of a part whose headers are all read; of a larger part `PROBES` are."""

PROBES = 1000
"""Images, evenly spaced, that stand for a large part; and that backgrounds are chosen by."""

LARGEST_SIDE = 4096
"""Pixels that `size` may ask for."""

BACKGROUNDS: Mapping[int, str] = {255: "white", 0: "black", 128: "grey"}
"""Grey values that transparency is laid over, the preferred first."""

BITS = (8, 10, 12, 14, 16, 20, 24, 31)
"""Depths of whole values; the smallest that holds those of a data set is taken to be theirs."""

CODECS = ("libjpeg_turbo", "jpg", "webp", "jpg_2000", "libtiff")
DECODERS = (PIL.__version__, *map(features.version, CODECS), 1)
"""What pixels depend on beside the files and their rendering; the last is this program's part."""

Value = TypeVar("Value")


@runtime_checkable
class Cells(Protocol):
    """Encoded images of one split, by row."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def key(self) -> str | None:
        """What tells these files from all others; None where nothing does but all their bytes."""

    @property
    def stamps(self) -> Stamps | None:
        """See `Part.stamps`."""

    def cell(self, row: int) -> Cell: ...


@dataclass(frozen=True)
class Encoded:
    """A part whose images are decoded when they are asked for."""

    labels: Int[np.ndarray, " samples"]
    cells: Cells
    rendering: Rendering
    census: Census

    @property
    def names(self) -> Sequence[str]:
        return self.cells.names

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.rendering.shape

    @property
    def stamps(self) -> Stamps | None:
        return self.cells.stamps

    @cached_property
    def key(self) -> str | None:
        if self.cells.key is None:
            return None
        how = self.rendering
        depths = sorted(how.depths.items())
        facts = (self.cells.key, how.shape, how.resize, how.background, depths, DECODERS)
        return hashlib.blake2b(ascii(facts).encode(), digest_size=16).hexdigest()

    def pixels(
        self, rows: Int[np.ndarray, " batch"]
    ) -> UInt8[np.ndarray, "batch height width channels"]:
        """Decoded on as many threads as torch may use.

        Raises:
            DataError: an image that cannot be read.
        """
        arrays = _each(self.cells, rows, lambda cell: picture.pixels(cell, self.rendering))
        return np.stack(arrays)


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A data set whose images have labels and splits, and are not decoded yet."""

    name: str
    splits: Mapping[str, tuple[Cells, Int[np.ndarray, " samples"]]]
    """Role -> encoded images, and their labels."""
    class_names: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()

    def source(self, *, size: int | None, fit: Scaling) -> Source:
        """The data set with one way to decode all its images, brought to `size` if given.

        Raises:
            DataError: images of several sizes and no `size`, or an image that cannot be read.
        """
        if size is not None and not 1 <= size <= LARGEST_SIDE:
            raise DataError(f"size must be 1 to {LARGEST_SIDE} pixels, but got {size}")
        headers = {role: self._headers(cells) for role, (cells, _) in self.splits.items()}
        every = list(chain.from_iterable(headers.values()))
        depths, depth_notes = self._depths(headers)
        background, background_notes = self._background(headers)
        height, width = (size, size) if size is not None else _common_size(self.name, every)
        rendering = Rendering(
            height=height,
            width=width,
            channels=1 if all(h.mode in picture.GREY_MODES for h in every) else 3,
            resize=None if size is None else fit,
            background=background,
            depths=depths,
        )
        parts = {
            role: Encoded(labels, cells, rendering, _census(headers[role]))
            for role, (cells, labels) in self.splits.items()
        }
        sampled = _sample_notes(len(every), sum(len(labels) for _, labels in self.splits.values()))
        notes = (*self.notes, *sampled, *_header_notes(every), *depth_notes, *background_notes)
        if size is not None:
            notes += (f"images come to {size}x{size} pixels by {fit}",)
        return Source(
            train=parts["train"],
            validation=parts.get("validation"),
            test=parts.get("test"),
            shape=rendering.shape,
            class_names=self.class_names,
            flip=True,
            left_out=self.left_out,
            notes=notes,
        )

    def broken(self) -> tuple[LeftOut, ...]:
        """Every image that cannot be read, and why; all are decoded."""
        faults = (
            _each(cells, range(len(cells.names)), _fault) for cells, _ in self.splits.values()
        )
        return tuple(fault for fault in chain.from_iterable(faults) if fault is not None)

    def _headers(self, cells: Cells) -> list[Header]:
        return _each(cells, _probes(len(cells.names)), picture.header)

    def _depths(
        self, headers: Mapping[str, list[Header]]
    ) -> tuple[dict[str, Depth], tuple[str, ...]]:
        """Mode -> scale of its values, and what to say of it."""
        ranges: dict[str, list[tuple[float, float]]] = {}
        for role, (cells, _) in self.splits.items():
            rows = _probes(len(cells.names))
            deep = [
                (row, header.mode)
                for row, header in zip(rows, headers[role], strict=True)
                if header.mode in picture.DEEP_MODES
            ]
            extremes = _each(cells, [row for row, _ in deep], _extremes)
            for (_, mode), extreme in zip(deep, extremes, strict=True):
                ranges.setdefault(_kind(mode), []).append(extreme)
        scales = {
            kind: _depth(kind, min(low for low, _ in pairs), max(high for _, high in pairs))
            for kind, pairs in ranges.items()
        }
        modes = [mode for mode in picture.DEEP_MODES if _kind(mode) in scales]
        depths = {mode: scales[_kind(mode)][0] for mode in modes}
        return depths, tuple(note for _, note in scales.values())

    def _background(self, headers: Mapping[str, list[Header]]) -> tuple[int, tuple[str, ...]]:
        """The grey value from which every image's visible pixels differ most, by their mean."""
        lights: list[float] = []
        for role, (cells, _) in self.splits.items():
            rows = _probes(len(cells.names))
            clear = [
                row for row, header in zip(rows, headers[role], strict=True) if header.transparent
            ]
            clear = clear[:: -(-len(clear) // PROBES) or 1]
            lights += [light for light in _each(cells, clear, picture.visible) if light is not None]
        if not lights:
            return 255, ()
        background = max(BACKGROUNDS, key=lambda grey: min(abs(grey - light) for light in lights))
        return background, (
            f"transparency is laid over {BACKGROUNDS[background]}: of white, black and grey, what "
            "is visible differs most from it",
        )


def _each(
    cells: Cells, rows: Sequence[int] | np.ndarray, work: Callable[[Cell], Value]
) -> list[Value]:
    """What `work` makes of each row's image, on as many threads as torch may use."""

    def one(row: int) -> Value:
        return work(cells.cell(row))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of metadata that no pixel depends on
        if torch.get_num_threads() == 1:
            return [one(row) for row in map(int, rows)]
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return list(pool.map(one, map(int, rows)))


def _probes(samples: int) -> range:
    return range(0, samples, 1 if samples <= HEADERS else -(-samples // PROBES))


def _fault(cell: Cell) -> LeftOut | None:
    try:
        picture.check(cell)
    except BrokenImage as error:
        return LeftOut(error.name, error.why)
    return None


def _extremes(cell: Cell) -> tuple[float, float]:
    values = picture.values(cell)
    return float(values.min()), float(values.max())


def _kind(mode: str) -> str:
    """The mode, whatever the order of its bytes."""
    return "I;16" if mode.startswith("I;16") else mode


def _depth(kind: str, low: float, high: float) -> tuple[Depth, str]:
    """Scale of a kind of values that lie in [low, high], and a sentence that states it."""
    limits = f"values of mode {kind} lie in {low:g} to {high:g}"
    if kind != "F" and low >= 0:
        bits = next(bits for bits in BITS if high < 2**bits)
        if bits == 8:
            return Depth(0.0, 255.0, 1.0), f"{limits}: they are taken as they are"
        return Depth(0.0, 2.0**bits - 1, 2.0 ** (8 - bits)), f"{limits}: {bits} bits become 8"
    if low >= 0 and 1 / 16 < high <= 1:
        return Depth(0.0, 1.0, 255.0, 0.5), f"{limits}: 0 to 1 becomes 0 to 255"
    if low >= 0 and 16 <= high <= 255:
        return Depth(0.0, 255.0, 1.0), f"{limits}: they are taken as they are"
    factor = 255 / (high - low) if high > low else 0.0
    return Depth(low, high, factor, 0.5), f"{limits}: that range becomes 0 to 255"


def _common_size(name: str, headers: Sequence[Header]) -> tuple[int, int]:
    """Height and width of all images.

    Raises:
        DataError: they differ.
    """
    sizes = Counter((header.height, header.width) for header in headers)
    if len(sizes) == 1:
        return next(iter(sizes))
    common = sizes.most_common(3)
    listed = ", ".join(f"{height}x{width} ({count})" for (height, width), count in common)
    more = f" and {len(sizes) - 3} more" if len(sizes) > 3 else ""
    raise DataError(
        f"images must have one size, but those of {name} have {len(sizes)}: {listed}{more} "
        f"(height x width); write a size such as `size: {min(common[0][0])}`, to which each "
        "image is scaled and cropped, or padded or stretched by `fit: pad` or `fit: stretch`"
    )


def _census(headers: Sequence[Header]) -> Census:
    return Census(
        dict(Counter((header.height, header.width) for header in headers)),
        dict(Counter(header.mode for header in headers)),
    )


def _sample_notes(probed: int, images: int) -> tuple[str, ...]:
    if probed == images:
        return ()
    return (f"sizes, modes and depths are those of {probed:,} of {images:,} images, evenly spaced",)


def _header_notes(headers: Sequence[Header]) -> tuple[str, ...]:
    turned = sum(header.turned for header in headers)
    animated = sum(header.animated for header in headers)
    shortened = sum(header.shortened for header in headers)
    notes = []
    if shortened:
        notes.append(
            f"{shortened} of {len(headers)} images have 16 bits a channel: the upper 8 are read"
        )
    if turned:
        notes.append(f"{turned} of {len(headers)} images are turned upright by EXIF orientation")
    if animated:
        notes.append(f"{animated} of {len(headers)} images are animated: the first frame is read")
    return tuple(notes)
