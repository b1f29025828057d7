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
from server import JOBS, Server, running

from orchestrator.kube import follow

ROOT = Path(__file__).parents[2]
Call = Callable[..., int]
MAIN = "from orchestrator.cli import main; main()"
DONE = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}


def watched(server: Server, times: int = 1) -> None:
    server.until(lambda: server.asked("watch=true") >= times)


def test_wait_ends_with_success_only_when_complete_and_succeeded(
    server: Server, isoflop: Call, sweep: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def operator() -> None:
        watched(server)
        server.status(sweep, jobDeploymentStatus="Initializing")
        server.status(
            sweep,
            jobDeploymentStatus="Running",
            jobStatus="RUNNING",
            rayClusterStatus={"readyWorkerReplicas": 1, "desiredWorkerReplicas": 2},
        )
        server.status(sweep, **DONE)

    capsys.readouterr()
    with running(operator):
        assert isoflop("status", sweep, "--wait") == 0
    output = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2] for line in output[:-1]] == [
        "accepted; KubeRay has not begun",
        "pods are starting",
        "running, 1 of 2 workers ready",
        "complete",
    ]
    assert output[-1] == f"{sweep} is complete"


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
            "DeadlineExceeded: the limit of `hours` has passed, and KubeRay does not retry after "
            "that: 30 min",
        ),
        (
            {
                "jobDeploymentStatus": "Failed",
                "jobStatus": "RUNNING",
                "reason": "JobStatusCheckTimeoutExceeded",
            },
            "the head's node was lost, or a NetworkPolicy keeps KubeRay's operator from port 8265",
        ),
    ],
)
def test_every_bad_end_is_exit_code_3_with_reason_and_message(
    *,
    server: Server,
    isoflop: Call,
    sweep: str,
    capsys: pytest.CaptureFixture[str],
    status: dict[str, str],
    sentence: str,
) -> None:
    def operator() -> None:
        watched(server)
        server.status(sweep, **status)

    with running(operator):
        assert isoflop("status", sweep, "--wait") == 3
    output = capsys.readouterr().err.splitlines()
    assert output[-1].startswith("isoflop: ")
    assert sentence in output[-1]
    resumes = "nothing is lost: the same submit resumes it" in output[-1]
    assert resumes == (status["jobDeploymentStatus"] != "ValidationFailed")
    assert server.asked("rayjobs") < 20


def test_a_sweep_that_had_ended_before_is_told_at_once(
    server: Server, isoflop: Call, sweep: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.status(sweep, **DONE)
    assert isoflop("status", sweep, "--wait") == 0
    server.status(sweep, jobDeploymentStatus="ValidationFailed", jobStatus="", message="no such")
    assert isoflop("status", sweep, "--wait") == 3
    assert server.asked("watch=true") == 0


@pytest.mark.parametrize("replaced", [False, True])
def test_a_sweep_that_is_deleted_is_exit_code_3(
    server: Server, isoflop: Call, sweep: str, capsys: pytest.CaptureFixture[str], replaced: bool
) -> None:
    def someone() -> None:
        watched(server)
        if replaced:
            server.fail("GET", "watch=true", "503")
            server.forget()
        server.take(f"{JOBS}/{sweep}")
        if replaced:
            server.put(f"{JOBS}/{sweep}", {"spec": {}})

    with running(someone):
        assert isoflop("status", sweep, "--wait") == 3
    assert f"{sweep} was deleted" in capsys.readouterr().err


def test_waiting_outlives_every_fault_of_the_server(
    server: Server,
    isoflop: Call,
    sweep: str,
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
            server.status(sweep, jobDeploymentStatus=stage)
            server.until(lambda planned=planned: planned.hits == 1)
        server.forget()  # every watch from before is answered with 410
        lists = [server.fail("GET", r"rayjobs\?fieldSelector=(?!.*watch)", "500", times=3)]
        server.fail("GET", "watch=true", "503")
        server.status(sweep, jobDeploymentStatus="Running", jobStatus="RUNNING")
        server.until(lambda: lists[0].hits == 3)
        before = server.asked("watch=true")
        watched(server, before + 2)  # quiet ones that end
        server.status(sweep, **DONE)

    capsys.readouterr()
    with running(operator):
        assert isoflop("status", sweep, "--wait") == 0
    output = capsys.readouterr().err
    assert "by the server's last answer" in output
    assert "asking again" in output
    assert output.splitlines()[-1] == f"{sweep} is complete"
    assert server.asked("GET") < 80, "asked, not stormed"


@pytest.mark.parametrize("away", [True, False])
def test_a_server_that_has_just_come_back_may_know_no_roles_yet(
    *,
    server: Server,
    isoflop: Call,
    sweep: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    away: bool,
) -> None:
    monkeypatch.setattr(follow, "PAUSE", 0.05)
    if away:
        server.fail("GET", "fieldSelector", "drop")
    server.fail("GET", "fieldSelector", "403", times=2)
    server.status(sweep, **DONE)
    assert isoflop("status", sweep, "--wait") == (0 if away else 2)
    assert "lack the permission (403)" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["in the stream", "at once"])
def test_a_watch_that_expired_is_begun_anew(
    server: Server, isoflop: Call, sweep: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(follow, "WATCH", 1.0)

    def operator() -> None:
        watched(server)
        if how == "at once":
            server.fail("GET", "watch=true", "410", times=2)
        server.forget()
        watched(server, 2)
        server.status(sweep, **DONE)

    with running(operator):
        assert isoflop("status", sweep, "--wait", "--timeout", "30") == 0


def test_a_time_out_is_reported_and_the_sweep_continues(
    server: Server, isoflop: Call, sweep: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.status(sweep, jobDeploymentStatus="Running", jobStatus="RUNNING")
    assert isoflop("status", sweep, "--wait", "--timeout", "1") == 124
    output = capsys.readouterr().err
    assert f"{sweep} continues (running), the time of --timeout has passed" in output
    assert f"isoflop cancel {sweep}" in output
    server.fail("GET", "watch=true", "drop", times=999)
    assert isoflop("status", sweep, "--wait", "--timeout", "1") == 124
    assert server.names(JOBS) == [sweep]


def test_ctrl_c_detaches_and_says_how_to_cancel(
    server: Server, files: tuple[str, str], sweep: str
) -> None:
    words = ["status", sweep, "--cluster", files[1], "--wait"]
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *words], stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    server.until(lambda: server.asked("watch=true") >= 1, 60)
    os.kill(process.pid, signal.SIGINT)
    _, output = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"Detached; {sweep} continues" in output
    assert f"isoflop cancel {sweep}" in output
    assert "Traceback" not in output
    assert server.names(JOBS) == [sweep]


def test_in_a_terminal_one_line_is_kept_up_to_date(
    server: Server, files: tuple[str, str], sweep: str
) -> None:
    server.status(sweep, jobDeploymentStatus="Initializing")
    words = ["status", sweep, "--cluster", files[1], "--wait"]
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", MAIN, *words], stderr=theirs, cwd=ROOT)
    os.close(theirs)

    def operator() -> None:
        server.until(lambda: server.asked("watch=true") >= 1, 60)
        time.sleep(0.5)
        server.status(sweep, **DONE)

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
