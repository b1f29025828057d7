"""MLflow: a projection of the write-ahead log, and the board read back from it.

The only file that imports mlflow. One writer, a thread of the driver's, follows the log; every
write is idempotent, so that a projection that was cut off anywhere is finished by the next one.
"""

import contextlib
import json
import logging
import math
import os
import sqlite3
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # by default a write blocks 246 s
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException

from methods import METHODS
from methods.errors import StorageError, StudyError
from orchestrator import wal
from orchestrator.board import Board
from orchestrator.rows import Row, trial_rows

logger = logging.getLogger(__name__)

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""One per method (Okabe and Ito), as far as they go."""
ENDED = ("FINISHED", "FAILED")
PERMANENT = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "PERMISSION_DENIED", "MALFORMED_REQUEST")
VIEW = "leaderboard"


def check(uri: str) -> None:
    """Refuses a store that cannot be used, within seconds.

    Raises:
        StorageError: a folder that cannot be written, a server that does not answer, another kind.
    """
    if uri.startswith("sqlite:///"):
        _check_file(Path(uri.removeprefix("sqlite:///")))
    elif uri.startswith(("http://", "https://")):
        try:
            with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5):
                pass
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise StorageError(
                f"the MLflow server must answer, but {uri} does not: {error}; "
                "start it, or leave --mlflow out for a local store"
            ) from None
    elif uri.startswith(("postgresql", "mysql", "mssql")):
        with _storage_errors(uri):
            MlflowClient(uri).search_experiments(max_results=1)
    else:
        raise StorageError(
            f"an MLflow URI starts with sqlite:///, http:// or https://, but got {uri!r}"
        )


def claim(uri: str, study: str, study_hash: str) -> str:
    """The id of the study's experiment, made if it is missing.

    Raises:
        StudyError: the name belongs to a study of another hash.
        StorageError: the store cannot be used.
    """
    with _storage_errors(uri):
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(study)
        if experiment is None:
            tags = {"study_hash": study_hash, "mlflow.experimentKind": "custom_model_development"}
            return str(client.create_experiment(study, _artifacts(uri, study), tags))
    found = experiment.tags.get("study_hash")
    if found != study_hash or experiment.lifecycle_stage != "active":
        raise StudyError(
            f"the name {study!r} is taken in this MLflow store by a different study (hash {found}, "
            f"this one has {study_hash}); give it another name, or another store with --mlflow"
        )
    return str(experiment.experiment_id)


class Projector:
    """Follows the log into MLflow in the background; a server that is away is tried again.

    What the store refuses for good goes to `mlflow-refused.jsonl` beside the log.
    """

    def __init__(self, log: Path, uri: str, study: str) -> None:
        self._projection = _Projection(log, uri, study)
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._follow, name="mlflow", daemon=True)

    def start(self) -> None:
        """Begin, with all that the log holds already."""
        self._thread.start()

    def flush(self, timeout: float) -> bool:
        """Whether all that the log holds now reached the store within `timeout` seconds."""
        goal = self._projection.size()
        deadline = time.monotonic() + timeout
        while self._projection.offset < goal and time.monotonic() < deadline:
            self._wake.set()
            time.sleep(0.05)
        return self._projection.offset >= goal

    def stop(self) -> None:
        """End; runs of interrupted trials are marked as killed until they go on."""
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout=30)
        try:
            self._projection.mark_interrupted()
        except Exception as error:
            logger.warning("MLflow was not told which trials are interrupted: %s", error)

    def _follow(self) -> None:
        pause = 0.5
        while not self._stopping:
            try:
                self._projection.advance()
                pause = 0.5
            except Exception as error:
                logger.warning("MLflow did not take a write, again in %.0f s: %s", pause, error)
                self._projection.forget()
                pause = min(2 * pause, 30.0)
            self._wake.wait(pause)
            self._wake.clear()


def project(log: Path, uri: str, study: str) -> None:
    """Brings everything the log holds into the store, here and now."""
    projection = _Projection(log, uri, study)
    projection.advance()


def read_rows(uri: str, study: str) -> list[Row]:
    """Every trial that ended, from the store alone, one row per operating point.

    Raises:
        StudyError: the store holds no study of this name.
        StorageError: the store cannot be used.
    """
    with _storage_errors(uri):
        client = MlflowClient(uri)
        runs = _runs(client, _experiment(client, study), "tags.role LIKE 'trial-%'")
    return [row for run in runs if "state" in run.data.tags for row in _rows(study, run)]


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
    """
    client = MlflowClient(uri)
    experiment = _experiment(client, study)
    old = {
        run.data.tags["method"]: run
        for run in _runs(client, experiment, "tags.role = 'leaderboard'")
    }
    for method in board.methods:
        _board_run(client, experiment, board, method, old.pop(method, None))
    for run in old.values():
        client.delete_run(run.info.run_id)
    report = _runs(client, experiment, "tags.role = 'report'")[0]
    client.log_artifacts(report.info.run_id, str(folder))
    client.set_tag(report.info.run_id, "mlflow.note.content", board.verdict)
    identity = experiment.experiment_id
    note = f"{board.verdict}\n\nThe report is an artefact of the run `report`."
    client.set_experiment_tag(identity, "mlflow.note.content", note)
    client.set_experiment_tag(identity, f"mlflow.sharedViewState.{VIEW}", _view(board))
    return link(uri, study)


