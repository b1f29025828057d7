"""The files of MLflow's runs: beside the SQLite file that was opened, or where a server has them.

MLflow writes absolute locations into its tables; those of a store that was moved or copied name the
folder that it came from. They are not followed: beside an SQLite file `mlartifacts/STUDY/RUN` is
read and written, and nothing else.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlparse

from methods import files
from methods.errors import StorageError
from orchestrator.record.address import Address

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER = "mlartifacts"
"""The folder of all studies' files beside an SQLite store."""


class Artefacts(Protocol):
    """The files of one study's runs, by their names: paths with `/` below the run's folder."""

    def names(self, run_id: str) -> list[str]:
        """All files of a run."""
        ...

    def read(self, run_id: str, name: str) -> bytes:
        """A file's content.

        Raises:
            OSError, MlflowException: there is no such file, or it cannot be read.
        """
        ...

    def write(self, run_id: str, name: str, content: bytes) -> None:
        """Adds a file, or replaces it."""
        ...


def artefacts_of(uri: str, study: str, location: str) -> Artefacts:
    """Where the files of a study's runs are; `location` is what its experiment says.

    Raises:
        StorageError: an SQLite file's study has them elsewhere.
    """
    address, local = Address(uri), _local(location)
    if not address.is_file:
        from orchestrator.store.client import connect  # noqa: PLC0415, a file needs no MLflow

        return _Remote(connect(uri), local if address.is_database else None)
    if local is None:
        raise StorageError(
            f"the files of study {study!r} must lie beside {address.file}, but lie at "
            f"{location}; open the study through its MLflow server: --mlflow http://..."
        )
    return _Local(_beside(address.file, local, study))


def folder_of(file: Path, study: str) -> Path:
    """The folder of a study's files beside an SQLite store."""
    return file.parent / FOLDER / study


class _Local:
    """Files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self, run_id: str) -> list[str]:
        folder = self._of(run_id)
        return sorted(
            file.relative_to(folder).as_posix()
            for file in folder.rglob("*")
            if file.is_file() and not file.match(files.UNFINISHED)
        )

    def read(self, run_id: str, name: str) -> bytes:
        return (self._of(run_id) / name).read_bytes()

    def write(self, run_id: str, name: str, content: bytes) -> None:
        files.write(self._of(run_id) / name, content)

    def _of(self, run_id: str) -> Path:
        return self._folder / run_id / "artifacts"


class _Remote:
    """Files that MLflow's client fetches and sends."""

    def __init__(self, client: "MlflowClient", folder: Path | None) -> None:
        self._client = client
        self._folder = folder
        """Where the machine that began the study keeps them, if no server does."""

    def names(self, run_id: str, folder: str | None = None) -> list[str]:
        names: list[str] = []
        for item in self._client.list_artifacts(run_id, folder):
            names += self.names(run_id, item.path) if item.is_dir else [item.path]
        return sorted(names)

    def read(self, run_id: str, name: str) -> bytes:
        if self._folder is not None and not self._folder.exists():
            raise StorageError(
                f"the study's files must lie in {self._folder}, where the machine that ran it put "
                "them, but are not here; a database does not hold files, an MLflow server does"
            )
        with tempfile.TemporaryDirectory() as folder:
            return Path(self._client.download_artifacts(run_id, name, folder)).read_bytes()

    def write(self, run_id: str, name: str, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / Path(name).name
            file.write_bytes(content)
            self._client.log_artifact(run_id, str(file))


def _local(location: str) -> Path | None:
    """The path that an artefact location names, or None where it is no path."""
    parts = urlparse(location)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if parts.scheme else Path(location)


def _beside(file: Path, old: Path, study: str) -> Path:
    """A study's folder beside the store; `old` is where it was when the study began.

    Raises:
        StorageError: a server was told to keep the files elsewhere.
    """
    if old.parts[-2:] == (FOLDER, study):
        return folder_of(file, study)
    if old.is_relative_to(file.parent):
        return old
    for count in range(len(old.parts) - 1, 1, -1):  # a server's own layout, moved with the file
        moved = file.parent.joinpath(*old.parts[-count:])
        if moved.is_dir():
            return moved
    raise StorageError(
        f"the files of study {study!r} must lie beside {file}, but were written to {old}; open the "
        "study through its MLflow server: --mlflow http://..."
    )
