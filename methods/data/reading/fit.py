"""How an image of any size and depth comes to bytes of one size."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from methods.data.parts import Scaling

SPARE = 2.0
"""A JPEG is decoded at a reduced scale where that leaves so many times the pixels of each side that
are wanted: what is then scaled down differs little (`Image.thumbnail` has the same margin)."""

SCALES = (8, 4, 2)
"""Fractions of its size that a JPEG is decoded at: an eighth, a quarter, a half."""


@dataclass(frozen=True)
class Depth:
    """How the values of a mode that is wider than a byte become 0 to 255."""

    low: float
    high: float
    """Values outside these are refused."""
    factor: float
    """Factor of a value above `low`."""
    half: float = 0.0
    """Added before the fraction is dropped: 0.5 rounds to the nearest."""

    def to_bytes(self, values: np.ndarray) -> UInt8[np.ndarray, "height width"]:
        scaled = values.astype(np.float64)
        scaled -= self.low
        scaled *= self.factor
        scaled += self.half
        return np.clip(scaled, 0, 255, out=scaled).astype(np.uint8)


@dataclass(frozen=True)
class Rendering:
    """How every image of a data set becomes pixels of one size."""

    height: int
    width: int
    channels: int
    resize: Scaling | None
    """None where every image must have the size already."""
    background: int = 255
    """Grey value that transparency is laid over."""
    depths: Mapping[str, Depth] = field(default_factory=dict)
    """Mode -> scale, for modes wider than a byte."""

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels


class Box(NamedTuple):
    """A part of an image, in its pixels or as fractions of them."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    def over(self, scale: int) -> "Box":
        """The same part of an image that was decoded at one `scale`-th of its size."""
        return self if scale == 1 else Box(*(side / scale for side in self))


class Fitting(NamedTuple):
    """What of an image is scaled, to which size, and where that stands in a black frame."""

    part: Box
    width: int
    height: int
    left: int = 0
    top: int = 0

    @property
    def scale(self) -> int:
        """The least fraction at which a JPEG has all pixels that are wanted, and some to spare."""
        reduction = min(self.part.width / self.width, self.part.height / self.height)
        return next((scale for scale in SCALES if SPARE * scale <= reduction), 1)


def fitted(image: Image.Image, fitting: Fitting, scale: int, size: tuple[int, int]) -> Image.Image:
    """An image that was decoded at one `scale`-th of its size, at this (width, height)."""
    inner = fitting.width, fitting.height
    part = image.resize(inner, Image.Resampling.BILINEAR, box=fitting.part.over(scale))
    if inner == size:
        return part
    canvas = Image.new(image.mode, size)
    canvas.paste(part, (fitting.left, fitting.top))
    return canvas


def _cropped(size: tuple[int, int], height: int, width: int) -> Fitting:
    """Scaled to cover the wanted size, with a margin of an eighth if larger, then its centre.

    The shorter side comes to 8/7 of the wanted (256 for 224) where the image has that much.
    """
    cover = max(height / size[1], width / size[0])
    scale = max(cover, min(cover * 8 / 7, 1.0))
    inner = (width / scale, height / scale)
    left, top = (size[0] - inner[0]) / 2, (size[1] - inner[1]) / 2
    ends = min(left + inner[0], float(size[0])), min(top + inner[1], float(size[1]))
    return Fitting(Box(max(left, 0.0), max(top, 0.0), *ends), width, height)


def _covered(size: tuple[int, int], height: int, width: int) -> Fitting:
    """Scaled to cover the wanted size, then its centre."""
    scale = max(height / size[1], width / size[0])
    inner = (min(width / scale, float(size[0])), min(height / scale, float(size[1])))
    left, top = (size[0] - inner[0]) / 2, (size[1] - inner[1]) / 2
    return Fitting(Box(left, top, left + inner[0], top + inner[1]), width, height)


def _padded(size: tuple[int, int], height: int, width: int) -> Fitting:
    """Scaled into the wanted size, in the middle of a black frame."""
    scale = min(height / size[1], width / size[0])
    inner = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    return Fitting(
        Box(0.0, 0.0, float(size[0]), float(size[1])),
        *inner,
        left=(width - inner[0]) // 2,
        top=(height - inner[1]) // 2,
    )


def _stretched(size: tuple[int, int], height: int, width: int) -> Fitting:
    return Fitting(Box(0.0, 0.0, float(size[0]), float(size[1])), width, height)


FITTINGS: Mapping[Scaling, Callable[[tuple[int, int], int, int], Fitting]] = MappingProxyType(
    {"crop": _cropped, "pad": _padded, "stretch": _stretched, "cover": _covered}
)
"""How -> from an image's (width, height) and the wanted height and width, what is done to it."""
