"""The pods of a RayJob as processes: commands, environment and arguments are the rendered ones.

Without containers the pods share ports and a file system: so ports are drawn, and every path of a
mount is a folder of the pod, or of all pods where it is a claim or the ConfigMap.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from faults import MAIN, REPEATS, ROOT, Sweep, below, strike
from manifests import Json
from ports import free_port

from orchestrator.kube.pods import KEPT_EVERY, RUNS, STUDY
from orchestrator.kube.render import templates

TOKEN = "0123456789abcdef" * 2
GRACE = 6.0
"""Seconds that a deleted pod has; Kubernetes gives it 30."""
PACE = "1"
"""Seconds between two copies of logs here, where sweeps take seconds."""


FIRST = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1); os.execvp(sys.argv[1], sys.argv[1:])"
)
"""Becomes a command that adopts the orphans below it, as a container's first process does."""


class Pod:
    """One pod, whose containers share a folder in the place of /tmp."""

    def __init__(self, template: Json, name: str, claims: dict[str, Path], known: Json) -> None:
        self.name = name
        self.tmp = Path(tempfile.mkdtemp(prefix="pod"))  # short, since Ray has sockets below it
        self._spec = template["spec"]
        self._paths = {
            **{mount: str(path) for mount, path in claims.items()},
            "/tmp": str(self.tmp),
        }
        self._known = known
        """Values of Secrets, by `SECRET/KEY`, and of the pod's own fields, by their paths."""
        self.containers: list[subprocess.Popen[bytes]] = []
        """The first process of each; that of Ray's comes first."""

    def placed(self, text: str) -> str:
        """A path of the pod, where it lies here; any other text as it is."""
        for mount, path in self._paths.items():
            if text == mount or text.startswith(f"{mount}/"):
                return path + text.removeprefix(mount)
        return text

    def run(self, container: str, command: list[str] | None = None, **more: str) -> None:
        """A container's command, or the one that KubeRay gives it; what it prints is in a file."""
        spec = next(each for each in self._spec["containers"] if each["name"] == container)
        env = self._environment(spec) | more
        words = [
            self.placed(re.sub(r"\$\((\w+)\)", lambda name: env[name[1]], word))
            for word in command or spec["command"]
        ]
        if command is None:
            words[words.index(str(KEPT_EVERY))] = PACE
        with self.output(container).open("wb") as file:
            self.containers.append(
                subprocess.Popen(
                    [sys.executable, "-I", "-c", FIRST, *words],
                    env=env,
                    cwd=self.tmp,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                )
            )

    def output(self, container: str) -> Path:
        """The file with what a container printed."""
        return self.tmp / f"{container}.txt"

    def processes(self) -> list[int]:
        """All that run in it; orphans too, which the first process of their container adopts."""
        return [each for process in self.containers for each in below(process.pid, "")]

    def kill(self) -> None:
        """All of it at once, as the loss of its node does."""
        while sum(strike(process) for process in self.processes()):
            for process in self.containers:
                process.kill()
        for process in self.containers:
            process.kill()
            process.wait()

    def _environment(self, spec: Json) -> dict[str, str]:
        env = {key: os.environ[key] for key in ("OMP_NUM_THREADS", "RAY_worker_niceness")}
        env |= {"PATH": f"{self.tmp}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"}
        env |= {"PYTHONPATH": str(ROOT), "TMPDIR": str(self.tmp)}
        for variable in spec.get("env", []):
            if "value" in variable:
                env[variable["name"]] = self.placed(variable["value"])
                continue
            source = variable["valueFrom"]
            secret, field = source.get("secretKeyRef"), source.get("fieldRef")
            key = f"{secret['name']}/{secret['key']}" if secret else field["fieldPath"]
            if key in self._known or not (secret or {}).get("optional"):
                env[variable["name"]] = self._known[key]
        return env


def end(pods: list[Pod]) -> None:
    """As pods end that are deleted: their containers are told to, and killed a little later."""
    every = [process for pod in pods for process in pod.processes()]
    first = [process for pod in pods for process in pod.containers]
    for process in first:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    for process in first:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, deadline - time.monotonic()))
    for pod in pods:
        pod.kill()
    for orphan in every:  # of a first process that ended in time
        strike(orphan)


