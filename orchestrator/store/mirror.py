"""The write-ahead log, projected into MLflow.

One writer follows the log; every write is idempotent, so that the next projection finishes one that
was cut off anywhere.
"""

import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Metric

from orchestrator.record import evidence
from orchestrator.record import log as wal
from orchestrator.record.address import Address
from orchestrator.record.events import Begun, End, Epoch, Latency, Rung, Start, encode
from orchestrator.record.provenance import encode_provenance
from orchestrator.report.palette import places, run_colour
from orchestrator.store import tags as layout
from orchestrator.store.artefacts import Artefacts, artefacts_of
from orchestrator.store.client import connect, passing
from orchestrator.store.place import claim
from orchestrator.store.reading.failures import storage_errors
from orchestrator.store.reading.runs import ENDED, LATENCIES, Run, experiment_of, reader
from orchestrator.store.reading.server import as_run
from orchestrator.store.whole import (
    BATCH,
    TrialEvent,
    Whole,
    curve,
    entities,
    takes_many,
    whole_trials,
    write_whole,
)

logger = logging.getLogger(__name__)

MANY = 200
"""Trials in one transaction, which holds an SQLite file for half a second."""
TRIES = 5
"""Times that a store which takes other writes may fail at one, as if it were away."""
TIMED = ("trial", "point", "reference", "reference_point", "batch")
"""Fields that identify a latency."""
SLICE = 1 << 22
"""Bytes of the log that are held in memory at once."""


def project(log: Path, uri: str, study: str) -> None:
    """Writes everything that the log holds into the store.

    Raises:
        StudyError: the name belongs to another study there.
        StorageError: the store cannot be used.
    """
    events, _ = wal.read(log)
    for event in events:
        if isinstance(event, Begun):
            claim(uri, study, event.hash)
    with storage_errors(uri):
        Projection(log, uri, study).advance()


class _RunState(NamedTuple):
    """What a projection needs of a run; MLflow's own object holds all its parameters, too."""

    run_id: str
    status: str
    point: str = ""
    has_provenance: bool = False


class _Store(NamedTuple):
    """An opened store, and where one study lies in it."""

    client: MlflowClient
    experiment_id: str
    artefacts: Artefacts


