"""MLflow: a projection of the write-ahead log, and the board read back from it.

The only file that imports mlflow. One writer, a thread of the driver's, follows the log; every
write is idempotent, so that a projection that was cut off anywhere is finished by the next one.
"""

import contextlib
import fcntl
import json
import logging
import math
import os
import sqlite3
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# MLflow's own retries block one write for 246 s, and send what may have arrived a second time.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError

from methods.errors import DiskFull, StorageError, StudyError
from orchestrator import layout, wal
from orchestrator.board import Board
from orchestrator.rows import Row

logger = logging.getLogger(__name__)
logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # we tell it, in a line

ENDED = ("FINISHED", "FAILED")
PASSING = (401, 403, 408, 429)
"""Refusals (HTTP) that end when someone mends the server's settings; other 4xx are for good."""
BATCH = 900
"""Metrics in one write; MLflow takes 1,000 entities."""
WORDS = 100
"""Parameters in one write, and tags; MLflow takes no more."""
SLICE = 1 << 22
"""Bytes of the log that are held in memory at once."""


def check(uri: str) -> None:
    """Refuses a store that cannot be used, within seconds.

    Raises:
        StorageError: a folder that cannot be written, a server that does not answer, another kind.
    """
    if uri.startswith("sqlite:///"):
        _check_file(Path(uri.removeprefix("sqlite:///")))
    elif uri.startswith(("http://", "https://")):
        _check_server(uri)
    elif uri.startswith(("postgresql", "mysql", "mssql")):
        try:
            MlflowClient(uri).search_experiments(max_results=1)
        except Exception as error:  # a driver that is missing, a server that is: each its own way
            raise StorageError(f"the MLflow store {uri} cannot be used: {error}") from None
    else:
        raise StorageError(
            f"an MLflow URI starts with sqlite:///, http:// or https://, but got {uri!r}"
        )


def claim(uri: str, study: str, study_hash: str) -> str:
    """The id of the study's experiment, made if it is missing.

    Raises:
        StudyError: the name belongs to a study of another hash, or was deleted in MLflow.
        StorageError: the store cannot be used.
    """
    with _storage_errors(uri), _alone(uri):
        _make_file(uri)
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(study)
        if experiment is None:
            tags = {"study_hash": study_hash, "mlflow.experimentKind": "custom_model_development"}
            try:
                return str(client.create_experiment(study, _artifacts(uri, study), tags))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            experiment = _experiment(client, study)  # another driver was faster
    found = experiment.tags.get("study_hash")
    if found != study_hash:
        raise StudyError(
            f"the name {study!r} is taken in this MLflow store by a different study (hash {found}, "
            f"this one has {study_hash}); give it another name, or another store with --mlflow"
        )
    if experiment.lifecycle_stage != "active":
        raise StudyError(
            f"study {study!r} was deleted in this MLflow store; bring it back with `mlflow "
            f"experiments restore --experiment-id {experiment.experiment_id}`, or give the study "
            "another name"
        )
    return str(experiment.experiment_id)


class Projector:
    """Follows the log into MLflow in the background; a server that is away is tried again.

    What the store refuses for good goes to `mlflow-refused.jsonl` beside the log.
    """

    def __init__(self, log: Path, uri: str, study: str) -> None:
        self._projection = _Projection(log, uri, study)
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mlflow", daemon=True)

    def start(self) -> None:
        """Begin, with all that the log holds already."""
        self._thread.start()

    def flush(self, timeout: float) -> bool:
        """Whether all that the log holds now reached the store within `timeout` seconds."""
        goal = self._projection.size()
        deadline = time.monotonic() + timeout
        self._wake.set()
        while self._projection.offset < goal and time.monotonic() < deadline:
            time.sleep(0.05)
        return self._projection.offset >= goal

    @property
    def refused(self) -> int:
        """How many events the store refused for good."""
        return len(self._projection.refused)

    def stop(self) -> None:
        """End; runs of interrupted trials are marked as killed until they go on."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)
        if self._thread.is_alive():
            logger.warning("MLflow still takes a write; the next run finishes what it leaves open")
            return
        try:
            self._projection.mark_interrupted()
        except Exception as error:
            reason = str(error).partition("\n")[0]
            logger.warning("MLflow was not told which trials are interrupted: %s", reason)

    def _follow(self) -> None:
        pause = 0.5
        while not self._stop.is_set():
            try:
                self._projection.advance()
            except Exception as error:  # nothing that MLflow does may stop the sweep
                logger.warning("MLflow did not take a write, again in %.3g s: %s", pause, error)
                self._projection.forget()
                self._stop.wait(pause)
                pause = min(2 * pause, 30.0)
            else:
                pause = 0.5
                self._wake.wait(pause)
                self._wake.clear()


def project(log: Path, uri: str, study: str) -> None:
    """Brings everything the log holds into the store, here and now.

    Raises:
        StudyError: the name belongs to another study there.
        StorageError: the store cannot be used.
    """
    events, _ = wal.read(log)
    for event in events:
        if event["event"] == "study":
            claim(uri, study, event["hash"])
    with _storage_errors(uri):
        _Projection(log, uri, study).advance()


def read_rows(uri: str, study: str) -> list[Row]:
    """Every trial that ended, from the store alone, one row per operating point.

    Raises:
        StudyError: the store holds no study of this name.
        StorageError: the store cannot be used.
    """
    with _storage_errors(uri):
        client = MlflowClient(uri)
        runs = _runs(client, _experiment(client, study), "tags.role LIKE 'trial-%'")
    ended = {run.data.tags["trial"]: run for run in runs if "state" in run.data.tags}
    return [
        row
        for _, run in sorted(ended.items())
        for row in layout.rows(study, run.data.tags, run.info.run_id)
    ]


def read_study(uri: str, study: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The study as it was run, and where its numbers come from.

    Raises:
        StudyError: the store holds no study of this name.
        StorageError: the store cannot be used.
    """
    with _storage_errors(uri):
        client = MlflowClient(uri)
        runs = _runs(client, _experiment(client, study), "tags.role = 'report'")
        if not runs:
            raise StudyError(f"study {study!r} has not begun; `isoflop run` begins it")
        with tempfile.TemporaryDirectory() as folder:
            path = client.download_artifacts(runs[0].info.run_id, "provenance.json", folder)
            facts: dict[str, Any] = json.loads(Path(path).read_text())
    return facts["study"], facts