class Attempt:
    """What KubeRay makes of a RayJob: the head's pod, those of the workers, and the driver."""

    def __init__(self, job: Json, study: Path, runs: Path, secrets: dict[str, str]) -> None:
        self.name = f"{job['metadata']['name']}-{os.urandom(3).hex()[:5]}"
        self._job = job
        self._claims = {RUNS: runs, STUDY: study}
        self._secrets = secrets
        self._url = f"http://127.0.0.1:{free_port()}"
        self._gcs = f"127.0.0.1:{free_port()}"
        self._client: Any = None
        self._id = ""
        self.pods: list[Pod] = []
        """The head's first."""

    def __enter__(self) -> "Attempt":
        """All pods run, and the head serves."""
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pod in self.pods:
            pod.kill()
            shutil.rmtree(pod.tmp, ignore_errors=True)

    def submit(self) -> None:
        """The rendered entrypoint, over Ray's Jobs API, once its agents are up."""
        from ray.job_submission import JobSubmissionClient

        headers = {"Authorization": f"Bearer {TOKEN}"}
        self._client = JobSubmissionClient(self._url, headers=headers)
        words = [self.pods[0].placed(word) for word in shlex.split(self._job["spec"]["entrypoint"])]
        deadline = time.monotonic() + 180
        while True:
            try:
                self._id = self._client.submit_job(entrypoint=shlex.join(words))
            except RuntimeError:  # no agent yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    @property
    def state(self) -> Any:
        return self._client.get_job_status(self._id)

    def printed(self) -> str:
        return str(self._client.get_job_logs(self._id))

    def until(self, holds: Callable[[], bool]) -> None:
        """Until something holds while its driver runs."""
        while not holds():
            assert not self.state.is_terminal(), self.printed()
            for _ in range(20):  # its state costs more than a look
                if holds():
                    return
                time.sleep(0.05)

    def ended(self) -> str:
        """The state that its driver comes to."""
        deadline = time.monotonic() + 1500  # an epoch takes ten seconds where others test too
        while not (state := self.state).is_terminal():
            assert time.monotonic() < deadline, self.printed()
            time.sleep(0.5)
        return str(state.value)

    def stop(self) -> str:
        """As KubeRay's finalizer does; the state that it comes to."""
        self._client.stop_job(self._id)
        return self.ended()

    def lose(self) -> None:
        """The head dies with all in it, the driver too; then KubeRay deletes the other pods."""
        head, *workers = self.pods
        head.kill()
        end(workers)

    def _start(self) -> None:
        spec = self._job["spec"]["rayClusterSpec"]
        pods = templates(self._job)
        head = self._pod(pods["the head"], "head")
        given = {"head": None, "port": self._gcs.rpartition(":")[2], "dashboard-host": "127.0.0.1"}
        given |= {"dashboard-port": self._url.rpartition(":")[2]}
        given |= {"ray-client-server-port": str(free_port())}
        self._ray(head, "ray-head", {**spec["headGroupSpec"]["rayStartParams"], **given})
        head.run("driver-log")
        deadline = time.monotonic() + 120
        while not _answers(f"{self._url}/api/version"):
            assert time.monotonic() < deadline, head.output("ray-head").read_text()
            time.sleep(0.1)
        for group in spec["workerGroupSpecs"]:
            for number in range(group["replicas"]):
                pod = self._pod(group["template"], f"{group['groupName']}-worker-{number}")
                self._ray(pod, "ray-worker", {**group["rayStartParams"], "address": self._gcs})
                pod.run("kept-logs")

    def _pod(self, template: Json, part: str) -> Pod:
        name = f"{self.name}-{part}"
        fields = {"metadata.name": name, "metadata.labels['ray.io/cluster']": self.name}
        pod = Pod(template, name, self._claims, {**self._secrets, **fields})
        self.pods.append(pod)
        isoflop = pod.tmp / "bin" / "isoflop"
        isoflop.parent.mkdir()
        isoflop.write_text(f"#!{sys.executable}\n{REPEATS}{MAIN}\n")
        isoflop.chmod(0o755)
        return pod

    def _ray(self, pod: Pod, container: str, words: Json) -> None:
        ports = ("dashboard-agent-listen-port", "metrics-export-port")
        words = words | {"block": None, "temp-dir": str(pod.tmp / "ray")}
        words |= {"node-ip-address": "127.0.0.1"} | {port: str(free_port()) for port in ports}
        command = [f"--{key}" + (f"={value}" if value else "") for key, value in words.items()]
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
        pod.run(container, ["ray", "start", *command], **token)


def _answers(url: str) -> bool:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
    with suppress(OSError), urllib.request.urlopen(request, timeout=1):
        return True
    return False


def mounted_study(config_map: Json, folder: Path) -> Path:
    """The folder in which a ConfigMap is mounted."""
    place = Path(tempfile.mkdtemp(dir=folder))
    for name, text in config_map["data"].items():
        (place / name).write_text(text)
    return place


def running(sweep: Sweep) -> dict[str, int]:
    """The trials that run by the log, and of those with a checkpoint the last epoch; else 0."""
    trials: dict[str, int] = {}
    for event in sweep.events():
        trial = event.get("trial", "")
        if event["event"] == "start":
            trials[trial] = 0
        elif event["event"] == "epoch":
            saved = (sweep.folder / "trials" / trial / "last.pt").exists()
            trials[trial] = event["step"] if saved else 0
        elif event["event"] in ("end", "lost"):
            trials.pop(trial, None)
        elif event["event"] == "paused":
            trials.clear()
    return trials


def resumed(sweep: Sweep, trial: str) -> bool:
    """Whether a trial's last start began with its checkpoint.

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
