"""A place that MLflow keeps runs in: whether it can be used, whose it is, and what it holds."""

import contextlib
import logging
import os
import re
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

# MLflow's own retries block one write for 246 s, and send what may have arrived a second time.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run, ViewType
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError

from methods.errors import DiskFull, StorageError, StudyError, nearest
from methods.files import NO_ROOM

logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # we tell it, in a line

LATENCIES = "latencies.json"
"""The artefact of the report's run that tells how long deployed networks took."""
SCHEMA = 1
"""Version of what isoflop writes into an experiment, in its tag `isoflop_schema`; without it, 1."""
ENDED = ("FINISHED", "FAILED")
"""States of a run that goes on no more."""
PAGE = 1000
"""Runs that one request to MLflow returns."""


def check(uri: str) -> None:
    """Refuses a store that cannot be used, within seconds.

    Raises:
        StorageError: a folder that cannot be written, a server that does not answer, another kind.
    """
    if uri.startswith("sqlite:///"):
        _check_file(Path(uri.removeprefix("sqlite:///")))
    elif uri.startswith(("http://", "https://")):
        _check_server(uri)
    elif uri.startswith(("postgresql", "mysql", "mssql")):
        try:
            MlflowClient(uri).search_experiments(max_results=1)
        except Exception as error:  # a driver that is missing, a server that is: each its own way
            raise StorageError(f"the MLflow store {uri} cannot be used: {_told(error)}") from None
    else:
        raise StorageError(
            f"an MLflow URI starts with sqlite:///, http:// or https://, but got {uri!r}"
        )


def claim(uri: str, study: str, study_hash: str) -> str:
    """The id of the study's experiment, made if it is missing.

    Raises:
        StudyError: the name belongs to a study of another hash, or was deleted in MLflow.
        StorageError: the store cannot be used.
    """
    with storage_errors(uri), _alone(uri):
        _make_file(uri)
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(study)
        if experiment is None:
            tags = {
                "study_hash": study_hash,
                "isoflop_schema": str(SCHEMA),
                "mlflow.experimentKind": "custom_model_development",
            }
            try:
                return str(client.create_experiment(study, _artifacts(uri, study), tags))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            experiment = experiment_of(client, study)  # another driver was faster
    _readable(experiment)
    found = experiment.tags.get("study_hash")
    if found != study_hash:
        raise StudyError(
            f"the name {study!r} is taken in this MLflow store by a different study (hash {found}, "
            f"this one has {study_hash}); give it another name, or another store with --mlflow"
        )
    if experiment.lifecycle_stage != "active":
        raise StudyError(
            f"study {study!r} was deleted in this MLflow store; bring it back with `mlflow "
            f"experiments restore --experiment-id {experiment.experiment_id}`, or give the study "
            "another name"
        )
    return str(experiment.experiment_id)


def experiment_of(client: MlflowClient, study: str) -> Experiment:
    """The study's experiment.

    Raises:
        StudyError: the store holds no study of this name, or one of a newer isoflop.
    """
    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        held = sorted(e.name for e in client.search_experiments() if "study_hash" in e.tags)
        hint = nearest(study, held) if held else "it holds none; `isoflop run` makes one"
        raise StudyError(f"this MLflow store holds no study {study!r}; {hint}")
    _readable(experiment)
    return experiment


def _readable(experiment: Experiment) -> None:
    """Refuses what a newer isoflop wrote: tags that it gave another meaning would be misread."""
    found = experiment.tags.get("isoflop_schema", "1")
    if not found.isdecimal() or int(found) > SCHEMA:
        raise StudyError(
            f"study {experiment.name!r} must be of schema {SCHEMA} or older, but a newer isoflop "
            f"wrote it (schema {found}); use that version, or newer"
        )


def runs_of(client: MlflowClient, experiment: Experiment, query: str) -> list[Run]:
    """All active runs that match, oldest first."""
    return list(each_run(client, experiment, query))