def write_board(uri: str, study: str, board: Board, folder: Path) -> str:
    """The board as runs, artefacts, note and saved view; the same board again changes nothing.

    Returns the link of the view, from `#` on.

    Raises:
        StudyError: the store holds no study of this name.
        StorageError: the store cannot be used.
    """
    with _storage_errors(uri):
        client = MlflowClient(uri)
        experiment = _experiment(client, study)
        identity = experiment.experiment_id
        old = _runs(client, experiment, "tags.role = 'leaderboard'")
        kept = {_board_run(client, experiment, board, method, old) for method in board.methods}
        for run in old:
            if run.info.run_id not in kept:
                client.delete_run(run.info.run_id)
        report = _report_run(client, experiment)
        client.log_artifacts(report, str(folder))
        client.set_tag(report, "mlflow.note.content", board.verdict)
        page = f"#/experiments/{identity}/runs/{report}/artifacts/report.html"
        note = f"{board.verdict}\n\n[The report]({page}) is an artefact of the run `report`."
        client.set_experiment_tag(identity, "mlflow.note.content", note)
        client.set_experiment_tag(
            identity, f"mlflow.sharedViewState.{layout.VIEW}", layout.view(board)
        )
    return _link(identity)


def link(uri: str, study: str) -> str:
    """The saved view of a study in MLflow's pages, from `#` on.

    Raises:
        StudyError: the store holds no study of this name.
        StorageError: the store cannot be used.
    """
    with _storage_errors(uri):
        return _link(_experiment(MlflowClient(uri), study).experiment_id)


class _Known(NamedTuple):
    """What must be remembered of a run; MLflow's own object holds all its parameters too."""

    identity: str
    status: str
    point: str = ""
    told: bool = False
    """Whether the study's run holds where its numbers come from."""


