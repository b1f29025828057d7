"""Optuna's storage of search trials: a journal file by default, a database where there is one."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from methods.errors import DatabaseAway, StorageError
from orchestrator.record.log import cut_torn_line, patiently
from orchestrator.study.file import Study


class Journal:
    """One Optuna study per method.

    Raises:
        StorageError: the storage cannot be used.
    """

    def __init__(self, file: Path, study: Study, database: str | None = None) -> None:
        self._database = _shown(database)
        self.place = self._database or str(file)
        """Where the trials are: a path, or a URL without its password."""
        self._connections = contextlib.ExitStack()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            with _answers(self._database):
                storage = _tables(database, self._connections) if database else _lines(file)
                self._studies = {
                    method: optuna.create_study(
                        storage=storage,
                        study_name=f"{study.name}/{method}",
                        directions=["minimize", "minimize"],
                        load_if_exists=True,
                    )
                    for method in study.methods
                }
        except StorageError:
            self.close()
            raise

    def trials(self) -> Mapping[str, list[FrozenTrial]]:
        """Every search trial by method, in the order of their numbers."""
        with _answers(self._database):
            return {
                method: study.get_trials(deepcopy=False) for method, study in self._studies.items()
            }

    def add(self, method: str, trial: FrozenTrial) -> None:
        """Commit a new trial of a method."""
        with _answers(self._database):
            self._studies[method].add_trial(trial)

    def end(self, method: str, trial: FrozenTrial) -> None:
        """Tell Optuna the end of a trial that it holds as running."""
        values = trial.values if trial.state == TrialState.COMPLETE else None
        with _answers(self._database):
            self._studies[method].tell(trial.number, values, trial.state)

    def close(self) -> None:
        """Give the connections back."""
        self._connections.close()


def check(database: str | None) -> None:
    """Refuses a database that cannot be used; writes nothing.

    Raises:
        StorageError: it is no URL, its driver is missing, or nothing answers there.
    """
    if not database:
        return
    shown, url = _shown(database), make_url(database)
    if url.get_backend_name() == "sqlite" and not url.database:
        raise StorageError("Optuna's database must outlive the sweep, but sqlite:// is in memory")
    with _answers(shown):
        engine = create_engine(url)
        try:
            if url.get_backend_name() != "sqlite":  # whose file a connection would make
                engine.connect().close()
        finally:
            engine.dispose()


class _Backend(JournalFileBackend):
    """Optuna's journal file, which waits while the disk is full and leaves no torn line."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        patiently(self._path, lambda: super(_Backend, self).append_logs(logs))


def _lines(journal: Path) -> optuna.storages.BaseStorage:
    """A journal file; a torn last line is cut off first."""
    for stale in journal.parent.glob(journal.name + ".lock*"):
        stale.unlink()  # the lock of the study's folder is held: whoever left this one is dead
    cut_torn_line(journal)
    return optuna.storages.JournalStorage(_Backend(journal))


def _tables(url: str, connections: contextlib.ExitStack) -> optuna.storages.BaseStorage:
    """Optuna's tables in a database; a connection that was cut is opened again."""
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    connections.callback(storage.engine.dispose)
    connections.callback(storage.remove_session)
    return storage


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
            "command resumes the sweep"
        ) from None
