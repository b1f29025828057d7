"""The driver's log outlives its pod: the head's container that repeats it, as a process here."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from conftest import CLUSTER, STUDY
from manifests import Json

from orchestrator.kube.cluster import load
from orchestrator.kube.render import render

LOGS = "/tmp/ray/session_latest/logs"


def container(folder: Path) -> tuple[str, Json]:
    """The sweep's name, and the container that repeats its log."""
    (folder / "study.yaml").write_text(STUDY)
    (folder / "cluster.yaml").write_text(CLUSTER)
    objects = render(folder / "study.yaml", load(folder / "cluster.yaml"))
    head = objects.ray_job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (sidecar,) = (each for each in head["containers"] if each["name"] == "driver-log")
    return objects.name, sidecar


@contextmanager
def repeated(folder: Path, kept: Path, pod: str) -> Iterator["subprocess.Popen[str]"]:
    """The container's process; it and its children end with the block, as in a container."""
    *shell, script = container(folder)[1]["command"]
    with subprocess.Popen(
        [*shell, script.replace(LOGS, str(folder / "logs"))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={"PATH": os.environ["PATH"], "KEPT": str(kept), "HOSTNAME": pod},
    ) as process:
        try:
            yield process
        finally:
            kill(process)


def kill(process: "subprocess.Popen[str]") -> None:
    with suppress(ProcessLookupError):  # killed before
        os.killpg(process.pid, signal.SIGKILL)


def end_with(process: "subprocess.Popen[str]") -> None:
    """What the shell leaves running ends when it does, as in a container."""
    process.wait()
    kill(process)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def test_the_container_writes_to_the_sweeps_own_folder_on_the_claim(tmp_path: Path) -> None:
    name, sidecar = container(tmp_path)
    variables = {each["name"]: each["value"] for each in sidecar["env"]}
    assert variables["KEPT"] == f"/runs/.logs/{name}"
    mounts = {each["mountPath"]: each for each in sidecar["volumeMounts"]}
    assert mounts["/runs"] == {"name": "runs", "mountPath": "/runs"}
    assert mounts["/tmp/ray"]["readOnly"] is True


def test_a_log_is_kept_as_it_grows_and_through_the_end_of_its_pod(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    kept = tmp_path / "claim" / ".logs" / "sweep"
    log = tmp_path / "logs" / "job-driver-first.log"
    copy = kept / "head-a-job-driver-first.log"
    with repeated(tmp_path, kept, "head-a") as process:
        log.write_text("one\n")
        until(lambda: text(copy) == "one\n")
        again = tmp_path / "logs" / "job-driver-second.log"
        again.write_text("of a second submission\n")
        until(lambda: text(kept / "head-a-job-driver-second.log") == again.read_text())
        container_ends = threading.Thread(target=end_with, args=(process,))
        container_ends.start()
        process.terminate()
        container_ends.join(0.5)  # the driver is told at the same moment, and stops a little later
        with log.open("a") as file:
            file.write("stopped\n")
        container_ends.join()
        assert process.returncode == 0
        assert text(copy) == "one\nstopped\n"
    with repeated(tmp_path, kept, "head-b"):  # another head: the same job, from its beginning
        until(lambda: text(kept / "head-b-job-driver-first.log") == "one\nstopped\n")
    assert text(copy) == "one\nstopped\n"


def test_a_claim_that_cannot_be_written_leaves_the_pods_log(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "file").write_text("no folder")
    with repeated(tmp_path, tmp_path / "file" / "sweep", "head-a") as process:
        (tmp_path / "logs" / "job-driver-first.log").write_text("one\n")
        assert process.stdout is not None
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.append(process.stdout.readline()))  # type: ignore[union-attr]
        reader.start()
        reader.join(60)
    assert lines == ["one\n"]
