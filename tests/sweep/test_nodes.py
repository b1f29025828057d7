"""A node of a cluster dies, and the sweep resumes on another."""

from pathlib import Path

import pytest
from faults import FILE, ROOT, WORKER, Sweep, below, clean, nothing_lost, strike


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")
def test_a_node_that_dies_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.cluster_utils import Cluster

    for name, value in {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    sweep = Sweep(tmp_path, FILE, "--address", cluster.address)
    try:
        nodes = [cluster.add_node(num_cpus=1, wait=False) for _ in range(2)]
        cluster.wait_for_nodes(60)
        sweep.start()
        sweep.until("epoch", 6)
        raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
        busy: list[int] = []
        while not busy:
            assert sweep.code is None, sweep.printed()
            busy = [raylet for raylet in raylets if below(raylet, WORKER)]
        assert strike(busy[0])
        assert sweep.wait() == 0, sweep.printed()
        clean(sweep.printed())
        assert {row.state for row in sweep.rows()} == {"COMPLETE"}
        nothing_lost(sweep, f"sqlite:///{sweep.out / 'mlflow.db'}")
    finally:
        sweep.close()
        cluster.shutdown()
