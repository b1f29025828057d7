"""Sums: images of one digit or of two, whose sum is the class.

One digit takes little to read; two, wherever they stand, take more to read and to add. So half of
the images are easy and half are hard, and they are small and quick to train on: docs/data.md has
what depth and width buy. The digits are scikit-learn's, and no scan of one split stands in another.
"""

import itertools

import numpy as np
from jaxtyping import Int, UInt8

from methods.data.parts import Array, Numbered, Source
from methods.data.scans import SIDE as SCAN
from methods.data.scans import Scans, split

SIDE = 2 * SCAN
"""Pixels of an image's side."""
CLASSES = 10
SEED = 16

Place = tuple[int, int]
"""Row and column of a scan's first pixel."""

PLACES: tuple[Place, ...] = tuple(
    (row, column) for row, column in itertools.product(range(SIDE - SCAN + 1), repeat=2)
)
"""Of one digit."""
PAIRS = tuple(
    (one, other)
    for one, other in itertools.product(PLACES, repeat=2)
    if max(abs(one[0] - other[0]), abs(one[1] - other[1])) >= SCAN
)
"""Of two digits that do not touch."""


def source(train: int, validation: int, test: int) -> Source:
    """A set with so many images, half of them sums; the same whenever it is made."""
    draw = np.random.default_rng(SEED)
    scans = split(draw)
    counts = {"train": train, "validation": validation, "test": test}
    parts, difficulty = {}, {}
    for role, count in counts.items():
        two = draw.permutation(np.arange(count) % 2)
        parts[role] = _part(f"sums-{role}", scans[role], two, draw)
        difficulty[role] = two.astype(np.float64)
    return Source(
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        shape=(SIDE, SIDE, 1),
        class_names=tuple("0123456789"),
        flip=False,
        pad=0,  # a digit stands anywhere already
        difficulty=difficulty,
    )


def _part(
    name: str, scans: Scans, two: Int[np.ndarray, " samples"], draw: np.random.Generator
) -> Array:
    by_digit = [np.flatnonzero(scans.classes == digit) for digit in range(CLASSES)]
    images = np.zeros((len(two), SIDE, SIDE), np.uint8)
    labels = draw.integers(CLASSES, size=len(two))
    for image, label, pair in zip(images, labels, two, strict=True):
        digits, places = [label], [PLACES[draw.integers(len(PLACES))]]
        if pair:
            first = draw.integers(label + 1)
            digits, places = [first, label - first], [*PAIRS[draw.integers(len(PAIRS))]]
        for digit, place in zip(digits, places, strict=True):
            _stamp(image, scans.images[draw.choice(by_digit[digit])], place)
    return Array(labels, images[..., None], Numbered.of(name, len(labels)))


def _stamp(image: UInt8[np.ndarray, "16 16"], scan: UInt8[np.ndarray, "8 8"], place: Place) -> None:
    row, column = place
    image[row : row + SCAN, column : column + SCAN] = scan
