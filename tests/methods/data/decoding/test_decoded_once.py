"""The cache of decoded pixels: equal, whole whatever dies, and no larger than it may be."""

import errno
import logging
import multiprocessing
import os
import platform
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import square, write_classes

from methods.data.decoding import cache, workers
from methods.data.load import load
from methods.data.parts import Part
from methods.data.splits import Split
from methods.data.streams import Streamed
from methods.errors import DataError
from methods.machine import threads

SIDE = 20
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    make = lambda label, number: square(label, number, SIDE)  # noqa: E731
    return write_classes(tmp_path_factory.mktemp("set"), per=60, make=make)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "isoflop" / "data"


def store(folder: Path) -> Streamed:
    """All images of a part."""
    streamed = load(str(folder), limit_bytes=0).train.store
    assert isinstance(streamed, Streamed)
    return replace(streamed, index=np.arange(len(streamed.part.labels)))


def passed(streamed: Streamed, *, seed: int = 0, size: int = 4) -> np.ndarray:
    """The pixels of all images by a shuffled pass, in their own order."""
    order = torch.randperm(len(streamed.index), generator=torch.Generator().manual_seed(seed))
    made = np.concatenate(list(streamed.each(list(order.split(size)))))
    return np.asarray(made[np.argsort(order.numpy())])


