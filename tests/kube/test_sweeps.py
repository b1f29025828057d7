"""status, logs and cancel, and what they load."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from server import JOBS, PODS, Server, running

from orchestrator.kube import submit
from orchestrator.kube.logs import read as logs

ROOT = Path(__file__).parents[2]
Call = Callable[..., int]
DONE = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
HEAVY = {"torch", "scipy", "pandas", "optuna", "ray", "mlflow", "kubernetes.client.api.core_v1_api"}
"""What takes seconds of CPU to import."""


def test_pods_in_trouble_are_named(
    server: Server, isoflop: Call, sweep: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.status(sweep, jobDeploymentStatus="Initializing", rayClusterName="tiny-abc")
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    server.pod("worker-1", "tiny-abc", "worker", conditions=[{**unscheduled, "message": message}])
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    server.pod("head-1", "tiny-abc", containerStatuses=[{"state": waiting}])
    server.pod("other", "another", containerStatuses=[{"state": waiting}])
    assert isoflop("status", sweep) == 0
    output = capsys.readouterr().out
    assert f"worker-1: Unschedulable: {message}" in output
    assert "head-1: ImagePullBackOff: not found" in output
    assert "other" not in output


CLUSTERS = "/apis/ray.io/v1/namespaces/isoflop/rayclusters"
WORKLOADS = "/apis/kueue.x-k8s.io/v1beta1/namespaces/isoflop/workloads"
QUOTA = 'pods "x" is forbidden: exceeded quota: isoflop, requested: limits.cpu=4, limited: 2'
PENDING = "couldn't assign flavors to pod set head: insufficient unused quota for cpu"


def _over_quota(server: Server, sweep: str) -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreateHeadPod"}
    ready = {"type": "HeadPodReady", "status": "False", "reason": "HeadPodNotFound"}
    conditions = [{**ready, "message": "no head"}, {**failure, "message": QUOTA}]
    server.put(f"{CLUSTERS}/tiny-abc", {"status": {"conditions": conditions}})


def _refused_by_admission(server: Server, sweep: str) -> None:
    server.event("tiny-abc", "FailedToCreateHeadPod", "violates PodSecurity restricted:latest")
    server.event("tiny-abc", "FailedToCreateHeadPod", "violates PodSecurity restricted:latest")
    server.event("other-abc", "FailedToCreateHeadPod", "of another sweep")
    server.event("tiny-abc", "CreatedService", "all is well", kind="Normal")


def _no_volume(server: Server, sweep: str) -> None:
    server.pod("worker-1", "tiny-abc", "worker")
    server.pod("worker-2", "tiny-abc", "worker", conditions=[{"type": "Ready", "status": "True"}])
    server.event("worker-1", "FailedMount", "volume runs: timed out")
    server.event("worker-2", "Unhealthy", "of a pod that is ready by now")


def _refused_as_a_whole(server: Server, sweep: str) -> None:
    server.event(sweep, "InvalidRayJobSpec", "The RayJob spec is invalid")


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (_over_quota, f"tiny-abc: FailedCreateHeadPod: {QUOTA}"),
        (_refused_by_admission, "tiny-abc: FailedToCreateHeadPod: violates PodSecurity"),
        (_no_volume, "worker-1: FailedMount: volume runs: timed out"),
        (_refused_as_a_whole, "InvalidRayJobSpec: The RayJob spec is invalid"),
    ],
)
def test_status_tells_why_a_sweep_does_not_start(
    *,
    server: Server,
    isoflop: Call,
    sweep: str,
    capsys: pytest.CaptureFixture[str],
    prepare: Callable[[Server, str], None],
    sentence: str,
) -> None:
    server.status(sweep, jobDeploymentStatus="Initializing", rayClusterName="tiny-abc")
    prepare(server, sweep)
    capsys.readouterr()
    assert isoflop("status", sweep) == 0
    output = capsys.readouterr().out
    assert output.count(sentence) == 1
    assert len(output.splitlines()) == 3, output
    server.status(sweep, jobDeploymentStatus="Failed", reason="PreRunningDeadlineExceeded")
    assert isoflop("status", sweep, "--wait") == 3
    output = capsys.readouterr().err
    assert sentence in output, "what kept it from starting is told with its end"
    assert "did not start within `start_minutes`; nothing is lost" in output.splitlines()[-1]


@pytest.mark.parametrize(
    ("conditions", "sentence"),
    [
        (
            [{"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": PENDING}],
            f"queue sweeps: Pending: {PENDING}",
        ),
        (
            [
                {
                    "type": "Evicted",
                    "status": "True",
                    "reason": "Preempted",
                    "message": "by team b",
                },
                {"type": "Admitted", "status": "False", "reason": "NoReservation"},
            ],
            "queue sweeps: Preempted: by team b",
        ),
        ([{"type": "Admitted", "status": "True", "reason": "Admitted"}], ""),
    ],
)
def test_status_tells_why_kueue_lets_a_sweep_wait(
    *,
    server: Server,
    isoflop: Call,
    files: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    conditions: list[dict[str, str]],
    sentence: str,
) -> None:
    with Path(files[1]).open("a") as file:
        file.write("queue: sweeps\n")
    server.put(f"{WORKLOADS.replace('workloads', 'localqueues')}/sweeps", {"spec": {}})
    assert isoflop("submit", files[0]) == 0
    (name,) = server.names(JOBS)
    server.status(name, jobDeploymentStatus="Suspended")
    uid = server.store.objects[f"{JOBS}/{name}"]["metadata"]["uid"]
    for owner, status in ((uid, conditions), ("another", [])):
        labels = {"kueue.x-k8s.io/job-uid": owner}
        workload = {"metadata": {"labels": labels}, "status": {"conditions": status}}
        server.put(f"{WORKLOADS}/{owner}", workload)
    server.fail("GET", "v1beta2/namespaces/isoflop/workloads", "404", times=9)
    assert isoflop("status", name) == 0
    output = capsys.readouterr().out
    assert f"{name}  queued" in output
    assert sentence in output
    assert ("queue sweeps" in output) == bool(sentence)


def test_who_may_not_read_one_source_is_told_by_the_others(
    server: Server, isoflop: Call, sweep: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with the Role of an earlier version."""
    server.status(sweep, jobDeploymentStatus="Initializing", rayClusterName="tiny-abc")
    server.event(sweep, "FailedToCreateRayCluster", "denied the request")
    server.fail("GET", "/rayclusters/|/pods", "403", times=9)
    assert isoflop("status", sweep) == 0
    assert "FailedToCreateRayCluster: denied the request" in capsys.readouterr().out
    server.fail("GET", "/events", "403", times=9)
    assert isoflop("status", sweep) == 0
    assert "denied" not in capsys.readouterr().out


