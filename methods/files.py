"""Atomic writes, so that a file is whole or absent whatever dies meanwhile; and digests."""

import contextlib
import errno
import hashlib
import os
import platform
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""`errno` of an `OSError` when the disk or the user's quota is full."""
UNFINISHED = ".*.part"
"""Pattern of the names of files that are being written; a killed process may leave one."""


def write(
    path: Path,
    content: bytes | str | Callable[[BinaryIO], object],
    *,
    previous: Path | None = None,
) -> None:
    """Write a file aside, sync it and rename it: readers see the old content or all of the new.

    Any number of threads, processes and machines may write the same path at once; one of them wins.
    `content` is bytes, text, or a function that writes to the open file. A missing folder is
    created. A file that exists at `path` is renamed to `previous`, if that is given, once the new
    content is on disk.

    Raises:
        OSError: the file cannot be written; `errno` is in `NO_ROOM` if the disk is full. A file
            that exists at `path` is unchanged.
    """
    writer = f"{platform.node()}-{os.getpid()}-{threading.get_native_id()}"
    aside = path.with_name(f".{path.name}.{writer}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with aside.open("wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None:
            with contextlib.suppress(FileNotFoundError):
                path.replace(previous)
        aside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise
    _sync_folder(path.parent)


def digest(content: bytes | str) -> str:
    """SHA-256 of bytes, or of text in UTF-8, in hexadecimal digits."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, on systems that can sync a folder."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
