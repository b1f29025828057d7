"""The ledger of planned, started and ended trials on disk: a history, its log, Optuna's journal,
and the lock.

Nothing is lost when any process dies. A search trial exists once it stands in Optuna's journal,
with its parameters; its end is logged before Optuna hears it, and told to it at the next start if
it had not. Interrupted trials stay RUNNING in the journal and are served again under their name;
what dies at every start fails.
"""

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from optuna.trial import FrozenTrial
from pydantic import ValidationError

from methods import files
from methods.errors import StorageError, StudyError
from orchestrator.record import evidence
from orchestrator.record.depot import Bucket, depot_of
from orchestrator.record.depot.lent import KEY, encode_lent, mark, refuse_other_bucket
from orchestrator.record.events import End, Event, Start
from orchestrator.record.history import History
from orchestrator.record.journal import Journal
from orchestrator.record.log import Log
from orchestrator.record.trials import OPENING, running
from orchestrator.study.file import Study
from orchestrator.study.identity import number_of, search_of, trial_name
from orchestrator.study.space import Space, searches

logger = logging.getLogger(__name__)

LOOK = 0.1
"""Seconds for which `held` may stand in a driver's way, and more."""


@dataclass(frozen=True)
class Planned:
    """As many confirm runs are planned by now; told to listeners, no part of the record."""

    confirm: int | None
    """None where further searches have begun, whose choices are not known yet."""
    searches: int | None = None
    """Searches that have begun, of all methods; None: the study's own."""


@dataclass(frozen=True)
class Doing:
    """What the driver does from now on; told to listeners, no part of the record."""

    what: str
    """In words, as "Starting Ray on this machine"; '' while trials run."""
    done: int = 0
    total: int = 0
    """Steps, where they are counted."""


@dataclass(frozen=True)
class Resumed:
    """All events so far happened in an earlier run; told to listeners, no part of the record."""


News = Event | Planned | Doing | Resumed
Listener = Callable[[News], None]


