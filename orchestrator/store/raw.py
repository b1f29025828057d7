"""The raw content of a study in a store, for verification or for a board."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from methods.errors import StorageError
from methods.files import digest
from orchestrator.record import evidence
from orchestrator.record.address import Address
from orchestrator.record.rows import Row
from orchestrator.store import tags as layout
from orchestrator.store.artefacts import Artefacts, artefacts_of
from orchestrator.store.reading.failures import is_storage, storage_errors
from orchestrator.store.reading.runs import LATENCIES, experiment_of, reader, report_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredRun:
    """A run: its tags, parameters and last metrics, and all that stands behind these."""

    run_id: str
    status: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    name: str = ""
    history: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    """By metric: each step and value that was ever logged, in their order."""
    artefacts: tuple[str, ...] = ()
    """The names of its files."""
    datasets: tuple[str, ...] = ()
    """Name and digest of each data set that its record names."""


@dataclass(frozen=True)
class Stored:
    """Everything that a store holds about a study: the sources of its board, and the published
    board."""

    study_hash: str
    trials: tuple[StoredRun, ...]
    """Trials that ended, and runs that may be one."""
    boards: tuple[StoredRun, ...]
    report: StoredRun | None
    files: Mapping[str, bytes]
    """The artefacts of the report, without the latencies, which are no part of the board."""
    evidence: Mapping[str, bytes]
    """The evidence of each confirm run, by run id; without those whose artefact is missing."""
    others: tuple[StoredRun, ...] = ()
    """All other runs: sweeps of methods, trials that run, further reports, and strays."""
    name: str = ""
    """The experiment's."""
    experiment: str = ""
    """Its id."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """The experiment's."""

    @property
    def runs(self) -> tuple[StoredRun, ...]:
        """Every run that was not deleted."""
        report = () if self.report is None else (self.report,)
        return (*report, *self.boards, *self.trials, *self.others)


def read_stored(uri: str, study: str) -> Stored:
    """Everything, evidence and report included.

    Raises:
        StudyError: the store holds no study of this name, or it has not begun.
        StorageError: the store cannot be used.
    """
    from orchestrator.store.client import connect  # noqa: PLC0415, who fetches evidence needs none
    from orchestrator.store.reading.server import each_run  # noqa: PLC0415

    with storage_errors(uri):
        source, client = reader(uri), connect(uri)
        experiment = experiment_of(source, study)
        artefacts = artefacts_of(uri, study, experiment.artifact_location)
        first = report_of(source, experiment, artefacts).run_id
        everything = each_run(client, experiment.experiment_id, "")
        runs = [_stored(client, artefacts, run) for run in everything]
        report = next(run for run in runs if run.run_id == first)
        trials = [run for run in runs if layout.is_trial(run.tags) and "state" in run.tags]
        boards = [run for run in runs if run.tags.get("role") == "leaderboard"]
        boards = [run for run in boards if run not in trials]
        proofs: dict[str, bytes] = {}
        for run in trials:
            if sha256 := run.tags.get("evidence"):
                name = evidence.file_name(run.tags.get("trial", ""), sha256)
                if name in run.artefacts:
                    proofs[run.run_id] = artefacts.read(run.run_id, name)
        return Stored(
            study_hash=experiment.tags.get("study_hash", ""),
            trials=tuple(trials),
            boards=tuple(boards),
            report=report,
            files={
                name: artefacts.read(first, name) for name in report.artefacts if name != LATENCIES
            },
            evidence=proofs,
            others=tuple(run for run in runs if run not in (*trials, *boards, report)),
            name=experiment.name,
            experiment=experiment.experiment_id,
            tags=dict(experiment.tags),
        )


def _stored(client: "MlflowClient", artefacts: Artefacts, run: "Run") -> StoredRun:
    from orchestrator.store.lines import dataset_text  # noqa: PLC0415

    run_id, data = run.info.run_id, run.data
    inputs = run.inputs.dataset_inputs if run.inputs else []
    history = {
        key: tuple((m.step, m.value) for m in client.get_metric_history(run_id, key))
        for key in sorted(data.metrics)
    }
    return StoredRun(
        run_id=run_id,
        status=run.info.status,
        tags=dict(data.tags),
        params=dict(data.params),
        metrics=dict(data.metrics),
        name=run.info.run_name or "",
        history=history,
        artefacts=tuple(artefacts.names(run_id)),
        datasets=tuple(dataset_text(read.dataset) for read in inputs),
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
        experiment = experiment_of(reader(uri), lacking[0].study)
        artefacts = artefacts_of(uri, experiment.name, experiment.artifact_location)
    for row in lacking:
        assert row.run_id is not None, "only rows of a store lack it"
        name = evidence.file_name(row.trial, row.evidence)
        try:
            content = artefacts.read(row.run_id, name)
            if digest(content) == row.evidence:
                evidence.place(content, study / evidence.FOLDER / name)
        except Exception as error:  # a board can be made without
            if not (is_storage(error) or isinstance(error, StorageError)):
                raise
            text = " ".join(Address(uri).redact(str(error)).split())
            logger.warning("%s: its evidence was not read: %s", row.trial, text)