def link(uri: str, study: str) -> str:
    """The saved view of a study in MLflow's pages, from `#` on."""
    identity = _experiment(MlflowClient(uri), study).experiment_id
    return f"#/experiments/{identity}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}"


class _Projection:
    """Where the projection of one log stands; every step may be repeated."""

    def __init__(self, log: Path, uri: str, study: str) -> None:
        self._log = log
        self._client = MlflowClient(uri)
        self._study = study
        self._experiment: Experiment | None = None
        self._runs: dict[str, Run] = {}
        self._open: dict[str, str] = {}
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
        events, offset = wal.read(self._log, self.offset)
        curves: dict[str, list[Metric]] = {}
        for event in events:
            if event["event"] == "study":
                self._guarded(event, self._begin, event)
            elif self._known(event["trial"]):
                continue
            elif event["event"] == "start":
                self._guarded(event, self._start, event)
            elif event["event"] == "epoch":
                curves.setdefault(event["trial"], []).extend(_curve(event))
            else:
                self._guarded(event, self._end, event, curves.pop(event["trial"], []))
        for trial, metrics in curves.items():
            self._log_metrics(self._runs[trial].info.run_id, metrics)
        self.offset = offset

    def mark_interrupted(self) -> None:
        """No run of a trial that does not run is left running."""
        for run in self._open.values():
            self._client.set_terminated(run, "KILLED")
        self._open.clear()

    def _recall(self) -> None:
        self._experiment = _experiment(self._client, self._study)
        runs = _runs(self._client, self._experiment, "")
        self._runs = {run.data.tags["key"]: run for run in runs if "key" in run.data.tags}

    def _known(self, trial: str) -> bool:
        """Whether the store holds a trial with its end, from an earlier projection."""
        run = self._runs.get(trial)
        return run is not None and run.info.status in ENDED and trial not in self._open

    def _guarded(self, event: Mapping[str, Any], write: Any, *arguments: Any) -> None:
        """What the store refuses for good is set aside; all else is tried again."""
        try:
            write(*arguments)
        except MlflowException as error:
            if error.error_code not in PERMANENT:
                raise
            logger.error("MLflow refused an event of %s: %s", event.get("trial"), error)
            with self._log.with_name("mlflow-refused.jsonl").open("a") as file:
                file.write(json.dumps({"error": str(error), "event": dict(event)}) + "\n")

    def _begin(self, event: Mapping[str, Any]) -> None:
        run = self._run("report", {"role": "report"}, event["time"])
        if run.info.status not in ENDED:
            self._client.log_dict(run.info.run_id, dict(event["provenance"]), "provenance.json")
            self._finish("report", "FINISHED", event["time"])

    def _start(self, event: Mapping[str, Any]) -> None:
        method, trial = event["method"], event["trial"]
        parent = self._run(f"sweep/{method}", {"role": "sweep", "method": method}, event["time"])
        if parent.info.status not in ENDED:
            self._finish(f"sweep/{method}", "FINISHED", event["time"])
        tags = {
            "role": f"trial-{event['role']}",
            "method": method,
            "trial": trial,
            "config": event["config"],
            "config_hash": event["config_hash"],
            "seed": str(event["seed"]),
            "budget_mmac": json.dumps(event["budgets"]),
            "params": json.dumps(event["params"], sort_keys=True),
            "mlflow.parentRunId": parent.info.run_id,
        }
        run = self._run(trial, tags, event["time"])
        if run.info.status != "RUNNING":
            self._client.update_run(run.info.run_id, status="RUNNING")
        self._open[trial] = run.info.run_id
        params = [Param(name, str(value)) for name, value in event["params"].items()]
        self._client.log_batch(run.info.run_id, params=params)

    def _end(self, event: Mapping[str, Any], curve: Sequence[Metric]) -> None:
        trial = event["trial"]
        run = self._runs[trial].info.run_id
        tags = [
            RunTag("state", event["state"]),
            RunTag("epochs", str(event["epochs"])),
            RunTag("seconds", repr(event["seconds"])),
            RunTag("device", event["device"]),
            RunTag("points", json.dumps(event["points"])),
        ]
        if event["reason"]:
            tags.append(RunTag("reason", event["reason"]))
        self._log_metrics(run, curve)
        figures = _figures(event)
        self._client.log_batch(run, metrics=figures, tags=tags)
        status = "FAILED" if event["state"] == "FAIL" else "FINISHED"
        self._finish(trial, status, event["time"])

    def _run(self, key: str, tags: Mapping[str, str], start: int) -> Run:
        if key not in self._runs:
            assert self._experiment is not None, "the store was asked first"
            colour = {"mlflow.runColor": _colour(tags["method"])} if "method" in tags else {}
            self._runs[key] = self._client.create_run(
                self._experiment.experiment_id,
                start_time=start,
                run_name=key.replace("sweep/", "sweep of "),
                tags={"key": key, "study": self._study, **colour, **tags},
            )
        return self._runs[key]

    def _finish(self, key: str, status: str, end: int) -> None:
        identity = self._runs[key].info.run_id
        self._client.set_terminated(identity, status, end)
        self._runs[key] = self._client.get_run(identity)
        self._open.pop(key, None)

    def _log_metrics(self, run: str, metrics: Sequence[Metric]) -> None:
        for first in range(0, len(metrics), 900):
            self._client.log_batch(run, metrics=metrics[first : first + 900])


