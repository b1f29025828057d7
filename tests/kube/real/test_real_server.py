"""`make kube-check`: the chart and the commands on a real API server."""

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
import yaml
from apiserver import ADMIN, OUTSIDER, SUBMITTER, USERS, RealServer
from binaries import Binaries, binaries
from manifests import K8S, Json, chart, helm, ray_pods, tool
from played import CORE, JOBS, MAPS, Operator
from server import Server, running
from value_sets import SETS

Call = Callable[..., int]
VALUES: Json = {
    "submitters": [{"kind": "Group", "name": USERS[SUBMITTER]}],
    "runs": {"accessModes": ["ReadWriteMany"]},
}
"""The chart of these tests: who may submit, and a claim that all pods may mount."""


BUDGETS = 21
"""The version 1.21, from which on PodDisruptionBudget is of `policy/v1`."""


class Place(Protocol):
    """What plays KubeRay's operator, on either server."""

    def status(self, name: str, **status: object) -> None: ...
    def pod(self, name: str, cluster: str, kind: str = "head", **status: object) -> None: ...
    def event(self, name: str, reason: str, message: str, kind: str = "Warning") -> None: ...
    def names(self, path: str) -> list[str]: ...


def kubectl(server: RealServer, *words: str, given: str = "", user: str = ADMIN) -> str:
    """What kubectl prints; it must not fail."""
    done = subprocess.run(
        [tool("kubectl"), "--kubeconfig", str(server.kubeconfig(user)), *words],
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def older(each: Json) -> Json:
    """An object as a server before 1.21 knows it."""
    budget = each["kind"] == "PodDisruptionBudget"
    return {**each, "apiVersion": "policy/v1beta1"} if budget else each


def applied(server: RealServer, objects: list[Json]) -> list[str]:
    """Apply objects and the namespaces that they lie in; what kubectl says of each."""
    objects = [older(each) if server.minor < BUDGETS else each for each in objects]
    present = {o["metadata"]["name"] for o in objects if o["kind"] == "Namespace"}
    for name in {o["metadata"].get("namespace", "default") for o in objects} - present:
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        server.ask("POST", "/api/v1/namespaces", space)
    return kubectl(server, "apply", "-f", "-", given=yaml.safe_dump_all(objects)).splitlines()


@pytest.fixture(scope="session")
def programs() -> Binaries:
    if "ISOFLOP_KUBE_CHECK" not in os.environ:
        pytest.skip("`make kube-check` runs a real API server")
    return binaries()


@pytest.fixture
def real(programs: Binaries, tmp_path: Path) -> Iterator[RealServer]:
    """A server, empty but for the definitions of what is not Kubernetes' own."""
    folder = tmp_path / "real"
    folder.mkdir()
    with RealServer(programs, folder) as server:
        yield server


@pytest.fixture
def installed(real: RealServer, monkeypatch: pytest.MonkeyPatch) -> RealServer:
    """A server with the chart on it; the environment is that of a person who may submit."""
    (reply,) = helm({"values": VALUES})
    applied(real, list(yaml.safe_load_all(reply["text"])))
    monkeypatch.setenv("KUBECONFIG", str(real.kubeconfig(SUBMITTER)))
    monkeypatch.delenv("ISOFLOP_CLUSTER", raising=False)
    return real


@pytest.mark.parametrize("name", SETS)
def test_every_value_set_is_applied_and_applied_again(real: RealServer, name: str) -> None:
    objects = list(chart(name))
    assert len(applied(real, objects)) == len(applied(real, objects)) == len(objects)
    for each in objects:
        if each["kind"] in ("Deployment", "StatefulSet"):
            kind, place = f"{each['kind'].lower()}s", each["metadata"]
            path = f"/apis/apps/v1/namespaces/{place['namespace']}/{kind}/{place['name']}"
            stored = real.must("GET", path)
            assert stored["metadata"]["generation"] == 1, "no pod starts anew"
            assert pruned(each["spec"], stored["spec"]) == []


@pytest.mark.parametrize("file", sorted(K8S.glob("examples/*.yaml")), ids=lambda f: f.stem)
def test_every_example_is_taken_and_so_are_the_pods_that_kuberay_makes_of_it(
    real: RealServer, file: Path
) -> None:
    applied(real, list(chart("local")))
    counted(real)
    objects = list(yaml.safe_load_all(file.read_text()))
    applied(real, objects)
    (job,) = (o for o in objects if o["kind"] == "RayJob")
    stored = real.must("GET", f"{JOBS}/{job['metadata']['name']}")["spec"]
    assert pruned(job["spec"], stored) == []
    for name, pod in ray_pods(job):
        space = "isoflop"
        body = {
            "metadata": {"name": name.replace("/", "-"), **pod["metadata"]},
            "spec": pod["spec"],
        }
        body["metadata"]["namespace"] = space
        status, answer = real.ask("POST", f"{CORE}/pods?dryRun=All", body)
        assert status == 201, answer
        assert pruned(body["spec"], answer["spec"]) == []


def counted(server: RealServer) -> None:
    """Wait until every quota has been counted; pods are refused before."""
    path = f"{CORE}/resourcequotas"
    until(lambda: all(q.get("status", {}).get("hard") for q in server.must("GET", path)["items"]))


def pruned(sent: object, stored: object, place: str = "") -> list[str]:
    """Fields and entries that the server did not keep; it may add some, as default tolerations."""
    if isinstance(sent, dict) and isinstance(stored, dict):
        return [
            field
            for key, value in sent.items()
            for field in (
                pruned(value, stored[key], f"{place}.{key}")
                if key in stored
                else [f"{place}.{key}"]
            )
        ]
    if isinstance(sent, list) and isinstance(stored, list):
        if len(stored) < len(sent):
            return [place]
        pairs = zip(sent, stored, strict=False)
        return [f for i, (a, b) in enumerate(pairs) for f in pruned(a, b, f"{place}[{i}]")]
    return []


def lived(place: Place, isoflop: Call, study: str, told: Callable[[], str]) -> list[str]:
    """The life of a sweep: what each command printed, and its exit code."""
    transcript: list[str] = []

    def call(command: str, *words: str) -> None:
        code = isoflop(command, *words)
        transcript.append(f"{command}: {code}\n{told()}")

    call("submit", study)
    (name,) = place.names(JOBS)
    call("status")
    call("logs", name)
    place.status(name, jobDeploymentStatus="Initializing", rayClusterName="tiny-abc")
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    place.pod("worker-1", "tiny-abc", "worker", conditions=[{**unscheduled, "message": message}])
    place.event("tiny-abc", "FailedToCreateHeadPod", "violates PodSecurity restricted:latest")
    call("status", name)
    call("submit", study)
    place.status(name, jobDeploymentStatus="Running", jobStatus="RUNNING")
    call("status", "tiny")
    call("cancel", name)
    assert place.names(JOBS) == []
    call("status", name)
    call("submit", study)
    place.status(name, jobDeploymentStatus="Failed", reason="DeadlineExceeded")
    call("status", name, "--wait")
    call("submit", study)
    place.status(name, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    call("status", name, "--wait")
    call("cancel", name)
    call("cancel", name)
    until(lambda: name not in place.names(MAPS))
    return transcript


def until(what: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_sweep_lives_on_it_as_on_the_server_of_the_tests(
    *,
    installed: RealServer,
    isoflop: Call,
    files: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def told() -> str:
        out = capsys.readouterr()
        return re.sub(r"https://[.:0-9]+|\d\d\d\d-\d\d-\d\d\S*", "*", out.out + out.err)

    real = lived(Operator(installed), isoflop, files[0], told)
    with Server(tmp_path) as small:
        monkeypatch.setenv("KUBECONFIG", str(small.kubeconfig))
        played = lived(small, isoflop, files[0], told)
    assert real == played
    assert [each.split("\n")[0] for each in real] == [
        *("submit: 0", "status: 0", "logs: 2", "status: 0", "submit: 0", "status: 0"),
        *("cancel: 0", "status: 2", "submit: 0", "status: 3", "submit: 0", "status: 0"),
        *("cancel: 0", "cancel: 2"),
    ]


def test_a_server_that_is_killed_and_comes_back_ends_no_watch(
    installed: RealServer, isoflop: Call, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    operator, began = Operator(installed), threading.Event()

    def faults() -> None:
        until(lambda: operator.names(JOBS) != [])
        (name,) = operator.names(JOBS)
        operator.status(name, jobDeploymentStatus="Running", jobStatus="RUNNING")
        began.set()
        time.sleep(1)
        installed.kill()
        time.sleep(2)
        installed.start()
        operator.status(name, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")

    with running(faults):
        assert isoflop("submit", files[0], "--wait", "--timeout", "120") == 0
    assert began.is_set()
    assert f"{operator.names(JOBS)[0]} is complete" in capsys.readouterr().err


def test_only_who_is_bound_may_submit_and_may_do_nothing_else(
    *,
    installed: RealServer,
    isoflop: Call,
    files: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert isoflop("submit", files[0]) == 0
    (name,) = Operator(installed).names(JOBS)
    monkeypatch.setenv("KUBECONFIG", str(installed.kubeconfig(OUTSIDER)))
    for words in (("submit", files[0]), ("status", name), ("logs", name), ("cancel", name)):
        capsys.readouterr()
        assert isoflop(*words) == 2
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert "you lack the permission (403)" in last, last
    assert Operator(installed).names(JOBS) == [name]

    def may(user: str, verb: str, kind: str, name: str = "", group: str = "") -> bool:
        wanted = {"namespace": "isoflop", "verb": verb, "resource": kind, "name": name}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {**wanted, "group": group}},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        return bool(installed.ask("POST", path, review, user=user)[1]["status"]["allowed"])

    assert may(SUBMITTER, "create", "rayjobs", group="ray.io")
    assert may(SUBMITTER, "get", "secrets", "isoflop-mlflow")
    for verb, kind, one in (
        ("list", "secrets", ""),
        ("get", "secrets", "postgres"),
        ("get", "secrets", "mlflow-server"),
        ("create", "pods", ""),
        ("create", "pods/exec", ""),
        ("delete", "persistentvolumeclaims", "isoflop-runs"),
        ("update", "resourcequotas", "isoflop"),
        ("patch", "namespaces", "isoflop"),
    ):
        assert not may(SUBMITTER, verb, kind, one), (verb, kind, one)
    assert not may(SUBMITTER, "create", "rolebindings", group="rbac.authorization.k8s.io")
    assert not may(SUBMITTER, "delete", "networkpolicies", group="networking.k8s.io")
    assert not may(OUTSIDER, "list", "pods")


def test_a_quota_that_is_full_is_told_as_the_server_words_it(
    installed: RealServer, isoflop: Call, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """KubeRay writes what it is refused into the RayCluster's condition."""
    assert isoflop("submit", files[0]) == 0
    operator = Operator(installed)
    (name,) = operator.names(JOBS)
    quota = {"metadata": {"name": "small"}, "spec": {"hard": {"requests.cpu": "1"}}}
    installed.must("POST", f"{CORE}/resourcequotas", quota)
    counted(installed)
    job = installed.must("GET", f"{JOBS}/{name}")
    head = dict(ray_pods(job))["head"]
    body = {"metadata": {"name": "head", **head["metadata"]}, "spec": head["spec"]}
    status, refusal = installed.ask("POST", f"{CORE}/pods", body)
    assert status == 403
    clusters = JOBS.replace("rayjobs", "rayclusters")
    cluster = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": "tiny-abc"},
        "spec": json.loads(json.dumps(job["spec"]["rayClusterSpec"])),
    }
    installed.must("POST", clusters, cluster)
    condition = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreateHeadPod",
        "message": refusal["message"],
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    installed.must("PATCH", f"{clusters}/tiny-abc/status", {"status": {"conditions": [condition]}})
    operator.status(name, jobDeploymentStatus="Initializing", rayClusterName="tiny-abc")
    capsys.readouterr()
    assert isoflop("status", name) == 0
    out = capsys.readouterr().out
    assert "exceeded quota: small" in out
    assert out.count("FailedCreateHeadPod") == 1
