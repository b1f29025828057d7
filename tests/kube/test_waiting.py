"""Every way in which a sweep waits has its line in `status`."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from server import JOBS, PODS, Server

Call = Callable[..., int]
CLUSTERS = "/apis/ray.io/v1/namespaces/isoflop/rayclusters"
KUEUE = "/apis/kueue.x-k8s.io/v1beta2/namespaces/isoflop"
CLAIM = "/api/v1/namespaces/isoflop/persistentvolumeclaims/isoflop-runs"
VOLUMES = [{"name": "runs", "persistentVolumeClaim": {"claimName": "isoflop-runs"}}]
READY = {"type": "Ready", "status": "True"}


def ago(minutes: float) -> str:
    then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=minutes)
    return then.strftime("%Y-%m-%dT%H:%M:%SZ")


def begun(server: Server, sweep: str, **status: Any) -> None:
    """A sweep that KubeRay has taken, with a cluster."""
    words = {"jobDeploymentStatus": "Initializing", "rayClusterName": "c", **status}
    server.status(sweep, **words)


def pod(server: Server, name: str, kind: str = "worker", **status: Any) -> None:
    server.pod(name, "c", kind, **status)
    path = f"{PODS}/{name}"
    server.put(path, {**server.store.objects[path], "spec": {"volumes": VOLUMES}})


def since(server: Server, sweep: str, minutes: float) -> None:
    """A sweep that was submitted so many minutes ago."""
    path = f"{JOBS}/{sweep}"
    job = server.store.objects[path]
    server.put(path, {**job, "metadata": {**job["metadata"], "creationTimestamp": ago(minutes)}})


def _no_operator(server: Server, sweep: str) -> None:
    since(server, sweep, 3.5)


def _evicted(server: Server, sweep: str) -> None:
    begun(server, sweep)
    pod(server, "w", phase="Failed", reason="Evicted", message="The node was low on resource: disk")


def _preempted(server: Server, sweep: str) -> None:
    begun(server, sweep)
    reason = {"reason": "PreemptionByScheduler", "message": "preempting to accommodate another"}
    pod(server, "w", conditions=[{"type": "DisruptionTarget", "status": "True", **reason}])


def _gated(server: Server, sweep: str) -> None:
    begun(server, sweep)
    reason = {"reason": "SchedulingGated", "message": "Scheduling is blocked"}
    pod(server, "w", conditions=[{"type": "PodScheduled", "status": "False", **reason}])


def _crashes(server: Server, sweep: str) -> None:
    begun(server, sweep)
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container"}
    last = {"reason": "OOMKilled", "exitCode": 137}
    states = {"state": {"waiting": waiting}, "lastState": {"terminated": last}}
    pod(
        server, "w", initContainerStatuses=[{"name": "wait-gcs-ready", "restartCount": 4, **states}]
    )


def _restarts(server: Server, sweep: str) -> None:
    begun(server, sweep)
    states = {"state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1}}}
    counts = {"name": "ray-head", "restartCount": 3, "ready": False}
    pod(server, "h", "head", containerStatuses=[{**counts, **states}])


def _ended(server: Server, sweep: str) -> None:
    begun(server, sweep)
    state = {"terminated": {"reason": "Error", "exitCode": 2, "message": "no space left"}}
    pod(server, "h", "head", containerStatuses=[{"name": "ray-head", "state": state}])


def _waits_for_the_head(server: Server, sweep: str) -> None:
    begun(server, sweep)
    state = {"running": {"startedAt": ago(7.5)}}
    pod(server, "w", initContainerStatuses=[{"name": "wait-gcs-ready", "state": state}])


def _waits_in_another_container(server: Server, sweep: str) -> None:
    begun(server, sweep)
    state = {"running": {"startedAt": ago(7.5)}}
    pod(server, "w", initContainerStatuses=[{"name": "fetch", "state": state}])


def _no_node_to_add(server: Server, sweep: str) -> None:
    begun(server, sweep)
    pod(server, "w")
    message = "pod didn't trigger scale-up: 1 max node group size reached"
    server.event("w", "NotTriggerScaleUp", message, kind="Normal")
    server.event("other", "NotTriggerScaleUp", "of another pod", kind="Normal")


def _no_volume(server: Server, sweep: str) -> None:
    begun(server, sweep)
    pod(server, "w")
    spec = {"accessModes": ["ReadWriteMany"], "storageClassName": "nfs"}
    server.put(CLAIM, {"spec": spec, "status": {"phase": "Pending"}})


def _no_provisioner(server: Server, sweep: str) -> None:
    _no_volume(server, sweep)
    server.event("isoflop-runs", "ProvisioningFailed", 'storageclass "nfs" not found')


def _claim_deleted(server: Server, sweep: str) -> None:
    begun(server, sweep)
    pod(server, "w")
    server.take(CLAIM)


def _cluster_failed(server: Server, sweep: str) -> None:
    begun(server, sweep)
    server.put(f"{CLUSTERS}/c", {"status": {"state": "failed", "reason": "no head service"}})


def _shut_out(server: Server, sweep: str) -> None:
    begun(server, sweep, rayClusterStatus={"desiredWorkerReplicas": 1, "readyWorkerReplicas": 1})
    for name, kind in (("h", "head"), ("w", "worker")):
        pod(server, name, kind, conditions=[{**READY, "lastTransitionTime": ago(4.5)}])


def _driver_pending(server: Server, sweep: str) -> None:
    message = "Job has not started yet. It may be waiting for the runtime environment."
    begun(server, sweep, jobDeploymentStatus="Running", jobStatus="PENDING", message=message)


def _submitter_stuck(server: Server, sweep: str) -> None:
    begun(server, sweep)
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}}
    labels = {"metadata": {"labels": {"job-name": sweep}}}
    server.put(
        f"{PODS}/{sweep}-x", {**labels, "status": {"containerStatuses": [{"state": waiting}]}}
    )


def _retrying(server: Server, sweep: str) -> None:
    begun(server, sweep, jobDeploymentStatus="Retrying", reason="AppFailed", message="exit code 1")


def _tried_before(server: Server, sweep: str) -> None:
    begun(server, sweep, failed=2)


def _deadline(server: Server, sweep: str) -> None:
    begun(server, sweep, startTime=ago(12.5))


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (_no_operator, "KubeRay has not taken the sweep for 3 min; does its operator run"),
        (_evicted, "w: Evicted: The node was low on resource: disk"),
        (_preempted, "w: PreemptionByScheduler: preempting to accommodate another"),
        (_gated, "w: SchedulingGated: Scheduling is blocked"),
        (_crashes, "restarting failed container (wait-gcs-ready: OOMKilled, exit code 137)"),
        (_restarts, "h: ray-head: no reason given, exit code 1, and was started again, 3 times"),
        (_ended, "h: ray-head: Error: no space left, exit code 2"),
        (_waits_for_the_head, "w: its init container wait-gcs-ready waits for the head for 7 min"),
        (_waits_in_another_container, "w: its init container fetch runs for 7 min"),
        (_no_node_to_add, "w: NotTriggerScaleUp: pod didn't trigger scale-up: 1 max node group"),
        (_no_volume, "PersistentVolumeClaim isoflop-runs: Pending: it has no volume of class nfs"),
        (_no_provisioner, 'isoflop-runs: ProvisioningFailed: storageclass "nfs" not found'),
        (_claim_deleted, "PersistentVolumeClaim isoflop-runs: does not exist in namespace isoflop"),
        (_cluster_failed, "c: failed: no head service"),
        (_shut_out, "all pods have been ready for 4 min, but KubeRay has submitted no driver"),
        (_driver_pending, "PENDING: Job has not started yet. It may be waiting for the runtime"),
        (_submitter_stuck, "-x: ImagePullBackOff: no such tag"),
        (_retrying, "the last attempt failed: AppFailed: exit code 1"),
        (_tried_before, "attempts that failed before: 2"),
        (_deadline, "its pods have 30 min to start (`start_minutes`), of which 12 have passed"),
    ],
)
def test_status_tells_why_a_sweep_waits(
    *,
    server: Server,
    isoflop: Call,
    sweep: str,
    capsys: pytest.CaptureFixture[str],
    prepare: Callable[[Server, str], None],
    sentence: str,
) -> None:
    prepare(server, sweep)
    capsys.readouterr()
    assert isoflop("status", sweep) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(sentence in line for line in lines) == 1, lines
    assert not any("other" in line.split(":")[0] for line in lines)


def test_many_pods_that_wait_alike_do_not_hide_why(
    server: Server, isoflop: Call, sweep: str, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(server, sweep, failed=1, startTime=ago(12.5))
    cause = {"reason": "Unschedulable", "message": "0/3 nodes are available"}
    for number in range(9):
        name, condition = f"s-w{number}", {"type": "PodScheduled", "status": "False", **cause}
        pod(server, name, conditions=[condition])
        server.event(name, "FailedScheduling", f"no node for {name}")
    server.take(CLAIM)
    capsys.readouterr()
    assert isoflop("status", sweep) == 0
    text = capsys.readouterr().out
    told = (
        "attempts that failed before: 1",
        "its pods have 30 min to start",
        "PersistentVolumeClaim isoflop-runs: does not exist",
        "s-w0 and 8 more: Unschedulable: 0/3 nodes are available",
    )
    assert [text.count(sentence) for sentence in told] == [1, 1, 1, 1], text


def test_pods_are_told_of_where_others_may_not_be_read(
    server: Server, isoflop: Call, sweep: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _submitter_stuck(server, sweep)
    server.fail("GET", r"/pods\?.*ray\.io", "403", times=99)
    capsys.readouterr()
    assert isoflop("status", sweep) == 0
    assert f"{sweep}-x: ImagePullBackOff: no such tag" in capsys.readouterr().out


def test_a_sweep_that_runs_well_has_no_troubles(
    server: Server, isoflop: Call, sweep: str, capsys: pytest.CaptureFixture[str]
) -> None:
    since(server, sweep, 90)
    ready = {"desiredWorkerReplicas": 1, "readyWorkerReplicas": 1}
    running = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
    begun(server, sweep, **running, startTime=ago(90), rayClusterStatus=ready)
    ended = {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
    for name, kind in (("h", "head"), ("w", "worker")):
        condition = {**READY, "lastTransitionTime": ago(80)}
        pod(server, name, kind, conditions=[condition], initContainerStatuses=[ended])
    server.event("w", "Unhealthy", "of its first seconds")
    capsys.readouterr()
    assert isoflop("status", sweep) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2, "its state, and since when"


def _queued(workload: dict[str, Any] | None = None, *active: str) -> Callable[[Server, str], None]:
    def prepare(server: Server, uid: str) -> None:
        if workload is not None:
            labels = {"metadata": {"labels": {"kueue.x-k8s.io/job-uid": uid}}}
            server.put(f"{KUEUE}/workloads/w", {**labels, **workload})
        if active:
            condition = {"type": "Active", "status": "False", "reason": active[0]}
            status = {"conditions": [{**condition, "message": active[1]}]}
            server.put(f"{KUEUE}/localqueues/sweeps", {"status": status})

    return prepare


def _queue_unreadable(server: Server, uid: str) -> None:
    reason = {"reason": "Pending", "message": "couldn't assign flavors"}
    condition = {"type": "QuotaReserved", "status": "False", **reason}
    _queued({"status": {"conditions": [condition]}})(server, uid)
    server.fail("GET", "/localqueues/", "403", times=99)


CHECK = {"name": "provision", "state": "Pending", "message": "no capacity in zone a"}


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (_queued(), "queue sweeps: Kueue has not taken the sweep for 5 min; does it run"),
        (
            _queued({"status": {"admissionChecks": [CHECK]}}),
            "queue sweeps: admission check provision: Pending: no capacity in zone a",
        ),
        (_queued({"spec": {"active": False}}), "queue sweeps: its Workload is deactivated"),
        (
            _queued({}, "ClusterQueueIsInactive", "Can't submit new workloads to clusterQueue"),
            "queue sweeps: ClusterQueueIsInactive: Can't submit new workloads to clusterQueue",
        ),
        (
            lambda server, _: server.take(f"{KUEUE}/localqueues/sweeps"),
            "queue sweeps: there is no such LocalQueue in namespace isoflop",
        ),
        (
            _queue_unreadable,
            "queue sweeps: Pending: couldn't assign flavors",
        ),
    ],
)
def test_status_tells_why_a_queue_lets_a_sweep_wait(
    *,
    server: Server,
    isoflop: Call,
    files: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    prepare: Callable[[Server, str], None],
    sentence: str,
) -> None:
    with Path(files[1]).open("a") as file:
        file.write("queue: sweeps\n")
    server.put(f"{KUEUE}/localqueues/sweeps", {"spec": {}})
    for version in ("v1beta1", "v1beta2"):  # Kueue is there, whatever it has of objects
        server.put(f"/apis/kueue.x-k8s.io/{version}", {"resources": []})
    assert isoflop("submit", files[0]) == 0
    (name,) = server.names(JOBS)
    since(server, name, 5.5)
    server.status(name, jobDeploymentStatus="Suspended")
    prepare(server, server.store.objects[f"{JOBS}/{name}"]["metadata"]["uid"])
    capsys.readouterr()
    assert isoflop("status", name) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(sentence in line for line in lines) == 1, lines
