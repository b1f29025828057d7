"""Pixels that are decoded once: a file of bytes in the user's cache, which is mapped into memory.

A pass takes from the file what is there, decodes the rest as it comes to it, and writes it there: a
training step waits for its own images alone. All processes of a machine that want the pixels of a
part share one file. Behind the pixels it has a byte for each image, set once its bytes are written,
so a kill loses the images that were being decoded, and nothing else; processes that decode the same
one write the same bytes. The file gets its name when it is whole.
"""

import contextlib
import functools
import logging
import math
import os
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock
from jaxtyping import UInt8

from methods.data.decoding.workers import Rows
from methods.data.parts import Part
from methods.errors import DataError

LIMIT = "ISOFLOP_CACHE_GIB"
"""Environment variable: GiB of decoded pixels in the cache at most; 0 for none."""

SHARE = 0.5
"""The fraction of the free disk that the pixels of a part may take."""

BOOT = Path("/proc/sys/kernel/random/boot_id")
"""What Linux calls this start of the machine: of one that crashed, written bytes may be lost."""

BOOT_ID = (8, 4, 4, 4, 12)
"""Lengths of its parts."""

OLD = 3600.0
"""Seconds without a write after which a file of another start of the machine is not in use."""

Images = UInt8[np.ndarray, "_ height width channels"]

_log = logging.getLogger(__name__)
_streamed: set[Path] = set()
"""Files that this process does without."""


def folder() -> Path:
    """Where files lie that can be made again from the data."""
    home = Path.home()
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "isoflop" / "data"


class Cached:
    """The pixels of a part, which a key tells from all others: read where the cache has them.

    The others are decoded into the file, if it is begun. `fill` begins it, unless there is no room
    for all, which is logged. It may be used in a forked process, too, and is to be closed.

    Raises:
        DataError: a limit that is no number.
    """

    def __init__(self, part: Part, key: str, *, fill: bool) -> None:
        self._part = part
        self._file = _File(folder() / f"{key}.pixels", len(part.labels), part.shape)
        self._filling: _Filling | None = None
        self._whole: Images | None = None
        try:
            wanted = fill or self._file.aside.exists()
            if wanted and not self._file.whole and self._file.path not in _streamed:
                self._filling = _begun(self._file)
            if self._file.whole:
                self._whole = self._file.mapped(self._file.path)
        except (OSError, NotImplementedError) as error:  # the latter where files have no locks
            why = error.strerror if isinstance(error, OSError) else None
            _stream(self._file, f"none can be written: {why or error}")

    def lacks(self, rows: Rows) -> int:
        """How many of these need decoding."""
        return 0 if self._whole is not None else int((~self._there(rows)).sum())

    def take(self, rows: Rows, out: Images) -> None:
        """Writes the pixels of some rows to `out`.

        Raises:
            DataError: an image that cannot be read.
        """
        if self._whole is not None:
            _copy(self._whole, rows, out)
            return
        there = self._there(rows)
        if self._filling is not None and there.all():
            _copy(self._filling.pixels, rows, out)
            return
        made = self._part.pixels(rows[~there])
        out[~there] = made
        if self._filling is not None:
            out[there] = self._filling.pixels[rows[there]]
            self._filling.write(rows[~there], made)

    def close(self) -> None:
        """Ends a pass: a file that is whole gets its name."""
        if self._filling is not None:
            self._filling.close()

    def _there(self, rows: Rows) -> np.ndarray:
        nowhere = np.zeros(len(rows), bool)
        return nowhere if self._filling is None else self._filling.marked()[rows]


