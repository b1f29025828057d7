"""What goes wrong with a store, in one line without its password; to import it loads no MLflow."""

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from methods.errors import DatabaseAway, DiskFull, StorageError
from methods.files import NO_ROOM
from orchestrator.record.address import Address

WORDS = 300
"""Characters of a library's error that are worth repeating."""
LIBRARIES = ("mlflow", "sqlalchemy")
"""Libraries whose errors are a store's."""
REFUSALS = {
    "401": (
        "it asks for a user and a password, and knows none such (401); set "
        "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    ),
    "403": (
        "your user may not do that (403); a study belongs to the user who began it, so give yours "
        "another name, or ask those who run MLflow for the permission"
    ),
}
"""State of HTTP -> what MLflow means by it where it asks for passwords."""


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
    except Exception as error:
        if not is_storage(error):
            raise
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


def is_storage(error: Exception) -> bool:
    """Whether an error is a store's: MLflow's, SQLAlchemy's, SQLite's or the system's."""
    packages = {each.__module__.partition(".")[0] for each in type(error).__mro__}
    return isinstance(error, OSError | ImportError | sqlite3.Error) or not packages.isdisjoint(
        LIBRARIES
    )


def busy(uri: str) -> DatabaseAway:
    """The error of an SQLite file that another program holds for long."""
    return DatabaseAway(
        f"the MLflow store {Address(uri)} must be free, but another program holds its lock; the "
        "same command works once it is released"
    )


def reason(error: Exception, uri: str) -> str:
    """A library's words in one line; but MLflow calls a database of a newer MLflow out of date."""
    revision = re.search(r"found version (\w+), but expected", str(error))
    if revision and not _knows(revision[1]):
        return (
            f"its tables must be those of MLflow {version('mlflow')} or older, but a newer MLflow "
            f"made them (revision {revision[1]}); install that version, or newer"
        )
    refusal = re.search(r"(?:error code |^)(401|403)\b", str(error))
    if refusal and "Invalid Host" not in str(error):
        return REFUSALS[refusal[1]]
    cause = str(getattr(error, "orig", None) or error).rpartition("Caused by ")[2]
    text = " ".join(Address(uri).redact(cause).split())
    return text if len(text) <= WORDS else f"{text[:WORDS]}..."


def _knows(revision: str) -> bool:
    """Whether the installed MLflow has this revision of its tables."""
    package = find_spec("mlflow")
    assert package is not None, "isoflop needs it"
    assert package.origin is not None, "it is a package with a file"
    migrations = Path(package.origin).parent / "store" / "db_migrations" / "versions"
    return bool(list(migrations.glob(f"{revision}_*.py")))
