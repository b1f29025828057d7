"""What a store holds of a study, as it lies there: to be checked, or to make a board from."""

import logging
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from methods.files import digest
from orchestrator.record import evidence
from orchestrator.record.rows import Row
from orchestrator.store.place import LATENCIES, experiment_of, runs_of, storage_errors

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredRun:
    """A run's own words and numbers."""

    run_id: str
    status: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]

    @staticmethod
    def of(run: Run) -> "StoredRun":
        data = run.data
        return StoredRun(
            run.info.run_id, run.info.status, dict(data.tags), dict(data.params), dict(data.metrics)
        )


@dataclass(frozen=True)
class Stored:
    """All that a study's board is made from, and the board as it was published."""

    study_hash: str
    trials: tuple[StoredRun, ...]
    """Those that ended."""
    boards: tuple[StoredRun, ...]
    report: StoredRun | None
    files: Mapping[str, bytes]
    """The artefacts of the report; measured times are no part of the board."""
    evidence: Mapping[str, bytes]
    """What each confirm run left, by run id; without those whose artefact is missing."""


def read_stored(uri: str, study: str) -> Stored:
    """Everything, evidence and report included.

    Raises:
        StudyError: the store holds no study of this name.
        StorageError: the store cannot be used.
    """
    with storage_errors(uri), tempfile.TemporaryDirectory() as folder:
        client = MlflowClient(uri)
        experiment = experiment_of(client, study)
        runs = [StoredRun.of(run) for run in runs_of(client, experiment, "")]
        role = {run.run_id: run.tags.get("role", "") for run in runs}
        trials = [r for r in runs if role[r.run_id].startswith("trial-") and "state" in r.tags]
        report = next((run for run in runs if role[run.run_id] == "report"), None)
        found: dict[str, bytes] = {}
        for run in trials:
            if sha256 := run.tags.get("evidence"):
                name = evidence.file_name(run.tags.get("trial", ""), sha256)
                content = _artefacts(client, run.run_id, Path(folder), only=name)
                found |= {run.run_id: content[name]} if name in content else {}
        told = _artefacts(client, report.run_id, Path(folder)) if report else {}
        return Stored(
            study_hash=experiment.tags.get("study_hash", ""),
            trials=tuple(trials),
            boards=tuple(run for run in runs if role[run.run_id] == "leaderboard"),
            report=report,
            files={name: c for name, c in told.items() if name != LATENCIES},
            evidence=found,
        )


def fetch_evidence(uri: str, rows: Iterable[Row], study: Path) -> None:
    """Brings the confirm runs' evidence into the study's folder, where it is not there yet.

    What the store does not give is logged.
    """
    wanted = {row.trial: row for row in rows if row.role == "confirm" and row.evidence}
    lacking = [
        row
        for trial, row in sorted(wanted.items())
        if row.run_id and evidence.read(study, trial, row.evidence) is None
    ]
    if not lacking:
        return
    client = MlflowClient(uri)
    for row in lacking:
        name = evidence.file_name(row.trial, row.evidence)
        try:
            with tempfile.TemporaryDirectory() as folder:
                assert row.run_id is not None, "only rows of a store lack it"
                content = _artefacts(client, row.run_id, Path(folder), only=name).get(name)
            if content is not None and digest(content) == row.evidence:
                evidence.place(content, study / evidence.FOLDER / name)
        except Exception as error:  # a board can be made without
            logger.warning("%s: its evidence was not read: %s", row.trial, error)


def _artefacts(
    client: MlflowClient, run: str, folder: Path, *, only: str | None = None
) -> dict[str, bytes]:
    """A run's files, as they lie in the store."""
    names = [item.path for item in client.list_artifacts(run) if not item.is_dir]
    return {
        name: Path(client.download_artifacts(run, name, str(folder))).read_bytes()
        for name in names
        if only in (None, name)
    }
