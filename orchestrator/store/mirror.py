"""The write-ahead log, projected into MLflow.

One writer follows the log; every write is idempotent, so that a projection that was cut off
anywhere is finished by the next one.
"""

import json
import logging
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError

from orchestrator.record import evidence
from orchestrator.record import log as wal
from orchestrator.record.events import Begun, End, Epoch, Latency, Start, encode
from orchestrator.record.provenance import encode_provenance
from orchestrator.store import tags as layout
from orchestrator.store.place import (
    ENDED,
    LATENCIES,
    claim,
    each_run,
    experiment_of,
    storage_errors,
)

logger = logging.getLogger(__name__)

PASSING = (401, 403, 408, 429)
"""Refusals (HTTP) that end when someone mends the server's settings; other 4xx are for good."""
BATCH = 900
"""Metrics in one write; MLflow takes 1,000 entities."""
WORDS = 100
"""Parameters in one write, and tags; MLflow takes no more."""
TRIES = 5
"""Times that a store which takes other writes may fail at one, as if it were away."""
TIMED = ("trial", "point", "reference", "reference_point", "batch")
"""What one latency is known by."""
SLICE = 1 << 22
"""Bytes of the log that are held in memory at once."""


def project(log: Path, uri: str, study: str) -> None:
    """Brings everything the log holds into the store, here and now.

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


class _Known(NamedTuple):
    """What must be remembered of a run; MLflow's own object holds all its parameters too."""

    identity: str
    status: str
    point: str = ""
    told: bool = False
    """Whether the study's run holds where its numbers come from."""


