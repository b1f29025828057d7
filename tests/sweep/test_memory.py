"""A trial that uses up its container's memory fails alone, and the sweep goes on."""

import os
import subprocess
import sys
import threading
import time

import pytest
from faults import ROOT
from ray.air.execution import FixedResourceManager
from ray.air.execution._internal import RayActorManager, TrackedActor
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.exceptions import OutOfMemoryError, RayActorError

from orchestrator.sweep import memory
from orchestrator.sweep.memory import Watch
from orchestrator.sweep.tune import _death, _survive_memory_monitor


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
    guard = Watch(0.85, container)
    trims: list[int] = []
    monkeypatch.setattr(memory, "release_heap", lambda: trims.append(container.used))
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
        with Watch(0.85, Container(900)).over():
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


def test_what_rays_memory_monitor_ends_is_a_lost_worker_to_tune() -> None:
    """Fails when Tune's `_actor_task_failed` goes, or when Tune knows the error by itself."""
    errors: list[Exception] = []
    actor = TrackedActor(1, on_error=lambda actor, error: errors.append(error))
    task = TrackedActorTask(actor, on_error=lambda actor, error: errors.append(error))
    killed = OutOfMemoryError("Task was killed due to the node running low on memory.\nMemory ...")
    manager = RayActorManager(resource_manager=FixedResourceManager({"CPU": 1}))
    manager._cleanup_actor = lambda tracked_actor: None
    with pytest.raises(RuntimeError, match="unexpected exception"):
        manager._actor_task_failed(task, killed)
    _survive_memory_monitor(manager)
    manager._actor_task_failed(task, killed)
    assert [type(error) for error in errors] == [RayActorError, RayActorError]
    reason = "its worker died: The actor died for want of memory: Task was killed due to the node"
    assert _death(str(errors[0])).startswith(reason)