class _Projection:
    """Where the projection of one log stands; every step may be repeated."""

    def __init__(self, log: Path, uri: str, study: str) -> None:
        self._log = log
        self._client = MlflowClient(uri)
        self._study = study
        self._experiment: Experiment | None = None
        self._runs: dict[str, _Known] = {}
        self._open: dict[str, str] = {}
        self._refusals = log.with_name("mlflow-refused.jsonl")
        self.refused = {_content(line["event"]) for line in wal.read(self._refusals)[0]}
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
        held: dict[str, list[dict[str, Any]]] = {}
        for event in events:
            kind, trial = event["event"], event.get("trial", "")
            if kind == "study":
                self._guarded(event, self._begin)
                continue
            if kind in ("lost", "paused") or self._known(trial):
                continue
            if kind == "start":
                self._guarded(event, self._start)
            if trial not in self._runs:
                if kind != "start":
                    self._refuse(event, "the start of this trial was refused")
                continue
            held.setdefault(trial, []).append(event)
            if kind == "end":
                self._write(trial, held.pop(trial))
        for trial, own in held.items():
            self._write(trial, own)
        self.offset = offset
        return bool(events)

    def mark_interrupted(self) -> None:
        """No run of a trial that does not run is left running."""
        for run in self._open.values():
            self._client.set_terminated(run, "KILLED")
        self._open.clear()

    def _recall(self) -> None:
        """Learn which runs there are; of two with one key, left by a lost answer, one goes."""
        experiment = _experiment(self._client, self._study)
        runs = [
            (run.data.tags["key"], _remembered(run))
            for run in _each(self._client, experiment, "")
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

    def _guarded(
        self, event: Mapping[str, Any], write: Callable[[Mapping[str, Any]], None]
    ) -> None:
        """What the store refuses for good is set aside; all else is tried again."""
        try:
            write(event)
        except Exception as error:
            if _passing(error):
                raise
            self._refuse(event, str(error))

    def _refuse(self, event: Mapping[str, Any], reason: str) -> None:
        content = _content(event)
        if content in self.refused:
            return
        with self._refusals.open("a") as file:
            file.write(json.dumps({"reason": reason, "event": dict(event)}) + "\n")
        self.refused.add(content)
        logger.error("MLflow refused an event of %s: %s", event.get("trial", "the study"), reason)

    def _begin(self, event: Mapping[str, Any]) -> None:
        run = self._run("report", {"role": "report"}, event["time"])
        if run.status not in ENDED:
            self._finish("report", "FINISHED", event["time"])
        if not run.told:
            self._client.log_dict(run.identity, dict(event["provenance"]), "provenance.json")
            self._client.set_tag(run.identity, "provenance", event["hash"])
            self._runs["report"] = self._runs["report"]._replace(told=True)

    def _start(self, event: Mapping[str, Any]) -> None:
        method, trial = event["method"], event["trial"]
        parent = self._run(f"sweep/{method}", {"role": "sweep", "method": method}, event["time"])
        if parent.status not in ENDED:
            self._finish(f"sweep/{method}", "FINISHED", event["time"])
        tags = {**layout.start_tags(event), "mlflow.parentRunId": parent.identity}
        run = self._run(trial, tags, event["time"])
        self._open[trial] = run.identity
        if run.status != "RUNNING":
            self._client.update_run(run.identity, status="RUNNING")
            self._runs[trial] = run._replace(status="RUNNING")

    def _write(self, trial: str, events: Sequence[Mapping[str, Any]]) -> None:
        """What some events tell of a trial: in one write, or apart if that is refused."""
        at_once = self._at_once(trial, events)
        if not at_once:
            for event in events:
                if event["event"] == "start":
                    self._guarded(event, self._tell)
            epochs = [event for event in events if event["event"] == "epoch"]
            self._log_metrics(trial, [metric for event in epochs for metric in _curve(event)])
        if events[-1]["event"] == "end":
            self._guarded(events[-1], self._close if at_once else self._end)

    def _at_once(self, trial: str, events: Sequence[Mapping[str, Any]]) -> bool:
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
            if _passing(error):
                raise
            return False
        return True

    def _tell(self, event: Mapping[str, Any]) -> None:
        run = self._runs[event["trial"]]
        self._client.log_batch(run.identity, *_told(event, run.point))

    def _end(self, event: Mapping[str, Any]) -> None:
        self._tell(event)
        self._close(event)

    def _close(self, event: Mapping[str, Any]) -> None:
        status = "FAILED" if event["state"] == "FAIL" else "FINISHED"
        self._finish(event["trial"], status, event["time"])

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
                if _passing(error):
                    raise
                if len(batch) == 1:
                    self._refuse({"trial": trial, **dict(batch[0])}, str(error))
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
    if isinstance(error, OperationalError):
        return True
    lasting = (PermissionError, FileNotFoundError, NotADirectoryError, IsADirectoryError)
    return isinstance(error, OSError) and not isinstance(error, lasting)


def _remembered(run: Run) -> _Known:
    tags = run.data.tags
    point, status = tags.get("point", ""), sys.intern(run.info.status)
    return _Known(run.info.run_id, status, point, "provenance" in tags)


def _told(event: Mapping[str, Any], point: str) -> tuple[list[Metric], list[Param], list[RunTag]]:
    """What an event of a trial says to MLflow; `point` is the operating point that stands first."""
    if event["event"] == "start":
        return [], [Param(name, str(value)) for name, value in event["params"].items()], []
    if event["event"] == "epoch":
        return list(_curve(event)), [], []
    figures = layout.figures(event["points"], point)
    metrics = [Metric(name, value, event["time"], 0) for name, value in figures.items()]
    return metrics, [], [RunTag(name, value) for name, value in layout.end_tags(event).items()]


def _curve(event: Mapping[str, Any]) -> Iterator[Metric]:
    """With the event's own time: MLflow's SQL stores take the same point twice as once."""
    for name, value in event["metrics"].items():
        if math.isfinite(value):
            yield Metric(name, value, event["time"], event["step"])


def _board_run(
    client: MlflowClient, experiment: Experiment, board: Board, method: str, old: Sequence[Run]
) -> str:
    """The id of one method's run of the board; a new one where a number changed."""
    metrics, words = layout.board_run(board, method)
    content = json.dumps([method, metrics, words], sort_keys=True)
    for run in old:
        if run.data.tags.get("content") == content and run.info.status in ENDED:
            return str(run.info.run_id)
    tags = {
        "role": "leaderboard",
        "method": method,
        "study": board.study,
        "content": content,
        "mlflow.runColor": layout.colour(method),
        **words,
    }
    run = client.create_run(experiment.experiment_id, run_name=f"board: {method}", tags=tags)
    now = time.time_ns() // 1_000_000
    client.log_batch(run.info.run_id, [Metric(k, v, now, 0) for k, v in metrics.items()])
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def _report_run(client: MlflowClient, experiment: Experiment) -> str:
    runs = _runs(client, experiment, "tags.role = 'report'")
    if runs:
        return str(runs[0].info.run_id)
    tags = {"key": "report", "role": "report", "study": experiment.name}
    run = client.create_run(experiment.experiment_id, run_name="report", tags=tags)
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def _link(experiment: str) -> str:
    view = f"workflowType=machine_learning&viewStateShareKey={layout.VIEW}"
    return f"#/experiments/{experiment}/runs?{view}"


def _experiment(client: MlflowClient, study: str) -> Experiment:
    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        raise StudyError(f"this MLflow store holds no study {study!r}; `isoflop run` makes one")
    return experiment


def _runs(client: MlflowClient, experiment: Experiment, query: str) -> list[Run]:
    """All active runs that match, oldest first."""
    return list(_each(client, experiment, query))


def _each(client: MlflowClient, experiment: Experiment, query: str) -> Iterator[Run]:
    """Active runs that match, oldest first, so that runs that come meanwhile shift no page."""
    seen: set[str] = set()
    token = None
    while True:
        page = client.search_runs(
            [experiment.experiment_id],
            query,
            ViewType.ACTIVE_ONLY,
            1000,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        expected = len(seen) + len(page)
        seen.update(run.info.run_id for run in page)
        if len(seen) != expected:
            raise StorageError(f"MLflow gave runs of {experiment.name} twice; read again")
        yield from page
        token = page.token
        if not token:
            return


def _artifacts(uri: str, study: str) -> str | None:
    """Artefacts lie beside a local store, and where a server keeps them."""
    if not uri.startswith("sqlite:///"):
        return None
    place = Path(uri.removeprefix("sqlite:///")).absolute().parent
    return (place / "mlartifacts" / study).as_uri()


def _check_file(path: Path) -> None:
    place = next(folder for folder in path.absolute().parents if folder.exists())
    written = path if path.exists() else place
    if not place.is_dir() or not os.access(place, os.W_OK) or not os.access(written, os.W_OK):
        raise StorageError(f"the MLflow store must be writable, but {written} is not")
    if path.exists():
        try:
            with contextlib.closing(sqlite3.connect(path)) as database:
                database.execute("SELECT name FROM sqlite_master LIMIT 1")
        except sqlite3.Error as error:
            raise StorageError(f"{path} must be an SQLite database, but: {error}") from None


def _check_server(uri: str) -> None:
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5):
            pass
        MlflowClient(uri).search_experiments(max_results=1)
    except (urllib.error.URLError, OSError, ValueError, MlflowException) as error:
        raise StorageError(
            f"the MLflow server must answer, but {uri} does not: {error}; "
            "start it, or leave --mlflow out for a local store"
        ) from None


@contextlib.contextmanager
def _alone(uri: str) -> Iterator[None]:
    """One process at a time makes a file's tables and experiments; a server sees to it itself."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    folder = Path(uri.removeprefix("sqlite:///")).absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _make_file(uri: str) -> None:
    """An empty store, made aside and renamed: MLflow cannot finish tables that a kill cut off."""
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or path.exists():
        return
    aside = path.with_name(f"{path.name}.new")
    for left in (aside, aside.with_name(f"{aside.name}-journal")):
        left.unlink(missing_ok=True)
    MlflowClient(f"sqlite:///{aside}").search_experiments(max_results=1)
    aside.rename(path)


@contextlib.contextmanager
def _storage_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except (MlflowException, OperationalError, OSError) as error:
        if "disk is full" in str(error) or (isinstance(error, OSError) and error.errno in wal.FULL):
            raise DiskFull(
                f"the MLflow store {uri} must have room, but its disk is full; nothing is lost: "
                "make room, and the same command goes on"
            ) from None
        raise StorageError(f"the MLflow store {uri} cannot be used: {error}") from None
