"""A real sweep of repeated searches, killed in the search and while it confirms, and resumed."""

from pathlib import Path

import pytest
from executor import rows_without_ray
from faults import Sweep, different, nothing_lost
from mlflow import MlflowClient

from orchestrator import store
from orchestrator.board.choose import choose, clean
from orchestrator.results.verify import verify
from orchestrator.study.file import load
from orchestrator.study.identity import unreduced_name

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
confirm: {seeds: 1, unreduced: true}
"""
RACED = TEXT.replace("repeats: 2", "repeats: 3").replace(
    "{seeds: 1,", "{seeds: 1, race: true, budget: 2,"
)


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("text", "kills", "counts"),
    [(TEXT, (3, 17), (4, 22)), (RACED, (29, 38), (8, 45))],
    ids=["searches", "a race"],
)
def test_a_killed_sweep_of_repeats_ends_as_one_that_nobody_touched(
    text: str, kills: tuple[int, int], counts: tuple[int, int], tmp_path: Path, template: Path
) -> None:
    """Against the same trials without Ray, one after the other in this process.

    Of each search there are four trials and a confirm run, of CondenseNet's an unreduced one, too:
    the race is killed while the first round confirms, and in the searches that it adds. `counts`
    are those of searches, and of trials at most.
    """
    searches, most = counts
    sweep = Sweep(tmp_path / "sweep", text)
    sweep.out.mkdir()
    (sweep.out / "mlflow.db").write_bytes(template.read_bytes())
    uri = f"sqlite:///{sweep.out / 'mlflow.db'}"
    try:
        for ends in kills:
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
    confirmed = {(row.method, row.repeat) for row in rows if row.role == "confirm"}
    assert len(confirmed) == searches
    assert confirmed == {(row.method, row.repeat) for row in rows}
    chosen = {c.config: c.method for c in choose(clean(rows)[0], study.budgets)}
    assert {row.config for row in rows if row.role == "confirm"} == {
        *chosen,
        *(unreduced_name(config) for config, name in chosen.items() if name == "condensenet"),
    }
    assert f"of at most {most}] dense-r2-00003" in sweep.printed()
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(study.name)
    assert experiment is not None
    tagged = client.search_runs([experiment.experiment_id], "tags.repeat = '2'")
    assert {str(r.info.run_name) for r in tagged} == {r.trial for r in rows if r.repeat == 2}
    assert verify(study.name, sweep.out).flaws == []
    assert store.read_rows(uri, study.name)
