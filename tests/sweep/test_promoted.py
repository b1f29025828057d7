"""A sweep whose trials pause: killed between a pause and its decision, it ends as one without."""

import shutil
from pathlib import Path

import pytest
from executor import rows_without_ray
from faults import Sweep, clean, different, nothing_lost
from mlflow import MlflowClient

from orchestrator.study.file import load

TEXT = """
name: promoted
data: digits
budgets: [0.3, 1]
recipe: {epochs: 4, batch_size: 64, lr: {low: 0.02, high: 0.2, log: true}}
resources: {concurrency: 2, retries: 40}
methods:
  dense: {depth: 8, width: {choices: [0.25, 0.5]}}
  skipnet: {depth: 8, width: {choices: [0.25, 0.5]}, gate: rnn}
search: {trials: 4, sampler: tpe, stop: promote, published: false}
confirm: {seeds: 1}
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_drivers_that_die_at_pauses_and_decisions_lose_nothing(
    tmp_path: Path, template: Path
) -> None:
    sweep = Sweep(tmp_path / "sweep", TEXT)
    sweep.out.mkdir()
    shutil.copy(template, sweep.out)
    uri = f"sqlite:///{sweep.out / 'mlflow.db'}"
    try:
        for what, count in (("rung", 3), ("bracket", 1), ("bracket", 3)):
            sweep.start()
            sweep.until(what, count)
            sweep.kill()
        sweep.start()
        assert sweep.wait(400) == 0, sweep.printed()
    finally:
        sweep.close()
    clean(sweep.printed())
    events = sweep.events()
    paused = {event["trial"] for event in events if event["event"] == "rung"}
    promoted = [trial for e in events if e["event"] == "bracket" for trial in e["promoted"]]
    rows = sweep.rows()
    pruned = {row.trial for row in rows if row.state == "PRUNED"}
    whole = {row.trial for row in rows if row.role == "search" and row.state == "COMPLETE"}
    assert paused == pruned | whole
    assert whole == set(promoted)
    assert len(promoted) == len(set(promoted)), "each bracket was decided once"
    assert {row.epochs for row in rows if row.trial in pruned} == {1}
    assert "paused at epoch 1" in sweep.printed()
    folders = {folder.name for folder in (sweep.folder / "trials").iterdir()}
    assert not folders & (pruned | whole)
    nothing_lost(sweep, uri)
    experiment = MlflowClient(uri).get_experiment_by_name("promoted")
    assert experiment is not None
    runs = MlflowClient(uri).search_runs([experiment.experiment_id])
    assert {run.data.tags.get("outcome") for run in runs} == {None, "PRUNED", "COMPLETE"}
    expected = rows_without_ray(load(sweep.file), tmp_path / "alone", lag=2)
    assert different(rows, expected) == []
