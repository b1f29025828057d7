"""What was read has one digest; any other content has another, and the difference is named."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from arrays import CLASSES, part, repainted, source, surveyed
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from methods.data.digest import decode_digest, encode_digest
from methods.data.load import divided, load
from methods.data.parts import Array
from methods.data.sheet import COLUMNS, SIDE, sheet
from methods.data.survey import changes, survey


def pick(rows: list[int]) -> Array:
    """Some of the training images, in this order."""
    whole = part(30, 1, "train/")
    return Array(whole.labels[rows], whole.images[rows], [whole.names[row] for row in rows])


def relabelled(rows: list[int]) -> Array:
    whole = part(30, 1, "train/")
    whole.labels[rows] = (whole.labels[rows] + 1) % 3
    return whole


SAME = surveyed(source())


@pytest.mark.parametrize(
    ("train", "phrases"),
    [
        (pick([*range(28)]), ["train: 2 removed (train/028.png, train/029.png)"]),
        (part(35, 1, "train/"), None),
        (repainted(7), ["train: 1 with other pixels (train/007.png)"]),
        (
            repainted(1, 4, 5, 9),
            ["train: 4 with other pixels (train/001.png, train/004.png, train/005.png, ...)"],
        ),
        (relabelled([2]), ["train: 1 relabelled (train/002.png from 'cow' to 'ant')"]),
        (pick([1, 0, *range(2, 30)]), ["train: the same images in another order"]),
    ],
    ids=["removed", "added", "repainted", "some", "relabelled", "reordered"],
)
def test_what_changed_is_named(train: Array, phrases: list[str] | None) -> None:
    now = surveyed(source(train=train))
    assert now.digest.sha256 != SAME.digest.sha256
    assert SAME.digest.differing(now.digest) == ["train"]
    told = changes(SAME.contents, now.contents)
    if phrases is None:
        assert told[0].startswith("train: 5 added (train/030.png, train/031.png, train/032.png")
    else:
        assert told == phrases


def test_a_part_and_a_class_that_change_are_named() -> None:
    without = surveyed(source(test=None))
    assert changes(SAME.contents, without.contents) == ["test: gone, 9 images"]
    assert changes(without.contents, SAME.contents) == ["test: new, 9 images"]
    more = surveyed(source(class_names=(*CLASSES, "dog")))
    assert more.digest.sha256 != SAME.digest.sha256
    (phrase,) = changes(SAME.contents, more.contents)
    assert "dog" in phrase


@given(row=st.integers(0, 29), place=st.integers(0, 59), bit=st.integers(0, 7))
def test_any_bit_of_any_pixel_counts(row: int, place: int, bit: int) -> None:
    whole = part(30, 1, "train/")
    whole.images.reshape(30, -1)[row, place] ^= 1 << bit
    assert surveyed(source(train=whole)).digest.sha256 != SAME.digest.sha256


def test_the_same_content_has_one_digest_whatever_the_set_is_called() -> None:
    assert surveyed(source(), name="elsewhere").digest == SAME.digest
    assert decode_digest(encode_digest(SAME.digest)) == SAME.digest


def test_splits_are_told_apart_by_content_alone() -> None:
    """A test split has one sum in any order and under any names; another seed cuts another one."""
    draw = np.random.default_rng(0).permutation(9)
    whole = part(9, 2)
    shuffled = Array(whole.labels[draw], whole.images[draw], [f"x{row}" for row in range(9)])
    other = surveyed(source(test=shuffled)).digest
    assert other.splits == SAME.digest.splits
    assert other.sha256 != SAME.digest.sha256
    undivided = source(test=None)
    assert surveyed(undivided).digest.sha256 == surveyed(undivided, seed=1).digest.sha256
    assert surveyed(undivided).digest.splits != surveyed(undivided, seed=1).digest.splits


@given(copies=st.lists(st.tuples(st.integers(0, 29), st.integers(0, 8)), max_size=12))
def test_duplicates_across_splits_are_counted(copies: list[tuple[int, int]]) -> None:
    train, test = part(30, 1, "train/"), part(9, 2, "test/")
    for row, target in copies:
        test.images[target] = train.images[row]
    data = divided("made", source(train=train, test=test))
    splits = {
        role: [image.tobytes() for image in getattr(data, role).store.pixels.numpy()]
        for role in ("train", "validation", "test")
    }
    before = set(splits["train"]) | set(splits["validation"])
    expected = sum(image in before for image in splits["test"])
    assert survey(data).digest.shared_test == expected


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty PNG files in three classes."""
    root = tmp_path_factory.mktemp("pictures") / "set"
    pixels = part(60, 3).images
    for row, image in enumerate(pixels):
        file = root / CLASSES[row % 3] / f"{row:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return root


def add(root: Path) -> None:
    shutil.copy(root / "ant" / "000.png", root / "ant" / "900.png")


def repaint(root: Path) -> None:
    Image.new("RGB", (5, 4), "red").save(root / "bee" / "001.png")


def relabel(root: Path) -> None:
    (root / "cow" / "002.png").rename(root / "bee" / "002.png")


def touch(root: Path) -> None:
    os.utime(root / "cow" / "002.png", (1, 1))


@pytest.mark.parametrize("limit", [1 << 30, 0], ids=["resident", "streamed"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (add, ["1 added", "ant/900.png"]),
        (repaint, ["1 with other pixels", "bee/001.png"]),
        (relabel, ["1 added", "1 removed", "cow/002.png"]),
        (touch, []),
    ],
)
def test_a_folder_of_images(
    folder: Path, tmp_path: Path, change: Callable[[Path], None], words: list[str], limit: int
) -> None:
    before = survey(load(str(folder), limit_bytes=limit))
    assert (before.digest.sampled is None) == (limit > 0)
    assert (before.contents.parts["train"].bytes > 0).all() == (limit == 0)
    copy = shutil.copytree(folder, tmp_path / "copy")
    change(copy)
    now = survey(load(str(copy), limit_bytes=limit))
    phrases = "; ".join(changes(before.contents, now.contents))
    assert all(word in phrases for word in words), phrases
    assert (before.digest.sha256 == now.digest.sha256) == (not words)


def test_a_contact_sheet_has_a_row_per_part_and_class() -> None:
    picture = sheet(source())
    colours = np.asarray(picture)
    height, width = round(SIDE * 4 / 5), SIDE
    train, test = part(30, 1), part(9, 2)
    assert picture.width > COLUMNS * width
    assert picture.height > 6 * height
    for image in (train.images[0], train.images[29], test.images[8]):
        pixel = image[0, 0]
        assert (colours == pixel).all(axis=2).sum() >= 100, "an enlarged pixel of it is not there"
