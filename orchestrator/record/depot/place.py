"""The files of trials by name, and the folder that holds them where all machines see one."""

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from methods import files


class Depot(Protocol):
    """A place for files; a name is relative to it, with slashes, as `trials/dense-00001/last.pt`.

    Any number of processes may use it at once, and a file is whole or absent whatever dies.
    """

    def write(self, name: str, content: bytes, *, spare: str = "") -> None:
        """Writes a file. Where one that was written earlier may be torn by a crash of the machine,
        it is kept under the name `spare`, if that is given.

        Raises:
            OSError: a folder has no room for it, or cannot be written.
            BucketAway: the bucket did not answer in time.
        """

    def read(self, name: str) -> bytes | None:
        """A file's content; None where there is none.

        Raises:
            OSError: a folder's file cannot be read.
            BucketAway: the bucket did not answer in time.
        """

    def names(self) -> list[str]:
        """All files, those in folders included."""

    def folders(self) -> list[str]:
        """The folders in it."""

    def below(self, folder: str) -> Self:
        """A folder in it, which need not exist."""

    def drop(self) -> None:
        """Deletes all files in it."""

    def tidy(self, *spares: str) -> None:
        """Deletes these files, and what writes that died have left."""

    def local(self) -> Path:
        """A folder of this machine's with all files, to import from."""

    def where(self, name: str) -> str:
        """The place of a file, for people."""


@dataclass(frozen=True)
class Folder:
    """A folder that every machine sees under this path."""

    path: Path

    def write(self, name: str, content: bytes, *, spare: str = "") -> None:
        """See `Depot`."""
        previous = self.path / spare if spare else None
        files.write(self.path / name, content, previous=previous)

    def read(self, name: str) -> bytes | None:
        """See `Depot`."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        """See `Depot`."""
        return [
            file.relative_to(self.path).as_posix()
            for file in self.path.rglob("*")
            if file.is_file() and not file.match(files.UNFINISHED)
        ]

    def folders(self) -> list[str]:
        """See `Depot`."""
        return sorted(path.name for path in self.path.glob("*"))

    def below(self, folder: str) -> "Folder":
        """See `Depot`."""
        return Folder(self.path / folder)

    def drop(self) -> None:
        """See `Depot`."""
        shutil.rmtree(self.path, ignore_errors=True)

    def tidy(self, *spares: str) -> None:
        """See `Depot`."""
        for left in (*map(self.path.joinpath, spares), *self.path.glob(files.UNFINISHED)):
            with contextlib.suppress(FileNotFoundError):
                left.unlink()

    def local(self) -> Path:
        """See `Depot`."""
        return self.path

    def where(self, name: str) -> str:
        """See `Depot`."""
        return str(self.path / name)
