"""The write-ahead log of a study: one JSON object a line, one writer, any number of readers."""

import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from methods import files
from methods.errors import DiskFull
from methods.files import NO_ROOM
from orchestrator.record.events import Begun, End, Epoch, Event, decode, encode
from orchestrator.record.rows import Row

logger = logging.getLogger(__name__)

LASTING = (Begun, End)
"""Events that must outlive a power cut; a start follows from the journal or the plan."""
PATIENCE = 600.0
"""Seconds for which a driver waits for room."""
SLICE = 1 << 22
"""Bytes of the log that are held in memory at once."""
Curves = Mapping[str, Sequence[tuple[int, float]]]
"""By trial: epoch, from 1 on, and validation accuracy after it, a fraction."""


class Log:
    """The writer; a last line that a kill has torn is cut off at opening."""

    def __init__(self, path: Path) -> None:
        cut_torn_line(path)
        self._path = path
        self._file = path.open("ab", buffering=0)

    def append(self, event: Event) -> None:
        """One event, in the hands of the system when this returns.

        Raises:
            DiskFull: there was no room for it, nor was any made.
        """
        line = (json.dumps(encode(event), sort_keys=True) + "\n").encode()

        def write() -> None:
            rest = line
            while rest:
                rest = rest[self._file.write(rest) :]
            if isinstance(event, LASTING):
                os.fsync(self._file.fileno())

        patiently(self._path, write)

    def events(self) -> Iterator[Event]:
        """Everything that was ever appended, in order."""
        with self._path.open("rb") as file:
            for line in file:
                yield decode(json.loads(line))

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


def patiently(path: Path, append: Callable[[], None]) -> None:
    """Append to a file, trying again while there is no room; what a failed write left is cut off.

    A file that is not there yet is one without content.

    Raises:
        DiskFull: there was no room for `PATIENCE` seconds.
    """
    size = path.stat().st_size if path.exists() else 0

    def whole() -> None:
        try:
            append()
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(path, size)
            raise

    await_room(path, whole)


def await_room(path: Path | str, write: Callable[[], None]) -> None:
    """Write a file, trying again while there is no room; `write` leaves nothing where it fails.

    Raises:
        DiskFull: there was no room for `PATIENCE` seconds.
    """
    deadline = 0.0
    while True:
        try:
            write()
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
        else:
            return
        now = time.monotonic()
        if not deadline:
            deadline = now + PATIENCE
            logger.warning("no space to write %s; waiting %.3g s for it", path, PATIENCE)
        if now >= deadline:
            raise DiskFull(
                f"there must be space to write {path}, but the disk is full; nothing is lost: "
                "free some space, and the same command resumes the sweep"
            )
        time.sleep(min(0.5, PATIENCE))


def read(path: Path, offset: int = 0, size: int = -1) -> tuple[list[Event], int]:
    """The events from `offset` on, and the offset behind them.

    About `size` bytes of them, one event at least; all by default.
    """
    lines, offset = read_lines(path, offset, size)
    return [decode(line) for line in lines], offset


def read_lines(path: Path, offset: int = 0, size: int = -1) -> tuple[list[dict[str, Any]], int]:
    """The same of any file with a JSON object a line, as they are; a torn last line is left out."""
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read(size) + file.readline()
    whole = content[: content.rfind(b"\n") + 1]
    return [json.loads(line) for line in whole.splitlines()], offset + len(whole)


def cut_torn_line(path: Path) -> None:
    """Cut off what stands behind the last newline: a line that was not written to its end."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        file.truncate(sum(len(line) for line in file if line.endswith(b"\n")))


def logged(log: Path, trials: Iterable[Row]) -> Curves:
    """The curves of these trials from a study's write-ahead log."""
    wanted = {row.trial for row in trials}
    curves: dict[str, dict[int, float]] = {}
    offset = 0
    while True:
        events, offset = read(log, offset, SLICE)
        if not events:
            break
        for event in events:
            if isinstance(event, Epoch) and event.trial in wanted:
                accuracy = event.metrics.val_acc
                if math.isfinite(accuracy):
                    curves.setdefault(event.trial, {})[event.step] = accuracy
    return {trial: sorted(curve.items()) for trial, curve in sorted(curves.items())}


def mark_finished(log: Path, study: str) -> None:
    """Note beside the log that nothing is left to run of the study with this hash."""
    files.write(_finished(log), json.dumps({"study": study, "bytes": log.stat().st_size}))


def finished(log: Path, study: str) -> bool:
    """Whether nothing was left of the study with this hash, and nothing was logged since."""
    try:
        mark = json.loads(_finished(log).read_text())
        return bool(mark == {"study": study, "bytes": log.stat().st_size})
    except (OSError, ValueError):
        return False


def _finished(log: Path) -> Path:
    return log.parent / "finished.json"
