"""Pixels that are decoded once: a file of bytes in the user's cache, which is mapped into memory.

All processes of a machine that want the pixels of a part decode them together, block by block. A
block is claimed by a lock that the system lets go of when a process dies, and marked once its bytes
are written; so a kill loses the blocks that were being decoded, and nothing else. A file gets its
name when it is whole.
"""

import contextlib
import fcntl
import functools
import logging
import math
import os
import platform
import shutil
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from methods.data.decoding import workers
from methods.data.decoding.workers import Rows
from methods.data.parts import Part
from methods.errors import DataError

LIMIT = "ISOFLOP_CACHE_GIB"
"""Environment variable: GiB of decoded pixels in the cache at most; 0 for none."""

SHARE = 0.5
"""The fraction of the free disk that the pixels of a part may take."""

BLOCK_BYTES = 8 << 20
"""Pixels that are claimed, decoded and marked together; one image at least."""

BOOT = Path("/proc/sys/kernel/random/boot_id")
"""What Linux calls this start of the machine: of one that crashed, written bytes may be lost."""

BOOT_ID = (8, 4, 4, 4, 12)
"""Lengths of its parts."""

OLD = 3600.0
"""Seconds without a write after which a file of another start of the machine is not in use."""

Decoded = UInt8[np.ndarray, "samples height width channels"]

_log = logging.getLogger(__name__)
_streamed: set[Path] = set()
"""Files that this process does without."""


def folder() -> Path:
    """Where files lie that can be made again from the data."""
    home = Path.home()
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "isoflop" / "data"


def pixels(part: Part, key: str, *, fill: bool) -> Decoded | None:
    """All pixels of a part, which this key tells from others, as the cache has them.

    What it lacks is decoded on request, beside others that do so. None where they are not there, or
    there is no room for them, which is logged.

    Raises:
        DataError: an image that cannot be read, or a limit that is no number.
    """
    file = _File(folder() / f"{key}.pixels", len(part.labels), part.shape)
    try:
        if fill and not file.whole and file.path not in _streamed:
            _fill(file, part)
        return file.mapped() if file.whole else None
    except OSError as error:
        _stream(file, f"none can be written: {error.strerror or error}")
        return None


