"""Optuna's storage of search trials: a journal file by default, a database where there is one."""

import contextlib
import functools
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import create_engine
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from methods.errors import DatabaseAway, StorageError
from orchestrator.record.address import Address, bounded
from orchestrator.record.log import cut_torn_line, patiently

logger = logging.getLogger(__name__)

T = TypeVar("T")
PATIENCE = 600.0
"""Seconds for which a sweep waits for a database that went away."""
PAUSE = 1.0
"""Seconds between two tries of a write."""
SILENCE = 30.0
"""Seconds without an answer after which a line says so, and a new connection is given up."""
FIRST = 120.0
"""Seconds for Optuna to make or find its tables."""


class Journal:
    """One Optuna study per search; a database that goes away during a sweep is waited for.

    Where `more` searches may follow, those that the storage holds are opened with the others.

    Raises:
        StorageError: the storage cannot be used.
        DatabaseAway: the database does not answer.
    """

    def __init__(
        self,
        file: Path,
        study: str,
        searches: Iterable[str],
        database: str | None = None,
        *,
        more: bool = False,
    ) -> None:
        self._address = Address(database) if database else None
        self.place = str(self._address or file)
        """Where the trials are: a path, or a URL without its password."""
        self._connections = contextlib.ExitStack()
        optuna.logging.set_verbosity(optuna.logging.WARNING)

        self._open: Callable[[str], optuna.Study]
        names, prefix = list(searches), f"{study}/"

        def studies() -> dict[str, optuna.Study]:
            storage = _tables(self._address, self._connections) if self._address else _lines(file)
            self._open = functools.partial(_opened, storage, prefix)
            held = optuna.get_all_study_names(storage) if more else []
            begun = [name.removeprefix(prefix) for name in held if name.startswith(prefix)]
            return {search: self._open(search) for search in dict.fromkeys([*names, *begun])}

        try:
            with _database_errors(self._address):
                if self._address:
                    check(self._address.url)
                self._studies = self._answer(studies, FIRST)
            self._counts = {search: len(trials) for search, trials in self.trials().items()}
        except StorageError:
            self.close()
            raise

    def trials(self) -> Mapping[str, list[FrozenTrial]]:
        """Every search trial by its search, in the order of their numbers.

        Raises:
            DatabaseAway: the database does not answer.
        """

        def trials() -> dict[str, list[FrozenTrial]]:
            return {
                search: study.get_trials(deepcopy=False) for search, study in self._studies.items()
            }

        with _database_errors(self._address):
            return self._answer(trials)

    def add(self, search: str, trial: FrozenTrial) -> None:
        """Commits a new trial of a search, which may be a new one.

        Raises:
            DatabaseAway: the database did not return for `PATIENCE` seconds.
        """
        count = self._counts.get(search, 0)

        def study() -> optuna.Study:
            if search not in self._studies:
                self._studies[search] = self._open(search)
            return self._studies[search]

        self._write(
            lambda: study().add_trial(trial),
            lambda: len(study().get_trials(deepcopy=False)) > count,
        )
        self._counts[search] = count + 1

    def end(self, search: str, trial: FrozenTrial) -> None:
        """Tells Optuna the end of a trial that it holds as running.

        Raises:
            DatabaseAway: the database did not return for `PATIENCE` seconds.
        """
        study = self._studies[search]
        values = trial.values if trial.state == TrialState.COMPLETE else None

        def is_written() -> bool:
            return study.get_trials(deepcopy=False)[trial.number].state.is_finished()

        self._write(lambda: study.tell(trial.number, values, trial.state), is_written)

    def close(self) -> None:
        """Gives the connections back."""
        self._connections.close()

    def _write(self, write: Callable[[], object], is_written: Callable[[], bool]) -> None:
        """Writes, again while the database is away: a write may arrive although it fails."""
        start, failed = time.monotonic(), False
        while True:
            try:
                with _database_errors(self._address):
                    if not failed or not self._answer(is_written):
                        self._answer(write)
            except DatabaseAway as error:
                if time.monotonic() - start >= PATIENCE:
                    raise
                if not failed:
                    logger.warning("%s; waiting %.3g s for it", error, PATIENCE)
                failed = True
                time.sleep(PAUSE)
            else:
                if failed:
                    logger.warning("Optuna's database %s answers again", self.place)
                return

    def _answer(self, call: Callable[[], T], patience: float | None = None) -> T:
        """What the storage answers within `patience` seconds; a frozen server never does.

        Raises:
            TimeoutError: it did not; `PATIENCE` by default.
        """
        if self._address is None or self._address.is_file:
            return call()

        def warn(seconds: float) -> None:
            logger.warning("Optuna's database %s has not answered for %.0f s", self.place, seconds)

        seconds = PATIENCE if patience is None else patience
        return bounded(call, seconds, every=SILENCE, still_waiting=warn)