def _copy(pixels: Images, rows: Rows, out: Images) -> None:
    np.take(pixels, rows, axis=0, out=out, mode="clip")  # which waits for the disk without the GIL


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
    def size(self) -> int:
        """Bytes with the marks."""
        return self.bytes + self.samples

    @property
    def whole(self) -> bool:
        """Whether it has its name; earlier versions wrote none of the marks."""
        return _size(self.path) in (self.size, self.bytes)

    @functools.cached_property
    def aside(self) -> Path:
        """Where they are decoded to by the processes of this machine, since it was started."""
        boot = BOOT.read_text().strip() if BOOT.exists() else ""
        return self.path.with_name(f".{self.path.stem}-{platform.node()}-{boot}.part")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """While the file is begun, and while it gets its name."""
        place = self.aside.with_suffix(".lock")
        with FileLock(place):
            try:
                yield
            finally:
                if self.whole or not self.aside.exists():
                    place.unlink(missing_ok=True)

    def mapped(self, place: Path) -> Images:
        return np.asarray(np.memmap(place, np.uint8, "r", shape=(self.samples, *self.shape)))


class _Filling(NamedTuple):
    """The file that is being filled, open."""

    file: _File
    pixels: Images
    descriptor: int

    def marked(self) -> np.ndarray:
        """Whether each image is there. It is read anew: who sees a mark sees the pixels, too."""
        count = self.file.samples
        with contextlib.suppress(OSError):  # as where another machine deleted the file
            marks = os.pread(self.descriptor, count, self.file.bytes)
            if len(marks) == count:
                return np.frombuffer(marks, bool)
        return np.zeros(count, bool)

    def write(self, rows: Rows, content: Images) -> None:
        """Stores images that were decoded; those that cannot be written are decoded again."""
        with contextlib.suppress(OSError):
            for row, image in zip(rows.tolist(), content, strict=True):
                place, left = row * self.file.image, image.tobytes()
                while left:
                    done = os.pwrite(self.descriptor, left, place)
                    place, left = place + done, left[done:]
            if not BOOT.exists():  # a crash of the machine would go unseen
                os.fsync(self.descriptor)
            for row in rows.tolist():
                os.pwrite(self.descriptor, b"\1", self.file.bytes + row)

    def close(self) -> None:
        """Gives the file its name, if it is whole; who deleted it meanwhile has it decoded anew."""
        aside = self.file.aside
        with contextlib.suppress(OSError, NotImplementedError):
            if aside.exists() and (self.file.whole or self.marked().all()):
                with self.file.locked():
                    own = os.path.samestat(os.fstat(self.descriptor), aside.stat())
                    if own and self.file.whole:  # by another machine
                        aside.unlink()
                    elif own:
                        os.fsync(self.descriptor)
                        aside.rename(self.file.path)
        os.close(self.descriptor)


def _begun(file: _File) -> _Filling | None:
    """The file that is to be filled; None where it is whole by now, or finds no room.

    Raises:
        OSError: it cannot be written.
    """
    file.path.parent.mkdir(parents=True, exist_ok=True)
    boots = "-".join("?" * length for length in BOOT_ID)  # not those of a machine named alike
    for left in file.path.parent.glob(f".{file.path.stem}-{platform.node()}-{boots}.*"):
        with contextlib.suppress(FileNotFoundError):
            if left.stem != file.aside.stem and time.time() - left.stat().st_mtime > OLD:
                left.unlink()  # of this machine before it was started anew
    with file.locked():
        if file.whole:
            return None
        if _size(file.aside) != file.size:
            if not _has_room(file):
                return None
            _allocate(file)
            _log.info("%d images are decoded once, to %s", file.samples, file.path)
        return _Filling(file, file.mapped(file.aside), os.open(file.aside, os.O_RDWR))


def _allocate(file: _File) -> None:
    """An empty file of full size: other processes write into it only once it is there.

    Raises:
        OSError: there is no room, and nothing is left.
    """
    file.path.unlink(missing_ok=True)  # of another size
    file.aside.unlink(missing_ok=True)
    try:
        with file.aside.open("xb") as begun:
            os.posix_fallocate(begun.fileno(), 0, file.size)
    except OSError:
        file.aside.unlink(missing_ok=True)
        raise


def _size(place: Path) -> int | None:
    """Bytes of a file; None where there is none."""
    try:
        return place.stat().st_size
    except FileNotFoundError:
        return None


def _has_room(file: _File) -> bool:
    """Whether the disk and the user's limit have room for it; if not, that is logged."""
    place = file.path.parent
    free = int(SHARE * free_bytes(place))
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
