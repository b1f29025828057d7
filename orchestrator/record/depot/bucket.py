"""A bucket of an object store, by pyarrow: S3, and what speaks its language.

Keys and an endpoint come from where the store's own tools take them: environment variables, the
user's configuration, the identity of a pod. An object is replaced as a whole when its upload ends,
so that a process may die at any moment.
"""

import atexit
import contextlib
import functools
import logging
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from methods import files
from methods.errors import BucketAway, StorageError
from orchestrator.record.log import await_room

logger = logging.getLogger(__name__)

T = TypeVar("T")
PATIENCE = 600.0
"""Seconds for which one file waits for a bucket that does not answer."""
PAUSES = (0.5, 10.0)
"""Seconds between two tries: the first pause, and the longest; each is twice the one before."""


@dataclass(frozen=True)
class Bucket:
    """A folder in a bucket."""

    uri: str
    """See `orchestrator.study.places.place_of_bucket`."""

    def write(self, name: str, content: bytes, *, spare: str = "") -> None:  # noqa: ARG002
        """See `Depot`; no object is ever torn, so that none is spared."""

        def put(filesystem: Any, path: str) -> None:
            with filesystem.open_output_stream(path) as stream:
                stream.write(content)

        self._patiently("written", put, name)

    def read(self, name: str) -> bytes | None:
        """See `Depot`."""
        with contextlib.suppress(FileNotFoundError):
            return self._patiently("read", _content, name)
        return None

    def names(self) -> list[str]:
        """See `Depot`."""
        return self._patiently("listed", _names)

    def folders(self) -> list[str]:
        """See `Depot`."""
        return self._patiently("listed", _folders)

    def below(self, folder: str) -> "Bucket":
        """See `Depot`."""
        place, mark, query = self.uri.partition("?")
        return Bucket(f"{place}/{folder}{mark}{query}")

    def drop(self) -> None:
        """See `Depot`."""
        with contextlib.suppress(FileNotFoundError):
            self._patiently("deleted", _drop)

    def tidy(self, *spares: str) -> None:
        """Nothing: there are none."""

    def fetch(self, home: Path) -> list[str]:
        """Copies all files into a folder of this machine's; their names.

        Raises:
            DiskFull: there was no room, nor was any made.
            BucketAway: the bucket did not answer in time.
        """
        fetched = []
        for name in self.names():
            content, path = self.read(name), home / name
            if content is not None:
                await_room(path, functools.partial(files.write, path, content))
                fetched.append(name)
        return fetched

    def lacks(self, name: str) -> BucketAway:
        """The error that a file is missing or altered which a worker wrote."""
        return BucketAway(
            f"a bucket must keep what the workers write, but {self.where(name)} is missing, or "
            "another than was written; nothing is lost: the same command trains the trial again"
        )

    def local(self) -> Path:
        """See `Depot`; one copy serves the process as long as it lives."""
        return _copied(self)

    def where(self, name: str) -> str:
        """See `Depot`."""
        return f"{self}/{name}".rstrip("/")

    def __str__(self) -> str:
        """The URI without its options."""
        return self.uri.partition("?")[0]

    def check(self) -> None:
        """Writes, lists, reads and deletes a file, once, without patience.

        Raises:
            StorageError: one of these is not possible; the message says which, and why.
        """
        probe, step = self.below(f"probe-{uuid.uuid4().hex}"), "written"
        try:
            filesystem, path = _opened(probe.uri)
            with filesystem.open_output_stream(f"{path}/file") as stream:
                stream.write(b"isoflop")
            step = "listed"
            listed = _names(filesystem, path)
            step = "read"
            content = _content(filesystem, f"{path}/file")
            with contextlib.suppress(FileNotFoundError):  # where it may not be listed, this is 403
                _content(filesystem, f"{path}/none")
            step = "deleted"
            _drop(filesystem, path)
            if listed != ["file"] or content != b"isoflop":
                raise OSError("it gave something else than was written")
        except (OSError, ValueError) as error:
            raise StorageError(
                f"--bucket must be a bucket whose objects can be written, listed, read and "
                f"deleted, but {self} could not be {step}: {_reason(error)}; check its name, the "
                "server and the rights of the keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from None

    def _patiently(self, done: str, call: Callable[[Any, str], T], name: str = "") -> T:
        """What a call with the file system and a path returns, tried again while it fails.

        Raises:
            FileNotFoundError: there is no such file.
            BucketAway: it failed for `PATIENCE` seconds.
        """
        deadline, pause = 0.0, PAUSES[0]
        while True:
            try:
                filesystem, path = _opened(self.uri)
                result = call(filesystem, f"{path}/{name}" if name else path)
            except FileNotFoundError:
                raise
            except OSError as error:
                reason = _reason(error)
            else:
                if deadline:
                    logger.warning("%s answers again", self)
                return result
            now = time.monotonic()
            if not deadline:
                deadline = now + PATIENCE
                logger.warning(
                    "%s cannot be %s (%s); waiting %.3g s for it",
                    self.where(name),
                    done,
                    reason,
                    PATIENCE,
                )
            if now >= deadline:
                raise BucketAway(
                    f"the bucket must answer, but {self.where(name)} could not be {done} for "
                    f"{PATIENCE:g} s: {reason}; nothing is lost: the same command resumes"
                )
            time.sleep(min(pause, max(0.0, deadline - now)))
            pause = min(2 * pause, PAUSES[1])


def _opened(uri: str) -> tuple[Any, str]:
    """The file system of a URI, and the path in it."""
    place, _, query = uri.partition("?")
    path = place.partition("://")[2]
    return _store(path.partition("/")[0], query), path


@functools.lru_cache(maxsize=8)
def _store(bucket: str, query: str) -> Any:
    """The file system of a bucket: a client with connections of its own."""
    from pyarrow import fs  # noqa: PLC0415  # half a second, which a study in a folder need not take

    # with a delayed opening, a small object takes one request instead of three
    options = f"{query}{'&' if query else ''}allow_delayed_open=true"
    return fs.FileSystem.from_uri(f"s3://{bucket}?{options}")[0]


def _content(filesystem: Any, path: str) -> bytes:
    with filesystem.open_input_stream(path) as stream:
        return bytes(stream.read())


def _names(filesystem: Any, path: str) -> list[str]:
    from pyarrow import fs  # noqa: PLC0415

    listed = filesystem.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    return sorted(
        each.path.removeprefix(f"{path}/") for each in listed if each.type == fs.FileType.File
    )


def _folders(filesystem: Any, path: str) -> list[str]:
    from pyarrow import fs  # noqa: PLC0415

    listed = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return sorted(each.base_name for each in listed if each.type == fs.FileType.Directory)


def _drop(filesystem: Any, path: str) -> None:
    filesystem.delete_dir(path)


@functools.lru_cache(maxsize=8)
def _copied(bucket: Bucket) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="isoflop-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    bucket.fetch(folder)
    return folder


def _reason(error: Exception) -> str:
    """What a store says, in a line and without the addresses of its requests."""
    text = " ".join(str(error).split()).partition(" (Request ID")[0]
    return text.partition("; Details:")[0][:300]