class Ledger:
    """The one writer of a study's folder; a second driver is refused.

    It is the `Book` of its history: what happens there stands in the log before it holds.

    Raises:
        StorageError: the folder cannot be written, or another driver holds it.
        StudyError: the folder belongs to another study of the same name.
    """

    def __init__(
        self,
        folder: Path,
        study: Study,
        *,
        optuna: str | None = None,
        bucket: str | None = None,
        patience: float = 0,
    ) -> None:
        self.folder = folder.absolute()
        self.listeners: list[Listener] = []
        self.bucket, self.depot = bucket, depot_of(self.folder, bucket)
        """Where the trials keep their files."""
        self._lock, self.study = _claimed(self.folder, study, bucket, patience)
        self._log = Log(self.wal)
        try:
            spaces = searches(self.study)
            self._journal = Journal(
                self.folder / "optuna.journal",
                self.study.name,
                spaces,
                optuna,
                more=self.study.confirm.race and self.study.search.repeats > 1,
            )
        except StorageError:
            self._log.close()
            self._lock.close()
            raise
        try:
            self.history = self._recorded(spaces)
            # a driver may have died before it did so
            for trial in self.depot.below("trials").folders():
                record = self.history.records.get(trial)
                if record is not None and record.end is not None:
                    self._tidy(record.start)
        except StorageError:
            self.close()
            raise

    @property
    def wal(self) -> Path:
        """The write-ahead log."""
        return self.folder / "wal.jsonl"

    def close(self) -> None:
        """Let another driver in."""
        self._journal.close()
        self._log.close()
        self._lock.close()

    def commit(self, search: str, trial: FrozenTrial) -> None:
        """A new trial of a search: into Optuna's journal."""
        self._journal.add(search, trial)

    def write(self, event: Event) -> Event:
        """An event that is about to hold: into the log, with its time.

        The files of a confirm run stand in the study's folder before its end does in the log.
        """
        if isinstance(event, End):
            self._fetch(event)
        if not event.time:
            event = dataclasses.replace(event, time=time.time_ns() // 1_000_000)
        self._log.append(event)
        return event

    def applied(self, event: Event) -> None:
        """An event that holds: told to Optuna if it is the end of a search trial, and to all."""
        if isinstance(event, End):
            start = self.history.records[event.trial].start
            if start.role == "search":
                search = search_of(event.trial)
                trial = self.history.trial(search, number_of(event.trial))
                self._journal.end(search, trial)
            self._tidy(start)
        self.announce(event)

    def _tidy(self, start: Start) -> None:
        """Drop the checkpoints of a trial that ended, but the last one of a confirm run."""
        trial = self.depot.below("trials").below(start.trial)
        if start.role == "search":
            trial.drop()
        else:
            trial.tidy("previous.pt")

    def _fetch(self, end: End) -> None:
        """Copy what a confirm run leaves in a bucket into the study's folder.

        Raises:
            BucketAway: it did not answer in time, or does not hold what the worker put there.
        """
        searched = self.history.records[end.trial].start.role == "search"
        if searched or not isinstance(self.depot, Bucket):
            return
        trials = self.depot.below("trials").below(end.trial)
        names = trials.fetch(self.folder / "trials" / end.trial)
        if end.evidence:
            evidence.fetch(self.depot, self.folder, end.trial, end.evidence)
            if "last.pt" not in names:
                raise trials.lacks("last.pt")

    def replay(self, listener: Listener) -> None:
        """Tell a listener all that happened so far; it hears the rest as it happens."""
        for record in self.history.records.values():
            for event in (record.start, *record.curve[-1:], record.end):
                if event is not None:
                    listener(event)
        listener(Resumed())
        self.listeners.append(listener)

    def announce(self, news: News) -> None:
        """Tell the listeners."""
        for listener in self.listeners:
            listener(news)

    def _recorded(self, opened: Mapping[str, Space]) -> History:
        """What the log tells, brought to one state with Optuna's journal.

        Raises:
            StorageError: log and journal are not of one and the same sweep.
        """
        stored = self._journal.trials()
        events = list(self._log.events())
        history = History(self.study, _as_begun(opened, stored, events), book=self)
        for search, trials in stored.items():
            for trial in trials:
                known = running(trial.params, trial.distributions, trial.user_attrs)
                known.datetime_start = trial.datetime_start
                history.commit(search, known)
        for event in events:
            history.apply(event)
        history.abandon()
        self._refuse_others(history, stored)
        for search, trials in stored.items():
            for trial in trials:
                ended = history.trial(search, trial.number)
                if ended.state.is_finished() and not trial.state.is_finished():
                    self._journal.end(search, ended)
        return history

    def _refuse_others(self, history: History, stored: Mapping[str, list[FrozenTrial]]) -> None:
        """Optuna's trials and the log's must be of one and the same sweep."""
        known = {
            trial_name(search, trial.number): trial.state.is_finished()
            for search, trials in stored.items()
            for trial in trials
        }
        started = {
            name for name, record in history.records.items() if record.start.role == "search"
        }
        if started - known.keys():
            raise StorageError(
                f"{self._journal.place} must hold the trials that {self.wal} records, but "
                f"{min(started - known.keys())} is missing; name the storage that the study began "
                "with"
            )
        lacking = {name for name, ended in known.items() if ended and not history.ended(name)}
        if lacking:
            raise StorageError(
                f"{self.wal} must record the trials in {self._journal.place}, but "
                f"{min(lacking)} is missing; name the folder that the study began in, or give the "
                "study another name"
            )


def recorded(folder: Path, study: Study) -> Study:
    """The study, under the hash that its folder records; writes nothing.

    Raises:
        StudyError: the folder belongs to another study of the same name.
    """
    written = folder / "study.json"
    if not written.exists():
        return study
    content = json.loads(written.read_text())
    study_hash = content.pop("hash")
    content.pop(KEY, None)
    with contextlib.suppress(ValidationError):
        first = Study.model_validate(content)
        if first.hash == study.hash:  # an earlier version told 1 from 1.0
            study = first.model_copy(update={"resources": study.resources}).known_as(study_hash)
    if study_hash != study.hash:
        raise StudyError(
            f"the name {study.name!r} is taken in {folder.parent} by a different study "
            f"(hash {study_hash}, this one has {study.hash}); give this one another name, "
            "or another folder with --out"
        )
    return study


def _as_begun(
    opened: Mapping[str, Space], stored: Mapping[str, list[FrozenTrial]], events: Iterable[Event]
) -> dict[str, Space]:
    """The spaces in which the study began: an earlier version may have had other fields."""
    starts: dict[str, Start] = {}
    outside = {
        trial_name(search, trial.number)
        for search, trials in stored.items()
        for trial in trials
        if OPENING in trial.user_attrs
    }
    for event in events:
        if isinstance(event, Start) and event.role == "search" and event.trial not in outside:
            starts.setdefault(search_of(event.trial), event)
    begun = dict(opened)
    for search, start in starts.items():
        if search in opened and stored[search]:
            begun[search] = opened[search].as_recorded(
                start.params, stored[search][0].distributions
            )
    return begun


def _claimed(
    folder: Path, study: Study, bucket: str | None, patience: float
) -> tuple[TextIO, Study]:
    """The lock of the study's folder, held as long as it is open, and the study as recorded."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+")
    except OSError as error:
        raise StorageError(
            f"{folder} must be a folder that can be written, but: {error.strerror}; "
            "choose another with --out"
        ) from None
    deadline, warned = time.monotonic() + max(patience, LOOK), False
    while not _locked(lock):
        if patience and not warned:
            logger.warning("another driver holds %s; waiting %.3g s for it", folder, patience)
            warned = True
        if time.monotonic() >= deadline:
            lock.seek(0)
            holder = lock.read().strip()
            lock.close()
            raise StorageError(
                f"one driver runs a study at a time, but another one holds {folder}"
                f"{holder and f' ({holder})'}; wait for it, or stop it"
            )
        time.sleep(0.5 if patience else LOOK)
    with contextlib.suppress(OSError):  # the name of the holder is a courtesy
        lock.truncate(0)
        os.write(lock.fileno(), f"process {os.getpid()} on {platform.node()}\n".encode())
    try:
        study = recorded(folder, study)
        refuse_other_bucket(folder, bucket)
        written = folder / "study.json"
        if not written.exists():
            content = {"hash": study.hash, **encode_lent(bucket), **study.model_dump(mode="json")}
            files.write(written, json.dumps(content, indent=1))
        mark(folder)
    except (StorageError, StudyError):
        lock.close()
        raise
    return lock, study


def held(folder: Path) -> bool:
    """Whether a driver runs the study in this folder now, as far as its file system tells."""
    try:
        with (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def driven(folder: Path) -> bool | None:
    """Whether a driver runs the study in this folder, without touching its lock.

    By the kernel's list of locks; None where that cannot tell: the driver that held the lock last
    was on another machine, or in another container.
    """
    try:
        place = folder / "lock"
        inode, machine = place.stat().st_ino, place.read_text().strip().rpartition(" on ")[2]
        if machine not in ("", platform.node()):
            return None
        locks = Path("/proc/locks").read_text().splitlines()
    except FileNotFoundError:
        return False if Path("/proc/locks").exists() else None
    except OSError:
        return None
    return any(" FLOCK " in line and f":{inode} " in line for line in locks)


def _locked(lock: TextIO) -> bool:
    """Whether the lock is ours; it is one between machines where they share the file system.

    Raises:
        StorageError: the file system has no locks, so that nothing keeps two drivers apart.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        lock.close()
        raise StorageError(
            f"--out must be on a file system with locks, but {lock.name}: {error.strerror}; "
            "choose another folder, or mount this one with locks"
        ) from None
    return True
