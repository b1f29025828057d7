"""WebDataset's shards: layouts, splits, labels, and files that end in the middle."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from command import called
from pictures import encoded, square, write_classes

from methods.data import sources
from methods.data.load import load
from methods.data.parts import Source
from methods.errors import DataError


def write_tar(path: Path, members: Sequence[tuple[str, bytes]], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def samples(count: int, start: int = 0, label: str = "cls") -> list[tuple[str, bytes]]:
    """Images in two classes, each with its label beside it."""
    members = []
    for number in range(start, start + count):
        members.append((f"{number:06}.png", encoded(square(number % 2, number))))
        content = json.dumps({"label": number % 2}) if label == "json" else str(number % 2)
        members.append((f"{number:06}.{label}", content.encode()))
    return members


def by_folder(count: int, prefix: str = "") -> list[tuple[str, bytes]]:
    return [
        (f"{prefix}{'ab'[number % 2]}/{number:03}.png", encoded(square(number % 2, number)))
        for number in range(count)
    ]


def find(path: Path) -> Source:
    return sources.find(str(path))


def refused(path: Path, pattern: str) -> None:
    with pytest.raises(DataError, match=pattern) as caught:
        find(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("label", ["cls", "json", "txt"])
def test_labels_beside_images_are_read(tmp_path: Path, label: str) -> None:
    source = find(write_tar(tmp_path / "a.tar", samples(12, label=label)))
    assert source.class_names == ("0", "1")
    assert source.train.labels.tolist() == [0, 1] * 6
    assert source.train.names[3] == "a.tar:000003.png"
    expected = [np.asarray(square(number % 2, number)) for number in (11, 0, 5)]
    assert np.array_equal(source.train.pixels(np.array([11, 0, 5])), np.stack(expected))


@pytest.mark.parametrize("prefix", ["", "./", "flowers/"])
def test_folders_inside_are_classes(tmp_path: Path, prefix: str) -> None:
    source = find(write_tar(tmp_path / "a.tar", by_folder(12, prefix)))
    assert source.class_names == ("a", "b")
    assert source.train.labels.tolist() == [0, 1] * 6


def test_shards_are_split_by_their_names(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-000.tar", samples(12))
    write_tar(tmp_path / "train-001.tar", samples(8, 12))
    write_tar(tmp_path / "val" / "000.tar", samples(4))
    write_tar(tmp_path / "test-000.tar", samples(6))
    source = find(tmp_path)
    counts = {role: len(part.labels) for role, part in source.parts.items()}
    assert counts == {"train": 20, "validation": 4, "test": 6}
    assert source.train.names[12] == "train-001.tar:000012.png"
    stamps = source.train.stamps
    assert stamps is not None
    assert stamps.sizes[11] == (tmp_path / "train-000.tar").stat().st_size
    assert stamps.sizes[12] == (tmp_path / "train-001.tar").stat().st_size


def test_names_that_need_a_longer_header_are_whole(tmp_path: Path) -> None:
    members = [(f"{'long' * 40}/{name}", content) for name, content in by_folder(12)]
    source = find(write_tar(tmp_path / "a.tar", members))
    assert source.train.names[0].endswith("/a/000.png")
    assert source.train.pixels(np.arange(12)).shape == (12, 8, 8, 3)


def test_what_is_no_image_is_counted(tmp_path: Path) -> None:
    mask = encoded(square(0, 0))
    members = [*samples(12), ("000000.mask.png", mask), ("000001.npy", b"x"), ("._2.png", b"y")]
    source = find(write_tar(tmp_path / "a.tar", members))
    assert len(source.train.labels) == 12
    assert [item.why for item in source.left_out] == ["3 members that are no images"]


def test_points_in_names_are_no_endings_where_folders_are_classes(tmp_path: Path) -> None:
    members = [(name.replace("/", "/photo.v2."), content) for name, content in by_folder(12)]
    assert len(find(write_tar(tmp_path / "a.tar", members)).train.labels) == 12


def test_streamed_and_resident_batches_of_shards_are_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_tar(tmp_path / "set" / "train-0.tar", samples(40))
    held, streamed = (load(str(tmp_path / "set"), limit_bytes=most) for most in (1 << 30, 0))
    for _ in range(2):
        pairs = zip(held.train.batches(7), streamed.train.batches(7), strict=True)
        assert all((ours == theirs).all() for (ours, _), (theirs, _) in pairs)


@pytest.mark.parametrize("left", [1.0, 0.999, 0.9, 0.6, 0.35, 0.01, 0.0])
def test_a_shard_that_ends_in_the_middle_is_one_sentence(tmp_path: Path, left: float) -> None:
    write_tar(tmp_path / "train-0.tar", samples(12))
    shard = write_tar(tmp_path / "train-1.tar", samples(12, 12))
    with tarfile.open(shard) as tar:
        end = max(member.offset_data + member.size for member in tar)
    shard.write_bytes(shard.read_bytes()[: int(left * end)])
    refused(tmp_path, r"must be whole and uncompressed, but .*train-1\.tar is not")


def test_a_shard_cut_between_two_members_is_refused(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", samples(12))
    with tarfile.open(shard) as tar:
        place = tar.getmembers()[10].offset
    shard.write_bytes(shard.read_bytes()[:place])
    refused(shard, "ends without the zeros that close a tar")


def test_a_shard_that_ends_in_the_middle_is_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = write_tar(tmp_path / "a.tar", samples(12))
    shard.write_bytes(shard.read_bytes()[:5000])
    done = called(capsys, "data", str(shard))
    assert done.code == 2
    assert "must be whole" in done.err


def test_a_shard_that_shrinks_later_is_one_sentence(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", samples(12))
    source = find(shard)
    shard.write_bytes(shard.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"a\.tar:000011\.png is not: it is empty"):
        source.train.pixels(np.array([11]))


def test_compressed_shards_are_refused(tmp_path: Path) -> None:
    refused(write_tar(tmp_path / "a.tar", samples(12), "w:gz"), "uncompressed.*gunzip")
    refused(write_tar(tmp_path / "a.tar.gz", samples(12), "w:gz"), r"or \*\.tar")


def test_two_images_of_a_sample_are_refused(tmp_path: Path) -> None:
    members = [*samples(12), ("000000.jpg", encoded(square(0, 0), "JPEG"))]
    refused(write_tar(tmp_path / "a.tar", members), r"one image.*000000\.png and 000000\.jpg")


def test_images_without_labels_are_refused(tmp_path: Path) -> None:
    plain = [member for member in samples(12) if member[0] != "000003.cls"]
    refused(write_tar(tmp_path / "a.tar", plain), r"1 of 12 train .*a\.tar:000003\.png")
    loose = [member for member in samples(12) if member[0].endswith(".png")]
    refused(write_tar(tmp_path / "b.tar", loose), "12 of 12 train")
    refused(write_tar(tmp_path / "c.tar", [("a.json", b"{")]), r"c\.tar:a\.json must be readable")
    refused(write_tar(tmp_path / "d.tar", [("a.npy", b"{")]), "hold no images")


def test_splits_inside_a_shard_are_refused(tmp_path: Path) -> None:
    members = by_folder(12, "train/") + by_folder(4, "test/")
    refused(write_tar(tmp_path / "a.tar", members), "a tar for each split")


def test_tar_files_beside_images_are_left_out(tmp_path: Path) -> None:
    write_tar(write_classes(tmp_path) / "a.tar", samples(12))
    assert [item.path for item in find(tmp_path).left_out] == ["a.tar"]
