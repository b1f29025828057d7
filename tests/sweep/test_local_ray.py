"""One Ray on this machine: what a worker finds there, and what Ray does not promise to keep.

Each test of what is undocumented says so when it goes.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray import tune
from ray.air.execution import FixedResourceManager
from ray.air.execution._internal import RayActorManager, TrackedActor
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune import Callback, RunConfig, TuneConfig, Tuner
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from methods.data.load import load
from methods.errors import ClusterError
from orchestrator.record.result import decode_result
from orchestrator.study.sections import Resources
from orchestrator.sweep import cluster, shared
from orchestrator.sweep.cluster import driver_path
from orchestrator.sweep.tune import _death, _survive_memory_monitor
from orchestrator.sweep.worker import JOB, RESULT, Trial, job_of

IDLE = ("matplotlib", "mlflow", "moocore", "optuna", "scipy", "sklearn")
"""What a trial never needs. pandas is not among them: `ray.tune` imports it."""


class Scheduler(FIFOScheduler):  # type: ignore[misc]
    """Notes the calls that ours relies on, and what it takes from their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, str]] = []
        self.cache: Any = None
        self.error = ""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self.cache = tune_controller._tune_controller._actor_cache
        self.cache.increase_max(trial.placement_group_factory, 1)
        super().on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        self.calls.append((trial.config["trial"], "result"))
        return str(FIFOScheduler.STOP if trial.config["trial"] == "b" else FIFOScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        assert trial.config["trial"] == result["config/trial"]
        self.calls.append((trial.config["trial"], f"complete after {result['training_iteration']}"))

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self.calls.append((trial.config["trial"], "error"))
        self.error = Path(trial.error_file).read_text()


class Watch(Callback):  # type: ignore[misc]
    """Kills the worker of the trial called c, as the sweep ends one that is overdue."""

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        for trial in trials:
            actor = trial.temporary_state.ray_actor
            if trial.config["trial"] == "c" and actor is not None and not trial.is_finished():
                ray.kill(actor)


class Three(Searcher):  # type: ignore[misc]
    """Three trials: a ends by itself, b is stopped, c is killed."""

    def __init__(self) -> None:
        super().__init__()
        self._left = ["a", "b", "c"]

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        return {"trial": self._left.pop(0)} if self._left else str(Searcher.FINISHED)

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing."""

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder of a driver whose Ray runs."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [entry for entry in sys.path if entry])
        with cluster.started(Resources(), "local"):
            yield folder


@pytest.fixture(scope="module")
def scheduler(work: Path) -> Scheduler:
    """A scheduler that has seen three trials of a real Tune."""

    class Twice(tune.Trainable):  # type: ignore[misc]
        """Two results, the second of them the last; c has none and waits to be killed."""

        def setup(self, config: dict[str, Any]) -> None:
            self._waits = config["trial"] == "c"

        def step(self) -> dict[str, Any]:
            if self._waits:
                time.sleep(600)
            return {"done": self.iteration == 1, "loss": 0.0}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """Nothing."""

    heard = Scheduler()
    Tuner(
        tune.with_resources(Twice, {"cpu": 1}),
        tune_config=TuneConfig(
            search_alg=Three(),
            scheduler=heard,
            num_samples=-1,
            max_concurrent_trials=1,
            reuse_actors=True,
        ),
        run_config=RunConfig(
            name="internals", storage_path=str(work), verbose=0, callbacks=[Watch()]
        ),
    ).fit()
    return heard


@pytest.mark.ray
def test_the_cache_of_idle_workers_can_be_made_larger(scheduler: Scheduler) -> None:
    assert scheduler.cache.total_max_objects == 3, "`TuneController._actor_cache.increase_max`"


@pytest.mark.ray
def test_a_callback_can_reach_a_trials_actor(scheduler: Scheduler) -> None:
    assert ("c", "error") in scheduler.calls, "`Trial.temporary_state.ray_actor`"


@pytest.mark.ray
def test_a_dead_worker_leaves_a_file_that_says_so(scheduler: Scheduler) -> None:
    assert "The actor died" in scheduler.error, "`Trial.error_file`"


@pytest.mark.ray
def test_a_scheduler_hears_each_result_once_and_the_last_with_the_end(scheduler: Scheduler) -> None:
    """And one that stops a trial hears of its end with the result that it stopped at."""
    assert scheduler.calls == [
        ("a", "result"),
        ("a", "complete after 2"),
        ("b", "result"),
        ("b", "complete after 1"),
        ("c", "error"),
    ]


@pytest.mark.parametrize("enabled", [True, False])
def test_workers_logs_can_be_kept_out_of_ours(
    monkeypatch: pytest.MonkeyPatch, enabled: bool
) -> None:
    monkeypatch.setattr(ray._private.worker, "_worker_logs_enabled", enabled)
    printed = StringIO()
    ray._private.worker.print_worker_logs({"pid": "raylet", "lines": ["a dump"]}, printed)
    assert ("a dump" in printed.getvalue()) == enabled


@pytest.mark.ray
def test_workers_look_where_the_driver_looks(work: Path) -> None:
    """Fails when Ray no longer asks its job, by private names, which folders workers search."""
    searched = ray.get(ray.remote(lambda: list(sys.path)).remote())
    with (
        pytest.raises(ClusterError, match="connected to one already"),
        cluster.started(Resources(), "local"),
    ):
        pass
    assert str(work) not in searched
    assert "" not in searched
    assert searched[: len(driver_path())] == driver_path()
    assert os.environ["TUNE_DISABLE_SIGINT_HANDLER"] == "1"


def test_the_driver_s_path_ends_at_the_standard_library(monkeypatch: pytest.MonkeyPatch) -> None:
    library = next(entry for entry in sys.path if entry.endswith(".zip"))
    monkeypatch.setattr(sys, "path", ["", "/mine", library, "/site-packages"])
    assert driver_path() == [str(Path.cwd()), "/mine"]


def settings(folder: Path) -> dict[str, Any]:
    params = {"depth": 8, "width": 0.25, "recipe.epochs": 1, "recipe.batch_size": 64}
    job = {
        "trial": "dense-00000",
        "method": "dense",
        "params": params,
        "role": "confirm",
        "seed": 3,
        "data": "digits",
        "data_seed": 0,
        "folder": str(folder),
        "device": "cpu",
        "threads": 1,
    }
    return {JOB: json.dumps(job)}


@pytest.mark.ray
def test_a_worker_maps_the_data_set_and_imports_little(work: Path, tmp_path: Path) -> None:
    class Probe(Trial):
        """A trial that tells of its process."""

        def step(self) -> dict[str, Any]:
            told = super().step()
            address = shared.get(
                job_of(self.config).settings, self.config["shared"]
            ).train.store.pixels.data_ptr()
            lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
            spans = [(*(int(end, 16) for end in line[0].split("-")), line[5:]) for line in lines]
            files = [file for first, end, file in spans if first <= address < end]
            about = {"modules": sorted(sys.modules), "files": files}
            (tmp_path / "about.json").write_text(json.dumps(about))
            return told

    alone = next(Trial(settings(tmp_path / "alone"))._results)
    outcome = Tuner(
        tune.with_resources(Probe, {"cpu": 1}),
        param_space=settings(tmp_path / "mapped") | {"shared": shared.put(load("digits"))},
        tune_config=TuneConfig(reuse_actors=True),
        run_config=RunConfig(name="probe", storage_path=str(tmp_path), verbose=0),
    ).fit()
    result = decode_result(json.loads(outcome[0].metrics[RESULT]))
    assert result.ending is not None
    assert alone.ending is not None
    assert result.ending.points == alone.ending.points
    about = json.loads((tmp_path / "about.json").read_text())
    assert "plasma" in about["files"][0][0]
    assert "torch" in about["modules"]
    assert not set(IDLE) & set(about["modules"])


def test_without_a_handle_the_data_set_is_read_and_kept(tmp_path: Path) -> None:
    first = shared.get(job_of(settings(tmp_path)).settings, None)
    assert shared.get(job_of(settings(tmp_path)).settings, None) is first
    assert torch.equal(first.train.labels, load("digits").train.labels)


@pytest.mark.ray
def test_what_rays_memory_monitor_ends_is_a_lost_worker_to_tune(work: Path) -> None:
    """Fails when Tune's `_actor_task_failed` goes, or when Tune knows the error by itself."""
    errors: list[Exception] = []
    actor = TrackedActor(1, on_error=lambda actor, error: errors.append(error))
    task = TrackedActorTask(actor, on_error=lambda actor, error: errors.append(error))
    killed = OutOfMemoryError("Task was killed due to the node running low on memory.\nMemory ...")
    manager = RayActorManager(resource_manager=FixedResourceManager({"CPU": 1}))
    manager._cleanup_actor = lambda tracked_actor: None
    with pytest.raises(RuntimeError, match="unexpected exception"):
        manager._actor_task_failed(tracked_actor_task=task, exception=killed)
    _survive_memory_monitor(manager)
    manager._actor_task_failed(tracked_actor_task=task, exception=killed)
    assert [type(error) for error in errors] == [RayActorError, RayActorError]
    reason = "its worker died: The actor died for lack of memory: Task was killed due to the node"
    assert _death(str(errors[0])).startswith(reason)