def test_status_finds_a_sweep_by_file_study_or_name_and_lists_all(
    server: Server,
    isoflop: Call,
    files: tuple[str, str],
    sweep: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.status(sweep, jobDeploymentStatus="Suspended")
    capsys.readouterr()
    for words in ([files[0]], ["tiny"], [sweep], []):
        assert isoflop("status", *words) == 0
        output = capsys.readouterr().out
        assert sweep in output
        assert "queued" in output
    assert isoflop("status", "nowhere") == 2
    assert "no sweep is called 'nowhere'" in capsys.readouterr().err
    server.take(f"{JOBS}/{sweep}")
    assert isoflop("status") == 0
    assert "No sweep is in namespace isoflop" in capsys.readouterr().out


def plain(*words: str) -> int:
    """The command without the cluster file of the tests."""
    from orchestrator.cli import main

    try:
        main(list(words))
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_namespace_is_the_options_else_the_cluster_files_else_the_contexts(
    server: Server,
    files: tuple[str, str],
    sweep: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for space in ("by-option", "by-file", "by-context"):
        job = server.store.objects[f"{JOBS}/{sweep}"]
        path = f"{JOBS}/{sweep}".replace("/isoflop/", f"/{space}/")
        metadata = {**job["metadata"], "creationTimestamp": space, "namespace": space}
        server.put(path, {**job, "metadata": metadata})
    config = yaml.safe_load(server.kubeconfig.read_text())
    config["contexts"][0]["context"]["namespace"] = "by-context"
    config["contexts"].append({**config["contexts"][0], "name": "other"})
    config["contexts"][1]["context"] = {**config["contexts"][0]["context"], "namespace": "nowhere"}
    server.kubeconfig.write_text(yaml.safe_dump(config))
    file = Path(files[1]).with_name("team.yaml")
    file.write_text(Path(files[1]).read_text() + "namespace: by-file\n")
    capsys.readouterr()

    def place(*words: str) -> str:
        assert plain("status", sweep, *words) == 0
        output = capsys.readouterr()
        (since,) = [line.split()[1] for line in output.out.splitlines() if "since" in line]
        assert f"isoflop cancel {sweep} --namespace {since}" in output.err
        return since

    assert place() == "by-context"
    assert place("--cluster", str(file)) == "by-file"
    assert place("--cluster", str(file), "-n", "by-option") == "by-option"
    monkeypatch.setenv("ISOFLOP_CLUSTER", str(file))
    assert place() == "by-file"
    monkeypatch.setenv("ISOFLOP_CLUSTER", "no-such-file.yaml")
    assert place("--namespace", "by-option") == "by-option"
    monkeypatch.delenv("ISOFLOP_CLUSTER")

    assert plain("status", "--context", "other") == 0
    assert "No sweep is in namespace nowhere" in capsys.readouterr().out
    asked = len(server.requests)
    assert plain("cancel", sweep, "--namespace", "Team/1") == 2
    assert "--namespace must be lower-case letters" in capsys.readouterr().err
    assert len(server.requests) == asked
    assert plain("cancel", sweep) == 0
    assert plain("logs", sweep, "-n", "by-option") == 2
    assert f"isoflop logs {sweep} --namespace by-option" in capsys.readouterr().err
    left = [
        path.split("/")[-3] for path in server.store.objects if path.endswith(f"rayjobs/{sweep}")
    ]
    assert sorted(left) == ["by-file", "by-option", "isoflop"]

    del config["contexts"][0]["context"]["namespace"]
    server.kubeconfig.write_text(yaml.safe_dump(config))
    assert plain("status", "tiny") == 0, "isoflop, where nothing names one"
    assert "--namespace isoflop" in capsys.readouterr().err


def test_cancel_waits_until_the_driver_was_stopped(
    server: Server, isoflop: Call, sweep: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.stopping = 0.4
    assert isoflop("cancel", "tiny") == 0
    assert server.names(JOBS) == []
    assert "the same submit resumes it" in capsys.readouterr().err
    assert isoflop("cancel", "tiny") == 2


def test_cancel_asks_again_and_says_what_hangs(
    server: Server,
    isoflop: Call,
    sweep: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.fail("DELETE", "/rayjobs/", "503", times=2)
    server.fail("DELETE", "/rayjobs/", "lost")
    assert isoflop("cancel", sweep) == 0
    assert server.names(JOBS) == []
    server.put(f"{JOBS}/{sweep}", {"spec": {}})
    monkeypatch.setattr(submit, "GONE", 0.2)
    server.stopping = 3.0
    assert isoflop("cancel", sweep) == 2
    assert "does KubeRay's operator run?" in capsys.readouterr().err


def test_logs_are_the_drivers_lines(
    server: Server, isoflop: Call, sweep: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert isoflop("logs", sweep) == 2
    assert "has no log yet" in capsys.readouterr().err
    server.status(sweep, jobDeploymentStatus="Running", jobStatus="RUNNING", rayClusterName="c")
    server.pod("head-1", "c")
    server.logs["head-1"] = ["Study tiny", "[1 of 7] dense-00000 COMPLETE: 98 %"]
    server.unfinished = True
    assert isoflop("logs", "tiny") == 0
    assert capsys.readouterr().out.splitlines() == server.logs["head-1"]
    assert server.asked("container=driver-log") == 1
    assert isoflop("status", sweep) == 0
    assert "[1 of 7] dense-00000 COMPLETE: 98 %" in capsys.readouterr().out
    server.take(f"{PODS}/head-1")
    server.status(sweep, jobDeploymentStatus="Failed", jobStatus="FAILED", reason="AppFailed")
    assert isoflop("logs", sweep) == 2
    message = capsys.readouterr().err
    assert f"are kept on the claim of `storage`, in .logs/{sweep}, and its results" in message
    assert "are in MLflow: `isoflop board`" in message


def test_following_a_log_outlives_a_broken_stream_and_a_new_head(
    server: Server,
    isoflop: Call,
    sweep: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "PAUSE", 0.05)
    capsys.readouterr()

    def operator() -> None:
        server.until(lambda: server.asked("GET") >= 2)
        server.status(sweep, jobDeploymentStatus="Running", jobStatus="RUNNING", rayClusterName="c")
        server.logs["head-1"] = ["one", "two", "three"]
        broken = server.fail("GET", "head-1/log", "half")
        server.pod("head-1", "c")
        server.until(lambda: broken.hits == 1)
        server.until(lambda: server.asked("head-1/log") >= 2)
        server.logs["head-1"] = ["one", "two", "three", "four"]
        time.sleep(0.2)
        server.take(f"{PODS}/head-1")
        server.logs["head-2"] = ["again", "end"]
        server.pod("head-2", "c")
        server.until(lambda: server.asked("head-2/log") >= 1)
        time.sleep(0.2)
        server.status(sweep, **DONE)
        server.take(f"{PODS}/head-2")

    with running(operator):
        assert isoflop("logs", sweep, "--follow") == 0
    assert capsys.readouterr().out.split() == ["one", "two", "three", "four", "again", "end"]


@pytest.mark.parametrize(
    ("words", "code"), [(("submit", "quickstart", "--dry-run"), 0), (("status",), 2)]
)
def test_without_the_client_the_commands_say_what_to_install(
    server: Server, words: tuple[str, ...], code: int
) -> None:
    program = "import sys; sys.modules['kubernetes'] = None; from orchestrator.cli import main"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; main({list(words)})"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == code, done.stderr
    assert ("pip install 'isoflop[k8s]'" in done.stderr) == (code == 2)


@pytest.mark.parametrize("command", ["status", "cancel"])
def test_asking_the_cluster_loads_nothing_that_trains(
    server: Server, files: tuple[str, str], sweep: str, command: str
) -> None:
    code = (
        "import atexit, sys; from orchestrator.cli import main; "
        f"atexit.register(lambda: print('loaded:', *({HEAVY} & sys.modules.keys()))); main()"
    )
    words = [command, files[0], "--cluster", files[1]]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert sweep in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "loaded:"
