"""A Ray cluster whose nodes share nothing, and sweeps on it whose trials keep files in a bucket."""

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from buckets import NAME, S3
from faults import ROOT, Sweep

from orchestrator.record.ledger import Ledger

URI = f"s3://{NAME}/team"
HEAD = """
import json, sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "memory": 0})
print(json.dumps(cluster.address), flush=True)
sys.stdin.read()
cluster.shutdown()
"""
"""A head that runs nothing of a trial, until its input ends."""
APART = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
"""A process with what it starts in a world of its own: SIGKILL ends all of it at once, as the loss
of a machine does, and what it mounts nobody else sees."""


class BucketSweep(Sweep):
    """A sweep with a bucket."""

    def ledger(self) -> Ledger:
        return Ledger(self.folder, self.study, bucket=URI)


class Nodes:
    """A Ray cluster whose worker nodes have an empty folder in the place of the driver's."""

    def __init__(self, hidden: Path) -> None:
        self._hidden = hidden
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._head = subprocess.Popen(
            [sys.executable, "-c", HEAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._head.stdout is not None
        self.address = str(json.loads(self._head.stdout.readline()))

    def add(self) -> None:
        """One more worker node, with one CPU."""
        start = (  # two that start at once in one /tmp/ray choose the same sockets, and one dies
            f"mount -t tmpfs -o ro none {self._hidden} && mount -t tmpfs none /tmp/ray && "
            f"exec {sys.executable} -m ray.scripts.scripts start --address={self.address} "
            "--num-cpus=1 --block --object-store-memory=100000000"
        )
        self._nodes.append(
            subprocess.Popen(
                [*APART, "sh", "-c", start],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    def lose(self) -> None:
        """The node that is there for longest dies."""
        node = self._nodes.pop(0)
        node.kill()
        node.wait()

    def close(self) -> None:
        while self._nodes:
            self.lose()
        self._head.communicate()


@contextlib.contextmanager
def nodes(hidden: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    if not shutil.which("unshare") or subprocess.run([*APART, "true"], check=False).returncode:
        pytest.skip("a mount namespace of its own for each node needs root and unshare")
    hidden.mkdir(parents=True)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    for name, value in {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    cluster = Nodes(hidden)
    try:
        yield cluster
    finally:
        cluster.close()


def resumable(sweep: Sweep, server: S3) -> set[str]:
    """The trials that run and have a checkpoint in the bucket."""
    kept = {name.split("/")[3] for name in server.names("team") if name.endswith("/last.pt")}
    trials: set[str] = set()
    for event in sweep.events():
        if event["event"] == "start":
            trials.add(event["trial"])
        elif event["event"] in ("end", "lost"):
            trials.discard(event["trial"])
    return trials & kept


def until_resumable(sweep: Sweep, server: S3) -> None:
    """Until a trial would resume."""
    deadline = time.monotonic() + 300
    while not resumable(sweep, server):
        assert sweep.code is None, sweep.printed()
        assert time.monotonic() < deadline, sweep.printed()
        time.sleep(0.1)


def resumed_at(sweep: Sweep) -> dict[str, int]:
    """By trial, the last epoch that came again with its own time: from a checkpoint."""
    times = {
        (event["trial"], event["step"]): event["time"]
        for event in sweep.events()
        if event["event"] == "epoch"
    }
    found: dict[str, int] = {}
    for line in (sweep.folder / "repeats.txt").read_text().splitlines():
        trial, _, step, when = line.split()
        if times[trial, int(step)] == int(when):
            found[trial] = max(found.get(trial, 0), int(step))
    return found
