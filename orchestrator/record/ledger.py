"""What was planned, started and ended: Optuna's storage, a write-ahead log, and the lock.

Nothing is lost when any process dies. A search trial exists once it stands in Optuna's journal,
with its parameters; its end is logged before Optuna hears it, and told again at the next start if
it did not. Interrupted trials stay RUNNING in the journal and are served again under their name;
what dies at every start fails.
"""

import contextlib
import fcntl
import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from methods import files
from methods.errors import StorageError, StudyError
from orchestrator.record.journal import _answers, _database, _optuna_studies, _shown, _storage
from orchestrator.record.log import Log
from orchestrator.record.rows import Row, not_finite, trial_rows
from orchestrator.record.trials import EPOCHS, OVER, STATES, Record, Ticket
from orchestrator.study.file import Study
from orchestrator.study.params import derive, trial_name
from orchestrator.study.space import Space

logger = logging.getLogger(__name__)


class Ledger:
    """The one writer of a study's folder; a second driver is refused.

    Raises:
        StorageError: the folder cannot be written, or another driver holds it.
        StudyError: the folder belongs to another study of the same name.
    """

    def __init__(
        self, folder: Path, study: Study, *, optuna: str | None = None, patience: float = 0
    ) -> None:
        self.folder = folder.absolute()
        self.study = study
        self.records: dict[str, Record] = {}
        self._first: dict[str, Any] | None = None
        self._effort: Counter[str] = Counter()
        self._ahead: Counter[str] = Counter()
        """Epochs of the search trials without an end, among the effort."""
        self._seconds: Counter[str] = Counter()
        """Device-seconds of the search trials that ended."""
        self.latencies: list[dict[str, Any]] = []
        """How long deployed networks took, as the log tells it."""
        self.searched = 0
        """Ends of search trials so far."""
        self.confirmed = 0
        """Ends of confirm runs so far."""
        self.listeners: list[Callable[[dict[str, Any]], None]] = []
        self._database = _shown(optuna)
        self._connections = contextlib.ExitStack()
        self._lock = _claimed(self.folder, study, patience)
        self._log = Log(self.wal)
        for event in self._log.events():
            self._note(event)
        self.abandon()
        try:
            self._open(optuna)
        except StorageError:
            self.close()
            raise

    def _open(self, database: str | None) -> None:
        """Bring Optuna's storage and the log to one state."""
        with _answers(self._database):
            self._storage: optuna.storages.BaseStorage
            if database:
                self._storage = _database(database, self._connections)
            else:
                self._storage = _storage(self.folder / "optuna.journal")
            self._studies = _optuna_studies(self._storage, self.study)
            self._kept = {m: own.get_trials(deepcopy=False) for m, own in self._studies.items()}
        self._refuse_others()
        self._settled = dict.fromkeys(self._studies, 0)
        self._tell_what_ended()

    def begin(self, provenance: Mapping[str, Any], *, lag: int, device: str) -> int:
        """A driver is about to run trials; the lag of the first one stands for all.

        Raises:
            StudyError: the study began on another kind of device.
        """
        first = self._first or {"lag": lag, "device": device}
        if first["device"] != device:
            raise StudyError(
                f"a study runs on one kind of device, but {self.study.name!r} began on "
                f"{first['device']} and `resources` now asks for {device}; ask for "
                f"{first['device']}, or give the study another name"
            )
        self._append(
            {
                "event": "study",
                "study": self.study.name,
                "hash": self.study.hash,
                "provenance": dict(provenance),
                "lag": first["lag"],
                "device": device,
            }
        )
        return int(first["lag"])

    @property
    def provenance(self) -> dict[str, Any] | None:
        """Where the first numbers came from; None before anything ran."""
        return None if self._first is None else dict(self._first["provenance"])

    @property
    def wal(self) -> Path:
        """The write-ahead log."""
        return self.folder / "wal.jsonl"

    def close(self) -> None:
        """Let another driver in."""
        self._connections.close()
        self._log.close()
        self._lock.close()

    @property
    def heard(self) -> int:
        """How many epochs and ends the log holds."""
        return sum(record.step + bool(record.end) for record in self.records.values())

    def numbers(self, method: str) -> int:
        """How many search trials a method has, refused ones included."""
        return len(self._trials(method))

    def effort(self, method: str) -> float:
        """Epochs that a method's search trials count for; one that runs counts in full.

        Device-seconds where the study shares those out; one that runs counts at its method's pace.
        """
        if self.study.search.seconds is None:
            return self._effort[method]
        return self._seconds[method] + self._ahead[method] * self._pace(method)

    def _pace(self, method: str) -> float:
        """Seconds per epoch of a method's ended trials; of all methods' where it has none."""
        ended = {m: self._effort[m] - self._ahead[m] for m in self._effort}
        if ended.get(method):
            return self._seconds[method] / ended[method]
        epochs = sum(ended.values())
        return sum(self._seconds.values()) / epochs if epochs else 1.0

    def history(self, method: str, before: int) -> list[FrozenTrial] | None:
        """The search trials numbered below `before`, or None while one of them runs."""
        trials = self._trials(method)
        while self._settled[method] < len(trials):
            if not trials[self._settled[method]].state.is_finished():
                break
            self._settled[method] += 1
        before = min(max(0, before), len(trials))
        return trials[:before] if before <= self._settled[method] else None

    def refused(self, method: str, number: int) -> bool:
        """Whether a search trial ended before it took a worker."""
        record = self.records.get(trial_name(method, number))
        return record is not None and record.refused

    def add(
        self, space: Space, searched: Mapping[str, Any], *, over: float | None = None
    ) -> Ticket:
        """Commit one new search trial, before anything runs.

        One that is to be refused lies `over` the largest budget, as a fraction of it.
        """
        trial = create_trial(
            state=TrialState.RUNNING,
            params=dict(searched),
            distributions=dict(space.free),
            user_attrs={} if over is None else {OVER: over},
        )
        trials = self._trials(space.method)
        with _answers(self._database):
            self._studies[space.method].add_trial(trial)
            trials.append(self._stored(space.method, len(trials)))
        return _search_ticket(space, trials[-1])

    def interrupted(self, spaces: Mapping[str, Space]) -> list[Ticket]:
        """Search trials that were committed and have no end, oldest first."""
        return [
            _search_ticket(space, trial)
            for method, space in spaces.items()
            for trial in self._trials(method)
            if trial.state == TrialState.RUNNING
        ]

    def ended(self, trial: str) -> bool:
        """Whether a trial has an end."""
        return trial in self.records and self.records[trial].end is not None

    def start(self, ticket: Ticket) -> None:
        """A trial is about to take a worker, once more if it was interrupted."""
        known = self.records.get(ticket.trial)
        self._append(
            {
                "event": "start",
                "trial": ticket.trial,
                "role": ticket.role,
                "method": ticket.method,
                "params": dict(ticket.params),
                "seed": ticket.seed,
                "torch_seed": derive(self.study, ticket.config, ticket.seed),
                "attempt": 1 + (known.attempts if known else 0),
                "config": ticket.config,
                "config_hash": ticket.config_hash,
                "budgets": list(ticket.budgets),
                "point": ticket.point,
            }
        )

    def epoch(self, trial: str, step: int, when: int, metrics: Mapping[str, float]) -> None:
        """One point of a trial's curve; what a resumed trial repeats is known already."""
        if step > self.records[trial].step:
            self._append(
                {"event": "epoch", "trial": trial, "step": step, "metrics": dict(metrics)}, when
            )

    def lose(self, trial: str, reason: str) -> None:
        """A trial's worker died; it may be started again."""
        self._append({"event": "lost", "trial": trial, "reason": reason})

    def pause(self) -> None:
        """The driver is stopped by hand: no running trial is to blame."""
        running = [name for name, record in self.records.items() if record.open]
        if running:
            self._append({"event": "paused", "trials": running})

    def abandon(self) -> None:
        """What still runs by the log runs no more: its driver died, or all of Ray did."""
        for record in self.records.values():
            if record.open:
                record.open, record.orphaned, record.death = False, True, "Ray or its driver died"

    def doomed(self, trial: str) -> str | None:
        """Why a trial is not started again, or None where it may be."""
        record = self.records.get(trial)
        if record is None or record.vain <= self.study.resources.retries:
            return None
        return f"lost {record.vain} times in a row without a new epoch, at last: {record.death}"

    def suspect(self, trial: str) -> bool:
        """Whether a trial may be what its driver died of, and has one start left or is at it."""
        record = self.records.get(trial)
        if record is None or not record.orphaned or record.end is not None:
            return False
        return record.vain + (not record.open) > self.study.resources.retries

    def end(
        self,
        trial: str,
        state: str,
        *,
        reason: str | None = None,
        seconds: float | None = None,
        points: Sequence[Mapping[str, Any]] = (),
        device: str = "",
        evidence: str = "",
    ) -> None:
        """A trial's end, for good: into the log first, then to Optuna.

        A trial with a figure that is not finite has failed, whatever its worker says. `evidence` is
        the digest of the file that its worker left.
        """
        record = self.records[trial]
        if record.end is not None:
            return
        if state == "COMPLETE" and (flaw := not_finite(points)):
            state, reason, points, evidence = "FAIL", f"diverged: {flaw}", (), ""
        if seconds is None:  # a trial that failed has cost what its epochs took
            seconds = self.trained(trial)
        self._append(
            {
                "event": "end",
                "trial": trial,
                "state": state,
                "reason": reason,
                "seconds": seconds,
                "epochs": record.step,
                "points": [dict(p) for p in points],
                "device": device,
                "evidence": evidence,
            }
        )
        if record.start["role"] == "search":
            self._tell(record)

    def trained(self, trial: str) -> float:
        """Seconds that the epochs of a trial took."""
        curve = self.records[trial].curve
        return sum(float(point["metrics"].get("curve/seconds", 0.0)) for point in curve)

    def time(self, event: Mapping[str, Any]) -> None:
        """How long a deployed network took."""
        self._append(dict(event))

    def tidy(self, ticket: Ticket) -> None:
        """Drop the checkpoints of a trial that ended, but the last one of a confirm run."""
        folder = self.folder / "trials" / ticket.trial
        if ticket.role == "search":
            shutil.rmtree(folder, ignore_errors=True)
        else:
            for left in (folder / "previous.pt", *folder.glob(files.UNFINISHED)):
                left.unlink(missing_ok=True)

    def rows(self) -> list[Row]:
        """Every trial that ended, one row per operating point."""
        return [
            row
            for _, record in sorted(self.records.items())
            if record.end is not None
            for row in trial_rows(self.study.name, record.start, record.end)
        ]

    def replay(self, listener: Callable[[dict[str, Any]], None]) -> None:
        """Tell a listener all that happened so far; it hears the rest as it happens."""
        for record in self.records.values():
            for event in (record.start, *record.curve[-1:], record.end):
                if event is not None:
                    listener(event)
        listener({"event": "resumed"})
        self.listeners.append(listener)

    def announce(self, event: dict[str, Any]) -> None:
        """Tell the listeners what is no part of the record."""
        for listener in self.listeners:
            listener(event)

    def _trials(self, method: str) -> list[FrozenTrial]:
        """A method's search trials, as the journal has them; read once, then kept up to date."""
        return self._kept[method]

    def _stored(self, method: str, number: int) -> FrozenTrial:
        """One search trial from the journal, at a cost that is the same for any number."""
        study = self._storage.get_study_id_from_name(self._studies[method].study_name)
        return self._storage.get_trial(
            self._storage.get_trial_id_from_study_id_trial_number(study, number)
        )

    def _append(self, event: dict[str, Any], when: int | None = None) -> None:
        event["time"] = time.time_ns() // 1_000_000 if when is None else when
        self._log.append(event)
        self._note(event)
        self.announce(event)

    def _note(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "study":
            self._first = self._first or event
        elif kind == "latency":
            self.latencies.append(event)
        elif kind == "start":
            record = self.records.setdefault(event["trial"], Record(event))
            record.attempts += 1
            record.vain += 1
            record.open = True
            if record.attempts == 1 and record.start["role"] == "search":
                self._effort[event["method"]] += event["params"][EPOCHS]
                self._ahead[event["method"]] += event["params"][EPOCHS]
        elif kind == "epoch":
            record = self.records[event["trial"]]
            record.step = max(record.step, event["step"])
            if record.end is None:
                record.curve.append(event)
            record.vain, record.orphaned = 0, False
        elif kind == "lost":
            record = self.records[event["trial"]]
            record.open, record.orphaned, record.death = False, False, event["reason"]
        elif kind == "paused":
            for name in event["trials"]:
                record = self.records[name]
                record.open, record.vain = False, max(0, record.vain - 1)
        elif kind == "end":
            record = self.records[event["trial"]]
            record.end, record.open = event, False
            if self.study.search.stop == "none" or record.start["role"] == "confirm":
                record.curve.clear()  # whoever stops trials compares them with the ended ones
            self.confirmed += record.start["role"] == "confirm"
            if record.start["role"] == "search":
                self.searched += 1
                method, length = record.start["method"], record.start["params"][EPOCHS]
                self._seconds[method] += max(event["seconds"], self._least(method, record))
                self._ahead[method] -= length
                self._effort[method] -= length - record.effort

    def _least(self, method: str, record: Record) -> float:
        """Seconds that a failed trial counts for at least, so that failing is not for nothing."""
        failed = record.effort > record.step
        return record.effort * self._pace(method) if failed else 0.0

    def _tell_what_ended(self) -> None:
        for method in self.study.methods:
            for trial in self._trials(method):
                record = self.records.get(trial_name(method, trial.number))
                if trial.state == TrialState.RUNNING and record and record.end:
                    self._tell(record)

    def _tell(self, record: Record) -> None:
        end = record.end
        assert end is not None, "only what ended is told"
        values = None
        if end["state"] == "COMPLETE":
            point = end["points"][-1]
            values = [1.0 - point["val_acc"], point["val_macs_mean"]]
        number = int(record.start["trial"].rsplit("-", 1)[1])
        method = record.start["method"]
        with _answers(self._database):
            self._studies[method].tell(number, values, STATES[end["state"]])
            self._kept[method][number] = self._stored(method, number)

    def _refuse_others(self) -> None:
        """Optuna's trials and the log's must be of one and the same sweep.

        Raises:
            StorageError: they are not.
        """
        place = self._database or str(self.folder / "optuna.journal")
        ended = {name for name, record in self.records.items() if record.end is not None}
        for method in self.study.methods:
            known = {trial_name(method, trial.number) for trial in self._trials(method)}
            started = {
                name
                for name, record in self.records.items()
                if record.start["role"] == "search" and record.start["method"] == method
            }
            told = {
                trial_name(method, trial.number)
                for trial in self._trials(method)
                if trial.state.is_finished()
            }
            if started - known:
                raise StorageError(
                    f"{place} must hold the trials that {self.wal} tells of, but "
                    f"{min(started - known)} is missing; name the storage that the study began with"
                )
            if told - ended:
                raise StorageError(
                    f"{self.wal} must tell of the trials in {place}, but {min(told - ended)} is "
                    "missing; name the folder that the study began in, or give the study another "
                    "name"
                )


def refuse_other(folder: Path, study: Study) -> None:
    """Refuse a folder that belongs to another study of the same name; writes nothing.

    Raises:
        StudyError: says which hash was found.
    """
    written = folder / "study.json"
    if not written.exists():
        return
    found = json.loads(written.read_text())["hash"]
    if found != study.hash:
        raise StudyError(
            f"the name {study.name!r} is taken in {folder.parent} by a different study "
            f"(hash {found}, this one has {study.hash}); give this one another name, "
            "or another folder with --out"
        )


def _search_ticket(space: Space, trial: FrozenTrial) -> Ticket:
    name = trial_name(space.method, trial.number)
    return Ticket(name, space.method, "search", name, 0, space.params(trial.params))


def _claimed(folder: Path, study: Study, patience: float) -> Any:
    """The lock of the study's folder, held as long as it is open."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise StorageError(
            f"{folder} must be a folder that can be written, but: {error.strerror}; "
            "choose another with --out"
        ) from None
    deadline, told = time.monotonic() + patience, False
    while not _locked(lock):
        if patience and not told:
            logger.warning("another driver holds %s; waiting %.3g s for it", folder, patience)
            told = True
        if time.monotonic() >= deadline:
            lock.close()
            raise StorageError(
                f"one driver runs a study at a time, but another one holds {folder}; "
                "wait for it, or stop it"
            )
        time.sleep(0.5)
    try:
        refuse_other(folder, study)
    except StudyError:
        lock.close()
        raise
    written = folder / "study.json"
    if not written.exists():
        content = {"hash": study.hash, **study.model_dump(mode="json")}
        files.write(written, json.dumps(content, indent=1))
    return lock


def _locked(lock: Any) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
