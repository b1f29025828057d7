"""Real sweeps under budgets in milliseconds: killed and resumed, verified, and refused."""

import json
from pathlib import Path

import pytest
from faults import Sweep, nothing_lost

from methods.errors import StudyError
from orchestrator.record.provenance import Clock
from orchestrator.results.boards import at_budgets, show, two_studies
from orchestrator.results.verify import verify
from orchestrator.study.check import prepare
from orchestrator.study.file import Study

TEXT = """
name: timed
data: digits
budgets: {latency_ms: [5, 10]}
recipe: {epochs: 1, batch_size: 64, lr: {low: 0.05, high: 0.2, log: true}}
resources: {concurrency: 2, retries: 40}
methods:
  dense: {depth: 8, width: {choices: [0.25, 0.5]}}
  condensenet: {stages: 1-1-1, growth: {choices: [8, 12]}, condense_factor: 4, groups: 4}
search: {trials: 3, published: false, sampler: tpe}
confirm: {seeds: 1}
"""


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_sweep_keeps_its_clock_and_its_times(tmp_path: Path, template: Path) -> None:
    sweep = Sweep(tmp_path / "sweep", TEXT)
    sweep.out.mkdir()
    (sweep.out / "mlflow.db").write_bytes(template.read_bytes())
    uri = f"sqlite:///{sweep.out / 'mlflow.db'}"
    ended: dict[str, object] = {}
    try:
        for ends in (2, 7):  # of 6 search trials and 2 to 4 confirm runs
            sweep.start()
            sweep.until("end", ends)
            sweep.kill()
            told = {e["trial"]: e["points"] for e in sweep.events() if e["event"] == "end"}
            assert {name: told[name] for name in ended} == ended
            ended = told
        sweep.start()
        assert sweep.wait(400) == 0, sweep.printed()
    finally:
        sweep.close()
    nothing_lost(sweep, uri)
    clocks = [e["provenance"]["clock"] for e in sweep.events() if e["event"] == "study"]
    assert len(clocks) >= 3
    assert clocks.count(clocks[0]) == len(clocks), "a resumed study keeps its reference"
    clock = Clock(**clocks[0])
    points = [p for e in sweep.events() if e["event"] == "end" for p in e["points"]]
    for point in points:
        assert point["ms"] == point["clock_ms"] / point["reference_ms"] * clock.reference_ms
    starts = [e for e in sweep.events() if e["event"] == "start"]
    assert all(e["predicted_ms"] > 0 for e in starts if e["role"] == "search")
    findings = verify("timed", sweep.out)
    assert findings.flaws == []
    assert findings.checked["trials: milliseconds"] == len(points)
    outcome = show("timed", sweep.out)
    assert outcome.board.cost.batch == 1
    assert all(cell.spent and cell.spread for cell in outcome.board.cells)
    page = outcome.report.read_text()
    assert "Leaderboard at equal latency" in page
    assert "primary budget 10 ms" in page
    assert at_budgets("timed", [7.5], sweep.out).rules.undeclared == (7.5,)
    _another_unit_is_refused(sweep)


def _another_unit_is_refused(sweep: Sweep) -> None:
    """A study of MACs beside it; its one trial is enough."""
    text = TEXT.replace("name: timed", "name: counted").replace("trials: 3", "trials: 1")
    text = text.replace("{latency_ms: [5, 10]}", "[5, 10]")
    sweep.file.with_name("counted.yaml").write_text(text)
    other = Sweep(sweep.file.parent, text)
    try:
        other.start()
        assert other.wait(300) == 0, other.printed()
    finally:
        other.close()
    with pytest.raises(StudyError, match="must have budgets of one kind") as refused:
        two_studies("timed", "counted", [5], sweep.out)
    assert "those of counted are million MACs" in str(refused.value)


@pytest.mark.parametrize("batch", [1, 32])
def test_a_budget_below_the_smallest_network_is_refused_before_a_worker(batch: int) -> None:
    study = Study.model_validate(
        {
            "name": "small",
            "data": "digits",
            "budgets": {"latency_ms": [0.0001, 0.001], "batch": batch},
            "methods": {"dense": {}, "resrep": {}},
        }
    )
    with pytest.raises(StudyError) as refused:
        prepare(study)
    message = str(refused.value)
    assert message.startswith("a budget must hold at least one network, but the largest is 0.001")
    assert " ms here, for " in message
    assert refused.value.exit_code == 2
    roomy = Study.model_validate({**json.loads(study.model_dump_json()), "budgets": [1]})
    assert prepare(roomy)
    enough = {"latency_ms": [1e4], "batch": batch}
    assert prepare(Study.model_validate({**study.model_dump(mode="json"), "budgets": enough}))
