"""The board in MLflow: its study read back, and itself as runs, artefacts, note and saved view."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Run

from methods.errors import StorageError, StudyError
from methods.files import UNFINISHED, digest
from orchestrator.board.model import Board, Cell
from orchestrator.board.verdict import verdict
from orchestrator.record.events import Latency, decode
from orchestrator.record.provenance import Provenance, decode_provenance
from orchestrator.record.rows import mean_sizes
from orchestrator.report.palette import colour, places
from orchestrator.store import tags as layout
from orchestrator.store.artefacts import artefacts_of
from orchestrator.store.client import (
    ENDED,
    LATENCIES,
    connect,
    experiment_of,
    report_of,
    runs_of,
    storage_errors,
)

VIEW = "leaderboard"
"""The saved view's name and key."""
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
"""The experiment's tag that holds it."""
NOTE = "mlflow.note.content"
"""The tag that MLflow shows as the description of a run or an experiment."""


def read_study(uri: str, study: str) -> Provenance:
    """The provenance of a study, with the study as it was run.

    Raises:
        StudyError: the store holds no study of this name.
        StorageError: the store cannot be used.
    """
    with storage_errors(uri):
        client = connect(uri)
        experiment = experiment_of(client, study)
        artefacts = artefacts_of(uri, client, experiment)
        report = report_of(client, experiment, artefacts)
        try:
            content = artefacts.read(report.info.run_id, "provenance.json")
        except FileNotFoundError as error:
            raise StorageError(
                f"the files of study {study!r} must lie beside its store, but {error.filename} is "
                "missing; the folder mlartifacts belongs to mlflow.db, and moves with it"
            ) from None
    try:
        return decode_provenance(json.loads(content))
    except ValueError:
        raise StorageError(
            f"provenance.json of study {study!r} must hold its study as JSON, but does not; "
            "`isoflop run` with the study file writes the store again"
        ) from None


@dataclass(frozen=True)
class StudyRuns:
    """What a store holds of a study, in short."""

    study: str
    data: str
    trials: int
    """Trials that ended."""
    published: int | None
    """When its board was written, in milliseconds since 1970; None where it has none."""


def read_studies(uri: str, *, without: Sequence[str] = ()) -> list[StudyRuns]:
    """The studies of a store, but for those named in `without`.

    Raises:
        StorageError: the store cannot be used.
    """
    with storage_errors(uri):
        client = connect(uri)
        experiments = [
            each
            for each in client.search_experiments()
            if "study_hash" in each.tags and each.name not in without
        ]
        return [_in_short(uri, client, each) for each in experiments]


def _in_short(uri: str, client: MlflowClient, experiment: Experiment) -> StudyRuns:
    try:
        data = str(read_study(uri, experiment.name).study.get("data", ""))
    except (StudyError, StorageError):  # it has not begun, or its files are elsewhere
        data = ""
    trials = runs_of(client, experiment, "tags.role LIKE 'trial-%'")
    boards = runs_of(client, experiment, "tags.role = 'leaderboard'")
    ends = [run.info.end_time for run in boards if run.info.end_time]
    return StudyRuns(
        experiment.name,
        data,
        sum(run.info.status in ENDED for run in trials),
        max(ends, default=None),
    )


def read_latencies(uri: str, study: str) -> list[Latency]:
    """The latencies of deployed networks, as the log has them; empty where none was timed.

    Raises:
        StudyError: the store holds no study of this name.
        StorageError: the store cannot be used.
    """
    with storage_errors(uri):
        client = connect(uri)
        experiment = experiment_of(client, study)
        artefacts = artefacts_of(uri, client, experiment)
        report = report_of(client, experiment, artefacts).info.run_id
        if LATENCIES not in artefacts.names(report):
            return []
        content: dict[str, Any] = json.loads(artefacts.read(report, LATENCIES))
    events = [decode(line) for line in content["latencies"]]
    return [event for event in events if isinstance(event, Latency)]


