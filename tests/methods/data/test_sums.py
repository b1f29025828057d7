"""Sums: images of one digit or more, whose sum is the class."""

import hashlib

import numpy as np
import pytest
from jaxtyping import UInt8
from sklearn.datasets import load_digits

from methods.data import scans, sums
from methods.data.load import load
from methods.data.parts import Source
from methods.data.survey import survey

SHA256 = "919dbaa17273eb2202738760a1ddad4be85e327bc5a5cec3fd644fe10441d89b"
CLASSES = {
    np.rint(image * scans.INK).astype(np.uint8).tobytes(): int(digit)
    for image, digit in zip(load_digits().images, load_digits().target, strict=True)
}
ROLES = ("train", "validation", "test")


@pytest.fixture(scope="module")
def source() -> Source:
    return sums.source(600, 150, 300)


def pixels(source: Source, role: str) -> UInt8[np.ndarray, "images 8 8 3"]:
    part = source.parts[role]
    return part.pixels(np.arange(len(part.labels)))


def found(image: UInt8[np.ndarray, "8 8 3"]) -> list[bytes]:
    """The scans in an image; a colour without one is black."""
    planes = [np.ascontiguousarray(image[..., colour]) for colour in range(3)]
    return [plane.tobytes() for plane in planes if plane.any()]


@pytest.mark.parametrize("role", ROLES)
def test_the_class_is_the_sum_of_the_digits(source: Source, role: str) -> None:
    labels, difficulty = source.parts[role].labels, source.difficulty[role]
    for image, label, hard in zip(pixels(source, role), labels, difficulty, strict=True):
        digits = [CLASSES[scan] for scan in found(image)]
        assert len(digits) == 1 + 2 * hard
        assert sum(digits) == label


def test_no_scan_stands_in_two_splits(source: Source) -> None:
    seen = {
        role: {scan for image in pixels(source, role) for scan in found(image)} for role in ROLES
    }
    assert min(len(each) for each in seen.values()) > 100
    assert sum(len(each) for each in seen.values()) == len(set().union(*seen.values()))


def test_each_number_of_digits_has_every_colour_and_every_sum() -> None:
    data = load("sums")
    assert (len(data.train), len(data.validation), len(data.test)) == (4000, 1000, 2000)
    task = data.task
    assert (task.channels, task.height, task.width, task.classes) == (3, 8, 8, 10)
    assert (data.flip, data.pad) == (False, 0)
    assert data.difficulty is not None
    for level, images in ((0, 667), (0.5, 667), (1, 666)):
        rows = np.flatnonzero(data.difficulty == level)
        assert len(rows) == images
        assert np.bincount(data.test.labels[rows]).min() > 30
        inked = pixels(sums.source(4000, 1000, 2000), "test")[rows].any(axis=(1, 2))
        assert inked.sum(0).min() > 200
    assert survey(data).digest.duplicates == {}


def test_the_wide_set_differs_in_what_it_validates_on() -> None:
    data, wide = load("sums"), load("sums-wide")
    assert (len(wide.train), len(wide.validation), len(wide.test)) == (4000, 2000, 2000)
    assert survey(wide).digest.parts["train"] == survey(data).digest.parts["train"]
    assert survey(wide).digest.duplicates == {}


def test_it_is_the_same_set_wherever_it_is_made(source: Source) -> None:
    for each in (source, sums.source(600, 150, 300)):
        content = b"".join(pixels(each, role).tobytes() for role in ROLES)
        assert hashlib.sha256(content).hexdigest() == SHA256
