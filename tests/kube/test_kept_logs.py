"""A pod's logs outlive it: the container that keeps them, as a process here."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import CLUSTER, STUDY
from faults import ROOT, Ballast, mounted
from manifests import Json

from orchestrator.kube.cluster import load
from orchestrator.kube.logs import keep
from orchestrator.kube.logs.keep import Keep, bound_sweep, copy_end
from orchestrator.kube.render import render, templates


def containers(folder: Path) -> tuple[str, dict[str, Json]]:
    """The sweep's name, and the containers that keep logs, by their names."""
    (folder / "study.yaml").write_text(STUDY)
    (folder / "cluster.yaml").write_text(CLUSTER)
    objects = render(folder / "study.yaml", load(folder / "cluster.yaml"))
    pods = templates(objects.ray_job).values()
    every = [each for pod in pods for each in pod["spec"]["containers"]]
    names = ("driver-log", "kept-logs")
    return objects.name, {each["name"]: each for each in every if each["name"] in names}


@contextmanager
def keeping(logs: Path, pod: Path, *place: str) -> Iterator["subprocess.Popen[str]"]:
    """The program in a process of its own, which ends with the block."""
    words = ["-P", "-m", "orchestrator.kube.logs.keep", str(logs), str(pod), "0.1", *place]
    with subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):  # killed before
                process.kill()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def old(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds, time.time() - seconds))


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Ray's folder of logs in a pod."""
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder


@pytest.fixture
def pod(tmp_path: Path) -> Path:
    """The folder that the pod has on the claim."""
    return tmp_path / "claim" / "sweep" / "attempt" / "pod"


def test_every_pod_writes_to_its_own_folder_on_the_claim(tmp_path: Path) -> None:
    sweep, both = containers(tmp_path)
    for container, rays in (("driver-log", "/tmp/ray"), ("kept-logs", "/tmp")):
        spec = both[container]
        folder = f"/runs/.logs/{sweep}/$(ATTEMPT)/$(POD)"
        assert spec["command"][4:7] == ["/tmp/ray/session_latest/logs", folder, "30"]
        assert spec["command"][7:] == ["head"] * (container == "driver-log")
        mounts = {each["mountPath"]: each for each in spec["volumeMounts"]}
        assert mounts["/runs"] == {"name": "runs", "mountPath": "/runs"}
        assert mounts[rays]["readOnly"] is True
        fields = {each["name"]: each.get("valueFrom") for each in spec["env"]}
        assert fields["POD"] == {"fieldRef": {"fieldPath": "metadata.name"}}
        label = "metadata.labels['ray.io/cluster']"
        assert fields["ATTEMPT"] == {"fieldRef": {"fieldPath": label}}


def test_a_drivers_log_is_printed_and_kept_through_the_end_of_its_pod(
    logs: Path, pod: Path
) -> None:
    log, again = logs / "job-driver-first.log", logs / "job-driver-second.log"
    log.write_text("one\n")
    with keeping(logs, pod, "head") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "one\n"
        again.write_text("of a second submission\n")
        assert process.stdout.readline() == again.read_text()
        until(lambda: text(pod / again.name) == again.read_text())
        process.terminate()
        time.sleep(0.5)  # the driver is told at the same moment, and stops a little later
        with log.open("a") as file:
            file.write("stopped\n")
        assert process.stdout.read() == "stopped\n"
        assert process.wait() == 0
        assert text(pod / log.name) == "one\nstopped\n"


def test_a_pod_that_is_killed_keeps_what_was_copied_until_then(logs: Path, pod: Path) -> None:
    (logs / "worker-1.err").write_text("Traceback\n")
    (logs / "raylet.out").write_text("1\n")
    (logs / "empty.err").touch()
    (logs / "data.bin").write_text("no log")
    (logs / "link.log").symlink_to("/etc/hostname")
    with keeping(logs, pod) as process:
        until(lambda: pod.exists() and names(pod) == {"worker-1.err", "raylet.out"})
        (logs / "raylet.out").write_text("1\n2\n")
        until(lambda: text(pod / "raylet.out") == "1\n2\n")
        process.send_signal(signal.SIGKILL)
        process.wait()
    (pod / ".raylet.out").write_text("of a copy that was killed")
    with keeping(logs, pod):  # the container starts again
        until(lambda: names(pod) == {"worker-1.err", "raylet.out"})