class Projection:
    """Where the projection of one log stands; every step may be repeated."""

    def __init__(self, log: Path, uri: str, study: str) -> None:
        self._log = log
        self._client = MlflowClient(uri)
        self._study = study
        self._experiment: Experiment | None = None
        self._runs: dict[str, _Known] = {}
        self._open: dict[str, str] = {}
        self._latencies: dict[tuple[object, ...], Latency] = {}
        self._failures: Counter[str] = Counter()
        self._refusals = log.with_name("mlflow-refused.jsonl")
        self.refused = {_content(line["event"]) for line in wal.read_lines(self._refusals)[0]}
        """Events that the store refused for good, now or before."""
        self.offset = 0

    def size(self) -> int:
        """Bytes that the log holds."""
        return self._log.stat().st_size

    def forget(self) -> None:
        """Ask the store again which runs it has: a write may have arrived without an answer."""
        self._experiment = None

    def advance(self) -> None:
        """Write what the log has gained."""
        if self._experiment is None:
            self._recall()
        while self._slice():
            pass

    def _slice(self) -> bool:
        """Write the log's next lines; what they tell of one trial goes in one write."""
        events, offset = wal.read(self._log, self.offset, SLICE)
        held: dict[str, list[Start | Epoch | End]] = {}
        for event in events:
            match event:
                case Begun():
                    self._guarded(encode(event), partial(self._begin, event))
                case Latency():
                    self._latencies[tuple(getattr(event, name) for name in TIMED)] = event
                case Start() | Epoch() | End():
                    self._hold(event, held)
        for trial, own in held.items():
            self._write(trial, own)
        if any(isinstance(event, Latency) for event in events):
            self._guarded({"event": "latencies"}, self._time)
        self.offset = offset
        return bool(events)

    def _hold(self, event: Start | Epoch | End, held: dict[str, list[Start | Epoch | End]]) -> None:
        """Adds an event to what is to be written of its trial; an end writes all of it."""
        trial = event.trial
        if self._known(trial):
            return
        if isinstance(event, Start):
            self._guarded(encode(event), partial(self._start, event))
        if trial in self._runs:
            held.setdefault(trial, []).append(event)
        elif not isinstance(event, Start):
            self._refuse(encode(event), "the start of this trial was refused")
        if isinstance(event, End) and trial in held:
            self._write(trial, held.pop(trial))

    def mark_interrupted(self) -> None:
        """No run of a trial that does not run is left running."""
        for run in self._open.values():
            self._client.set_terminated(run, "KILLED")
        self._open.clear()

    def _recall(self) -> None:
        """Learn which runs there are; of two with one key, left by a lost answer, one goes."""
        experiment = experiment_of(self._client, self._study)
        runs = [
            (run.data.tags["key"], _remembered(run))
            for run in each_run(self._client, experiment, "")
            if "key" in run.data.tags
        ]
        self._runs = {}
        for key, run in sorted(runs, key=lambda r: (r[1].status not in ENDED, r[1].identity)):
            if self._runs.setdefault(key, run) is not run:
                self._client.delete_run(run.identity)
        self._experiment = experiment

    def _known(self, trial: str) -> bool:
        """Whether the store holds a trial with its end, from an earlier projection."""
        run = self._runs.get(trial)
        return run is not None and run.status in ENDED and trial not in self._open

    def _guarded(self, event: Mapping[str, Any], write: Callable[[], None]) -> None:
        """What the store refuses for good is set aside; all else is tried again."""
        try:
            write()
        except Exception as error:
            if self._worth_a_retry(event, error):
                raise
            self._refuse(event, str(error))

    def _worth_a_retry(self, event: Mapping[str, Any], error: Exception) -> bool:
        """Whether the same write may succeed later; not one that alone fails again and again."""
        if not _passing(error):
            return False
        self._failures[content := _content(event)] += 1
        if self._failures[content] < TRIES:
            return True
        assert self._experiment is not None, "the store was asked first"
        identity = self._experiment.experiment_id
        try:
            self._client.set_experiment_tag(identity, "probe", "." * 4000)
            self._client.delete_experiment_tag(identity, "probe")
        except Exception:  # it takes nothing now, so the event is not to blame
            return True
        return False

    def _refuse(self, event: Mapping[str, Any], reason: str) -> None:
        content = _content(event)
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
        if not run.told:
            provenance = encode_provenance(begun.provenance)
            self._client.log_dict(run.identity, provenance, "provenance.json")
            self._client.set_tag(run.identity, "provenance", begun.hash)
            self._runs["report"] = self._runs["report"]._replace(told=True)
        if (data := begun.provenance.data) is not None:
            for name, value in layout.data_tags(data).items():
                self._client.set_tag(run.identity, name, value)

    def _time(self) -> None:
        """All latencies at once, in place of those told before."""
        run = self._runs["report"].identity
        latencies = [encode(latency) for latency in self._latencies.values()]
        self._client.log_dict(run, {"latencies": latencies}, LATENCIES)

    def _start(self, start: Start) -> None:
        method, trial = start.method, start.trial
        parent = self._run(f"sweep/{method}", {"role": "sweep", "method": method}, start.time)
        if parent.status not in ENDED:
            self._finish(f"sweep/{method}", "FINISHED", start.time)
        tags = {**layout.start_tags(start), "mlflow.parentRunId": parent.identity}
        run = self._run(trial, tags, start.time)
        self._open[trial] = run.identity
        if run.status != "RUNNING":
            self._client.update_run(run.identity, status="RUNNING")
            self._runs[trial] = run._replace(status="RUNNING")

    def _write(self, trial: str, events: Sequence[Start | Epoch | End]) -> None:
        """What some events tell of a trial: in one write, or apart if that is refused."""
        at_once = self._at_once(trial, events)
        if not at_once:
            for event in events:
                if isinstance(event, Start):
                    self._guarded(encode(event), partial(self._tell, event))
            epochs = [event for event in events if isinstance(event, Epoch)]
            self._log_metrics(trial, [metric for epoch in epochs for metric in _curve(epoch)])
        if isinstance(end := events[-1], End):
            self._guarded(encode(end), partial(self._close if at_once else self._end, end))

    def _at_once(self, trial: str, events: Sequence[Start | Epoch | End]) -> bool:
        run = self._runs[trial]
        told = [_told(event, run.point) for event in events]
        metrics = [metric for part in told for metric in part[0]]
        params = [param for part in told for param in part[1]]
        tags = [tag for part in told for tag in part[2]]
        if max(len(params), len(tags)) > WORDS or len(metrics) + len(params) + len(tags) > BATCH:
            return False
        try:
            self._client.log_batch(run.identity, metrics, params, tags)
        except Exception as error:
            if self._worth_a_retry(encode(events[-1]), error):
                raise
            return False
        return True

    def _tell(self, event: Start | End) -> None:
        run = self._runs[event.trial]
        self._client.log_batch(run.identity, *_told(event, run.point))

    def _end(self, end: End) -> None:
        self._tell(end)
        self._close(end)

    def _close(self, end: End) -> None:
        if end.evidence:
            self._guarded(encode(end), partial(self._attach, end))
        status = "FAILED" if end.state == "FAIL" else "FINISHED"
        self._finish(end.trial, status, end.time)

    def _attach(self, end: End) -> None:
        name = evidence.file_name(end.trial, end.evidence)
        run = self._runs[end.trial].identity
        self._client.log_artifact(run, str(self._log.parent / evidence.FOLDER / name))

    def _run(self, key: str, tags: Mapping[str, str], start: int) -> _Known:
        if key not in self._runs:
            assert self._experiment is not None, "the store was asked first"
            own = {"mlflow.runColor": layout.colour(tags["method"])} if "method" in tags else {}
            run = self._client.create_run(
                self._experiment.experiment_id,
                start_time=start,
                run_name=key.replace("sweep/", "sweep of "),
                tags={"key": key, "study": self._study, **own, **tags},
            )
            self._runs[key] = _remembered(run)
        return self._runs[key]

    def _finish(self, key: str, status: str, end: int) -> None:
        self._client.set_terminated(self._runs[key].identity, status, end)
        self._runs[key] = self._runs[key]._replace(status=status)
        self._open.pop(key, None)

    def _log_metrics(self, trial: str, metrics: Sequence[Metric]) -> None:
        """In batches; of a batch that is refused for good, the bad one alone stays out."""
        for first in range(0, len(metrics), BATCH):
            batch = metrics[first : first + BATCH]
            try:
                self._client.log_batch(self._runs[trial].identity, metrics=batch)
            except Exception as error:
                told = {"trial": trial, **dict(batch[0])}
                if self._worth_a_retry(told, error):
                    raise
                if len(batch) == 1:
                    self._refuse(told, str(error))
                else:
                    half = len(batch) // 2
                    self._log_metrics(trial, batch[:half])
                    self._log_metrics(trial, batch[half:])


