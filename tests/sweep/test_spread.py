"""A trial on several workers, by Ray Train: one is killed in the middle, and nothing is lost."""

import time
from pathlib import Path

import pytest
from faults import Sweep, below, clean, strike

from orchestrator.record.rows import Row

STUDY = """
name: spread
data: digits
budgets: [0.1]
recipe: {{epochs: 40, batch_size: 64, lr: 0.02}}
resources: {{workers: {workers}, concurrency: 1}}
methods:
  dense: {{depth: 8, width: 0.25}}
search: {{trials: 1}}
confirm: {{seeds: 1}}
"""
WORKER = "ray::RayTrainWorker"


def figures(rows: list[Row]) -> dict[str, tuple[object, ...]]:
    """What must be equal to the last digit, and then what rounding may change."""
    return {
        row.trial: (row.state, row.val_macs_mean, row.params, row.seed, row.val_acc, row.test_acc)
        for row in rows
    }


@pytest.mark.ray
def test_a_trial_whose_worker_is_killed_ends_as_one_worker_ends_it(tmp_path: Path) -> None:
    alone = Sweep(tmp_path / "alone", STUDY.format(workers=1))
    pair = Sweep(tmp_path / "pair", STUDY.format(workers=2))
    try:
        alone.start()
        assert alone.wait() == 0, alone.printed()
        pair.start()
        pair.until("epoch", 5)
        workers = below(pair.pid, WORKER)
        assert len(workers) == 2, workers
        assert strike(workers[1])
        assert pair.wait() == 0, pair.printed()
        clean(pair.printed())
        lost = [event for event in pair.events() if event["event"] == "lost"]
        assert len(lost) == 1
        assert "worker" in lost[0]["reason"]
        equal, expected = figures(pair.rows()), figures(alone.rows())
        assert equal.keys() == expected.keys()
        for trial, (*same, validation, test) in expected.items():
            *also, own_validation, own_test = equal[trial]
            assert also == same
            assert own_validation == pytest.approx(validation, abs=0.02)
            assert own_test == pytest.approx(test, abs=0.02)
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{process}").exists() for process in workers):
            assert time.monotonic() < deadline, "a worker outlives its trial"
            time.sleep(0.1)
    finally:
        alone.close()
        pair.close()
