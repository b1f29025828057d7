"""A trial on several workers, by Ray Train: one is killed in the middle, and nothing is lost."""

import time
from pathlib import Path

import pytest
from faults import Sweep, below, clean, different, strike

from methods.data.load import load
from methods.training.evaluate import evaluate
from methods.training.loop import train
from orchestrator.record.rows import Row
from orchestrator.study.params import derive, recorded_parts
from orchestrator.sweep.spread import Spread
from orchestrator.sweep.tune import AWAY

pytestmark = pytest.mark.timeout(900)
STUDY = """
name: spread
data: digits
budgets: [0.1]
recipe: {epochs: 20, batch_size: 128, lr: 0.02}
resources: {workers: 2}
methods:
  dense: {depth: 8, width: 0.25}
search: {trials: 1}
confirm: {seeds: 1}
"""
WORKER = "ray::RayTrainWorker"
IMAGE = 0.004
"""A little more than one of the 270 images of a split; a rounding may turn two."""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """The rows of the study, on two workers that nobody kills."""
    sweep = Sweep(tmp_path_factory.mktemp("unbroken"), STUDY)
    try:
        sweep.start()
        assert sweep.wait() == 0, sweep.printed()
        return sweep.rows()
    finally:
        sweep.close()


@pytest.mark.ray
@pytest.mark.parametrize("killed", ["worker", "driver"])
def test_a_trial_whose_process_is_killed_ends_as_if_it_were_not(
    tmp_path: Path, unbroken: list[Row], killed: str
) -> None:
    sweep = Sweep(tmp_path, STUDY)
    try:
        sweep.start()
        sweep.until("epoch", 2)
        workers = below(sweep.pid, WORKER)
        assert len(workers) == 2, workers
        if killed == "driver":
            assert strike(sweep.pid)
            sweep.wait()
            sweep.start()
        else:
            assert strike(workers[1])
        assert sweep.wait() == 0, sweep.printed()
        clean(sweep.printed())
        lost = [event for event in sweep.events() if event["event"] == "lost"]
        assert [event["trial"] for event in lost] == ["dense-00000"][: killed == "worker"]
        assert all("a worker of the trial died" in event["reason"] for event in lost)
        epochs = [event for event in sweep.events() if event["event"] == "epoch"]
        assert len(epochs) == 40  # of two trials, none of them twice
        rows, data = sweep.rows(), load("digits", seed=sweep.study.seed)
        assert [row.state for row in rows] == ["COMPLETE", "COMPLETE"]
        assert different(rows, unbroken) == []
        for row in rows:  # as one worker ends them
            method, recipe = recorded_parts(row.method, row.params)
            *_, last = train(method, data, recipe, seed=derive(sweep.study, row.config, row.seed))
            alone = evaluate(last.net, data.validation)
            assert row.val_acc == pytest.approx(alone.accuracy, abs=2 * IMAGE)
            assert row.val_macs_mean == alone.macs_mean
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{process}").exists() for process in workers):
            assert time.monotonic() < deadline, "a worker outlives its trial"
            time.sleep(0.1)
    finally:
        sweep.close()


def test_a_bucket_that_is_away_is_heard_among_what_the_other_workers_say() -> None:
    trial = Spread.__new__(Spread)
    trial._failure = RuntimeError(
        "Training failed due to worker errors:\n[Rank 0 Error Snippet]:\nTraceback ...\n"
        "methods.errors.BucketAway: the bucket must answer, but s3://runs/a could not be written\n"
        "[Rank 1 Error Snippet]:\nTraceback ...\nRuntimeError: Connection closed by peer"
    )
    away = AWAY.search(trial._end())
    assert away is not None
    assert away[1] == "the bucket must answer, but s3://runs/a could not be written"
