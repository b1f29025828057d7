"""Trials as MLflow's entities; and those that ended before it heard of them, many in a transaction.

Through MLflow's client a trial costs seven commits, and its store reads what it is about to write.
Rows of MLflow's own models cost a tenth of that, and arrive all or none.
"""

import math
import uuid
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils import uri, validation
from sqlalchemy import insert

from orchestrator.record.address import Address
from orchestrator.record.events import End, Epoch, Event, Rung, Start
from orchestrator.store import tags as layout

BATCH = 900
"""Metrics in one write; MLflow takes 1,000 entities."""
WORDS = 100
"""Parameters in one write, and tags, at most; MLflow's limit."""
TrialEvent = Start | Epoch | Rung | End
Values = dict[str, Any]
"""A row, by the names of its columns."""


class Entities(NamedTuple):
    """What MLflow is told of a run."""

    metrics: list[Metric]
    params: list[Param]
    tags: list[RunTag]

    @property
    def fit(self) -> bool:
        """Whether one write takes them."""
        return (
            max(len(self.params), len(self.tags)) <= WORDS
            and len(self.metrics) + len(self.params) + len(self.tags) <= BATCH
        )


def entities(events: Sequence[TrialEvent], point: str) -> Entities:
    """A trial's events in MLflow's terms; `point` is the operating point that stands first."""
    metrics: list[Metric] = []
    params: list[Param] = []
    tags: dict[str, str] = {}
    for event in events:
        match event:
            case Start():
                params += (Param(name, str(value)) for name, value in event.params.items())
                if event.attempt > 1:
                    tags |= layout.RESUMED
            case Epoch():
                metrics += curve(event)
            case Rung():
                tags |= layout.PAUSED
            case End():
                figures = layout.figures(event.points, point)
                metrics += (Metric(name, value, event.time, 0) for name, value in figures.items())
                tags |= {**layout.end_tags(event), **layout.outcome_tag(event)}
    return Entities(metrics, params, [RunTag(name, value) for name, value in tags.items()])


def curve(epoch: Epoch) -> Iterator[Metric]:
    """An epoch's metrics, with its own time: MLflow's SQL stores keep a repeated point once."""
    for name, value in epoch.metrics.named().items():
        if math.isfinite(value):
            yield Metric(name, value, epoch.time, epoch.step)


class Whole(NamedTuple):
    """A trial from its start to its end."""

    events: Sequence[TrialEvent]
    start: Start
    end: End
    entities: Entities

    @property
    def name(self) -> str:
        """The trial's, and its run's."""
        return self.start.trial


def takes_many(address: Address) -> bool:
    """Whether a store writes many runs in one transaction; a server has no such request."""
    return not address.is_server


def whole_trials(events: Iterable[Event], *, known: Container[str]) -> dict[str, Whole]:
    """The trials that begin and end among these events, by name, without those that are known.

    One that began twice, has a file or is too large for one write is none of them.
    """
    by_trial: dict[str, list[TrialEvent]] = {}
    for event in events:
        if isinstance(event, TrialEvent) and event.trial not in known:
            by_trial.setdefault(event.trial, []).append(event)
    trials = {}
    for name, own in by_trial.items():
        start, end = own[0], own[-1]
        if not isinstance(start, Start) or not isinstance(end, End) or end.evidence:
            continue
        told = entities(own, start.point)
        if told.fit and all(isinstance(event, Epoch | Rung) for event in own[1:-1]):
            trials[name] = Whole(own, start, end, told)
    return trials


def write_whole(
    client: MlflowClient,
    experiment_id: str,
    trials: Sequence[Whole],
    tags: Sequence[Mapping[str, str]],
) -> list[str]:
    """Writes new runs with these first tags, all or none, as MLflow's client would; gives the ids.

    Raises:
        MlflowException: the store did not take them.
    """
    from mlflow.store.tracking.dbmodels import models  # noqa: PLC0415, a server's client needs none

    experiment = client.get_experiment(experiment_id)
    if experiment.lifecycle_stage != LifecycleStage.ACTIVE:
        raise MlflowException.invalid_parameter_value("the experiment must be active")
    tables = ("SqlRun", "SqlTag", "SqlParam", "SqlMetric", "SqlLatestMetric")
    rows: dict[str, list[Values]] = {table: [] for table in tables}
    ids = [uuid.uuid4().hex for _ in trials]
    for run_id, trial, first in zip(ids, trials, tags, strict=True):
        place = uri.append_to_uri_path(  # type: ignore[no-untyped-call]
            experiment.artifact_location, run_id, "artifacts"
        )
        run = {"experiment_id": int(experiment_id), "artifact_uri": place, **_run(trial)}
        for table, own in zip(tables, ([run], *_entities(trial, first)), strict=True):
            rows[table] += ({"run_uuid": run_id, **row} for row in own)
    with client._tracking_client.store.ManagedSessionMaker(read_only=False) as session:
        for table, each in rows.items():
            if each:
                session.execute(insert(getattr(models, table)), each)
    return ids


def _run(trial: Whole) -> Values:
    return {
        "name": trial.name,
        "source_type": "UNKNOWN",
        "source_name": "",
        "entry_point_name": "",
        "user_id": "unknown",
        "status": layout.status(trial.end),
        "start_time": trial.start.time,
        "end_time": trial.end.time,
        "deleted_time": None,
        "source_version": "",
        "lifecycle_stage": LifecycleStage.ACTIVE,
    }


def _entities(trial: Whole, first: Mapping[str, str]) -> Iterator[list[Values]]:
    """A run's tags, parameters and metrics, and the last value of each metric."""
    valid = validation._validate_batch_log_data(*trial.entities)  # type: ignore[no-untyped-call]
    metrics, params, tags = valid
    validation._validate_param_keys_unique(params)  # type: ignore[no-untyped-call]
    all_tags = {**first, "mlflow.runName": trial.name, **{tag.key: tag.value for tag in tags}}
    yield [{"key": key, "value": value} for key, value in all_tags.items()]
    yield [{"key": param.key, "value": param.value} for param in params]
    points = sorted({(m.key, m.step, m.timestamp, m.value) for m in metrics})
    yield [_metric(*point) for point in points]
    yield [_metric(*point) for point in {point[0]: point for point in points}.values()]


def _metric(key: str, step: int, timestamp: int, value: float) -> Values:
    return {"key": key, "step": step, "timestamp": timestamp, "value": value, "is_nan": False}
