"""What a store holds of a study, unread: for verification, or for a board."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from methods.errors import StorageError
from methods.files import digest
from orchestrator.record import evidence
from orchestrator.record.address import Address
from orchestrator.record.rows import Row
from orchestrator.store.artefacts import artefacts_of
from orchestrator.store.client import LATENCIES, connect, experiment_of, runs_of, storage_errors

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredRun:
    """A run's tags, parameters and last metrics."""

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
    """All that a study's board is computed from, and the board as it was published."""

    study_hash: str
    trials: tuple[StoredRun, ...]
    """Trials that ended."""
    boards: tuple[StoredRun, ...]
    report: StoredRun | None
    files: Mapping[str, bytes]
    """The artefacts of the report, without the latencies, which are no part of the board."""
    evidence: Mapping[str, bytes]
    """The evidence of each confirm run, by run id; without those whose artefact is missing."""


def read_stored(uri: str, study: str) -> Stored:
    """Everything, evidence and report included.

    Raises:
        StudyError: the store holds no study of this name.
        StorageError: the store cannot be used.
    """
    with storage_errors(uri):
        client = connect(uri)
        experiment = experiment_of(client, study)
        artefacts = artefacts_of(uri, client, experiment)
        runs = [StoredRun.of(run) for run in runs_of(client, experiment, "")]
        role = {run.run_id: run.tags.get("role", "") for run in runs}
        trials = [r for r in runs if role[r.run_id].startswith("trial-") and "state" in r.tags]
        report = next((run for run in runs if role[run.run_id] == "report"), None)
        proofs: dict[str, bytes] = {}
        for run in trials:
            if sha256 := run.tags.get("evidence"):
                name = evidence.file_name(run.tags.get("trial", ""), sha256)
                if name in artefacts.names(run.run_id):
                    proofs[run.run_id] = artefacts.read(run.run_id, name)
        files = {
            name: artefacts.read(report.run_id, name)
            for name in (artefacts.names(report.run_id) if report else ())
            if report and name != LATENCIES
        }
        return Stored(
            study_hash=experiment.tags.get("study_hash", ""),
            trials=tuple(trials),
            boards=tuple(run for run in runs if role[run.run_id] == "leaderboard"),
            report=report,
            files=files,
            evidence=proofs,
        )


def fetch_evidence(uri: str, rows: Iterable[Row], study: Path) -> None:
    """Copies the confirm runs' evidence into the study's folder, where that lacks it.

    Evidence that the store does not give is logged.
    """
    wanted = {row.trial: row for row in rows if row.role == "confirm" and row.evidence}
    lacking = [
        row
        for trial, row in sorted(wanted.items())
        if row.run_id and evidence.read(study, trial, row.evidence) is None
    ]
    if not lacking:
        return
    with storage_errors(uri):
        client = connect(uri)
        artefacts = artefacts_of(uri, client, experiment_of(client, lacking[0].study))
    for row in lacking:
        assert row.run_id is not None, "only rows of a store lack it"
        name = evidence.file_name(row.trial, row.evidence)
        try:
            content = artefacts.read(row.run_id, name)
            if digest(content) == row.evidence:
                evidence.place(content, study / evidence.FOLDER / name)
        except (MlflowException, StorageError, OSError) as error:  # a board can be made without
            text = " ".join(Address(uri).redact(str(error)).split())
            logger.warning("%s: its evidence was not read: %s", row.trial, text)