class Projection:
    """The state of one log's projection; every step may be repeated."""

    def __init__(self, log: Path, uri: str, study: str) -> None:
        self._log = log
        self._address = Address(uri)
        self._study = study
        self._methods: frozenset[str] = frozenset()
        self._store: _Store | None = None
        self._runs: dict[str, _RunState] = {}
        self._open: dict[str, str] = {}
        self._waiting: list[Whole] = []
        """Trials that one transaction is to write."""
        self._one_by_one = not takes_many(self._address)
        self._latencies: dict[tuple[object, ...], Latency] = {}
        self._failures: Counter[str] = Counter()
        self._refusals = log.with_name("mlflow-refused.jsonl")
        self.refused = {_content(line["event"]) for line in wal.read_lines(self._refusals)[0]}
        """Events that the store refused for good, now or before."""
        self.offset = 0

    def forget(self) -> None:
        """Asks the store again which runs it has: a write may have arrived without an answer."""
        self._store = None

    def advance(self) -> None:
        """Writes what the log holds now; what it gains meanwhile is left to the next pass.

        A pass that followed the log to its end would, beside short trials, never find it, and
        write a few trials at a time.

        Raises:
            Exception: the store did not take it, and may later.
        """
        if self._store is None:
            self._recall()
        goal = self._log.stat().st_size
        while self.offset < goal and self._slice():
            pass

    def _slice(self) -> bool:
        """Writes the log's next lines: trials with all their lines at once, ends in their order."""
        events, offset = wal.read(self._log, self.offset, SLICE)
        whole = {} if self._one_by_one else whole_trials(events, known=self._runs)
        self._waiting.clear()  # a write that failed leaves some
        by_trial: dict[str, list[TrialEvent]] = {}
        for event in events:
            match event:
                case Begun():
                    self._methods = layout.methods_of(event.provenance)
                    self._guarded(encode(event), partial(self._begin, event))
                case Latency():
                    self._latencies[tuple(getattr(event, name) for name in TIMED)] = event
                case Start() | Epoch() | Rung() | End() if event.trial not in whole:
                    self._collect(event, by_trial)
                case End():
                    self._waiting.append(whole[event.trial])
                    if len(self._waiting) == MANY:
                        self._write_waiting()
        self._write_waiting()
        for trial, trial_events in by_trial.items():
            self._write(trial, trial_events)
        if any(isinstance(event, Latency) for event in events):
            self._guarded({"event": "latencies"}, self._time)
        self.offset = offset
        self._one_by_one = not takes_many(self._address)
        return bool(events)

    def _write_waiting(self) -> None:
        """Writes the trials that wait in one transaction; one by one, where that is refused.

        Raises:
            Exception: the store did not take it, and may later, one by one.
        """
        trials, self._waiting = self._waiting, []
        if trials and not self._one_by_one:
            try:
                self._write_many(trials)
            except Exception as error:
                self._one_by_one = True
                if passing(error):
                    raise
        for trial in trials if self._one_by_one else ():
            by_trial: dict[str, list[TrialEvent]] = {}
            for event in trial.events:
                self._collect(event, by_trial)

    def _write_many(self, trials: Sequence[Whole]) -> None:
        tags = [self._tags(trial.name, self._start_tags(trial.start)) for trial in trials]
        written = write_whole(self._client, self._opened.experiment_id, trials, tags)
        for trial, run_id in zip(trials, written, strict=True):
            self._runs[trial.name] = _RunState(run_id, layout.status(trial.end))

    def _collect(self, event: TrialEvent, by_trial: dict[str, list[TrialEvent]]) -> None:
        """Adds an event to those of its trial; an end writes them."""
        trial = event.trial
        if self._is_complete(trial):
            return
        if isinstance(event, Start):
            self._guarded(encode(event), partial(self._start, event))
        if trial in self._runs:
            by_trial.setdefault(trial, []).append(event)
        elif not isinstance(event, Start):
            self._refuse(encode(event), "the start of this trial was refused")
        if isinstance(event, End) and trial in by_trial:
            self._write_waiting()
            self._write(trial, by_trial.pop(trial))

    def mark_interrupted(self) -> None:
        """Marks the runs of trials that have not ended as killed, until they resume."""
        for run in self._open.values():
            self._client.set_terminated(run, "KILLED")
        self._open.clear()

    def _recall(self) -> None:
        """Learns which runs there are; deletes the second one that a lost answer left of a key."""
        client, source = connect(self._address.url), reader(self._address.url)
        experiment = experiment_of(source, self._study)
        runs = [
            (found.tags["key"], _state_of(found))
            for found in source.runs(experiment.experiment_id, "")
            if "key" in found.tags
        ]
        self._runs = {}
        for key, run in sorted(runs, key=lambda r: (r[1].status not in ENDED, r[1].run_id)):
            if self._runs.setdefault(key, run) is not run:
                client.delete_run(run.run_id)
        location = experiment.artifact_location
        artefacts = artefacts_of(self._address.url, self._study, location)
        self._store = _Store(client, experiment.experiment_id, artefacts)

    @property
    def _client(self) -> MlflowClient:
        return self._opened.client

    @property
    def _opened(self) -> "_Store":
        assert self._store is not None, "advance() opens the store first"
        return self._store

    def _is_complete(self, trial: str) -> bool:
        """Whether the store holds a trial with its end, from an earlier projection."""
        run = self._runs.get(trial)
        return run is not None and run.status in ENDED and trial not in self._open

    def _guarded(self, event: Mapping[str, Any], write: Callable[[], None]) -> None:
        """Writes an event; one that the store refuses for good is set aside.

        Raises:
            Exception: the same write may succeed later.
        """
        try:
            write()
        except Exception as error:
            if self._worth_a_retry(event, error):
                raise
            self._refuse(event, str(error))

    def _worth_a_retry(self, event: Mapping[str, Any], error: Exception) -> bool:
        """Whether the same write may succeed later; not one that alone fails again and again."""
        if not passing(error):
            return False
        self._failures[content := _content(event)] += 1
        if self._failures[content] < TRIES:
            return True
        experiment_id = self._opened.experiment_id
        try:
            self._client.set_experiment_tag(experiment_id, "probe", "." * 4000)
            self._client.delete_experiment_tag(experiment_id, "probe")
        except Exception:  # it takes nothing now, so the event is not to blame
            return True
        return False

    def _refuse(self, event: Mapping[str, Any], reason: str) -> None:
        content, reason = _content(event), self._address.redact(reason)
        if content in self.refused:
            return
        with self._refusals.open("a") as file:
            file.write(json.dumps({"reason": reason, "event": dict(event)}) + "\n")
        self.refused.add(content)
        logger.error("MLflow refused an event of %s: %s", event.get("trial", "the study"), reason)

    def _begin(self, begun: Begun) -> None:
        run = self._run("report", {"role": "report"}, begun.time)
        if run.status not in ENDED:
            self._finish("report", "FINISHED", begun.time)
        if not run.has_provenance:
            provenance = json.dumps(encode_provenance(begun.provenance), indent=2)
            self._attach(run, "provenance.json", provenance)
            self._client.set_tag(run.run_id, "provenance", begun.hash)
            self._runs["report"] = self._runs["report"]._replace(has_provenance=True)
        if (data := begun.provenance.data) is not None:
            for name, value in layout.data_tags(data).items():
                self._client.set_tag(run.run_id, name, value)

    def _time(self) -> None:
        """Writes all latencies, in place of those written before."""
        latencies = [encode(latency) for latency in self._latencies.values()]
        self._attach(self._runs["report"], LATENCIES, json.dumps({"latencies": latencies}))

    def _start(self, start: Start) -> None:
        trial = start.trial
        run = self._run(trial, self._start_tags(start), start.time)
        self._open[trial] = run.run_id
        if run.status != "RUNNING":
            self._client.update_run(run.run_id, status="RUNNING")
            self._runs[trial] = run._replace(status="RUNNING")

    def _start_tags(self, start: Start) -> dict[str, str]:
        """A trial's first tags, below the run of its method's sweep."""
        key = f"sweep/{start.method}"
        if key not in self._runs:
            self._write_waiting()  # it begins with the first of them
        parent = self._run(key, {"role": "sweep", "method": start.method}, start.time)
        if parent.status not in ENDED:
            self._finish(key, "FINISHED", start.time)
        return {**layout.start_tags(start), "mlflow.parentRunId": parent.run_id}

    def _write(self, trial: str, events: Sequence[TrialEvent]) -> None:
        """Writes a trial's events at once, or one by one where that is refused."""
        at_once = self._at_once(trial, events)
        if not at_once:
            for event in events:
                if isinstance(event, Start | Rung):
                    self._guarded(encode(event), partial(self._log_entities, event))
            epochs = [event for event in events if isinstance(event, Epoch)]
            self._log_metrics(trial, [metric for epoch in epochs for metric in curve(epoch)])
        if isinstance(end := events[-1], End):
            self._guarded(encode(end), partial(self._close if at_once else self._end, end))

    def _at_once(self, trial: str, events: Sequence[TrialEvent]) -> bool:
        run = self._runs[trial]
        told = entities(events, run.point)
        if not told.fit:
            return False
        try:
            self._client.log_batch(run.run_id, *told)
        except Exception as error:
            if self._worth_a_retry(encode(events[-1]), error):
                raise
            return False
        return True

    def _log_entities(self, event: TrialEvent) -> None:
        run = self._runs[event.trial]
        self._client.log_batch(run.run_id, *entities([event], run.point))

    def _end(self, end: End) -> None:
        self._log_entities(end)
        self._close(end)

    def _close(self, end: End) -> None:
        if end.evidence:
            self._guarded(encode(end), partial(self._attach_evidence, end))
        self._finish(end.trial, layout.status(end), end.time)

    def _attach_evidence(self, end: End) -> None:
        name = evidence.file_name(end.trial, end.evidence)
        content = (self._log.parent / evidence.FOLDER / name).read_bytes()
        self._attach(self._runs[end.trial], name, content)

    def _attach(self, run: _RunState, name: str, content: bytes | str) -> None:
        data = content.encode() if isinstance(content, str) else content
        self._opened.artefacts.write(run.run_id, name, data)

    def _run(self, key: str, tags: Mapping[str, str], start: int) -> _RunState:
        if key not in self._runs:
            created = self._client.create_run(
                self._opened.experiment_id,
                start_time=start,
                run_name=key.replace("sweep/", "sweep of "),
                tags=self._tags(key, tags),
            )
            self._runs[key] = _state_of(as_run(created))
        return self._runs[key]

    def _tags(self, key: str, tags: Mapping[str, str]) -> dict[str, str]:
        """All tags with which a run begins; a method has its colour on the study's board."""
        colour = {}
        if method := tags.get("method"):
            colour["mlflow.runColor"] = run_colour(places({*self._methods, method}).get(method))
        return {"key": key, "study": self._study, **colour, **tags}

    def _finish(self, key: str, status: str, end: int) -> None:
        self._client.set_terminated(self._runs[key].run_id, status, end)
        self._runs[key] = self._runs[key]._replace(status=status)
        self._open.pop(key, None)

    def _log_metrics(self, trial: str, metrics: Sequence[Metric]) -> None:
        """Writes metrics in batches; of a refused batch only the bad metric is left out."""
        for first in range(0, len(metrics), BATCH):
            batch = metrics[first : first + BATCH]
            try:
                self._client.log_batch(self._runs[trial].run_id, metrics=batch)
            except Exception as error:
                first_metric = {"trial": trial, **dict(batch[0])}
                if self._worth_a_retry(first_metric, error):
                    raise
                if len(batch) == 1:
                    self._refuse(first_metric, str(error))
                else:
                    half = len(batch) // 2
                    self._log_metrics(trial, batch[:half])
                    self._log_metrics(trial, batch[half:])


def _content(event: Mapping[str, Any]) -> str:
    return json.dumps(dict(event), sort_keys=True)


def _state_of(found: Run) -> _RunState:
    point, status = found.tags.get("point", ""), sys.intern(found.status)
    return _RunState(found.run_id, status, point, "provenance" in found.tags)