def counted(streamed: Streamed, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The images that are decoded from here on, in this process."""
    decoded: list[int] = []
    plain = type(streamed.part).pixels

    def noted(self: Part, rows: np.ndarray) -> np.ndarray:
        decoded.extend(rows)
        return plain(self, rows)

    monkeypatch.setattr(type(streamed.part), "pixels", noted)
    return decoded


def epoch(split: Split) -> list[torch.Tensor]:
    return [images for images, _ in split.batches(32, shuffle=torch.Generator().manual_seed(1))]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def every(part: Part) -> np.ndarray:
    return part.pixels(np.arange(len(part.labels)))


@pytest.mark.parametrize("cores", [1, 2])
def test_a_cached_pass_has_the_batches_of_a_resident_set(
    folder: Path, place: Path, cores: int
) -> None:
    held = load(str(folder))
    with threads(cores):
        for _ in range(2):
            streamed = load(str(folder), limit_bytes=0)
            for role in ("train", "validation", "test"):
                assert same(epoch(getattr(held, role)), epoch(getattr(streamed, role)))
    (file,) = place.iterdir()
    assert file.suffix == ".pixels"
    assert file.stat().st_size == 120 * (SIDE * SIDE * 3 + 1)


def test_images_are_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list(load(str(folder), limit_bytes=0).train.batches(8))
    split = load(str(folder), limit_bytes=0).train
    part = type(split.store.part)  # type: ignore[attr-defined]
    monkeypatch.setattr(part, "pixels", lambda *_: pytest.fail("an image is decoded again"))
    list(split.batches(8))
    split.head(5)


def test_a_look_at_some_images_fills_no_cache(folder: Path, place: Path) -> None:
    load(str(folder), limit_bytes=0).train.head(5)
    assert not place.exists()


def test_a_batch_waits_for_its_own_images_alone(
    folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "AHEAD_BYTES", 1)
    streamed = store(folder)
    decoded = counted(streamed, monkeypatch)
    batches = streamed.each(list(torch.arange(120).split(8)))
    next(batches)
    assert len(decoded) <= 3 * 8
    list(batches)
    assert decoded == list(range(120))
    assert [file.suffix for file in place.iterdir()] == [".pixels"]


@pytest.mark.parametrize("cores", [1, 2])
def test_a_later_pass_decodes_what_earlier_ones_left_out(
    folder: Path, place: Path, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "FEW", 0)
    streamed = store(folder)
    truth = every(streamed.part)
    with threads(cores):
        part = list(streamed.each(list(torch.arange(90).split(8))))
    assert np.array_equal(np.concatenate(part), truth[:90])
    assert not [*place.glob("*.pixels")]
    with monkeypatch.context() as patch:
        decoded = counted(streamed, patch)
        assert np.array_equal(passed(streamed), truth)
        assert sorted(decoded) == list(range(90, 120))
    assert [file.suffix for file in place.iterdir()] == [".pixels"]


def test_other_pixels_have_another_key(tmp_path: Path, folder: Path) -> None:
    key = store(folder).key
    assert store(folder).key == key
    assert load(str(folder), limit_bytes=0, size=9).train.store.key != key  # type: ignore[attr-defined]
    write_classes(tmp_path, per=12)
    key = store(tmp_path).key
    os.utime(tmp_path / "bee" / "011.png", ns=(1, 1))
    assert store(tmp_path).key != key


def test_processes_decode_together(
    folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = store(folder)
    truth = every(streamed.part)
    monkeypatch.setattr(workers, "FEW", 0)
    crew = [
        FORK.Process(target=_pass, args=(streamed, truth, seed, 1 + seed % 2)) for seed in range(4)
    ]
    for process in crew:
        process.start()
    for process in crew:
        process.join()
    assert [process.exitcode for process in crew] == [0, 0, 0, 0]
    assert [file.suffix for file in place.iterdir()] == [".pixels"]
    monkeypatch.setattr(type(streamed.part), "pixels", lambda *_: pytest.fail("it is decoded"))
    assert np.array_equal(passed(streamed), truth)


def _pass(streamed: Streamed, truth: np.ndarray, seed: int, cores: int) -> None:
    with threads(cores):
        sys.exit(not np.array_equal(passed(streamed, seed=seed), truth))


@pytest.mark.parametrize("at", [1, 4, 30])
def test_what_a_killed_process_left_is_taken_up(
    folder: Path, place: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = store(folder)
    _killed(streamed, at)
    assert not [*place.glob("*.pixels")]
    with monkeypatch.context() as patch:
        decoded = counted(streamed, patch)
        filled = passed(streamed)
    assert len(decoded) == 120 - 4 * (at - 1)
    assert np.array_equal(filled, every(streamed.part))
    assert [file.suffix for file in place.iterdir()] == [".pixels"]


def _killed(streamed: Streamed, at: int) -> None:
    """A process dies as it is about to store its n-th batch."""
    process = FORK.Process(target=_fill_and_die, args=(streamed, at))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def _fill_and_die(streamed: Streamed, at: int) -> None:
    write, count = cache._Filling.write, iter(range(1, at + 1))

    def dying(self: cache._Filling, rows: np.ndarray, content: np.ndarray) -> None:
        if next(count) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, rows, content)

    cache._Filling.write = dying  # type: ignore[method-assign]
    passed(streamed, seed=3)


def test_nobody_waits_for_a_process_that_hangs(folder: Path, place: Path) -> None:
    streamed = store(folder)
    reader, writer = FORK.Pipe(duplex=False)
    slow = FORK.Process(target=_hang, args=(streamed, writer))
    slow.start()
    reader.recv()
    assert np.array_equal(passed(streamed), every(streamed.part))
    assert len([*place.glob("*.pixels")]) == 1
    slow.kill()
    slow.join()


def _hang(streamed: Streamed, writer: "multiprocessing.connection.Connection") -> None:
    """Stores two batches, and the third one never."""
    write, count = cache._Filling.write, iter(range(9))

    def stuck(self: cache._Filling, rows: np.ndarray, content: np.ndarray) -> None:
        if next(count) == 2:
            writer.send(None)
            time.sleep(1000)
        write(self, rows, content)

    cache._Filling.write = stuck  # type: ignore[method-assign]
    passed(streamed)


@pytest.mark.parametrize("pattern", ["*", ".*.part", ".*.lock"])
def test_a_file_that_is_deleted_meanwhile_is_filled_anew(
    folder: Path, place: Path, pattern: str
) -> None:
    """Another pass begins a file anew under the name of the one that the first pass fills."""
    streamed = store(folder)
    truth = every(streamed.part)
    batches = streamed.each(list(torch.arange(120).split(8)))
    first = next(batches)
    for file in place.glob(pattern):
        file.unlink()
    begun = streamed.each(list(torch.arange(40).split(8)))
    next(begun)
    assert np.array_equal(np.concatenate([first, *batches]), truth)
    assert np.array_equal(passed(streamed), truth)
    list(begun)
    assert np.array_equal(passed(streamed), truth)
    assert [file.suffix for file in place.iterdir()] == [".pixels"]


def test_files_of_an_earlier_version_are_used_if_whole(
    folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file without marks is whole; one being filled had its marks, by blocks, beside it."""
    streamed = store(folder)
    truth = every(streamed.part)
    file = cache._File(place / f"{streamed.key}.pixels", 120, (SIDE, SIDE, 3))
    place.mkdir(parents=True)
    file.aside.write_bytes(bytes(file.bytes))
    file.aside.with_suffix(".marks").write_bytes(b"\1" * 30)
    assert np.array_equal(passed(streamed), truth)
    file.path.write_bytes(truth.tobytes())
    monkeypatch.setattr(type(streamed.part), "pixels", lambda *_: pytest.fail("it is decoded"))
    assert np.array_equal(passed(streamed), truth)


def test_a_file_that_cannot_be_read_any_more_is_done_without(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = store(folder)
    truth = every(streamed.part)
    list(streamed.each(list(torch.arange(90).split(8))))

    def stale(*_: object) -> bytes:
        raise OSError(errno.ESTALE, "it is stale")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", stale)
        assert np.array_equal(passed(streamed), truth)
    assert np.array_equal(passed(streamed), truth)


def test_a_disk_that_fills_up_as_a_file_begins_keeps_nothing(
    folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = store(folder)
    opened = len([*Path("/proc/self/fd").iterdir()])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert np.array_equal(passed(streamed), every(streamed.part))
    assert [*place.iterdir()] == []
    assert len([*Path("/proc/self/fd").iterdir()]) == opened


def test_what_cannot_be_stored_is_decoded_again(
    folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = store(folder)
    truth = every(streamed.part)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert np.array_equal(passed(streamed), truth)
    assert not [*place.glob("*.pixels")]
    assert np.array_equal(passed(streamed), truth)
    assert len([*place.glob("*.pixels")]) == 1


def test_images_of_a_machine_that_was_started_anew_are_not_trusted(
    folder: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = store(folder)
    _killed(streamed, 9)
    (tmp_path / "boot").write_text("another")
    monkeypatch.setattr(cache, "BOOT", tmp_path / "boot")
    begun = [*place.iterdir()]
    assert sorted(file.suffix for file in begun) == [".lock", ".part"]
    other = place / f".{streamed.key}-{platform.node()}-2-{'0' * 8}-0-0-0-0.part"
    other.touch()  # of a machine whose name begins alike
    for file in (*begun, other):
        os.utime(file, (0, 0))
    assert np.array_equal(passed(streamed), every(streamed.part))
    assert {file.name for file in place.iterdir()} == {f"{streamed.key}.pixels", other.name}


def test_a_disk_that_is_too_full_is_left_alone(
    folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    size = 120 * SIDE * SIDE * 3
    monkeypatch.setattr(cache, "free_bytes", lambda _: 2 * size - 1)
    streamed = load(str(folder), limit_bytes=0)
    with caplog.at_level(logging.WARNING):
        batches = epoch(streamed.train)
        epoch(streamed.train)
    assert same(epoch(load(str(folder)).train), batches)
    (said,) = [record.getMessage() for record in caplog.records]
    assert "decoded in every pass" in said
    assert [*place.glob("*.pixels")] == []


def test_a_limit_holds_over_all_parts(
    folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 120 * SIDE * SIDE * 3
    monkeypatch.setenv(cache.LIMIT, str(1.5 * size / 2**30))
    passed(store(folder))
    epoch(load(str(folder), limit_bytes=0, size=SIDE - 1).train)
    assert [file.suffix for file in place.iterdir()] == [".pixels"]


@pytest.mark.parametrize("limit", ["much", "-1", "nan"])
def test_a_limit_that_is_no_number_is_refused(
    folder: Path, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.LIMIT, limit)
    with pytest.raises(DataError, match="ISOFLOP_CACHE_GIB must be a number of GiB"):
        load(str(folder), limit_bytes=0)


def test_a_cache_that_cannot_be_written_is_done_without(
    folder: Path, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place.parent.mkdir(parents=True)
    place.write_text("no folder")
    batches = epoch(load(str(folder), limit_bytes=0).train)
    assert same(epoch(load(str(folder)).train), batches)
    assert "none can be written: " in caplog.text


def test_a_file_of_another_size_is_not_trusted(folder: Path) -> None:
    streamed = store(folder)
    file = cache.folder() / f"{streamed.key}.pixels"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"short")
    assert np.array_equal(passed(streamed, size=120), every(streamed.part))
    assert file.read_bytes() == b"short"
    assert np.array_equal(passed(streamed), every(streamed.part))
    assert file.stat().st_size == 120 * (SIDE * SIDE * 3 + 1)