def test_a_claim_that_cannot_be_written_leaves_the_pods_log(tmp_path: Path, logs: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    (logs / "job-driver-first.log").write_text("one\n")
    with keeping(logs, tmp_path / "file" / "sweep" / "attempt" / "pod", "head") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "one\n"
        time.sleep(0.5)
        process.terminate()
        assert process.wait() == 0
        (line,) = process.stderr.read().splitlines()
        assert line.startswith("isoflop: this pod's logs are not kept in ")


def test_the_end_of_a_long_log_is_kept_from_the_beginning_of_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keep, "FILE", 25)
    monkeypatch.setattr(keep, "DRIVER_FILE", 45)
    for name, kept in (("raylet.out", 2), ("job-driver-first.log", 4)):
        log = tmp_path / name
        log.write_text("".join(f"line {number:04}\n" for number in range(100)))
        copy_end(log, tmp_path / "copy")
        expected = [f"line {number:04}" for number in range(100 - kept, 100)]
        assert (tmp_path / "copy").read_text().splitlines() == expected


def test_a_pod_keeps_what_changed_last(
    logs: Path, pod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keep, "POD", 250)
    for number in range(5):
        (logs / f"worker-{number}.err").write_text("x" * 100)
        old(logs / f"worker-{number}.err", 500 - number)
    keeper = Keep(logs, pod, head=False)
    keeper.turn()
    assert names(pod) == {"worker-3.err", "worker-4.err"}
    keeper.turn()
    assert names(pod) == {"worker-3.err", "worker-4.err"}, "what did not change is not copied again"
    (logs / "worker-0.err").write_text("y" * 100)
    keeper.turn()
    assert names(pod) == {"worker-0.err", "worker-4.err"}


def test_the_oldest_attempts_of_a_sweep_go_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keep, "SWEEP", 250)
    for number, name in enumerate(("a/head", "a/worker", "b/head", "b/worker", "c/head")):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "raylet.out").write_text("x" * 100)
        old(folder, keep.ENDED + 500 - number)
    old(tmp_path / "a" / "worker", 30)  # runs
    bound_sweep(tmp_path)
    assert names(tmp_path) == {"a", "b", "c"}
    assert names(tmp_path / "a") == {"worker"}
    assert names(tmp_path / "b") == {"worker"}, "two that ended fit"
    bound_sweep(tmp_path / "absent")


def test_logs_whose_folder_was_deleted_are_kept_again(logs: Path, pod: Path) -> None:
    (logs / "worker-1.err").write_text("Traceback\n")
    keeper = Keep(logs, pod, head=False)
    keeper.turn()
    shutil.rmtree(pod)
    keeper.turn()
    assert text(pod / "worker-1.err") == "Traceback\n"


def test_a_file_that_cannot_be_kept_costs_itself_alone(
    logs: Path, pod: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.err", "b.err", "c.err"):
        (logs / name).write_text(name)
    (pod / "b.err" / "in the way").mkdir(parents=True)
    keeper = Keep(logs, pod, head=False)
    keeper.turn()
    keeper.turn()
    assert (text(pod / "a.err"), text(pod / "c.err")) == ("a.err", "c.err")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_line_without_an_end_is_cut_and_takes_no_memory(tmp_path: Path) -> None:
    log = tmp_path / "job-driver-first.log"
    with log.open("wb") as file:
        file.truncate(keep.DRIVER_FILE + 100)
    tracemalloc.start()
    copy_end(log, tmp_path / "copy")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "copy").stat().st_size == keep.DRIVER_FILE
    assert peak < keep.MIB


def test_a_full_claim_costs_logs_alone(
    tmp_path: Path, logs: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (logs / "raylet.out").write_text("one\n" * 1000)
    with mounted(tmp_path / "claim", "8m") as claim:
        pod = claim / "sweep" / "attempt" / "pod"
        keeper = Keep(logs, pod, head=True)
        keeper.turn()
        assert "less than 256 MiB is free" in capsys.readouterr().err
        monkeypatch.setattr(keep, "RESERVE", 0)
        keeper.turn()
        whole = text(pod / "raylet.out")
        assert whole == text(logs / "raylet.out")
        ballast = Ballast(claim)
        until(lambda: os.statvfs(claim).f_bfree == 0)
        (logs / "raylet.out").write_text("two\n" * 1000)
        for _ in range(3):
            keeper.turn()
        assert text(pod / "raylet.out") == whole, "a copy that has no room leaves the one before"
        assert names(pod) == {"raylet.out"}
        assert len(capsys.readouterr().err.splitlines()) == 1
        ballast.drop()
        keeper.turn()
        assert text(pod / "raylet.out") == text(logs / "raylet.out")


def test_a_log_that_vanishes_is_left_out(logs: Path, pod: Path) -> None:
    """Ray renames logs that grow too long, and deletes the oldest."""
    (logs / "raylet.out").write_text("one\n")
    stop = threading.Event()

    def rotate() -> None:
        while not stop.is_set():
            (logs / "worker.out").write_text("two\n")
            (logs / "worker.out").unlink()

    thread = threading.Thread(target=rotate)
    thread.start()
    keeper = Keep(logs, pod, head=False)
    for _ in range(200):
        keeper.turn()
    stop.set()
    thread.join()
    assert not keeper._failed
    assert text(pod / "raylet.out") == "one\n"
