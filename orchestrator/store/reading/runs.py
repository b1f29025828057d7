"""Experiments and runs as values, and the questions by which a study is found among them."""

import logging
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from methods.errors import StudyError, nearest
from orchestrator.record.address import Address
from orchestrator.store.artefacts import Artefacts

logger = logging.getLogger(__name__)

LATENCIES = "latencies.json"
"""The artefact of the report's run that holds the latencies of deployed networks."""
SCHEMA = 1
"""Version of what isoflop writes into an experiment, in its tag `isoflop_schema`; without it, 1."""
ENDED = ("FINISHED", "FAILED")
"""States of a run that does not resume."""


class Experiment(NamedTuple):
    """A study in MLflow."""

    experiment_id: str
    name: str
    artifact_location: str
    lifecycle_stage: str
    creation_time: int | None
    tags: Mapping[str, str]


class Run(NamedTuple):
    """A run without its parameters and metrics."""

    run_id: str
    name: str
    status: str
    end_time: int | None
    """Milliseconds; a run that resumes keeps the end that it had."""
    tags: Mapping[str, str]


class Reader(Protocol):
    """A store that is only read.

    A query is one condition in MLflow's language, such as `tags.role = 'report'`, or none.
    """

    def experiment(self, name: str) -> Experiment | None:
        """The experiment of this name, deleted or not."""
        ...

    def experiments(self) -> list[Experiment]:
        """All active experiments."""
        ...

    def runs(self, experiment_id: str, query: str, *, deleted: bool = False) -> Iterator[Run]:
        """Active runs that match, or deleted ones, oldest first."""
        ...

    def run(self, run_id: str) -> Run | None:
        """The run of this id."""
        ...

    def params(self, run_id: str) -> dict[str, str]:
        """The parameters of a run."""
        ...

    def history(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        """Each step and value of a metric, in the order of their times."""
        ...


def reader(uri: str) -> Reader:
    """A store to read: an SQLite file itself where its tables are known, anything else by MLflow.

    Raises:
        StorageError: the URI is none of a store.
        Exception: the store does not answer; for `storage_errors`.
    """
    from orchestrator.store.reading.sqlite import opened  # noqa: PLC0415, it needs what is above

    if (file := opened(Address(uri))) is not None:
        return file
    from orchestrator.store.client import connect  # noqa: PLC0415, MLflow takes a second
    from orchestrator.store.reading.server import Served  # noqa: PLC0415

    return Served(connect(uri))


def experiment_of(store: Reader, study: str) -> Experiment:
    """The study's experiment.

    Raises:
        StudyError: the store holds no study of this name, a deleted one, or one of a newer isoflop.
    """
    experiment = store.experiment(study)
    if experiment is None:
        names = sorted(each.name for each in store.experiments() if "study_hash" in each.tags)
        hint = nearest(study, names) if names else "it holds none yet; `isoflop run` creates one"
        raise StudyError(f"this MLflow store holds no study {study!r}; {hint}")
    check_schema(experiment)
    refuse_deleted(experiment)
    return experiment


def refuse_deleted(experiment: Experiment) -> None:
    """Refuses a study that someone deleted in MLflow, which keeps it until its next clean-up.

    Raises:
        StudyError: says how to restore it.
    """
    if experiment.lifecycle_stage != "active":
        raise StudyError(
            f"study {experiment.name!r} was deleted in this MLflow store; restore it with `mlflow "
            f"experiments restore --experiment-id {experiment.experiment_id}` and "
            "MLFLOW_TRACKING_URI set to the store, or give the study another name"
        )


def check_schema(experiment: Experiment) -> None:
    """Refuses what a newer isoflop wrote: tags that it gave another meaning would be misread.

    Raises:
        StudyError: the schema is newer than this one.
    """
    schema = experiment.tags.get("isoflop_schema", "1")
    if not schema.isdecimal() or int(schema) > SCHEMA:
        raise StudyError(
            f"study {experiment.name!r} must be of schema {SCHEMA} or older, but a newer isoflop "
            f"wrote it (schema {schema}); use that version, or newer"
        )


def report_of(store: Reader, experiment: Experiment, artefacts: Artefacts) -> Run:
    """The run `report` of a study; of several, the one that has most of what a sweep writes.

    Raises:
        StudyError: the study has not begun, or its report was deleted.
    """
    query, note = "tags.role = 'report'", experiment.tags.get("mlflow.note.content", "")

    def lacks(run: Run) -> tuple[bool, ...]:
        bare = run.tags.get("key") != "report", "provenance.json" not in artefacts.names(run.run_id)
        return (*bare, f"/runs/{run.run_id}/" not in note)  # the experiment's note links the report

    runs = list(store.runs(experiment.experiment_id, query))
    if len(runs) > 1:
        runs = sorted(runs, key=lacks)
        logger.warning(
            "study %r must have one run `report` in MLflow, but has %d, and %s is read; `isoflop "
            "verify %s` compares them",
            *(experiment.name, len(runs), runs[0].run_id, experiment.name),
        )
    if runs:
        return runs[0]
    name = experiment.name
    for run in store.runs(experiment.experiment_id, query, deleted=True):
        raise StudyError(
            f"study {name!r} must have its run `report`, but it was deleted in this MLflow store; "
            f"restore it with `mlflow runs restore --run-id {run.run_id}` and "
            "MLFLOW_TRACKING_URI set to the store"
        )
    raise StudyError(f"study {name!r} has not started; `isoflop run` starts it")
