"""Small data sets in memory, and their surveys."""

from typing import Any

import numpy as np

from methods.data.load import divided
from methods.data.parts import Array, Source
from methods.data.survey import Survey, survey

CLASSES = ("ant", "bee", "cow")


def part(images: int, seed: int, prefix: str = "") -> Array:
    """Random images of 4 x 5 pixels in colour, of each class in turn."""
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 256, (images, 4, 5, 3), dtype=np.uint8)
    return Array(np.arange(images) % 3, pixels, [f"{prefix}{row:03}.png" for row in range(images)])


def source(**changes: Any) -> Source:
    """Thirty training and nine test images, but for `changes`."""
    values: dict[str, Any] = {
        "train": part(30, 1, "train/"),
        "test": part(9, 2, "test/"),
        "shape": (4, 5, 3),
        "class_names": CLASSES,
        "flip": True,
    }
    return Source(**{**values, **changes})


def repainted(*rows: int) -> Array:
    """The training images, some of them with one bit of one pixel turned."""
    whole = part(30, 1, "train/")
    whole.images[list(rows), 0, 0, 0] ^= 1
    return whole


def surveyed(images: Source, *, seed: int = 0, name: str = "made") -> Survey:
    return survey(divided(name, images, seed=seed))
