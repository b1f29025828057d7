"""A place that MLflow keeps runs in: whether it can be used, and whose it is."""

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from methods.errors import StorageError, StudyError
from orchestrator.record.address import Address, bounded
from orchestrator.store.artefacts import FOLDER, folder_of
from orchestrator.store.reading.failures import busy, is_storage, reason, storage_errors
from orchestrator.store.reading.runs import (
    SCHEMA,
    Experiment,
    check_schema,
    experiment_of,
    reader,
    refuse_deleted,
)
from orchestrator.store.reading.sqlite import BUSY, copy_aside, readable

logger = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds for which a store may take to give its first answer, names and proxies included."""
DEEPEST = 200
"""Bytes of the longest path that a sweep makes below `--out`, but for the study's name twice."""


def default_uri(out: Path) -> str:
    """The SQLite store that the studies of one folder share."""
    return Address.of_file(out / "mlflow.db").url


def check_folder(out: Path, study: str = "") -> None:
    """Refuses an output folder before anything is written into it.

    Raises:
        StorageError: it cannot be written, or its name cannot be used.
    """
    path = out.absolute()
    try:
        str(path).encode()
        nearest = next(place for place in (path, *path.parents) if place.exists())
        limit = os.pathconf(nearest, "PC_PATH_MAX") - DEEPEST - 2 * len(study.encode())
    except (OSError, UnicodeEncodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise StorageError(
            f"--out must be a folder that can be written, but {_short(path)} cannot be: {why}"
        ) from None
    if len(os.fsencode(path)) > limit:
        raise StorageError(
            f"--out must have a path of {limit} bytes at most, but {_short(path)} has "
            f"{len(os.fsencode(path))}"
        )
    longest = os.pathconf(nearest, "PC_NAME_MAX")
    for part in path.relative_to(nearest).parts:
        if len(os.fsencode(part)) > longest:
            raise StorageError(
                f"--out must have names of {longest} bytes at most, but {_short(Path(part))} has "
                f"{len(os.fsencode(part))}"
            )
    if not is_writable(nearest):
        raise StorageError(f"--out must be a folder that can be written, but {nearest} is not")


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder."""
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def check(uri: str, *, reading: bool = False) -> None:
    """Refuses a store that cannot be used, within seconds; `reading` asks for no right to write.

    Raises:
        StorageError: a file or a folder without the rights, a server that does not answer, or a URI
            of another kind.
        StudyError: there is no such file to read.
    """
    address = Address(uri)
    if address.is_file:
        _check_file(address, reading=reading)
    elif address.is_server or address.scheme.partition("+")[0] in {"postgresql", "mysql", "mssql"}:
        _check_server(address)
    else:
        raise StorageError(
            "an MLflow URI starts with sqlite:///, http://, https:// or postgresql://, but got "
            f"{str(address)!r}"
        )


def claim(uri: str, study: str, study_hash: str) -> str:
    """The id of the study's experiment, made if it is missing.

    Raises:
        StudyError: the name belongs to a study of another hash, or was deleted in MLflow.
        StorageError: the store cannot be used.
    """
    address = Address(uri)
    with storage_errors(uri), _alone(address):
        _make_file(address)
        experiment = reader(uri).experiment(study)
        if experiment is None:
            if (number := _created(uri, study, study_hash)) is not None:
                return number
            experiment = experiment_of(reader(uri), study)  # another driver was faster
        _refuse_other(experiment, study_hash)
        if address.is_file:
            _move_in(address.file, experiment)
    return experiment.experiment_id


def _created(uri: str, study: str, study_hash: str) -> str | None:
    """The id of a new experiment; None where there is one of this name by now."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415, who only reads needs no MLflow

    from orchestrator.store.client import KIND, connect  # noqa: PLC0415

    address = Address(uri)
    tags = {"study_hash": study_hash, "isoflop_schema": str(SCHEMA), **KIND}
    place = folder_of(address.file, study).as_uri() if address.is_file else None
    try:
        return str(connect(uri).create_experiment(study, place, tags))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return None


def _refuse_other(experiment: Experiment, study_hash: str) -> None:
    """Refuses an experiment that is not this study's, or that was deleted."""
    check_schema(experiment)
    study, its_hash = experiment.name, experiment.tags.get("study_hash")
    if its_hash != study_hash:
        raise StudyError(
            f"the name {study!r} is taken in this MLflow store by a different study (hash "
            f"{its_hash}, this one has {study_hash}); give it another name, or another store with "
            "--mlflow"
        )
    refuse_deleted(experiment)


def _move_in(file: Path, experiment: Experiment) -> None:
    """Makes MLflow's tables name the folder beside the file, after the store was moved or copied.

    isoflop does not need it, but MLflow's own pages do.
    """
    here = folder_of(file, experiment.name).as_uri()
    there = str(experiment.artifact_location)
    if there == here or not there.endswith(f"/{FOLDER}/{experiment.name}"):
        return
    with contextlib.closing(sqlite3.connect(file, timeout=BUSY)) as database, database:
        database.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
            (here, int(experiment.experiment_id)),
        )
        database.execute(
            "UPDATE runs SET artifact_uri = ? || '/' || run_uuid || '/artifacts' "
            "WHERE experiment_id = ?",
            (here, int(experiment.experiment_id)),
        )
    logger.warning("the store was moved here from %s; its files are those beside it", there)