def write_board(uri: str, study: str, board: Board, folder: Path) -> str:
    """Writes the board as runs, artefacts, note and saved view; the same board changes nothing.

    Returns the link of the view, from `#` on.

    Raises:
        StudyError: the store holds no study of this name.
        StorageError: the store cannot be used.
    """
    with storage_errors(uri):
        client = connect(uri)
        experiment = experiment_of(client, study)
        identity = experiment.experiment_id
        artefacts = artefacts_of(uri, client, experiment)
        old_runs = runs_of(client, experiment, "tags.role = 'leaderboard'")
        trial_runs = _trial_runs(client, experiment, board)
        board_runs = {
            _board_run(client, experiment, board, method, old_runs, trial_runs=trial_runs)
            for method in board.methods
        }
        for run in old_runs:
            if run.info.run_id not in board_runs:
                client.delete_run(run.info.run_id)
        report = str(report_of(client, experiment, artefacts).info.run_id)
        files = sorted(set(folder.iterdir()) - set(folder.glob(UNFINISHED)))
        contents = {file.name: file.read_bytes() for file in files}
        for name, content in contents.items():
            artefacts.write(report, name, content)
        digests = {name: digest(content) for name, content in contents.items()}
        client.set_tag(report, "files", json.dumps(digests))
        words = verdict(board)
        client.set_tag(report, NOTE, words)
        client.set_experiment_tag(identity, NOTE, study_note(words, identity, report))
        client.set_experiment_tag(identity, VIEW_TAG, view(board))
    return _link(identity)


def link(uri: str, study: str) -> str:
    """The saved view of a study in MLflow's pages, from `#` on.

    Raises:
        StudyError: the store holds no study of this name.
        StorageError: the store cannot be used.
    """
    with storage_errors(uri):
        return _link(experiment_of(connect(uri), study).experiment_id)


def board_run(board: Board, method: str) -> tuple[dict[str, float], dict[str, str]]:
    """One method's line of the board: rounded metrics, and a tag per budget in words."""
    metrics, words = {}, {}
    for budget in board.budgets:
        cell, at = board.cell(method, budget), f"at_{budget:g}{board.cost.suffix}"
        parts = [cell.state, f"letters {cell.letters}" if cell.letters else ""]
        if cell.worth or cell.static:
            parts.append("static" if cell.static else "dynamic")
        parts += [f"{choice.config} {choice.point}".strip() for choice in cell.choices]
        words[at] = ", ".join(part for part in parts if part)
        if cell.n and cell.accuracy.mean is not None and cell.macs_mean is not None:
            metrics[f"acc/{at}"] = round(cell.accuracy.mean, 4)
            metrics[f"macs/{at}"] = round(cell.macs_mean / 1e6, 4)
            if board.cost.clocked and cell.spent is not None:
                metrics[f"ms/{at}"] = float(f"{cell.spent:.4g}")
            metrics[f"seeds/{at}"] = float(cell.n)
            for name, value in mean_sizes(cell.seeds).items():
                metrics[f"{name}/{at}"] = round(value, 1)
            if cell.worth and cell.worth.gain.mean is not None:
                metrics[f"worth/{at}"] = round(cell.worth.gain.mean, 4)
    for pair in board.unreduced:
        if pair.method == method and pair.result.difference is not None:
            gain = round(pair.result.difference, 4)
            metrics[f"over_unreduced/at_{board.primary:g}m"] = gain
    return metrics, words


def study_note(verdict: str, experiment: str, report: str) -> str:
    """The experiment's description: the verdict, and a link of the page in the run `report`."""
    page = f"#/experiments/{experiment}/runs/{report}/artifacts/report.html"
    return f"{verdict}\n\n[The report]({page}) is an artefact of the run `report`."


