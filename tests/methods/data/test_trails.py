"""Trails: images whose class a marked trail leads to, of known difficulty."""

import hashlib

import numpy as np
import pytest
from jaxtyping import UInt8
from sklearn.datasets import load_digits

from methods.data import scans, trails
from methods.data.load import Arrays, load
from methods.data.parts import Source
from methods.data.survey import survey
from methods.data.trails import CELL, CENTRE, LEVELS

SHA256 = "c6a6259340af556cc7da73010e3860ea0eb11f858b28c328c248c7c7e16a8bcd"
SCANS = np.rint(load_digits().images * scans.INK).astype(np.uint8)
CLASSES = load_digits().target
WAYS = ((-1, 0), (1, 0), (0, -1), (0, 1))
Cell = tuple[int, int]


@pytest.fixture(scope="module")
def source() -> Source:
    return trails.source(1000, 200, 500)


def cell(image: UInt8[np.ndarray, "24 24"], place: Cell) -> UInt8[np.ndarray, "8 8"]:
    row, column = place[0] * CELL, place[1] * CELL
    return image[row : row + CELL, column : column + CELL]


def start(image: UInt8[np.ndarray, "24 24"]) -> Cell:
    """The only cell with a white block that no digit has."""
    places = [(row, column) for row in range(3) for column in range(3)]
    (place,) = (each for each in places if (cell(image, each)[1:6, 1:6] == 255).all())
    return place


def followed(image: UInt8[np.ndarray, "24 24"]) -> tuple[UInt8[np.ndarray, "8 8"], int]:
    """The cell that the marked trail ends in, and the steps to it."""
    place = start(image)
    for steps in range(4):
        here = np.array(place) * CELL + CENTRE
        bars = [way for way in WAYS if bar(image, here, way)]
        if not bars or (steps and not node(image, here)):
            return cell(image, place), steps
        place = (place[0] + bars[0][0], place[1] + bars[0][1])
    raise AssertionError("a trail has three steps at most")


def node(image: UInt8[np.ndarray, "24 24"], here: UInt8[np.ndarray, "2"]) -> bool:
    row, column = here
    corners = image[row - 1 : row + 2 : 2, column - 1 : column + 2 : 2]
    return bool((corners == trails.NODE).all())


def bar(image: UInt8[np.ndarray, "24 24"], here: UInt8[np.ndarray, "2"], way: Cell) -> bool:
    row, column = here + 3 * np.array(way)  # a step further the next cell may be brighter
    return bool(0 <= row < 24 and 0 <= column < 24 and image[row, column] == trails.BAR)


@pytest.mark.parametrize("role", ["train", "validation", "test"])
def test_the_marked_trail_leads_to_the_class(source: Source, role: str) -> None:
    part, difficulty = source.parts[role], source.difficulty[role]
    images = part.pixels(np.arange(len(part.labels)))[..., 0]
    for image, label, rank in zip(images, part.labels, difficulty, strict=True):
        digit, steps = followed(image)
        inner = (digit == SCANS)[:, 1:-1, 1:-1].all(axis=(1, 2))  # a bar may touch its edge
        assert set(CLASSES[inner]) == {label}
        assert steps == LEVELS[round(rank * 4)].steps


def test_no_scan_stands_in_two_splits(source: Source) -> None:
    places = [(row, column) for row in range(3) for column in range(3)]
    scans = {scan.tobytes() for scan in SCANS}
    seen = {
        role: {
            cell(image, place).tobytes()
            for image in part.pixels(np.arange(len(part.labels)))[..., 0]
            for place in places
        }
        & scans
        for role, part in source.parts.items()
    }
    assert min(len(each) for each in seen.values()) > 100
    assert sum(len(each) for each in seen.values()) == len(set().union(*seen.values()))


def test_each_level_is_as_frequent_and_each_class_about() -> None:
    data = load("trails-small")
    assert (len(data.train), len(data.validation), len(data.test)) == (4000, 1000, 3000)
    assert (data.task.height, data.task.width, data.task.classes) == (24, 24, 10)
    assert (data.flip, data.pad) == (False, 0)
    assert data.difficulty is not None
    assert np.unique(data.difficulty, return_counts=True)[1].tolist() == [600] * 5
    assert np.bincount(data.test.labels).min() > 200
    assert survey(data).digest.duplicates == {}


def test_it_is_the_same_set_wherever_it_is_made(source: Source) -> None:
    again = trails.source(1000, 200, 500)
    sums = []
    for each in (source, again):
        pixels = b"".join(p.pixels(np.arange(len(p.labels))).tobytes() for p in each.parts.values())
        sums.append(hashlib.sha256(pixels).hexdigest())
    assert sums == [SHA256] * 2


def test_workers_get_the_difficulty_too() -> None:
    data = load("trails-small")
    arrays = Arrays.of(data)
    assert arrays is not None
    shared = arrays.on("cpu").difficulty
    assert shared is not None
    assert (shared == data.difficulty).all()
    assert load("digits").difficulty is None
