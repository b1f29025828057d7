"""MLflow's client, bounded in time."""

import functools
import logging
import os
import sqlite3
from pathlib import Path

# MLflow's own retries block one write for 246 s, and send what may have arrived a second time.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # it prints the password, too
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from methods.errors import StorageError
from orchestrator.record.address import Address
from orchestrator.store import silence
from orchestrator.store.reading.sqlite import readable

event.listen(Engine, "do_connect", silence.connection)
logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # our errors say it in a line

KIND = {"mlflow.experimentKind": "custom_model_development"}
"""The experiment's tag by which MLflow opens it on its runs, not on an empty page of traces."""
PASSING = (401, 403, 408, 429)
"""HTTP states that a change of the server's settings ends; other 4xx are final."""


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


@functools.cache
def _alias(folder: str) -> str:
    """A path of a folder without the characters of a URL, good for this process."""
    if not Path("/proc/self/fd").is_dir():
        raise StorageError(
            f"a folder of an SQLite store must be without % and ? here, but got {folder!r}"
        )
    return f"/proc/self/fd/{os.open(folder, os.O_RDONLY | os.O_DIRECTORY)}"


def passing(error: Exception) -> bool:
    """Whether the same write may succeed later: the server is away, busy or denies access."""
    if isinstance(error, MlflowException):
        status = int(error.get_http_status_code())  # type: ignore[no-untyped-call]
        return not 400 <= status < 500 or status in PASSING
    if (response := getattr(error, "response", None)) is not None:  # an artefact's, by requests
        return not 400 <= response.status_code < 500 or response.status_code in PASSING
    if isinstance(error, OperationalError | sqlite3.OperationalError):
        return True
    lasting = (PermissionError, FileNotFoundError, NotADirectoryError, IsADirectoryError)
    return isinstance(error, OSError) and not isinstance(error, lasting)