@dataclass(frozen=True)
class _File:
    """Where the pixels of a part are, or come to be."""

    path: Path
    samples: int
    shape: tuple[int, int, int]

    @property
    def image(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.samples * self.image

    @property
    def block(self) -> int:
        return max(1, BLOCK_BYTES // self.image)

    @property
    def blocks(self) -> int:
        return -(-self.samples // self.block)

    @property
    def whole(self) -> bool:
        try:
            return self.path.stat().st_size == self.bytes
        except FileNotFoundError:
            return False

    @functools.cached_property
    def aside(self) -> Path:
        """Where they are decoded to by the processes of this machine, since it was started."""
        boot = BOOT.read_text().strip() if BOOT.exists() else ""
        return self.path.with_name(f".{self.path.stem}-{platform.node()}-{boot}.part")

    @property
    def rows(self) -> Iterator[tuple[int, Rows]]:
        """Each block, by number, and the rows in it."""
        every = np.arange(self.samples)
        return ((n, every[n * self.block : (n + 1) * self.block]) for n in range(self.blocks))

    def mapped(self) -> Decoded:
        return np.asarray(np.memmap(self.path, np.uint8, "r", shape=(self.samples, *self.shape)))


class _Locks:
    """Locks of this process on the bytes of a file; a process that dies has none."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def close(self) -> None:
        os.close(self._file)

    def take(self, number: int, *, wait: bool = False) -> bool:
        """Whether this process has the lock now."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, number)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def leave(self, number: int) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)

    @contextlib.contextmanager
    def held(self, number: int) -> Iterator[None]:
        self.take(number, wait=True)
        try:
            yield
        finally:
            self.leave(number)


class _Filling:
    """The file that is being filled, open; for each of its blocks a mark that it is there."""

    def __init__(self, file: _File, locks: _Locks) -> None:
        self.file, self.locks = file, locks
        self.marked = file.aside.with_suffix(".marks")
        self._pixels = os.open(file.aside, os.O_RDWR | os.O_CREAT, 0o600)
        self._marks = os.open(self.marked, os.O_RDWR | os.O_CREAT, 0o600)
        os.posix_fallocate(self._pixels, 0, file.bytes)

    def close(self) -> None:
        os.close(self._pixels)
        os.close(self._marks)

    def has(self, block: int) -> bool:
        return os.pread(self._marks, 1, block) == b"\1"

    def claim(self, block: int, *, wait: bool) -> bool:
        """Whether the block is this process's to decode."""
        if self.has(block) or not self.locks.take(block + 1, wait=wait):
            return False
        if self.has(block):
            self.locks.leave(block + 1)
            return False
        return True

    def write(self, block: int, content: UInt8[np.ndarray, "_ height width channels"]) -> None:
        """Stores a block that was claimed."""
        place, left = block * self.file.block * self.file.image, content.tobytes()
        while left:
            done = os.pwrite(self._pixels, left, place)
            place, left = place + done, left[done:]
        if not BOOT.exists():  # a crash of the machine would go unseen
            os.fsync(self._pixels)
        os.pwrite(self._marks, b"\1", block)
        self.locks.leave(block + 1)

    def finish(self) -> None:
        """Gives the file its name."""
        os.fsync(self._pixels)
        self.file.aside.rename(self.file.path)
        self.marked.unlink()


def _fill(file: _File, part: Part) -> None:
    """Decodes what is not there yet.

    Raises:
        OSError: it cannot be written.
    """
    file.path.parent.mkdir(parents=True, exist_ok=True)
    boots = "-".join("?" * length for length in BOOT_ID)  # not those of a machine named alike
    for left in file.path.parent.glob(f".{file.path.stem}-{platform.node()}-{boots}.*"):
        with contextlib.suppress(FileNotFoundError):
            if left.stem != file.aside.stem and time.time() - left.stat().st_mtime > OLD:
                left.unlink()  # of this machine before it was started anew
    with contextlib.ExitStack() as stack:
        locks = _Locks(file.aside.with_suffix(".lock"))
        stack.callback(locks.close)
        with locks.held(0):
            if file.whole or not _has_room(file):
                return
            file.path.unlink(missing_ok=True)  # of another size
            filling = _Filling(file, locks)
            stack.callback(filling.close)
        _log.info("%d images are decoded once, to %s", file.samples, file.path)
        _decode(filling, part)
        with locks.held(0):
            if not file.whole and all(map(filling.has, range(file.blocks))):
                filling.finish()
        file.aside.with_suffix(".lock").unlink(missing_ok=True)


def _decode(filling: _Filling, part: Part) -> None:
    """Decodes the blocks that no other process has, and at last those that one left undone."""
    claimed: deque[int] = deque()

    def claims() -> Iterator[Rows]:
        for block, rows in filling.file.rows:
            if filling.claim(block, wait=False):
                claimed.append(block)
                yield rows

    count = workers.processes(filling.file.samples)
    decoded = (
        workers.decoded(part, claims(), filling.file.block, workers=count)
        if count
        else (part.pixels(rows) for rows in claims())
    )
    for content in decoded:
        filling.write(claimed.popleft(), np.asarray(content))
    for block, rows in filling.file.rows:
        if filling.claim(block, wait=True):
            filling.write(block, part.pixels(rows))


def _has_room(file: _File) -> bool:
    """Whether the disk and the user's limit have room for it; if not, that is logged."""
    place = file.path.parent
    begun = file.aside.stat().st_blocks * 512 if file.aside.exists() else 0
    free = int(SHARE * (free_bytes(place) + begun))
    if file.bytes > free:
        _stream(file, f"half of the free disk, {free / 2**30:.3g}, may be used")
        return False
    others = [*place.glob("*.pixels"), *place.glob(".*.part")]
    taken = sum(_taken(other) for other in others if other != file.aside)
    limit = limit_bytes()
    if taken + file.bytes > limit:
        why = f"{LIMIT} is {limit / 2**30:g}, of which {taken / 2**30:.3g} are taken"
        _stream(file, why, wanted=limit == 0)
        return False
    return True


def _taken(file: Path) -> int:
    """Bytes on the disk; none where another process has removed it meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return file.stat().st_blocks * 512
    return 0


def free_bytes(place: Path) -> int:
    """What is free on the disk of a folder."""
    return shutil.disk_usage(place).free


def limit_bytes() -> float:
    """What the user allows all files together.

    Raises:
        DataError: it is no number.
    """
    text = os.environ.get(LIMIT, "inf")
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not limit >= 0:
        raise DataError(
            f"{LIMIT} must be a number of GiB, 0 for no cache of decoded pixels, but is {text!r}"
        )
    return limit * 2**30


def _stream(file: _File, why: str, *, wanted: bool = False) -> None:
    _streamed.add(file.path)
    _log.log(
        logging.INFO if wanted else logging.WARNING,
        "images are decoded in every pass, not once: of their %.3g GiB of pixels in %s, %s",
        file.bytes / 2**30,
        file.path.parent,
        why,
    )