def _curve(event: Mapping[str, Any]) -> Iterator[Metric]:
    for name, value in event["metrics"].items():
        if math.isfinite(value):
            yield Metric(name, value, event["time"], event["step"])


def _figures(event: Mapping[str, Any]) -> list[Metric]:
    """Rounded for the eye; the tag `points` keeps every digit."""
    metrics = []
    for point in event["points"][-1:]:
        for split in ("val", "test"):
            if f"{split}_acc" in point:
                mean = point[f"{split}_macs_mean"]
                name = "macs" if split == "val" else "test_macs"
                figures = {
                    f"{split}/acc": round(point[f"{split}_acc"], 4),
                    f"{name}/mean_m": round(mean / 1e6, 4),
                    f"{name}/p95_m": round(point[f"{split}_macs_p95"] / 1e6, 4),
                    f"{name}/max_m": round(point[f"{split}_macs_max"] / 1e6, 4),
                    f"{name}/log10": round(math.log10(mean), 4),
                }
                metrics += [Metric(k, v, event["time"], 0) for k, v in figures.items()]
    return metrics


def _board_run(
    client: MlflowClient, experiment: Experiment, board: Board, method: str, old: Run | None
) -> None:
    """One method's row of the board; made anew where a number changed."""
    metrics, words = {}, {}
    for budget in board.budgets:
        cell = board.cell(method, budget)
        words[f"at_{budget:g}m"] = cell.state + (f", group {cell.group}" if cell.group else "")
        if cell.n and cell.accuracy.mean is not None and cell.macs_mean is not None:
            metrics[f"acc/at_{budget:g}m"] = round(cell.accuracy.mean, 4)
            metrics[f"macs/at_{budget:g}m"] = round(cell.macs_mean / 1e6, 4)
            metrics[f"seeds/at_{budget:g}m"] = float(cell.n)
    content = json.dumps([metrics, words], sort_keys=True)
    if old is not None and old.data.tags.get("content") == content and old.info.status in ENDED:
        return
    if old is not None:
        client.delete_run(old.info.run_id)
    tags = {
        "role": "leaderboard",
        "method": method,
        "study": board.study,
        "content": content,
        "mlflow.runColor": _colour(method),
        **words,
    }
    run = client.create_run(experiment.experiment_id, run_name=f"board: {method}", tags=tags)
    now = time.time_ns() // 1_000_000
    client.log_batch(run.info.run_id, [Metric(k, v, now, 0) for k, v in metrics.items()])
    client.set_terminated(run.info.run_id)