def board_note(board: Board, method: str, experiment: str, runs: Mapping[str, str]) -> str:
    """The runs behind one method's line, as links; `runs` are run ids by trial."""

    def linked(cell: Cell, config: str) -> str:
        """The runs of a configuration."""
        seeds = [
            f"[seed {row.seed}](#/experiments/{experiment}/runs/{runs[row.trial]})"
            for row in cell.seeds
            if row.config == config and row.trial in runs
        ]
        return ", ".join(seeds) or "-"

    lines = []
    for budget in board.budgets:
        cell = board.cell(method, budget)
        if not cell.choices:
            lines.append(f"- {budget:g} {board.cost.unit}: {cell.state}")
        for choice in cell.choices:
            chosen = choice.config
            if chosen in runs:
                chosen = f"[{chosen}](#/experiments/{experiment}/runs/{runs[chosen]})"
            runs_of_it = linked(cell, choice.config)
            lines.append(f"- {budget:g} {board.cost.unit}: {chosen}, {cell.state}: {runs_of_it}")
    for base in (pair.base for pair in board.unreduced if pair.method == method):
        configs = dict.fromkeys(row.config for row in base.seeds)
        lines += [f"- {config}: {linked(base, config)}" for config in configs]
    note = "The runs behind each number:\n\n"
    for line in lines:
        if len(note) + len(line) > layout.PIECE:
            return f"{note}- and more: the tags `config` and `role` find them"
        note += f"{line}\n"
    return note


def view(board: Board) -> str:
    """The state of MLflow's run table in which the board is readable; an undocumented format."""
    suffix = board.cost.suffix
    kinds = ("acc", "ms", "macs") if board.cost.clocked else ("acc", "macs")
    columns = [
        f"metrics.`{kind}/at_{budget:g}{suffix}`" for budget in board.budgets for kind in kinds
    ]
    state = {
        "searchFilter": "tags.role = 'leaderboard'",
        "orderByKey": f"metrics.`acc/at_{board.primary:g}{suffix}`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [*columns, f"tags.`at_{board.primary:g}{suffix}`"],
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "viewMaximized": True,
        "runListHidden": False,
    }
    return json.dumps({"name": VIEW, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)})


def _trial_runs(client: MlflowClient, experiment: Experiment, board: Board) -> dict[str, str]:
    """Run ids, by trial, of the confirm runs and of the configurations that they confirm."""
    confirm = runs_of(client, experiment, "tags.role = 'trial-confirm'")
    run_ids = {run.data.tags.get("trial", ""): run.info.run_id for run in confirm}
    for config in sorted({choice.config for cell in board.cells for choice in cell.choices}):
        for run in runs_of(client, experiment, f"tags.trial = '{config}'"):
            run_ids[config] = run.info.run_id
    return run_ids


def _board_run(
    client: MlflowClient,
    experiment: Experiment,
    board: Board,
    method: str,
    old_runs: Sequence[Run],
    *,
    trial_runs: Mapping[str, str],
) -> str:
    """The id of one method's run of the board; a new one where a number changed."""
    metrics, words = board_run(board, method)
    content = json.dumps([method, metrics, words], sort_keys=True)
    note = board_note(board, method, experiment.experiment_id, trial_runs)
    for run in old_runs:
        same = (run.data.tags.get("content"), run.data.tags.get(NOTE)) == (content, note)
        if same and run.info.status in ENDED:
            return str(run.info.run_id)
    tags = {
        "role": "leaderboard",
        "method": method,
        "study": board.rules.study,
        "content": content,
        NOTE: note,
        "mlflow.runColor": colour(places(board.methods, board.baseline).get(method)),
        **words,
    }
    run = client.create_run(experiment.experiment_id, run_name=f"board: {method}", tags=tags)
    now = time.time_ns() // 1_000_000
    client.log_batch(run.info.run_id, [Metric(k, v, now, 0) for k, v in metrics.items()])
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def _link(experiment: str) -> str:
    view = f"workflowType=machine_learning&viewStateShareKey={VIEW}"
    return f"#/experiments/{experiment}/runs?{view}"