def check(database: str | None) -> None:
    """Refuses a database that cannot be used, within seconds; writes nothing.

    Raises:
        StorageError: it is no URL, or its driver is missing.
        DatabaseAway: nothing answers there.
    """
    if not database:
        return
    address = Address(database)
    with _database_errors(address):
        engine = create_engine(address.client, poolclass=NullPool)
        if not address.is_file:  # which a connection would make
            bounded(lambda: engine.connect().close(), SILENCE)


class _Backend(JournalFileBackend):
    """Optuna's journal file, which waits while the disk is full and leaves no torn line."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        ends = all(log["op_code"] == JournalOperation.SET_TRIAL_STATE_VALUES for log in logs)
        patiently(
            self._path,
            # an end that a power cut takes is told again, from the log, which has it on disk
            lambda: self._append(logs) if ends else super(_Backend, self).append_logs(logs),
        )

    def _append(self, logs: list[dict[str, Any]]) -> None:
        """As Optuna's, without a wait for the disk; the study's lock is held."""
        lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]
        with self._path.open("ab") as file:
            file.write("".join(lines).encode())


def _opened(storage: optuna.storages.BaseStorage, prefix: str, search: str) -> optuna.Study:
    """Optuna's study of a search; a new one where there is none."""
    return optuna.create_study(
        storage=storage,
        study_name=f"{prefix}{search}",
        directions=["minimize", "minimize"],
        load_if_exists=True,
    )


def _lines(journal: Path) -> optuna.storages.BaseStorage:
    """A journal file; a torn last line is cut off first."""
    for stale in journal.parent.glob(journal.name + ".lock*"):
        stale.unlink()  # the lock of the study's folder is held: whoever left this one is dead
    cut_torn_line(journal)
    return optuna.storages.JournalStorage(_Backend(journal))


def _tables(address: Address, connections: contextlib.ExitStack) -> optuna.storages.BaseStorage:
    """Optuna's tables in a database; a connection that was cut is opened again."""
    storage = optuna.storages.RDBStorage(address.client, engine_kwargs={"pool_pre_ping": True})
    connections.callback(storage.engine.dispose)
    connections.callback(storage.remove_session)
    return storage


@contextlib.contextmanager
def _database_errors(address: Address | None) -> Iterator[None]:
    """Turns a database's errors into one line, without its password.

    Raises:
        DatabaseAway: it does not answer.
        StorageError: it cannot be used at all.
    """
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, ImportError, TimeoutError) as error:
        if address is None:
            raise
        cause = error.__cause__ or error
        text = " ".join(str(getattr(cause, "orig", None) or cause).split())
        reason = address.redact(text)[:300]
        if isinstance(cause, ArgumentError | ImportError):
            raise StorageError(f"Optuna's database {address} cannot be used: {reason}") from None
        raise DatabaseAway(
            f"Optuna's database {address} must answer, but: {reason}; nothing is lost: the same "
            "command resumes the sweep"
        ) from None
