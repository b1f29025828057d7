"""A worker's watch over the memory of its container: the largest trial fails, not all of them.

Kubernetes ends all processes of a container that runs out of memory. Ray's memory monitor, below
that limit, ends the workers that started last until enough is free, whatever each of them uses:
small trials would fail for a large one. So each worker looks for itself, before Ray's monitor does,
and the one that uses most ends its own trial, as when memory is refused.
"""

import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from ray._private.utils import get_cgroup_mem_stats

SHARE = "ISOFLOP_MEMORY_SHARE"
"""Environment variable: the share of the container's memory at which its largest trial fails; there
is no watch where it is not set."""
EVERY = 0.1
"""Seconds between two looks."""
PROC = Path("/proc")


class ContainerFull(MemoryError):
    """The container's memory is nearly used up, and this trial uses most of it."""

    def __str__(self) -> str:
        return "its container's memory is nearly used up, and it uses more than the other trials"


class Watch:
    """Looks at the container's memory from a thread, until it is stopped or the process ends."""

    def __init__(
        self, share: float, memory: Callable[[], tuple[int, int] | None] = get_cgroup_mem_stats
    ) -> None:
        self._share = share
        self._memory = memory
        self._trial: int | None = None
        self._trimmed = False
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        threading.Thread(target=self._run, daemon=True, name="memory").start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    @contextlib.contextmanager
    def over(self) -> Iterator[None]:
        """Raises ContainerFull in the block, at any point of it, if this trial is the largest."""
        with self._lock:
            self._trial = threading.get_ident()
        try:
            yield
        finally:
            with self._lock:
                self._trial = None

    def _run(self) -> None:
        while not self._stopped.wait(EVERY):
            used, limit = self._memory() or (0, 1)
            if used <= self._share * limit:
                self._trimmed = False
            elif not self._trimmed:  # an allocator keeps what an earlier trial has freed
                release_heap()
                self._trimmed = True
            elif is_largest():
                self._end_trial()

    def _end_trial(self) -> None:
        with self._lock:
            if self._trial is not None:
                thread, error = ctypes.c_ulong(self._trial), ctypes.py_object(ContainerFull)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, error)
                self._trial, self._trimmed = None, False


@functools.cache
def watch() -> Watch | None:
    """The watch of this process, where its container is to have one."""
    share = os.environ.get(SHARE)
    return Watch(float(share)) if share else None


def watched() -> contextlib.AbstractContextManager[None]:
    """A step of a trial, under the watch if there is one."""
    guard = watch()
    return guard.over() if guard else contextlib.nullcontext()


def release_heap() -> None:
    """Give freed memory back to the system, where the C library can."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def is_largest() -> bool:
    """Whether no other worker of this raylet has more memory of its own than this process."""
    here = os.getpid()
    own = (_private_pages(here), here)  # read once: it may grow while the others are read
    return all(own > (_private_pages(pid), pid) for pid in _workers() if pid != here)


def _workers() -> Iterator[int]:
    """Ray's workers that this process' parent started."""
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                is_worker = (folder / "cmdline").read_bytes().startswith(b"ray::")
                if is_worker and int(parent) == os.getppid():
                    yield int(folder.name)


def _private_pages(pid: int) -> int:
    """Pages that a process does not share with files or others; 0 once it has ended."""
    try:
        resident, shared = (PROC / str(pid) / "statm").read_text().split()[1:3]
    except OSError:
        return 0
    return int(resident) - int(shared)