def _check_file(address: Address, *, reading: bool) -> None:
    file = address.file
    try:
        exists = file.exists()
        nearest = next(folder for folder in file.parents if folder.exists())
    except OSError as error:
        raise StorageError(
            f"the MLflow store must be a file, but {_short(file)} cannot be: {error.strerror}"
        ) from None
    if reading and not exists:
        raise StudyError(
            f"{file} must be a store of studies, but there is none; `isoflop run` creates one, "
            "--out or --mlflow names another"
        )
    if reading and not os.access(file, os.R_OK):
        raise StorageError(f"the MLflow store must be a file that can be read, but {file} is not")
    if not reading and not (is_writable(nearest) and (not exists or os.access(file, os.W_OK))):
        place = file if exists and is_writable(nearest) else nearest
        raise StorageError(f"the MLflow store must be writable, but {place} is not")
    if exists:
        _check_tables(address, reading=reading)


def _check_tables(address: Address, *, reading: bool) -> None:
    """Refuses what is no SQLite file, or holds nothing of MLflow's to read."""
    file = address.file
    try:
        tables = _tables(address)
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise busy(address.url) from None
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if not reading or code not in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}:
            raise StorageError(f"{file} must be an SQLite database, but: {error}") from None
        try:
            copy_aside(file)
            tables = _tables(address)
        except (OSError, sqlite3.Error) as why:
            raise StorageError(
                f"{file} must be readable without a change, or have space for a copy in the folder "
                f"of temporary files, but: {why}"
            ) from None
    if reading and "experiments" not in tables:
        raise StorageError(f"{file} must be a store of MLflow's, but holds no experiments")


def _tables(address: Address) -> set[str]:
    patience = float(address.query.get("timeout", BUSY))
    with contextlib.closing(sqlite3.connect(readable(address.file), timeout=patience)) as database:
        return {name for (name,) in database.execute("SELECT name FROM sqlite_master")}


def _check_server(address: Address) -> None:
    from orchestrator.store.client import connect, ping  # noqa: PLC0415, a file needs no MLflow

    def ask() -> None:
        if address.is_server:
            connect(address.url).search_experiments(max_results=1)
        else:
            ping(address)  # an empty database gets its tables when a study claims it

    try:
        bounded(ask, PATIENCE)
    except Exception as error:
        if not (is_storage(error) or isinstance(error, ValueError)):
            raise
        raise StorageError(
            f"the MLflow server {address} must answer, but: {reason(error, address.url)}; --mlflow "
            "names another, and without it the store is a local file"
        ) from None


@contextlib.contextmanager
def _alone(address: Address) -> Iterator[None]:
    """One process at a time makes a file's tables and experiments; a server sees to it itself."""
    if not address.is_file:
        yield
        return
    folder = address.file.parent
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "mlflow.db.lock"):
        yield


def _make_file(address: Address) -> None:
    """An empty store, made aside and renamed: MLflow cannot finish tables that a kill cut off."""
    if not address.is_file or address.file.exists():
        return
    from mlflow import MlflowClient  # noqa: PLC0415, a file that exists needs none

    from orchestrator.store.client import file_uri  # noqa: PLC0415

    aside = address.file.with_name(f"{address.file.name}.new")
    for left in (aside, aside.with_name(f"{aside.name}-journal")):
        left.unlink(missing_ok=True)
    MlflowClient(file_uri(Address.of_file(aside))).search_experiments(max_results=1)
    aside.rename(address.file)


def _short(path: Path) -> str:
    """A path for a message, be it thousands of characters or not of Unicode."""
    text = str(path).encode(errors="backslashreplace").decode()
    return text if len(text) <= 200 else f"{text[:90]}...{text[-90:]}"
