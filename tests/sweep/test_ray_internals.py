"""What is used of Ray that it does not promise to keep: each test says so when it goes."""

import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune
from ray.tune import Callback, RunConfig, TuneConfig, Tuner
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from orchestrator.study.file import Resources
from orchestrator.sweep import cluster


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
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Scheduler:
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
    with cluster.started(Resources(), "local"):
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
                name="internals",
                storage_path=str(tmp_path_factory.mktemp("ray")),
                verbose=0,
                callbacks=[Watch()],
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