def each_run(client: MlflowClient, experiment: Experiment, query: str) -> Iterator[Run]:
    """Active runs that match, oldest first, so that runs that come meanwhile shift no page."""
    seen: set[str] = set()
    token = None
    while True:
        page = client.search_runs(
            [experiment.experiment_id],
            query,
            ViewType.ACTIVE_ONLY,
            PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        expected = len(seen) + len(page)
        seen.update(run.info.run_id for run in page)
        if len(seen) != expected:
            raise StorageError(f"MLflow gave runs of {experiment.name} twice; read again")
        yield from page
        token = page.token
        if not token:
            return


def _artifacts(uri: str, study: str) -> str | None:
    """Artefacts lie beside a local store, and where a server keeps them."""
    if not uri.startswith("sqlite:///"):
        return None
    place = Path(uri.removeprefix("sqlite:///")).absolute().parent
    return (place / "mlartifacts" / study).as_uri()


def _check_file(path: Path) -> None:
    place = next(folder for folder in path.absolute().parents if folder.exists())
    written = path if path.exists() else place
    if not place.is_dir() or not os.access(place, os.W_OK) or not os.access(written, os.W_OK):
        raise StorageError(f"the MLflow store must be writable, but {written} is not")
    if path.exists():
        try:
            with contextlib.closing(sqlite3.connect(path)) as database:
                database.execute("SELECT name FROM sqlite_master LIMIT 1")
        except sqlite3.Error as error:
            raise StorageError(f"{path} must be an SQLite database, but: {error}") from None


def _check_server(uri: str) -> None:
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5):
            pass
        MlflowClient(uri).search_experiments(max_results=1)
    except (urllib.error.URLError, OSError, ValueError, MlflowException) as error:
        raise StorageError(
            f"the MLflow server must answer, but {uri} does not: {error}; "
            "start it, or leave --mlflow out for a local store"
        ) from None


@contextlib.contextmanager
def _alone(uri: str) -> Iterator[None]:
    """One process at a time makes a file's tables and experiments; a server sees to it itself."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    folder = Path(uri.removeprefix("sqlite:///")).absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "mlflow.db.lock"):
        yield


def _make_file(uri: str) -> None:
    """An empty store, made aside and renamed: MLflow cannot finish tables that a kill cut off."""
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or path.exists():
        return
    aside = path.with_name(f"{path.name}.new")
    for left in (aside, aside.with_name(f"{aside.name}-journal")):
        left.unlink(missing_ok=True)
    MlflowClient(f"sqlite:///{aside}").search_experiments(max_results=1)
    aside.rename(path)


@contextlib.contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """What goes wrong with a store, in one line."""
    try:
        yield
    except (MlflowException, OperationalError, OSError) as error:
        if "disk is full" in str(error) or (isinstance(error, OSError) and error.errno in NO_ROOM):
            raise DiskFull(
                f"the MLflow store {uri} must have room, but its disk is full; nothing is lost: "
                "make room, and the same command goes on"
            ) from None
        raise StorageError(f"the MLflow store {uri} cannot be used: {_told(error)}") from None


def _told(error: Exception) -> str:
    """MLflow's own words; but it calls a database of a newer MLflow out of date."""
    found = re.search(r"found version (\w+), but expected", str(error))
    migrations = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
    if found and not list(migrations.glob(f"{found[1]}_*.py")):
        return (
            f"its tables must be those of MLflow {mlflow.__version__} or older, but a newer MLflow "
            f"made them (revision {found[1]}); install that version, or newer"
        )
    return str(error)


def default_uri(out: Path) -> str:
    """The SQLite store that the studies of one folder share."""
    return f"sqlite:///{out.absolute() / 'mlflow.db'}"


def writable(out: Path) -> None:
    """Refuse an output folder before anything is written into it.

    Raises:
        StorageError: it cannot be written.
    """
    nearest = next(place for place in (out.absolute(), *out.absolute().parents) if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise StorageError(f"--out must be a folder that can be written, but {nearest} is not")
