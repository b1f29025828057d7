"""Sums: one, two or three digits in an image, each in a colour of its own; the class is their sum.

One digit takes little to read; three take more to read and to add. So a third of the images are
easy and a third are hard, and all are small and quick to train on: docs/data.md has what depth and
width buy. The digits are scikit-learn's, and no scan of one split stands in another.
"""

import numpy as np
from jaxtyping import Int

from methods.data.parts import Array, Numbered, Source
from methods.data.scans import SIDE, Scans, split

COLOURS = 3
"""Red, green and blue; an image holds a digit in each at most."""
CLASSES = 10
SEED = 16


def source(train: int, validation: int, test: int) -> Source:
    """A set with so many images, a third for each number of digits; the same whenever it is made.

    Images of one digit all differ, so that a split has at most 9 times as many as scans.
    """
    draw = np.random.default_rng(SEED)
    scans = split(draw)
    parts, difficulty = {}, {}
    for role, count in {"train": train, "validation": validation, "test": test}.items():
        more = draw.permutation(np.arange(count) % COLOURS)
        parts[role] = _part(f"sums-{role}", scans[role], 1 + more, draw)
        difficulty[role] = more / (COLOURS - 1)
    return Source(
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        shape=(SIDE, SIDE, COLOURS),
        class_names=tuple("0123456789"),
        flip=False,
        pad=0,  # a digit fills the image
        difficulty=difficulty,
    )


def _part(
    name: str, scans: Scans, digits: Int[np.ndarray, " images"], draw: np.random.Generator
) -> Array:
    by_class = [np.flatnonzero(scans.classes == digit) for digit in range(CLASSES)]
    alone = iter(draw.permutation(COLOURS * len(scans.classes)))
    images = np.zeros((len(digits), SIDE, SIDE, COLOURS), np.uint8)
    labels = np.zeros(len(digits), np.int64)
    for row, many in enumerate(digits.tolist()):
        if many == 1:
            scan, colour = divmod(int(next(alone)), COLOURS)
            chosen, colours = np.array([scan]), np.array([colour])
        else:
            terms = _terms(int(draw.integers(CLASSES)), many, draw)
            chosen = np.array([draw.choice(by_class[term]) for term in terms])
            colours = draw.permutation(COLOURS)[:many]
        images[row][..., colours] = scans.images[chosen].transpose(1, 2, 0)
        labels[row] = scans.classes[chosen].sum()
    return Array(labels, images, Numbered.of(name, len(labels)))


def _terms(total: int, many: int, draw: np.random.Generator) -> Int[np.ndarray, " terms"]:
    """So many digits of this sum: the gaps that sorted draws leave."""
    cuts = np.sort(draw.integers(total + 1, size=many - 1))
    return np.diff(cuts, prepend=0, append=total)
