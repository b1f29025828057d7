"""A trial on several workers whose nodes share nothing: one node dies, and the bucket has all."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from apart import URI, BucketSweep, nodes, resumed_at, until_resumable
from buckets import S3, served
from executor import rows_without_ray
from faults import REPEATS, clean, different, nothing_lost

from orchestrator.study.file import load

FILE = """
name: spot
data: digits
budgets: [1]
recipe: {epochs: 20, batch_size: 64}
resources: {workers: 2, cpu: 1}
methods: {skipnet: {depth: 8, width: 0.5, gate: rnn, policy_share: 0.75}}
search: {trials: 1}
confirm: {seeds: 1}
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    with served(monkeypatch) as server:
        yield server


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_workers_of_one_trial_that_share_no_folder_lose_nothing_when_a_node_dies(
    tmp_path: Path, server: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "sweep" / "runs"
    with nodes(hidden, monkeypatch) as cluster:
        for _ in range(2):
            cluster.add()
        words = ("--address", cluster.address, "--slots", "1", "--bucket", URI)
        sweep = BucketSweep(tmp_path / "sweep", FILE, *words, before=REPEATS)
        try:
            sweep.start()
            until_resumable(sweep, server)
            sweep.until("epoch")
            cluster.add()
            cluster.lose()
            assert sweep.wait(400) == 0, sweep.printed()
            clean(sweep.printed())
            assert [event for event in sweep.events() if event["event"] == "lost"]
            assert max(resumed_at(sweep).values()) > 0
            rows = sweep.rows()
            nothing_lost(sweep, f"sqlite:///{sweep.out / 'mlflow.db'}")
        finally:
            sweep.close()
    confirmed = {row.trial for row in rows if row.role == "confirm"}
    left = {name.rpartition("/")[0] for name in server.names()}
    assert left == {
        "team/spot",
        "team/spot/evidence",
        *(f"team/spot/trials/{t}" for t in confirmed),
    }
    mp.spawn(unbroken, (str(sweep.file), str(tmp_path)), nprocs=2)
    assert different(rows, rows_without_ray(sweep.study, tmp_path / "worker-0", lag=1)) == []


def unbroken(rank: int, file: str, folder: str) -> None:
    """One of two workers of all trials, one after another and without Ray."""
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    rows_without_ray(load(file), Path(folder) / f"worker-{rank}", lag=1)
    dist.destroy_process_group()
