"""Small image sets on disk."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Make = Callable[[int, int], Image.Image]
"""Class and number -> image."""


def square(label: int, number: int, side: int = 8) -> Image.Image:
    """A coloured image of random pixels."""
    rng = np.random.default_rng((label, number))
    return Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))


def shape(label: int, number: int, side: int = 8) -> np.ndarray:
    """Ones where the shape of a class is, zeros elsewhere; it moves with the number."""
    plane = np.zeros((side, side), dtype=bool)
    plane[number % (side - 2) : number % (side - 2) + 2, : side - 2 - label] = True
    return plane


def write_classes(
    path: Path,
    names: Sequence[str] = ("ant", "bee"),
    *,
    per: int = 10,
    make: Make = square,
    suffix: str = "png",
    **options: Any,
) -> Path:
    """One folder of images per class."""
    for label, name in enumerate(names):
        (path / name).mkdir(parents=True, exist_ok=True)
        for number in range(per):
            make(label, number).save(path / name / f"{number:03}.{suffix}", **options)
    return path


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    """The bytes of an image file."""
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def write_table(path: Path, labels: Any, **columns: Any) -> Path:
    """A Parquet file with a label per row, an image of any look, and further columns."""
    labels = labels if isinstance(labels, pa.Array | pa.ChunkedArray) else pa.array(labels)
    images = [encoded(square(0, number)) for number in range(len(labels))]
    content = {"image": pa.array(images, pa.binary()), "label": labels, **columns}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.table({key: value for key, value in content.items() if value is not None}), path
    )
    return path
