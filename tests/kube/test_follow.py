"""--wait, status, logs and cancel against a server whose watches drop, expire and stall."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from server import JOBS, PODS, Server, running

from orchestrator.cli import kubernetes as commands
from orchestrator.kube import follow, logs
from orchestrator.kube.cluster import load
from orchestrator.kube.render import render

ROOT = Path(__file__).parents[2]
Call = Callable[..., int]
MAIN = "from orchestrator.cli import main; main()"
DONE = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}


@pytest.fixture
def name(files: tuple[str, str], server: Server, isoflop: Call) -> str:
    """A sweep that was submitted."""
    assert isoflop("submit", files[0]) == 0
    server.requests.clear()
    return render(Path(files[0]), load(Path(files[1]))).name


def watched(server: Server, times: int = 1) -> None:
    server.until(lambda: server.asked("watch=true") >= times)


def test_wait_ends_with_success_only_when_complete_and_succeeded(
    server: Server, isoflop: Call, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def operator() -> None:
        watched(server)
        server.status(name, jobDeploymentStatus="Initializing")
        server.status(
            name,
            jobDeploymentStatus="Running",
            jobStatus="RUNNING",
            rayClusterStatus={"readyWorkerReplicas": 1, "desiredWorkerReplicas": 2},
        )
        server.status(name, **DONE)

    capsys.readouterr()
    with running(operator):
        assert isoflop("status", name, "--wait") == 0
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2] for line in told[:-1]] == [
        "accepted; KubeRay has not begun",
        "pods are starting",
        "running, 1 of 2 workers ready",
        "complete",
    ]
    assert told[-1] == f"{name} is complete"


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (
            {
                "jobDeploymentStatus": "Failed",
                "jobStatus": "FAILED",
                "reason": "AppFailed",
                "message": "exit code 2, last available logs:\n[1 of 9] dense-00000\n"
                "isoflop: data must be there, but are not\n",
            },
            "ended as Failed: AppFailed: data must be there, but are not",
        ),
        (
            {"jobDeploymentStatus": "ValidationFailed", "reason": "ValidationFailed"},
            "ended as ValidationFailed: ValidationFailed",
        ),
        (
            {"jobDeploymentStatus": "Running", "jobStatus": "STOPPED", "message": "by hand"},
            "ended as STOPPED: by hand",
        ),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, "ended as STOPPED"),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "FAILED"}, "ended as Complete"),
        (
            {"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded", "message": "30 min"},
            "DeadlineExceeded: 30 min",
        ),
    ],
)
def test_every_bad_end_is_exit_code_3_with_reason_and_message(
    *,
    server: Server,
    isoflop: Call,
    name: str,
    capsys: pytest.CaptureFixture[str],
    status: dict[str, str],
    sentence: str,
) -> None:
    def operator() -> None:
        watched(server)
        server.status(name, **status)

    with running(operator):
        assert isoflop("status", name, "--wait") == 3
    told = capsys.readouterr().err.splitlines()
    assert told[-1].startswith("isoflop: ")
    assert sentence in told[-1]
    assert server.asked("rayjobs") < 20


def test_a_sweep_that_had_ended_before_is_told_at_once(
    server: Server, isoflop: Call, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.status(name, **DONE)
    assert isoflop("status", name, "--wait") == 0
    server.status(name, jobDeploymentStatus="ValidationFailed", jobStatus="", message="no such")
    assert isoflop("status", name, "--wait") == 3
    assert server.asked("watch=true") == 0


@pytest.mark.parametrize("replaced", [False, True])
def test_a_sweep_that_is_deleted_is_exit_code_3(
    server: Server, isoflop: Call, name: str, capsys: pytest.CaptureFixture[str], replaced: bool
) -> None:
    def someone() -> None:
        watched(server)
        if replaced:
            server.fail("GET", "watch=true", "503")
            server.forget()
        server.take(f"{JOBS}/{name}")
        if replaced:
            server.put(f"{JOBS}/{name}", {"spec": {}})

    with running(someone):
        assert isoflop("status", name, "--wait") == 3
    assert f"{name} was deleted" in capsys.readouterr().err


def test_waiting_outlives_every_fault_of_the_server(
    server: Server,
    isoflop: Call,
    name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follow, "WATCH", 1.0)
    monkeypatch.setattr(follow, "PAUSE", 0.05)

    def operator() -> None:
        watched(server)
        stages = ("Initializing", "Waiting", "Running", "Retrying", "Initializing", "Running")
        for fault, stage in zip(("half", "503", "429", "drop", "slow", "410"), stages, strict=True):
            planned = server.fail("GET", "watch=true", fault)
            server.status(name, jobDeploymentStatus=stage)
            server.until(lambda planned=planned: planned.seen == 1)
        server.forget()  # every watch from before is answered with 410
        lists = [server.fail("GET", r"rayjobs\?fieldSelector=(?!.*watch)", "500", times=3)]
        server.fail("GET", "watch=true", "503")
        server.status(name, jobDeploymentStatus="Running", jobStatus="RUNNING")
        server.until(lambda: lists[0].seen == 3)
        before = server.asked("watch=true")
        watched(server, before + 2)  # quiet ones that end
        server.status(name, **DONE)

    capsys.readouterr()
    with running(operator):
        assert isoflop("status", name, "--wait") == 0
    told = capsys.readouterr().err
    assert "when last seen" in told
    assert "asking again" in told
    assert told.splitlines()[-1] == f"{name} is complete"
    assert server.asked("GET") < 80, "asked, not stormed"


@pytest.mark.parametrize("how", ["in the stream", "at once"])
def test_a_watch_that_expired_is_begun_anew(
    server: Server, isoflop: Call, name: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(follow, "WATCH", 1.0)

    def operator() -> None:
        watched(server)
        if how == "at once":
            server.fail("GET", "watch=true", "410", times=2)
        server.forget()
        watched(server, 2)
        server.status(name, **DONE)

    with running(operator):
        assert isoflop("status", name, "--wait", "--timeout", "30") == 0


def test_a_time_out_is_told_and_the_sweep_goes_on(
    server: Server, isoflop: Call, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.status(name, jobDeploymentStatus="Running", jobStatus="RUNNING")
    assert isoflop("status", name, "--wait", "--timeout", "1") == 124
    told = capsys.readouterr().err
    assert f"{name} goes on (running); --timeout is over" in told
    assert f"isoflop cancel {name}" in told
    server.fail("GET", "watch=true", "drop", times=999)
    assert isoflop("status", name, "--wait", "--timeout", "1") == 124
    assert server.names(JOBS) == [name]


def test_ctrl_c_detaches_and_says_how_to_cancel(
    server: Server, files: tuple[str, str], name: str
) -> None:
    words = ["submit", files[0], "--cluster", files[1], "--wait"]
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *words], stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    server.until(lambda: server.asked("watch=true") >= 1, 60)
    os.kill(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"Detached; {name} goes on" in told
    assert f"isoflop cancel {name}" in told
    assert "Traceback" not in told
    assert server.names(JOBS) == [name]


def test_in_a_terminal_one_line_is_kept_up_to_date(
    server: Server, files: tuple[str, str], name: str
) -> None:
    server.status(name, jobDeploymentStatus="Initializing")
    words = ["status", name, "--cluster", files[1], "--wait"]
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", MAIN, *words], stderr=theirs, cwd=ROOT)
    os.close(theirs)

    def operator() -> None:
        server.until(lambda: server.asked("watch=true") >= 1, 60)
        time.sleep(0.5)
        server.status(name, **DONE)

    shown = b""
    with running(operator):
        while True:
            try:
                shown += os.read(ours, 4096)
            except OSError:
                break
    os.close(ours)
    assert process.wait(60) == 0
    text = shown.decode()
    assert "pods are starting" in text
    assert "0:00:00" in text
    assert "is complete" in text
    assert "\x1b[2K" in text, "lines are written over"


def test_pods_in_trouble_are_named(
    server: Server, isoflop: Call, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.status(name, jobDeploymentStatus="Initializing", rayClusterName="tiny-abc")
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    server.pod("worker-1", "tiny-abc", "worker", conditions=[{**unscheduled, "message": message}])
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    server.pod("head-1", "tiny-abc", containerStatuses=[{"state": waiting}])
    server.pod("other", "another", containerStatuses=[{"state": waiting}])
    assert isoflop("status", name) == 0
    told = capsys.readouterr().out
    assert f"worker-1: Unschedulable: {message}" in told
    assert "head-1: ImagePullBackOff: not found" in told
    assert "other" not in told


def test_status_finds_a_sweep_by_file_study_or_name_and_lists_all(
    server: Server,
    isoflop: Call,
    files: tuple[str, str],
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.status(name, jobDeploymentStatus="Suspended")
    capsys.readouterr()
    for words in ([files[0]], ["tiny"], [name], []):
        assert isoflop("status", *words) == 0
        told = capsys.readouterr().out
        assert name in told
        assert "queued" in told
    assert isoflop("status", "nowhere") == 2
    assert "no sweep is called 'nowhere'" in capsys.readouterr().err
    server.take(f"{JOBS}/{name}")
    assert isoflop("status") == 0
    assert "No sweep is in namespace isoflop" in capsys.readouterr().out


def test_cancel_waits_until_the_driver_was_stopped(
    server: Server, isoflop: Call, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.stopping = 0.4
    assert isoflop("cancel", "tiny") == 0
    assert server.names(JOBS) == []
    assert "the same submit goes on from there" in capsys.readouterr().err
    assert isoflop("cancel", "tiny") == 2


def test_cancel_asks_again_and_says_what_hangs(
    server: Server,
    isoflop: Call,
    name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from orchestrator.kube import submit

    server.fail("DELETE", "/rayjobs/", "503", times=2)
    server.fail("DELETE", "/rayjobs/", "lost")
    assert isoflop("cancel", name) == 0
    assert server.names(JOBS) == []
    server.put(f"{JOBS}/{name}", {"spec": {}})
    monkeypatch.setattr(submit, "GONE", 0.2)
    server.stopping = 3.0
    assert isoflop("cancel", name) == 2
    assert "does KubeRay's operator run?" in capsys.readouterr().err


def test_logs_are_the_drivers_lines(
    server: Server, isoflop: Call, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert isoflop("logs", name) == 2
    assert "has no log yet" in capsys.readouterr().err
    server.status(name, jobDeploymentStatus="Running", jobStatus="RUNNING", rayClusterName="c")
    server.pod("head-1", "c")
    server.logs["head-1"] = ["Study tiny", "[1 of 7] dense-00000 COMPLETE: 98 %"]
    assert isoflop("logs", "tiny") == 0
    assert capsys.readouterr().out.splitlines() == server.logs["head-1"]
    assert server.asked("container=driver-log") == 1
    assert isoflop("status", name) == 0
    assert "[1 of 7] dense-00000 COMPLETE: 98 %" in capsys.readouterr().out
    server.take(f"{PODS}/head-1")
    server.status(name, jobDeploymentStatus="Failed", jobStatus="FAILED", reason="AppFailed")
    assert isoflop("logs", name) == 2
    assert "stands in MLflow: `isoflop board`" in capsys.readouterr().err


def test_following_a_log_outlives_a_broken_stream_and_a_new_head(
    server: Server,
    isoflop: Call,
    name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "PAUSE", 0.05)
    capsys.readouterr()

    def operator() -> None:
        server.until(lambda: server.asked("GET") >= 2)
        server.status(name, jobDeploymentStatus="Running", jobStatus="RUNNING", rayClusterName="c")
        server.logs["head-1"] = ["one", "two", "three"]
        broken = server.fail("GET", "head-1/log", "half")
        server.pod("head-1", "c")
        server.until(lambda: broken.seen == 1)
        server.until(lambda: server.asked("head-1/log") >= 2)
        server.logs["head-1"] = ["one", "two", "three", "four"]
        time.sleep(0.2)
        server.take(f"{PODS}/head-1")
        server.logs["head-2"] = ["again", "end"]
        server.pod("head-2", "c")
        server.until(lambda: server.asked("head-2/log") >= 1)
        time.sleep(0.2)
        server.status(name, **DONE)
        server.take(f"{PODS}/head-2")

    with running(operator):
        assert isoflop("logs", name, "--follow") == 0
    assert capsys.readouterr().out.split() == ["one", "two", "three", "four", "again", "end"]


def test_submit_waits_and_points_at_the_board(
    server: Server, isoflop: Call, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    ready = threading.Event()

    def operator() -> None:
        server.until(lambda: bool(server.names(JOBS)))
        ready.set()
        watched(server)
        server.status(server.names(JOBS)[0], **DONE)

    with running(operator):
        assert isoflop("submit", files[0], "--wait") == 0
    assert "isoflop board tiny --mlflow URI" in capsys.readouterr().err


def test_without_the_client_the_commands_say_what_to_install(
    files: tuple[str, str],
    isoflop: Call,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    monkeypatch.delitem(sys.modules, "orchestrator.kube.api", raising=False)
    assert isoflop("submit", files[0], "--dry-run") == 0
    assert isoflop("status") == 2
    assert "pip install 'isoflop[k8s]'" in capsys.readouterr().err
    assert commands.HERE.parts[0] == "k8s"
