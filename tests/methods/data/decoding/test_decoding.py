"""Batches made ahead: the same as decoded at once, and nothing left of who made them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import square, write_classes

from methods.data.decoding import cache, workers
from methods.data.load import load
from methods.data.splits import Augment, Split
from methods.data.streams import Streamed
from methods.errors import DataError
from methods.machine import threads

PER = 60
"""Images of each of two classes."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    make = lambda label, number: square(label, number, 20)  # noqa: E731
    return write_classes(tmp_path_factory.mktemp("set"), per=PER, make=make)


@pytest.fixture
def uncached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.LIMIT, "0")


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two processes decode, however few the images."""
    monkeypatch.setattr(workers, "FEW", 0)
    with threads(2):
        yield


def store(folder: Path) -> Streamed:
    streamed = load(str(folder), limit_bytes=0).train.store
    assert isinstance(streamed, Streamed)
    return streamed


def epoch(split: Split) -> list[torch.Tensor]:
    order, shifts = (torch.Generator().manual_seed(seed) for seed in (1, 2))
    augment = Augment(pad=2, flip=True, generator=shifts)
    return [images for images, _ in split.batches(16, shuffle=order, augment=augment)]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def left() -> list[str]:
    """Children and threads that a pass would leave."""
    return [child.name for child in multiprocessing.active_children()] + [
        thread.name for thread in threading.enumerate() if "pixels" in thread.name
    ]


@pytest.mark.usefixtures("crew", "uncached")
def test_processes_give_the_batches_of_a_resident_set(folder: Path) -> None:
    held, streamed = load(str(folder)), load(str(folder), limit_bytes=0)
    for role in ("train", "validation", "test"):
        assert same(epoch(getattr(held, role)), epoch(getattr(streamed, role)))
    assert left() == []


@pytest.mark.usefixtures("uncached")
def test_a_thread_gives_them_on_one_core(folder: Path) -> None:
    held, streamed = load(str(folder)), load(str(folder), limit_bytes=0)
    assert same(epoch(held.train), epoch(streamed.train))
    assert left() == []


@pytest.mark.usefixtures("crew", "uncached")
def test_what_is_ahead_is_bounded_in_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "AHEAD_BYTES", 2 * 16 * 20 * 20 * 3)
    held, streamed = load(str(folder)), load(str(folder), limit_bytes=0)
    assert same(epoch(held.train), epoch(streamed.train))
    monkeypatch.setattr(workers, "AHEAD_BYTES", 1)
    assert same(epoch(held.train), epoch(streamed.train))
    begun: list[int] = []

    def batches() -> Iterator[np.ndarray]:
        for number in range(9):
            begun.append(number)
            yield np.arange(8)

    monkeypatch.setattr(workers, "AHEAD_BYTES", 3 * 8 * 20 * 20 * 3)
    part = store(folder).part

    def take(rows: np.ndarray, out: np.ndarray) -> None:
        out[:] = part.pixels(rows)

    made = workers.ahead(take, part.shape, batches(), 8, workers=2)
    for number, _ in enumerate(made):
        assert len(begun) == min(9, number + 4)


@pytest.mark.usefixtures("uncached")
@pytest.mark.parametrize("cores", [1, 2])
def test_an_abandoned_pass_leaves_nothing(
    folder: Path, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "FEW", 0)
    with threads(cores):
        split = load(str(folder), limit_bytes=0).train
        batches = split.batches(8)
        next(batches)
        assert left() != []
        batches.close()
        assert left() == []
        for _ in split.batches(8):
            break
        assert left() == []


@pytest.mark.usefixtures("crew", "uncached")
def test_a_worker_that_is_killed_is_one_sentence(folder: Path) -> None:
    batches = load(str(folder), limit_bytes=0).train.batches(4)
    next(batches)
    child = multiprocessing.active_children()[0]
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(DataError, match=r"one was killed.*more memory") as caught:
        list(batches)
    assert "\n" not in str(caught.value)
    assert left() == []


@pytest.mark.usefixtures("uncached")
@pytest.mark.parametrize("cores", [1, 2])
def test_a_broken_image_is_named(
    tmp_path: Path, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "FEW", 0)
    split = load(str(write_classes(tmp_path, per=PER)), limit_bytes=0).train
    for file in (tmp_path / "bee").iterdir():
        file.write_bytes(file.read_bytes()[:-40])
    with threads(cores), pytest.raises(DataError, match=r"bee/\d+\.png is not") as caught:
        list(split.batches(8))
    assert "\n" not in str(caught.value)
    assert left() == []


@pytest.mark.usefixtures("uncached")
def test_a_few_images_are_worth_no_process(folder: Path) -> None:
    with threads(2):
        assert workers.processes(workers.FEW) == 0
        assert workers.processes(workers.FEW + 1) == 2
    assert workers.processes(10**6) == 0
