"""The board in MLflow: its study read back, and itself as runs, artefacts, note and saved view."""

import getpass
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.errors import StorageError, StudyError
from methods.files import UNFINISHED, digest
from orchestrator.board.model import Board
from orchestrator.board.verdict import verdict
from orchestrator.record.events import Latency, decode
from orchestrator.record.provenance import Provenance, decode_provenance
from orchestrator.report.palette import places, run_colour
from orchestrator.store.artefacts import artefacts_of
from orchestrator.store.lines import (
    LAYOUT,
    NOTE,
    VIEW_TAG,
    BoardRun,
    board_note,
    board_run,
    content_of,
    dataset,
    report_note,
    study_note,
    view,
    view_link,
)
from orchestrator.store.reading.failures import storage_errors
from orchestrator.store.reading.runs import (
    ENDED,
    LATENCIES,
    Experiment,
    Reader,
    Run,
    experiment_of,
    reader,
    report_of,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient


def read_study(uri: str, study: str) -> Provenance:
    """The provenance of a study, with the study as it was run.

    Raises:
        StudyError: the store holds no study of this name.
        StorageError: the store cannot be used.
    """
    with storage_errors(uri):
        source = reader(uri)
        experiment = experiment_of(source, study)
        artefacts = artefacts_of(uri, study, experiment.artifact_location)
        report = report_of(source, experiment, artefacts)
        try:
            content = artefacts.read(report.run_id, "provenance.json")
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
        source = reader(uri)
        experiments = [
            each
            for each in source.experiments()
            if "study_hash" in each.tags and each.name not in without
        ]
        return [_in_short(uri, source, each) for each in experiments]


def _in_short(uri: str, source: Reader, experiment: Experiment) -> StudyRuns:
    try:
        data = str(read_study(uri, experiment.name).study.get("data", ""))
    except (StudyError, StorageError):  # it has not begun, or its files are elsewhere
        data = ""
    trials = source.runs(experiment.experiment_id, "tags.role LIKE 'trial-%'")
    boards = source.runs(experiment.experiment_id, "tags.role = 'leaderboard'")
    ends = [run.end_time for run in boards if run.end_time]
    return StudyRuns(
        experiment.name,
        data,
        sum(run.status in ENDED for run in trials),
        max(ends, default=None),
    )


def read_latencies(uri: str, study: str) -> list[Latency]:
    """The latencies of deployed networks, as the log has them; empty where none was timed.

    Raises:
        StudyError: the store holds no study of this name.
        StorageError: the store cannot be used.
    """
    with storage_errors(uri):
        source = reader(uri)
        experiment = experiment_of(source, study)
        artefacts = artefacts_of(uri, study, experiment.artifact_location)
        report = report_of(source, experiment, artefacts).run_id
        if LATENCIES not in artefacts.names(report):
            return []
        content: dict[str, Any] = json.loads(artefacts.read(report, LATENCIES))
    events = [decode(line) for line in content["latencies"]]
    return [event for event in events if isinstance(event, Latency)]


def write_board(uri: str, study: str, board: Board, folder: Path) -> str:
    """Writes the board as runs, artefacts, notes and saved view; the same board changes nothing.

    Returns the link of the view, from `#` on.

    Raises:
        StudyError: the store holds no study of this name.
        StorageError: the store cannot be used.
    """
    from orchestrator.store.client import KIND, connect  # noqa: PLC0415, who reads needs no MLflow

    with storage_errors(uri):
        client, source = connect(uri), reader(uri)
        experiment = experiment_of(source, study)
        identity = experiment.experiment_id
        artefacts = artefacts_of(uri, study, experiment.artifact_location)
        report = report_of(source, experiment, artefacts).run_id
        files = sorted(set(folder.iterdir()) - set(folder.glob(UNFINISHED)))
        contents = {file.name: file.read_bytes() for file in files}
        old_runs = [
            (run, source.params(run.run_id))
            for run in list(source.runs(identity, "tags.role = 'leaderboard'"))
        ]
        lines = _lines(source, experiment, board, report)
        origin = _origin(contents)
        board_runs = {  # the first one last: MLflow's lists show the newest on top
            _write(client, identity, line, old_runs, origin) for line in reversed(lines)
        }
        for run, _ in old_runs:
            if run.run_id not in board_runs:
                client.delete_run(run.run_id)
        for name, content in contents.items():
            artefacts.write(report, name, content)
        digests = {name: digest(content) for name, content in contents.items()}
        client.set_tag(report, "files", json.dumps(digests))
        words = verdict(board)
        client.set_tag(report, NOTE, report_note(words, identity))
        tags = {NOTE: study_note(words, identity, report), VIEW_TAG: view(board), **KIND}
        for name, value in tags.items():
            client.set_experiment_tag(identity, name, value)
    return view_link(identity)


def link(uri: str, study: str) -> str:
    """The saved view of a study in MLflow's pages, from `#` on.

    Raises:
        StudyError: the store holds no study of this name.
        StorageError: the store cannot be used.
    """
    with storage_errors(uri):
        return view_link(experiment_of(reader(uri), study).experiment_id)


@dataclass(frozen=True)
class _Line:
    """One method's run of the board, as it is to be written."""

    run: BoardRun
    tags: Mapping[str, str]


def _lines(source: Reader, experiment: Experiment, board: Board, report: str) -> list[_Line]:
    """The board's runs in its order."""
    trial_runs = _trial_runs(source, experiment, board)
    colours = places(board.methods, board.baseline)
    lines = []
    for method in board.methods:
        run = board_run(board, method)
        tags = {
            "role": "leaderboard",
            "method": method,
            "study": board.rules.study,
            "content": content_of(method, run.metrics, run.words),
            NOTE: board_note(board, method, experiment.experiment_id, report, trial_runs),
            "mlflow.runColor": run_colour(colours.get(method)),
            **LAYOUT,
            **run.words,
        }
        lines.append(_Line(run, tags))
    return lines


def _write(
    client: "MlflowClient",
    experiment: str,
    line: _Line,
    old_runs: Sequence[tuple[Run, Mapping[str, str]]],
    origin: Provenance | None,
) -> str:
    """The id of a line's run; a new one where anything of it changed."""
    from mlflow.entities import DatasetInput, InputTag, Metric, Param  # noqa: PLC0415

    for old, its_params in old_runs:
        same = all(old.tags.get(name) == value for name, value in line.tags.items())
        if (
            same
            and (old.name, its_params) == (line.run.name, line.run.params)
            and old.status in ENDED
        ):
            return old.run_id
    tags = {**line.tags, **_source(origin)}
    run_id = str(client.create_run(experiment, run_name=line.run.name, tags=tags).info.run_id)
    now = time.time_ns() // 1_000_000
    metrics = [Metric(name, value, now, 0) for name, value in line.run.metrics.items()]
    params = [Param(name, value) for name, value in line.run.params.items()]
    client.log_batch(run_id, metrics, params)
    if origin is not None and (data := dataset(origin)) is not None:
        tested = InputTag("mlflow.data.context", "test")
        client.log_inputs(run_id, [DatasetInput(data, [tested])])
    client.set_terminated(run_id)
    return run_id


def _origin(files: Mapping[str, bytes]) -> Provenance | None:
    """The provenance among a report's files; None where that was not written."""
    content = files.get("provenance.json")
    return None if content is None else decode_provenance(json.loads(content))


def _source(origin: Provenance | None) -> dict[str, str]:
    """Who published with which code, in MLflow's own tags."""
    try:
        user = getpass.getuser()
    except (KeyError, ImportError, OSError):  # a container's user may have no name
        user = "unknown"
    commit = origin.commit if origin else None
    return {
        "mlflow.user": user,
        "mlflow.source.name": "isoflop",
        "mlflow.source.type": "LOCAL",
        **({"mlflow.source.git.commit": commit} if commit else {}),
    }


def _trial_runs(source: Reader, experiment: Experiment, board: Board) -> dict[str, str]:
    """Run ids, by trial, of the confirm runs and of the configurations that they confirm."""
    confirm = source.runs(experiment.experiment_id, "tags.role = 'trial-confirm'")
    run_ids = {run.tags.get("trial", ""): run.run_id for run in confirm}
    for config in sorted({choice.config for cell in board.cells for choice in cell.choices}):
        for run in source.runs(experiment.experiment_id, f"tags.trial = '{config}'"):
            run_ids[config] = run.run_id
    return run_ids
