"""The board in MLflow: its study read back, and itself as runs, artefacts, note and saved view."""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Run

from methods.errors import StorageError, StudyError
from methods.files import UNFINISHED, digest
from orchestrator.board.model import Board
from orchestrator.board.verdict import verdict
from orchestrator.record.events import Latency, decode
from orchestrator.record.provenance import Provenance, decode_provenance
from orchestrator.store import tags as layout
from orchestrator.store.place import ENDED, LATENCIES, experiment_of, runs_of, storage_errors


def read_study(uri: str, study: str) -> Provenance:
    """The provenance of a study, with the study as it was run.

    Raises:
        StudyError: the store holds no study of this name.
        StorageError: the store cannot be used.
    """
    with storage_errors(uri):
        client = MlflowClient(uri)
        runs = runs_of(client, experiment_of(client, study), "tags.role = 'report'")
        if not runs:
            raise StudyError(f"study {study!r} has not begun; `isoflop run` begins it")
        with tempfile.TemporaryDirectory() as folder:
            path = client.download_artifacts(runs[0].info.run_id, "provenance.json", folder)
            text = Path(path).read_text()
    try:
        return decode_provenance(json.loads(text))
    except ValueError:
        raise StorageError(
            f"provenance.json of study {study!r} must hold its study as JSON, but does not; "
            "`isoflop run` with the study file writes the store again"
        ) from None


def read_latencies(uri: str, study: str) -> list[Latency]:
    """How long deployed networks took, as the log told it; empty where none was timed.

    Raises:
        StudyError: the store holds no study of this name.
        StorageError: the store cannot be used.
    """
    with storage_errors(uri):
        client = MlflowClient(uri)
        runs = runs_of(client, experiment_of(client, study), "tags.role = 'report'")
        if not runs or not any(
            f.path == LATENCIES for f in client.list_artifacts(runs[0].info.run_id)
        ):
            return []
        with tempfile.TemporaryDirectory() as folder:
            path = client.download_artifacts(runs[0].info.run_id, LATENCIES, folder)
            content: dict[str, Any] = json.loads(Path(path).read_text())
    events = [decode(line) for line in content["latencies"]]
    return [event for event in events if isinstance(event, Latency)]


def write_board(uri: str, study: str, board: Board, folder: Path) -> str:
    """The board as runs, artefacts, note and saved view; the same board again changes nothing.

    Returns the link of the view, from `#` on.

    Raises:
        StudyError: the store holds no study of this name.
        StorageError: the store cannot be used.
    """
    with storage_errors(uri):
        client = MlflowClient(uri)
        experiment = experiment_of(client, study)
        identity = experiment.experiment_id
        old = runs_of(client, experiment, "tags.role = 'leaderboard'")
        runs = _trials_of(client, experiment, board)
        kept = {
            _board_run(client, experiment, board, method, old, runs=runs)
            for method in board.methods
        }
        for run in old:
            if run.info.run_id not in kept:
                client.delete_run(run.info.run_id)
        report = _report_run(client, experiment)
        files = sorted(set(folder.iterdir()) - set(folder.glob(UNFINISHED)))
        for file in files:
            client.log_artifact(report, str(file))
        digests = {file.name: digest(file.read_bytes()) for file in files}
        client.set_tag(report, "files", json.dumps(digests))
        client.set_tag(report, "mlflow.note.content", verdict(board))
        page = f"#/experiments/{identity}/runs/{report}/artifacts/report.html"
        note = f"{verdict(board)}\n\n[The report]({page}) is an artefact of the run `report`."
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
    with storage_errors(uri):
        return _link(experiment_of(MlflowClient(uri), study).experiment_id)


def _trials_of(client: MlflowClient, experiment: Experiment, board: Board) -> dict[str, str]:
    """Run ids, by trial, of the confirm runs and of what they confirm."""
    confirm = runs_of(client, experiment, "tags.role = 'trial-confirm'")
    found = {run.data.tags.get("trial", ""): run.info.run_id for run in confirm}
    for config in sorted({cell.choice.config for cell in board.cells if cell.choice}):
        for run in runs_of(client, experiment, f"tags.trial = '{config}'"):
            found[config] = run.info.run_id
    return found


def _board_run(
    client: MlflowClient,
    experiment: Experiment,
    board: Board,
    method: str,
    old: Sequence[Run],
    *,
    runs: Mapping[str, str],
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
        "study": board.rules.study,
        "content": content,
        "mlflow.note.content": layout.board_note(board, method, experiment.experiment_id, runs),
        "mlflow.runColor": layout.colour(method),
        **words,
    }
    run = client.create_run(experiment.experiment_id, run_name=f"board: {method}", tags=tags)
    now = time.time_ns() // 1_000_000
    client.log_batch(run.info.run_id, [Metric(k, v, now, 0) for k, v in metrics.items()])
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def _report_run(client: MlflowClient, experiment: Experiment) -> str:
    runs = runs_of(client, experiment, "tags.role = 'report'")
    if runs:
        return str(runs[0].info.run_id)
    tags = {"key": "report", "role": "report", "study": experiment.name}
    run = client.create_run(experiment.experiment_id, run_name="report", tags=tags)
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def _link(experiment: str) -> str:
    view = f"workflowType=machine_learning&viewStateShareKey={layout.VIEW}"
    return f"#/experiments/{experiment}/runs?{view}"
