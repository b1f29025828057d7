"""A real sweep of repeated searches, killed in the search and while it confirms, and resumed."""

from pathlib import Path

import pytest
from executor import rows_without_ray
from faults import Sweep, different, nothing_lost
from mlflow import MlflowClient

from orchestrator import store
from orchestrator.board.choose import choose
from orchestrator.results.verify import verify
from orchestrator.study.file import load
from orchestrator.study.space import searches

TEXT = """
name: repeated
data: digits
budgets: [0.3]
recipe: {epochs: 1, batch_size: 64, lr: {low: 0.05, high: 0.2, log: true}}
resources: {concurrency: 2, retries: 40}
methods:
  dense: {depth: 8, width: {choices: [0.25, 0.5]}}
  condensenet: {stages: 1-1-1, growth: {choices: [8, 12]}, condense_factor: 4, groups: 4}
search: {trials: 4, repeats: 2, published: false, sampler: tpe}
confirm: {seeds: 1}
"""


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_sweep_of_repeats_ends_as_one_that_nobody_touched(
    tmp_path: Path, template: Path
) -> None:
    """Against the same trials without Ray, one after the other in this process."""
    sweep = Sweep(tmp_path / "sweep", TEXT)
    sweep.out.mkdir()
    (sweep.out / "mlflow.db").write_bytes(template.read_bytes())
    uri = f"sqlite:///{sweep.out / 'mlflow.db'}"
    try:
        for ends in (3, 17):  # of 16 search trials and 4 confirm runs, at most
            sweep.start()
            sweep.until("end", ends)
            sweep.kill()
        sweep.start()
        assert sweep.wait(400) == 0, sweep.printed()
    finally:
        sweep.close()
    nothing_lost(sweep, uri)
    rows, study = sweep.rows(), load(sweep.file)
    assert different(rows, rows_without_ray(study, tmp_path / "whole", lag=2)) == []
    assert {(row.method, row.repeat) for row in rows if row.role == "confirm"} == {
        (method, repeat) for method in study.methods for repeat in (1, 2)
    }
    assert {c.config for c in choose(rows, study.budgets)} == {
        row.config for row in rows if row.role == "confirm"
    }
    assert "of at most 20] dense-r2-00003" in sweep.printed()
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(study.name)
    assert experiment is not None
    tagged = client.search_runs([experiment.experiment_id], "tags.repeat = '2'")
    assert {str(r.info.run_name) for r in tagged} == {r.trial for r in rows if r.repeat == 2}
    assert verify(study.name, sweep.out).flaws == []
    assert store.read_rows(uri, study.name)
    assert list(searches(study)) == ["dense-r1", "condensenet-r1", "dense-r2", "condensenet-r2"]
