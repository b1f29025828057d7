"""Files that are whole or absent, whatever dies while they are written; and their digest."""

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
"""`errno` of an `OSError` where the disk or the user's share of it is full."""
UNFINISHED = ".*.part"
"""Pattern of the names that files have while they are written; a kill may leave one."""


def write(
    path: Path,
    content: bytes | str | Callable[[BinaryIO], object],
    *,
    previous: Path | None = None,
) -> None:
    """Write a file aside, sync it and rename it: readers see the old content or all of the new.

    Any number of threads, processes and machines may write the same path at once; one of them wins.
    `content` is bytes, text, or a function that writes to the open file. The folder is made if it
    is missing. A file that stood at `path` takes the name `previous`, if one is given, once the new
    content is on the disk.

    Raises:
        OSError: the file cannot be written; `errno` is in `NO_ROOM` where the disk is full. What
            stood at `path` is unchanged.
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
    """Make a rename outlive a power cut, on the systems that can sync a folder."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
