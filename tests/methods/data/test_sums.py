"""Sums: images of one digit, or of two whose sum is the class."""

import hashlib
import itertools

import numpy as np
import pytest
from jaxtyping import UInt8
from sklearn.datasets import load_digits

from methods.data import scans, sums
from methods.data.load import load
from methods.data.parts import Source
from methods.data.sums import Place
from methods.data.survey import survey

SHA256 = "d6f475d12da9adde1ad299c633a74d9d0f4af0da9fe874b8668fcbde433f35e5"
CLASSES = {
    np.rint(image * scans.INK).astype(np.uint8).tobytes(): int(digit)
    for image, digit in zip(load_digits().images, load_digits().target, strict=True)
}


@pytest.fixture(scope="module")
def source() -> Source:
    return sums.source(600, 200, 400)


def found(image: UInt8[np.ndarray, "16 16"]) -> dict[Place, bytes]:
    """The scans in an image, by place."""
    crops = {place: crop(image, place).tobytes() for place in sums.PLACES}
    return {place: scan for place, scan in crops.items() if scan in CLASSES}


def crop(image: UInt8[np.ndarray, "16 16"], place: Place) -> UInt8[np.ndarray, "8 8"]:
    row, column = place
    return image[row : row + 8, column : column + 8]


def explained(image: UInt8[np.ndarray, "16 16"], count: int) -> list[int]:
    """Sums of so many digits that are all the ink of an image, no two of them in one place."""
    totals = []
    for places in itertools.combinations(found(image), count):
        ink = sum(int(crop(image, place).sum(dtype=np.int64)) for place in places)
        if ink == image.sum(dtype=np.int64):
            totals.append(sum(CLASSES[crop(image, place).tobytes()] for place in places))
    return totals


@pytest.mark.parametrize("role", ["train", "validation", "test"])
def test_the_class_is_the_digit_or_the_sum_of_both(source: Source, role: str) -> None:
    part, difficulty = source.parts[role], source.difficulty[role]
    images = part.pixels(np.arange(len(part.labels)))[..., 0]
    for image, label, two in zip(images, part.labels, difficulty, strict=True):
        assert set(explained(image, 1 + int(two))) == {label}


def test_no_scan_stands_in_two_splits(source: Source) -> None:
    seen = {
        role: {
            scan
            for image in part.pixels(np.arange(len(part.labels)))[..., 0]
            for scan in found(image).values()
        }
        for role, part in source.parts.items()
    }
    assert min(len(each) for each in seen.values()) > 100
    assert sum(len(each) for each in seen.values()) == len(set().union(*seen.values()))


def test_half_are_sums_and_each_class_is_about_as_frequent() -> None:
    data = load("sums")
    assert (len(data.train), len(data.validation), len(data.test)) == (6000, 1000, 3000)
    assert (data.task.height, data.task.width, data.task.classes) == (16, 16, 10)
    assert (data.flip, data.pad) == (False, 0)
    assert data.difficulty is not None
    assert data.difficulty.mean() == 0.5
    assert np.bincount(data.test.labels).min() > 250
    assert survey(data).digest.duplicates == {}


def test_it_is_the_same_set_wherever_it_is_made(source: Source) -> None:
    again = sums.source(600, 200, 400)
    hashes = []
    for each in (source, again):
        pixels = b"".join(p.pixels(np.arange(len(p.labels))).tobytes() for p in each.parts.values())
        hashes.append(hashlib.sha256(pixels).hexdigest())
    assert hashes == [SHA256] * 2
