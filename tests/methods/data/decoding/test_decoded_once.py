"""The cache of decoded pixels: equal, whole whatever dies, and no larger than it may be."""

import logging
import multiprocessing
import os
import platform
import signal
import time
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
    """A cache of the test's own, of blocks of four images."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "BLOCK_BYTES", 4 * SIDE * SIDE * 3)
    return tmp_path / "cache" / "isoflop" / "data"


def store(folder: Path) -> tuple[Part, str]:
    streamed = load(str(folder), limit_bytes=0).train.store
    assert isinstance(streamed, Streamed)
    assert streamed.key is not None
    return streamed.part, streamed.key


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
    assert file.stat().st_size == 120 * SIDE * SIDE * 3


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


def test_other_pixels_have_another_key(tmp_path: Path, folder: Path) -> None:
    key = store(folder)[1]
    assert store(folder)[1] == key
    assert load(str(folder), limit_bytes=0, size=9).train.store.key != key  # type: ignore[attr-defined]
    write_classes(tmp_path, per=12)
    key = store(tmp_path)[1]
    os.utime(tmp_path / "bee" / "011.png", ns=(1, 1))
    assert store(tmp_path)[1] != key


def test_processes_decode_together(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, key = store(folder)
    monkeypatch.setattr(workers, "FEW", 0)
    crew = [FORK.Process(target=cache.pixels, args=(part, key), kwargs={"fill": True})]
    crew += [FORK.Process(target=_fill_on_two, args=(part, key)) for _ in range(2)]
    for process in crew:
        process.start()
    for process in crew:
        process.join()
    assert [process.exitcode for process in crew] == [0, 0, 0]
    filled = cache.pixels(part, key, fill=False)
    assert filled is not None
    assert np.array_equal(filled, every(part))


def _fill_on_two(part: Part, key: str) -> None:
    with threads(2):
        cache.pixels(part, key, fill=True)


@pytest.mark.parametrize("at", [1, 4, 30])
def test_what_a_killed_process_left_is_taken_up(
    folder: Path, place: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, key = store(folder)
    process = FORK.Process(target=_fill_and_die, args=(part, key, at))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert cache.pixels(part, key, fill=False) is None
    decoded: list[int] = []
    plain = type(part).pixels

    def counted(self: Part, rows: np.ndarray) -> np.ndarray:
        decoded.extend(rows)
        return plain(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(type(part), "pixels", counted)
        filled = cache.pixels(part, key, fill=True)
    assert sorted(decoded) == list(range(4 * (at - 1), 120))
    assert filled is not None
    assert np.array_equal(filled, every(part))
    assert [file.suffix for file in place.iterdir()] == [".pixels"]


def _fill_and_die(part: Part, key: str, at: int) -> None:
    """Dies as it is about to store its n-th block."""
    write, count = cache._Filling.write, iter(range(1, at + 1))

    def dying(self: cache._Filling, block: int, content: np.ndarray) -> None:
        if next(count) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, block, content)

    cache._Filling.write = dying  # type: ignore[method-assign]
    cache.pixels(part, key, fill=True)


def test_who_waits_takes_up_what_a_process_dies_over(folder: Path) -> None:
    part, key = store(folder)
    reader, writer = FORK.Pipe(duplex=False)
    slow = FORK.Process(target=_stop_at, args=(part, key, writer))
    slow.start()
    reader.recv()
    other = FORK.Process(target=cache.pixels, args=(part, key), kwargs={"fill": True})
    other.start()
    other.join(0.5)
    assert other.is_alive()
    slow.kill()
    slow.join()
    other.join()
    assert other.exitcode == 0
    filled = cache.pixels(part, key, fill=False)
    assert filled is not None
    assert np.array_equal(filled, every(part))


def _stop_at(part: Part, key: str, writer: "multiprocessing.connection.Connection") -> None:
    """Holds its third block for ever."""
    write, count = cache._Filling.write, iter(range(9))

    def stuck(self: cache._Filling, block: int, content: np.ndarray) -> None:
        if next(count) == 2:
            writer.send(None)
            time.sleep(1000)
        write(self, block, content)

    cache._Filling.write = stuck  # type: ignore[method-assign]
    cache.pixels(part, key, fill=True)


def test_blocks_of_a_machine_that_was_started_anew_are_not_trusted(
    folder: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, key = store(folder)
    process = FORK.Process(target=_fill_and_die, args=(part, key, 9))
    process.start()
    process.join()
    (tmp_path / "boot").write_text("another")
    monkeypatch.setattr(cache, "BOOT", tmp_path / "boot")
    begun = [*place.iterdir()]
    assert len(begun) == 3
    other = place / f".{key}-{platform.node()}-2-{'0' * 8}-0-0-0-0.part"
    other.touch()  # of a machine whose name begins alike
    for file in (*begun, other):
        os.utime(file, (0, 0))
    filled = cache.pixels(part, key, fill=True)
    assert filled is not None
    assert np.array_equal(filled, every(part))
    assert {file.name for file in place.iterdir()} == {f"{key}.pixels", other.name}


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
    epoch(load(str(folder), limit_bytes=0).train)
    epoch(load(str(folder), limit_bytes=0, size=SIDE - 1).train)
    assert len([*place.glob("*.pixels")]) == 1


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
    part, key = store(folder)
    file = cache.folder() / f"{key}.pixels"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"short")
    assert cache.pixels(part, key, fill=False) is None
    filled = cache.pixels(part, key, fill=True)
    assert filled is not None
    assert np.array_equal(filled, every(part))
