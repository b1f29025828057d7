"""`isoflop run` as a job that is submitted to a Ray cluster of several nodes, as on Kubernetes."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from faults import MAIN, REPEATS, ROOT, WORKER, Sweep, below, clean, nothing_lost, strike

from orchestrator.kube.cluster import load
from orchestrator.kube.render import render

FILE = """
name: job
data: digits
budgets: [1]
recipe: {epochs: 24, batch_size: 64}
methods: {skipnet: {depth: 8, width: {choices: [0.25, 0.5]}, gate: rnn, policy_share: 0.75}}
search: {trials: 2}
confirm: {seeds: 1}
"""
TOKEN = "0123456789abcdef" * 2
LOGS = "/tmp/ray/session_latest/logs"
NODES = """
import json, socket, sys
from ray.cluster_utils import Cluster

def agent():
    with socket.socket() as free:
        free.bind(("", 0))
        return {"dashboard_agent_listen_port": free.getsockname()[1]}

head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": 0, **agent()}
cluster = Cluster(initialize_head=True, head_node_args=head)
nodes = [cluster.add_node(num_cpus=1, wait=False, **agent()) for _ in range(2)]
cluster.wait_for_nodes(60)
print(json.dumps({
    "url": f"http://{cluster.head_node.webui_url}",
    "logs": cluster.head_node.get_logs_dir_path(),
    "raylets": [node.all_processes["raylet"][0].process.pid for node in nodes],
}), flush=True)
sys.stdin.read()
cluster.shutdown()
"""
"""A head without CPUs and two nodes, until its input ends; Ray reads its token at import.

The agents that take jobs want one and the same port on every machine: here each has its own.
"""


class Job:
    """The sweep's command, submitted again and again."""

    def __init__(self, client: Any, sweep: Sweep) -> None:
        self._client = client
        self._sweep = sweep
        words = ["run", str(sweep.file), "--out", str(sweep.out), "--address", "auto"]
        words += ["--slots", "2", "--patience", "60"]
        self._command = shlex.join([sys.executable, "-c", REPEATS + MAIN, *words])
        self._id = ""

    def submit(self) -> None:
        """Once the agents are up."""
        deadline = time.monotonic() + 180
        while True:
            try:
                self._id = self._client.submit_job(entrypoint=self._command)
            except RuntimeError:  # no agent yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def until(self, what: str) -> str:
        """Its state once `what` is in its log, or it ended."""
        deadline = time.monotonic() + 1500  # an epoch takes ten seconds where others test too
        while not self.state.is_terminal() and what not in self.printed():
            assert time.monotonic() < deadline, self.printed()
            time.sleep(0.1)
        return str(self.state.value)

    @property
    def state(self) -> Any:
        return self._client.get_job_status(self._id)

    def printed(self) -> str:
        return str(self._client.get_job_logs(self._id))

    def stop(self) -> str:
        """As KubeRay's finalizer does; the state that it comes to."""
        self._client.stop_job(self._id)
        return self.until("\0")


def running(sweep: Sweep) -> dict[str, bool]:
    """The trials that run by the log, and whether they have a new epoch and a checkpoint."""
    trials: dict[str, bool] = {}
    for event in sweep.events():
        if event["event"] == "start":
            trials[event["trial"]] = False
        elif event["event"] == "epoch":
            checkpoint = sweep.folder / "trials" / event["trial"] / "last.pt"
            trials[event["trial"]] = checkpoint.exists()
        elif event["event"] in ("end", "lost"):
            trials.pop(event["trial"], None)
        elif event["event"] == "paused":
            trials.clear()
    return trials


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_submitted_sweep_outlives_a_stop_and_the_death_of_a_node(
    tmp_path: Path, files: tuple[str, str], template: Path
) -> None:
    from ray.job_submission import JobSubmissionClient

    sweep = Sweep(tmp_path / "sweep", FILE)
    uri = f"sqlite:///{sweep.out / 'mlflow.db'}"
    sweep.out.mkdir()
    shutil.copy(template, sweep.out)
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
    cluster = subprocess.Popen(
        [sys.executable, "-c", NODES],
        env=os.environ | settings,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert cluster.stdout is not None
    line = ""
    while not line.startswith("{"):
        line = cluster.stdout.readline()
        assert cluster.poll() is None, "no cluster"
    facts = json.loads(line)
    sidecar = Sidecar(facts["logs"], files)
    try:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        job = Job(JobSubmissionClient(facts["url"], headers=headers), sweep)
        job.submit()
        while len(running(sweep)) < 2 or not any(e["event"] == "epoch" for e in sweep.events()):
            assert not job.state.is_terminal(), job.printed()
            time.sleep(0.05)
        assert job.stop() == "STOPPED"
        assert sweep.events()[-1]["event"] == "paused", "within Ray's 3 s before SIGKILL"
        assert "Stopped; nothing is lost" in job.printed()

        job.submit()
        while sum(running(sweep).values()) < 2:
            assert not job.state.is_terminal(), job.printed()
            time.sleep(0.02)
        busy = [raylet for raylet in facts["raylets"] if below(raylet, WORKER)]
        assert len(busy) == 2, "trials run on both nodes"
        on_it = below(busy[0], "")
        assert strike(busy[0])
        assert sum(strike(process) for process in on_it) >= 1, (
            "a machine takes all of its own along"
        )
        assert job.until("\0") == "SUCCEEDED", job.printed()
        clean(job.printed())

        lost = [event["trial"] for event in sweep.events() if event["event"] == "lost"]
        assert len(lost) == 1
        assert repeated(sweep, lost[0]), "it resumed from its checkpoint, on the other node"
        assert {row.state for row in sweep.rows()} == {"COMPLETE"}
        nothing_lost(sweep, uri)
        assert "Study job on digits" in sidecar.printed()
        assert "skipnet-00001 COMPLETE" in sidecar.printed()
    finally:
        sidecar.close()
        cluster.communicate(timeout=60)


def repeated(sweep: Sweep, trial: str) -> bool:
    """Whether a lost trial's new start began with its checkpoint.

    The epochs of a checkpoint come with the times at which an earlier start trained them.
    """
    events = [event for event in sweep.events() if event.get("trial") == trial]
    starts = sum(event["event"] == "start" for event in events)
    known = {(event["step"], event["time"]) for event in events if event["event"] == "epoch"}
    last = set()
    for line in (sweep.folder / "repeats.txt").read_text().splitlines():
        name, start, step, when = line.split()
        if name == trial:
            (last if int(start) == starts else known).add((int(step), int(when)))
    return bool(last & known)


class Sidecar:
    """The rendered container that repeats the driver's log, as a process here."""

    def __init__(self, logs: str, files: tuple[str, str]) -> None:
        job = render(Path(files[0]), load(Path(files[1]))).ray_job
        pod = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
        command = next(c["command"] for c in pod["containers"] if c["name"] == "driver-log")
        assert LOGS in command[-1]
        self._process = subprocess.Popen(
            [*command[:-1], command[-1].replace(LOGS, logs)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "KEPT": f"{logs}/kept", "HOSTNAME": "head"},
        )
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def printed(self) -> str:
        return "".join(self._lines)

    def close(self) -> None:
        self._process.terminate()
        assert self._process.wait(30) == 0  # after 3 s, within a pod's time to end
        os.killpg(self._process.pid, signal.SIGKILL)  # its container's end does that
        self._thread.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.append(line)
