"""Trails: images of known difficulty, on which depth pays.

A marked trail of one to three steps leads over a board of nine cells to a digit, which is the
class; loose digits and a second, unmarked trail mislead. A convolution sees a few pixels around it,
so that a long trail takes many blocks to follow, and a short one few: docs/data.md has what depth
and width buy. The digits are scikit-learn's, and no scan of one split stands in another.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from methods.data.parts import Array, Numbered, Source
from methods.data.scans import Scans, split

CELL, CELLS = 8, 3
"""Pixels of a cell's side, and cells of the board's."""
SIDE = CELL * CELLS
"""Pixels of an image's side."""
CENTRE = 3
"""Row and column of a cell's centre, from its corner."""
BAR, NODE, START = 178, 89, 255
"""Grey values of a step's bar, of the block where it begins, and of the block of the true start."""
SEED = 24

Walk = tuple[int, ...]
"""Cells of a trail, numbered row by row, from its start to its digit."""


class Level(NamedTuple):
    """What makes an image as difficult as it is."""

    steps: int
    """From the start to the digit."""
    decoy: int
    """Steps of the unmarked trail; 0 for none."""
    loose: int
    """Digits that no trail leads to."""


LEVELS = (Level(1, 0, 0), Level(1, 0, 1), Level(1, 1, 0), Level(2, 2, 0), Level(3, 3, 0))
"""From the easiest to the hardest; an image's difficulty is the rank of its level, from 0 to 1."""


@dataclass(frozen=True)
class _Boards:
    """Every board of one level, without its digits."""

    images: UInt8[np.ndarray, "boards height width"]
    cells: Int[np.ndarray, "boards digits"]
    """The digits of each board; the class is the first one's."""


def source(train: int, validation: int, test: int) -> Source:
    """A set with so many images, each level as often as any other; the same whenever it is made."""
    draw = np.random.default_rng(SEED)
    scans = split(draw)
    boards = [_boards(level) for level in LEVELS]
    counts = {"train": train, "validation": validation, "test": test}
    parts, difficulty = {}, {}
    for role, count in counts.items():
        levels = draw.permutation(np.arange(count) % len(LEVELS))
        parts[role] = _part(f"trails-{role}", scans[role], boards, levels, draw)
        difficulty[role] = levels / (len(LEVELS) - 1)
    return Source(
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        shape=(SIDE, SIDE, 1),
        class_names=tuple("0123456789"),
        flip=False,
        pad=0,  # a digit fills its cell
        difficulty=difficulty,
    )


def _part(
    name: str,
    scans: Scans,
    boards: list[_Boards],
    levels: Int[np.ndarray, " samples"],
    draw: np.random.Generator,
) -> Array:
    images = np.zeros((len(levels), SIDE, SIDE), np.uint8)
    labels = np.zeros(len(levels), np.int64)
    for level, board in enumerate(boards):
        rows = np.flatnonzero(levels == level)
        which = draw.integers(len(board.images), size=len(rows))
        images[rows] = board.images[which]
        digits = draw.integers(len(scans.classes), size=(len(rows), board.cells.shape[1]))
        labels[rows] = scans.classes[digits[:, 0]]
        for digit, cell in zip(digits.T, board.cells[which].T, strict=True):
            _stamp(images, rows, scans.images[digit], cell)
    return Array(labels, images[..., None], Numbered.of(name, len(levels)))


def _stamp(
    images: UInt8[np.ndarray, "samples height width"],
    rows: Int[np.ndarray, " boards"],
    scans: UInt8[np.ndarray, "boards 8 8"],
    cells: Int[np.ndarray, " boards"],
) -> None:
    """Puts one scan into a cell of each of these images; the brighter value stays."""
    lines = (cells // CELLS * CELL)[:, None] + np.arange(CELL)
    columns = (cells % CELLS * CELL)[:, None] + np.arange(CELL)
    place = (rows[:, None, None], lines[:, :, None], columns[:, None, :])
    images[place] = np.maximum(images[place], scans)


def _boards(level: Level) -> _Boards:
    images, cells = [], []
    for trail in _walks(level.steps):
        free = [cell for cell in range(CELLS**2) if cell not in trail]
        others = [walk for walk in _walks(level.decoy) if set(walk) <= set(free)]
        for decoy in others if level.decoy else [()]:
            for loose in itertools.combinations(free, level.loose):
                images.append(_drawn(trail, decoy))
                cells.append([trail[-1], *decoy[-1:], *loose])
    return _Boards(np.stack(images), np.array(cells))


def _walks(steps: int) -> Iterator[Walk]:
    """Every walk of so many steps between neighbouring cells that meets none of them twice."""
    walks: list[Walk] = [(cell,) for cell in range(CELLS**2)]
    for _ in range(steps):
        walks = [(*walk, cell) for walk in walks for cell in _next_to(walk[-1]) if cell not in walk]
    yield from walks


def _next_to(cell: int) -> list[int]:
    row, column = divmod(cell, CELLS)
    places = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
    return [r * CELLS + c for r, c in places if 0 <= r < CELLS and 0 <= c < CELLS]


def _drawn(trail: Walk, decoy: Walk) -> UInt8[np.ndarray, "height width"]:
    image = np.zeros((SIDE, SIDE), np.uint8)
    for walk in (trail, decoy):
        for cell, following in itertools.pairwise(walk):
            centre = np.array(divmod(cell, CELLS)) * CELL + CENTRE
            way = np.array(divmod(following, CELLS)) - divmod(cell, CELLS)
            start = walk is trail and cell == trail[0]
            _block(image, centre, 2 if start else 1, START if start else NODE)
            for row, column in centre + np.arange(5)[:, None] * way:
                image[row, column] = max(image[row, column], BAR)
    return image


def _block(
    image: UInt8[np.ndarray, "height width"], centre: Int[np.ndarray, "2"], reach: int, grey: int
) -> None:
    row, column = centre
    square = image[row - reach : row + reach + 1, column - reach : column + reach + 1]
    np.maximum(square, grey, out=square)
