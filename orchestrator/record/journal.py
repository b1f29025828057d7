"""Optuna's storage: a journal file by default, a database where there is one."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from methods.errors import DatabaseAway, StorageError
from orchestrator.record.log import cut_torn_line, patiently
from orchestrator.study.file import Study


class _Journal(JournalFileBackend):
    """Optuna's journal, which waits while the disk is full and leaves no torn line."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        patiently(self._path, lambda: super(_Journal, self).append_logs(logs))


def _shown(database: str | None) -> str:
    """A database's URL without its password; nothing for none."""
    if not database:
        return ""
    try:
        return make_url(database).render_as_string(hide_password=True)
    except ArgumentError:
        raise StorageError(
            "Optuna's database must be a URL such as postgresql://user:password@host/optuna, but "
            "what was given is none"
        ) from None


def _database(url: str, connections: contextlib.ExitStack) -> optuna.storages.RDBStorage:
    """Optuna's own tables in a database; a connection that was cut is made anew."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    connections.callback(storage.engine.dispose)
    connections.callback(storage.remove_session)
    return storage


@contextlib.contextmanager
def _answers(database: str) -> Iterator[None]:
    """A database that does not answer is a line.

    Raises:
        StorageError: says which, without its password.
    """
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, ImportError) as error:
        cause = error.__cause__ or error
        reason = " ".join(str(getattr(cause, "orig", None) or cause).split())[:300]
        if isinstance(cause, ArgumentError | ImportError):
            raise StorageError(f"Optuna's database {database} cannot be used: {reason}") from None
        raise DatabaseAway(
            f"Optuna's database {database} must answer, but: {reason}; nothing is lost: the same "
            "command goes on"
        ) from None


def _storage(journal: Path) -> optuna.storages.JournalStorage:
    """A journal file as Optuna's storage; a torn last line is cut off first."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for stale in journal.parent.glob(journal.name + ".lock*"):
        stale.unlink()  # our own lock is held: whoever left it is dead
    cut_torn_line(journal)
    return optuna.storages.JournalStorage(_Journal(journal))


def _optuna_studies(storage: optuna.storages.BaseStorage, study: Study) -> dict[str, optuna.Study]:
    """One Optuna study per method, in one storage."""
    return {
        method: optuna.create_study(
            storage=storage,
            study_name=f"{study.name}/{method}",
            directions=["minimize", "minimize"],
            load_if_exists=True,
        )
        for method in study.methods
    }
