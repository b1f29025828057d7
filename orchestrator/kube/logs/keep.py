"""Keeps a pod's logs on the claim: the program of a container beside Ray's.

`python -m orchestrator.kube.logs.keep LOGS FOLDER SECONDS [head]` copies what changed of the folder
LOGS to FOLDER, the pod's own in that of an attempt in that of a sweep, every so many seconds, and
prints what the driver writes. In the head's pod it also keeps the sweep's folder within its bound.
It has 32 MiB of memory and a fiftieth of a CPU, and so imports little.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

MIB = 1 << 20
SUFFIXES = (".log", ".out", ".err")
DRIVER = "job-driver-"
"""How the files begin that have a driver's output."""
FILE, DRIVER_FILE = 1 * MIB, 16 * MIB
"""Bytes of a file's end that are kept, and of a driver's."""
POD, SWEEP = 64 * MIB, 512 * MIB
"""Bytes of a pod's copies, and of those of all pods of a sweep that ended, at most; the oldest go
first."""
LINE = 4096
"""Bytes of a line that is left out where a copy would begin within it."""
RESERVE = 256 * MIB
"""Bytes that stay free on the claim for the sweep itself."""
SWEPT = 300.0
"""Seconds between two looks at the size of the sweep's folder."""
ENDED = 900.0
"""Seconds after which a folder that its pod has not touched is that of a pod that ended."""
LAST = 3.0
"""Seconds that the driver has for its last lines: it is told to stop when this program is."""


class Repeat:
    """Prints what is added to the drivers' files; a job submitted a second time has another."""

    def __init__(self, logs: Path, output: BinaryIO) -> None:
        self._logs = logs
        self._output = output
        self._read: dict[str, int] = {}

    def turn(self) -> None:
        """What there is now."""
        for path in sorted(self._logs.glob(f"{DRIVER}*.log")):
            with suppress(FileNotFoundError), path.open("rb") as file:
                file.seek(self._read.get(path.name, 0))
                shutil.copyfileobj(file, self._output)
                self._read[path.name] = file.tell()
        self._output.flush()


class Keep:
    """Copies the ends of logs that changed; a claim that is full or away costs logs alone."""

    def __init__(self, logs: Path, folder: Path, *, head: bool) -> None:
        self._logs = logs
        self._folder = folder
        self._sweep = folder.parents[1] if head else None
        self._copied: dict[str, tuple[int, int]] = {}
        self._swept = -SWEPT
        self._failed = False

    def turn(self) -> None:
        """Copy what changed since the last time."""
        try:
            if self._sweep and time.monotonic() >= self._swept + SWEPT:
                self._swept = time.monotonic()
                bound_sweep(self._sweep)
            self._copy()
        except OSError as error:
            if not self._failed:
                where = f"isoflop: this pod's logs are not kept in {self._folder}"
                sys.stderr.write(f"{where}: {error.strerror}\n")
            self._failed = True
        else:
            self._failed = False

    def _copy(self) -> None:
        if not self._folder.is_dir():  # someone deleted it, or this is the first time
            self._copied.clear()
        self._folder.mkdir(parents=True, exist_ok=True)
        os.utime(self._folder)  # the folders of pods that are gone are older
        failures: list[OSError] = []
        for path, version in _logs(self._logs):
            if self._copied.get(path.name) == version:
                continue
            try:
                if shutil.disk_usage(self._folder).free < RESERVE:
                    raise OSError(0, f"less than {RESERVE // MIB} MiB is free")
                copy_end(path, self._folder / path.name)
                self._copied[path.name] = version
            except OSError as error:  # the others may do
                failures.append(error)
        _delete_oldest(self._folder.iterdir(), POD)
        if failures:
            raise failures[0]


def copy_end(source: Path, target: Path) -> None:
    """The end of a log, from the beginning of a line, under another name until it is whole."""
    limit = DRIVER_FILE if source.name.startswith(DRIVER) else FILE
    aside = target.with_name(f".{target.name}")
    try:
        with source.open("rb") as log, aside.open("wb") as copy:
            status = os.fstat(log.fileno())
            if status.st_size > limit:
                start = log.seek(status.st_size - limit)
                if not log.readline(LINE).endswith(b"\n"):  # longer: better a part of it than none
                    log.seek(start)
            left = status.st_size - log.tell()
            while left > 0 and (part := log.read(min(left, 1 << 16))):
                copy.write(part)
                left -= len(part)
        os.utime(aside, ns=(status.st_mtime_ns, status.st_mtime_ns))
        aside.replace(target)
    except OSError:
        with suppress(OSError):
            aside.unlink()
        if source.exists():
            raise


def bound_sweep(sweep: Path) -> None:
    """Delete the folders of the pods that ended first, until those that are left fit."""
    now = time.time()
    pods = [pod for pod in sweep.glob("*/*") if pod.is_dir()]
    _delete_oldest([pod for pod in pods if now - pod.stat().st_mtime > ENDED], SWEEP)
    for attempt in sweep.glob("*"):
        with suppress(OSError):  # it is not empty
            attempt.rmdir()


def _logs(folder: Path) -> Iterable[tuple[Path, tuple[int, int]]]:
    """The logs in a folder that are not empty, with what changes when they do.

    Links are left out: they may lead to what is no log.
    """
    if not folder.is_dir():
        return
    for entry in os.scandir(folder):
        if entry.name.endswith(SUFFIXES) and entry.is_file(follow_symlinks=False):
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if status.st_size:
                    yield Path(entry.path), (status.st_mtime_ns, status.st_size)


def _delete_oldest(paths: Iterable[Path], most: int) -> None:
    """Delete files or folders, those first that changed longest ago, until the rest fit."""
    sizes: list[tuple[float, int, Path]] = []
    for path in paths:
        with suppress(FileNotFoundError):  # another program deletes, too
            files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
            size = sum(file.stat().st_size for file in files)
            sizes.append((path.stat().st_mtime, size, path))
    total = sum(size for _, size, _ in sizes)
    for _, size, path in sorted(sizes):
        if total <= most:
            return
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        total -= size


def main() -> None:
    """Until the pod ends."""
    logs, folder, seconds, *place = sys.argv[1:]
    ends: list[float] = []
    signal.signal(signal.SIGTERM, lambda *_: ends.append(time.monotonic() + LAST))
    repeat = Repeat(Path(logs), sys.stdout.buffer)
    keep = Keep(Path(logs), Path(folder), head=place == ["head"])
    due = 0.0
    while not ends or time.monotonic() < ends[0]:
        with suppress(OSError):  # a file that cannot be read now is read in the next turn
            repeat.turn()
        if time.monotonic() >= due:
            keep.turn()
            due = time.monotonic() + float(seconds)
        time.sleep(0.2 if ends else 1)
    repeat.turn()
    keep.turn()


if __name__ == "__main__":
    main()