def _content(event: Mapping[str, Any]) -> str:
    return json.dumps(dict(event), sort_keys=True)


def _passing(error: Exception) -> bool:
    """Whether the same write may succeed later: the server is away, busy or closed to us."""
    if isinstance(error, MlflowException):
        status = int(error.get_http_status_code())  # type: ignore[no-untyped-call]
        return not 400 <= status < 500 or status in PASSING
    if (response := getattr(error, "response", None)) is not None:  # an artefact's, by requests
        return not 400 <= response.status_code < 500 or response.status_code in PASSING
    if isinstance(error, OperationalError):
        return True
    lasting = (PermissionError, FileNotFoundError, NotADirectoryError, IsADirectoryError)
    return isinstance(error, OSError) and not isinstance(error, lasting)


def _remembered(run: Run) -> _Known:
    tags = run.data.tags
    point, status = tags.get("point", ""), sys.intern(run.info.status)
    return _Known(run.info.run_id, status, point, "provenance" in tags)


def _told(event: Start | Epoch | End, point: str) -> tuple[list[Metric], list[Param], list[RunTag]]:
    """What an event of a trial says to MLflow; `point` is the operating point that stands first."""
    match event:
        case Start():
            return [], [Param(name, str(value)) for name, value in event.params.items()], []
        case Epoch():
            return list(_curve(event)), [], []
        case End():
            figures = layout.figures(event.points, point)
            metrics = [Metric(name, value, event.time, 0) for name, value in figures.items()]
            tags = [RunTag(name, value) for name, value in layout.end_tags(event).items()]
            return metrics, [], tags


def _curve(epoch: Epoch) -> Iterator[Metric]:
    """With the event's own time: MLflow's SQL stores take the same point twice as once."""
    for name, value in epoch.metrics.named().items():
        if math.isfinite(value):
            yield Metric(name, value, epoch.time, epoch.step)