def _view(board: Board) -> str:
    """The state of MLflow's run table in which the board is readable; an undocumented format."""
    columns = [
        f"metrics.`{kind}/at_{budget:g}m`" for budget in board.budgets for kind in ("acc", "macs")
    ]
    state = {
        "searchFilter": "tags.role = 'leaderboard'",
        "orderByKey": f"metrics.`acc/at_{board.primary:g}m`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": ["tags.`method`", *columns],
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "viewMaximized": True,
        "runListHidden": False,
    }
    view = {"name": VIEW, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)}
    return json.dumps(view)


def _rows(study: str, run: Run) -> list[Row]:
    tags = run.data.tags
    start = {
        **{name: tags[name] for name in ("method", "trial", "config", "config_hash")},
        "role": tags["role"].removeprefix("trial-"),
        "seed": int(tags["seed"]),
        "params": json.loads(tags["params"]),
        "budgets": json.loads(tags["budget_mmac"]),
    }
    end = {
        "state": tags["state"],
        "reason": tags.get("reason"),
        "epochs": int(tags["epochs"]),
        "seconds": float(tags["seconds"]),
        "points": json.loads(tags["points"]),
    }
    return trial_rows(study, start, end, run.info.run_id)


def _experiment(client: MlflowClient, study: str) -> Experiment:
    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        raise StudyError(f"this MLflow store holds no study {study!r}; `isoflop run` makes one")
    return experiment


def _runs(client: MlflowClient, experiment: Experiment, query: str) -> list[Run]:
    """All active runs that match; the client alone would stop at a page."""
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment.experiment_id], query, ViewType.ACTIVE_ONLY, 1000, page_token=token
        )
        runs += page
        token = page.token
        if not token:
            return runs


def _colour(method: str) -> str:
    return COLOURS[list(METHODS).index(method) % len(COLOURS)] if method in METHODS else COLOURS[-1]


def _artifacts(uri: str, study: str) -> str | None:
    """Artefacts lie beside a local store, and where a server keeps them."""
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts" / study).as_uri()


def _check_file(path: Path) -> None:
    place = next(folder for folder in path.parents if folder.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise StorageError(f"the MLflow store needs a folder that can be written, {place} is not")
    if path.exists():
        try:
            with contextlib.closing(sqlite3.connect(path)) as database:
                database.execute("SELECT name FROM sqlite_master LIMIT 1")
        except sqlite3.Error as error:
            raise StorageError(f"{path} must be an SQLite database, but: {error}") from None


@contextlib.contextmanager
def _storage_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except (MlflowException, OSError) as error:
        raise StorageError(f"the MLflow store {uri} cannot be used: {error}") from None
