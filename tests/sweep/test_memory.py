"""A trial that uses up its container's memory fails alone, and the sweep continues."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from faults import ROOT

from orchestrator.sweep import memory
from orchestrator.sweep.memory import Watch


class Worker(subprocess.Popen[bytes]):
    """A process that is called as one of Ray's, until the block ends."""

    def __init__(self, name: str) -> None:
        super().__init__([name, "600"], executable="/bin/sleep")

    def __exit__(self, *what: object) -> None:
        self.kill()
        self.wait()


class Container:
    """A container's memory: 1000 bytes, of which so many are used."""

    def __init__(self, used: int) -> None:
        self.used = used

    def __call__(self) -> tuple[int, int]:
        return self.used, 1000


@contextlib.contextmanager
def watch(container: Container) -> Iterator[Watch]:
    """A watch over a container, which ends with the block."""
    guard = Watch(0.85, container)
    try:
        yield guard
    finally:
        guard.stop()


def train(seconds: float) -> str:
    """Steps of Python for so long, or until they are interrupted."""
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            sum(range(1000))
    except MemoryError as error:
        return str(error)
    return "trained"


def test_the_largest_trial_fails_as_when_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    container = Container(800)
    trims: list[int] = []
    monkeypatch.setattr(memory, "release_heap", lambda: trims.append(container.used))
    with watch(container) as guard:
        with guard.over():
            assert train(0.5) == "trained"
            assert not trims
            threading.Timer(0.3, setattr, (container, "used", 900)).start()
            assert "its container's memory is nearly used up" in train(20)
            assert trims == [900], "what is free already is given back first"
        assert train(0.5) == "trained", "outside a trial nothing ends"


def test_a_smaller_trial_trains_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with Worker("ray::Trial.train") as other:
        monkeypatch.setattr(memory, "_workers", lambda: iter([os.getpid(), other.pid]))
        assert memory.is_largest(), "pytest is larger than a process that sleeps"
        pages = memory._private_pages
        large = {other.pid: 2**30}
        monkeypatch.setattr(memory, "_private_pages", lambda pid: large.get(pid) or pages(pid))
        with watch(Container(900)) as guard, guard.over():
            assert train(0.7) == "trained"
    monkeypatch.setattr(memory, "_private_pages", pages)
    assert memory.is_largest(), "a process that has ended has no memory"


def test_workers_are_told_apart_from_rays_other_processes() -> None:
    look = "from orchestrator.sweep import memory; print(*memory._workers())"
    with Worker("ray::Trial.train") as worker, Worker("raylet"):
        done = subprocess.run(
            [sys.executable, "-c", look], capture_output=True, text=True, check=True, cwd=ROOT
        )
        assert str(worker.pid) in done.stdout.split()
        assert len(done.stdout.split()) == 1


def test_there_is_no_watch_where_none_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(memory.SHARE, raising=False)
    memory.watch.cache_clear()
    with memory.watched():
        assert memory.watch() is None
