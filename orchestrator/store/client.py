"""MLflow's client: bounded in time, with errors in one line, and what a store says of a study."""

import atexit
import contextlib
import functools
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

# MLflow's own retries block one write for 246 s, and send what may have arrived a second time.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # it prints the password, too
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run, ViewType
from mlflow.exceptions import MlflowException
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from methods.errors import DatabaseAway, DiskFull, StorageError, StudyError, nearest
from methods.files import NO_ROOM
from orchestrator.record.address import Address
from orchestrator.store import silence
from orchestrator.store.artefacts import Artefacts

logger = logging.getLogger(__name__)

event.listen(Engine, "do_connect", silence.connection)
logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # our errors say it in a line

LATENCIES = "latencies.json"
"""The artefact of the report's run that holds the latencies of deployed networks."""
SCHEMA = 1
"""Version of what isoflop writes into an experiment, in its tag `isoflop_schema`; without it, 1."""
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""The experiment's tag by which MLflow opens it on its runs, not on an empty page of traces."""
ENDED = ("FINISHED", "FAILED")
"""States of a run that does not resume."""
PASSING = (401, 403, 408, 429)
"""HTTP states that a change of the server's settings ends; other 4xx are final."""
PAGE = 1000
"""Runs that one request to MLflow returns."""
WORDS = 300
"""Characters of a library's error that are worth repeating."""
_COPIES: dict[Path, Path] = {}
"""By file: what `copy_aside` made."""


def connect(uri: str) -> MlflowClient:
    """A client of a store; a database that does not answer costs seconds.

    Raises:
        StorageError: the URI is none of a store.
        SQLAlchemyError, MlflowException, OSError: for `storage_errors`.
    """
    address = Address(uri)
    if address.is_file:
        return MlflowClient(file_uri(address))
    if address.is_database:
        ping(address)
    return MlflowClient(address.client)


def ping(address: Address) -> None:
    """Connect to a database once; MLflow itself tries ten times, silently, for 100 s."""
    engine = create_engine(address.client, poolclass=NullPool)
    engine.connect().close()


def file_uri(address: Address) -> str:
    """The URI of an SQLite file for MLflow, which would make a folder of a quoted path's name."""
    file = readable(address.file)
    folder = str(file.parent)
    if {"%", "?"} & set(folder):
        folder = _alias(folder)
    timeout = f"?timeout={address.query['timeout']}" if "timeout" in address.query else ""
    return f"sqlite:///{folder.rstrip('/')}/{file.name}{timeout}"


def readable(file: Path) -> Path:
    """The SQLite file to open in place of this one: its copy, if one was made."""
    return _COPIES.get(file, file)


