"""Any store, read by MLflow's client."""

from collections.abc import Iterator

from mlflow import MlflowClient, entities
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from methods.errors import StorageError
from orchestrator.store.reading.runs import Experiment, Run

PAGE = 1000
"""Runs that one request to MLflow returns."""


class Served:
    """A `Reader` that asks MLflow."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def experiment(self, name: str) -> Experiment | None:
        found = self._client.get_experiment_by_name(name)
        return None if found is None else as_experiment(found)

    def experiments(self) -> list[Experiment]:
        return [as_experiment(each) for each in self._client.search_experiments()]

    def runs(self, experiment_id: str, query: str, *, deleted: bool = False) -> Iterator[Run]:
        return map(as_run, each_run(self._client, experiment_id, query, deleted=deleted))

    def run(self, run_id: str) -> Run | None:
        try:
            return as_run(self._client.get_run(run_id))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def params(self, run_id: str) -> dict[str, str]:
        return dict(self._client.get_run(run_id).data.params)

    def history(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        return [(m.step, m.value) for m in self._client.get_metric_history(run_id, metric)]


def as_experiment(found: entities.Experiment) -> Experiment:
    """MLflow's experiment as ours."""
    return Experiment(
        str(found.experiment_id),
        found.name,
        str(found.artifact_location),
        found.lifecycle_stage,
        found.creation_time,
        found.tags,
    )


def as_run(found: entities.Run) -> Run:
    """MLflow's run as ours."""
    info = found.info
    return Run(info.run_id, info.run_name or "", info.status, info.end_time, found.data.tags)


def each_run(
    client: MlflowClient, experiment_id: str, query: str, *, deleted: bool = False
) -> Iterator[entities.Run]:
    """MLflow's runs that match, oldest first, so that runs that come meanwhile shift no page.

    Raises:
        StorageError: MLflow gave one of them twice.
    """
    run_ids: set[str] = set()
    token = None
    while True:
        page = client.search_runs(
            [experiment_id],
            query,
            ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY,
            PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        expected = len(run_ids) + len(page)
        run_ids.update(each.info.run_id for each in page)
        if len(run_ids) != expected:
            raise StorageError(f"MLflow gave runs of experiment {experiment_id} twice; read again")
        yield from page
        token = page.token
        if not token:
            return