def copy_aside(file: Path) -> None:
    """Lets this process read a copy: beside some files SQLite must write, and may not.

    That is one whose last write was cut off, or one with a log of its own (WAL).
    """
    folder = Path(tempfile.mkdtemp(prefix="isoflop-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for ending in ("", "-journal", "-wal"):
        part = file.with_name(f"{file.name}{ending}")
        if part.exists():
            shutil.copyfile(part, folder / part.name)
    _COPIES[file] = folder / file.name


@functools.cache
def _alias(folder: str) -> str:
    """A path of a folder without the characters of a URL, good for this process."""
    if not Path("/proc/self/fd").is_dir():
        raise StorageError(
            f"a folder of an SQLite store must be without % and ? here, but got {folder!r}"
        )
    return f"/proc/self/fd/{os.open(folder, os.O_RDONLY | os.O_DIRECTORY)}"


def experiment_of(client: MlflowClient, study: str) -> Experiment:
    """The study's experiment.

    Raises:
        StudyError: the store holds no study of this name, a deleted one, or one of a newer isoflop.
    """
    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        names = sorted(e.name for e in client.search_experiments() if "study_hash" in e.tags)
        hint = nearest(study, names) if names else "it holds none yet; `isoflop run` creates one"
        raise StudyError(f"this MLflow store holds no study {study!r}; {hint}")
    check_schema(experiment)
    refuse_deleted(experiment)
    return experiment


def refuse_deleted(experiment: Experiment) -> None:
    """Refuses a study that someone deleted in MLflow, which keeps it until its next clean-up.

    Raises:
        StudyError: says how to restore it.
    """
    if experiment.lifecycle_stage != "active":
        raise StudyError(
            f"study {experiment.name!r} was deleted in this MLflow store; restore it with `mlflow "
            f"experiments restore --experiment-id {experiment.experiment_id}` and "
            "MLFLOW_TRACKING_URI set to the store, or give the study another name"
        )


def check_schema(experiment: Experiment) -> None:
    """Refuses what a newer isoflop wrote: tags that it gave another meaning would be misread.

    Raises:
        StudyError: the schema is newer than this one.
    """
    schema = experiment.tags.get("isoflop_schema", "1")
    if not schema.isdecimal() or int(schema) > SCHEMA:
        raise StudyError(
            f"study {experiment.name!r} must be of schema {SCHEMA} or older, but a newer isoflop "
            f"wrote it (schema {schema}); use that version, or newer"
        )


def report_of(client: MlflowClient, experiment: Experiment, artefacts: Artefacts) -> Run:
    """The run `report` of a study; of several, the one that has most of what a sweep writes.

    Raises:
        StudyError: the study has not begun, or its report was deleted.
    """
    query, note = "tags.role = 'report'", experiment.tags.get("mlflow.note.content", "")

    def lacks(run: Run) -> tuple[bool, ...]:
        name, tags = run.info.run_id, run.data.tags
        bare = tags.get("key") != "report", "provenance.json" not in artefacts.names(name)
        return (*bare, f"/runs/{name}/" not in note)  # the experiment's note links the report

    runs = runs_of(client, experiment, query)
    if len(runs) > 1:
        runs = sorted(runs, key=lacks)
        logger.warning(
            "study %r must have one run `report` in MLflow, but has %d, and %s is read; `isoflop "
            "verify %s` compares them",
            *(experiment.name, len(runs), runs[0].info.run_id, experiment.name),
        )
    if runs:
        return runs[0]
    name, deleted = experiment.name, ViewType.DELETED_ONLY
    for run in client.search_runs([experiment.experiment_id], query, deleted, 1):
        raise StudyError(
            f"study {name!r} must have its run `report`, but it was deleted in this MLflow store; "
            f"restore it with `mlflow runs restore --run-id {run.info.run_id}` and "
            "MLFLOW_TRACKING_URI set to the store"
        )
    raise StudyError(f"study {name!r} has not started; `isoflop run` starts it")


def runs_of(client: MlflowClient, experiment: Experiment, query: str) -> list[Run]:
    """All active runs that match, oldest first."""
    return list(each_run(client, experiment, query))


def each_run(client: MlflowClient, experiment: Experiment, query: str) -> Iterator[Run]:
    """Active runs that match, oldest first, so that runs that come meanwhile shift no page."""
    run_ids: set[str] = set()
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
        expected = len(run_ids) + len(page)
        run_ids.update(run.info.run_id for run in page)
        if len(run_ids) != expected:
            raise StorageError(f"MLflow gave runs of {experiment.name} twice; read again")
        yield from page
        token = page.token
        if not token:
            return


@contextlib.contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Turns what goes wrong with a store into one line, without its password.

    Raises:
        DiskFull: the store's disk has no room.
        DatabaseAway: another program holds the store's file.
        StorageError: anything else.
    """
    try:
        yield
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        text = str(error)
        if "disk is full" in text or (isinstance(error, OSError) and error.errno in NO_ROOM):
            raise DiskFull(
                f"the MLflow store {Address(uri)} must have space, but its disk is full; nothing "
                "is lost: free some space, and the same command resumes"
            ) from None
        if "database is locked" in text:
            raise busy(uri) from None
        raise StorageError(
            f"the MLflow store {Address(uri)} cannot be used: {reason(error, uri)}"
        ) from None


def passing(error: Exception) -> bool:
    """Whether the same write may succeed later: the server is away, busy or denies access."""
    if isinstance(error, MlflowException):
        status = int(error.get_http_status_code())  # type: ignore[no-untyped-call]
        return not 400 <= status < 500 or status in PASSING
    if (response := getattr(error, "response", None)) is not None:  # an artefact's, by requests
        return not 400 <= response.status_code < 500 or response.status_code in PASSING
    if isinstance(error, OperationalError):
        return True
    lasting = (PermissionError, FileNotFoundError, NotADirectoryError, IsADirectoryError)
    return isinstance(error, OSError) and not isinstance(error, lasting)


def busy(uri: str) -> DatabaseAway:
    """The error of an SQLite file that another program holds for long."""
    return DatabaseAway(
        f"the MLflow store {Address(uri)} must be free, but another program holds its lock; the "
        "same command works once it is released"
    )


def reason(error: Exception, uri: str) -> str:
    """A library's words in one line; but MLflow calls a database of a newer MLflow out of date."""
    revision = re.search(r"found version (\w+), but expected", str(error))
    migrations = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
    if revision and not list(migrations.glob(f"{revision[1]}_*.py")):
        return (
            f"its tables must be those of MLflow {mlflow.__version__} or older, but a newer MLflow "
            f"made them (revision {revision[1]}); install that version, or newer"
        )
    cause = str(getattr(error, "orig", None) or error).rpartition("Caused by ")[2]
    text = " ".join(Address(uri).redact(cause).split())
    return text if len(text) <= WORDS else f"{text[:WORDS]}..."
