"""submit, and what it leaves behind, over HTTPS against a server that errs on demand."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from manifests import chart
from server import JOBS, MAPS, Server, running
from value_sets import SHIPPED

from orchestrator.kube.cluster import load
from orchestrator.kube.names import SUBMISSION
from orchestrator.kube.render import render

Call = Callable[..., int]


@pytest.fixture
def name(files: tuple[str, str]) -> str:
    return render(Path(files[0]), load(Path(files[1]))).name


def error(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a refusal."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("isoflop: "), lines
    assert not any("Traceback" in line for line in lines)
    return lines[-1]


def left(server: Server) -> list[str]:
    return server.names(JOBS) + server.names(MAPS)


def test_the_study_travels_as_a_config_map_that_the_job_owns(
    server: Server, isoflop: Call, files: tuple[str, str], name: str
) -> None:
    assert isoflop("submit", files[0]) == 0
    job = server.store.objects[f"{JOBS}/{name}"]
    study = server.store.objects[f"{MAPS}/{name}"]
    assert study["data"]["study.yaml"].strip() == Path(files[0]).read_text().strip()
    owner = study["metadata"]["ownerReferences"]
    assert [(o["kind"], o["name"], o["uid"]) for o in owner] == [
        ("RayJob", name, job["metadata"]["uid"])
    ]
    assert owner[0]["blockOwnerDeletion"] is False, "who may submit may set no finalizers"
    assert job["spec"]["submissionMode"] == "HTTPMode"
    posts = [r for r in server.requests if r.startswith("POST")]
    assert all("fieldValidation=Strict" in post for post in posts)
    assert "dryRun=All" in posts[0], "checked by the server before anything is made"
    server.take(f"{JOBS}/{name}")
    assert left(server) == []


def test_a_dry_run_prints_what_would_be_made_and_asks_nobody(
    tmp_path: Path,
    isoflop: Call,
    files: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    printed = []
    for _ in range(2):
        assert isoflop("submit", files[0], "--dry-run") == 0
        out = capsys.readouterr()
        assert out.err == ""
        printed.append(out.out)
    assert printed[0] == printed[1]
    assert [o["kind"] for o in yaml.safe_load_all(printed[0])] == ["ConfigMap", "RayJob"]


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (lambda s: s.take("/apis/ray.io/v1"), "KubeRay must be installed"),
        (lambda s: s.take("/api/v1/namespaces/isoflop"), "there is no 'isoflop'"),
        (
            lambda s: s.put("/api/v1/namespaces/isoflop", {"status": {"phase": "Terminating"}}),
            "is being deleted",
        ),
        (
            lambda s: s.take("/api/v1/namespaces/isoflop/secrets/isoflop-mlflow"),
            "create secret generic isoflop-mlflow",
        ),
        (
            lambda s: s.put("/api/v1/namespaces/isoflop/secrets/isoflop-mlflow", {"data": {}}),
            "must have the key 'uri'",
        ),
        (
            lambda s: s.take("/api/v1/namespaces/isoflop/persistentvolumeclaims/isoflop-runs"),
            "PersistentVolumeClaim 'isoflop-runs'",
        ),
        (lambda s: s.claim("isoflop-runs", "ReadWriteOnce"), "must be ReadWriteMany"),
        (lambda s: setattr(s, "known", lambda body: ["spec.rayy"]), 'unknown field "spec.rayy"'),
        (lambda s: s.fail("POST", "rayjobs.*dryRun", "403"), "Role sweep-submitter"),
    ],
)
def test_what_a_cluster_lacks_is_told_before_anything_is_made(
    *,
    server: Server,
    isoflop: Call,
    files: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    prepare: Callable[[Server], object],
    sentence: str,
) -> None:
    prepare(server)
    assert isoflop("submit", files[0]) == 2
    assert sentence in error(capsys)
    assert left(server) == []
    assert all("dryRun=All" in r for r in server.requests if not r.startswith("GET"))


def test_a_queue_must_be_there(
    server: Server, isoflop: Call, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with Path(files[1]).open("a") as file:
        file.write("queue: sweeps\n")
    assert isoflop("submit", files[0]) == 2
    assert "LocalQueue 'sweeps'" in error(capsys)
    queues = "/apis/kueue.x-k8s.io/v1beta1/namespaces/isoflop/localqueues"
    server.put(f"{queues}/sweeps", {"spec": {}})
    assert isoflop("submit", files[0]) == 0


POLICIES = "/apis/networking.k8s.io/v1/namespaces/isoflop/networkpolicies"


@pytest.mark.parametrize(
    ("place", "spaces", "admitted"),
    [
        (
            "kuberay-system",
            {"matchLabels": {"kubernetes.io/metadata.name": "kuberay-system"}},
            True,
        ),
        ("ray-system", {"matchLabels": {"kubernetes.io/metadata.name": "kuberay-system"}}, False),
        ("ray-system", {}, True),
        ("ray-system", None, False),
        ("isoflop", None, True),
        (
            "ray-system",
            {
                "matchExpressions": [
                    {
                        "key": "kubernetes.io/metadata.name",
                        "operator": "NotIn",
                        "values": ["ray-system"],
                    }
                ]
            },
            False,
        ),
    ],
)
def test_policies_that_shut_the_operator_out_are_told_before_anything_is_made(
    *,
    server: Server,
    isoflop: Call,
    files: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    place: str,
    spaces: dict[str, object] | None,
    admitted: bool,
) -> None:
    source = {} if spaces is None else {"namespaceSelector": spaces}
    source["podSelector"] = {"matchLabels": {"app.kubernetes.io/component": "kuberay-operator"}}
    head = {"podSelector": {"matchLabels": {"ray.io/node-type": "head"}}}
    rule = {"from": [source], "ports": [{"protocol": "TCP", "port": 8265}]}
    deny = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    server.put(f"{POLICIES}/default-deny", {"spec": deny})
    server.put(f"{POLICIES}/ray-jobs", {"spec": {**head, "ingress": [rule]}})
    server.operator(place)
    assert isoflop("submit", files[0]) == (0 if admitted else 2)
    if not admitted:
        assert f"it runs in namespace {place}, and no NetworkPolicy of 'isoflop'" in error(capsys)
        assert left(server) == []


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_policies_admit_an_operator_wherever_it_runs(
    server: Server, isoflop: Call, files: tuple[str, str], name: str
) -> None:
    for each in chart(name):
        if each["kind"] == "NetworkPolicy":
            server.put(f"{POLICIES}/{each['metadata']['name']}", {"spec": each["spec"]})
    server.operator("somewhere-else")
    assert isoflop("submit", files[0]) == 0


def test_one_node_takes_a_claim_for_one_node(
    server: Server, isoflop: Call, files: tuple[str, str]
) -> None:
    server.claim("isoflop-runs", "ReadWriteOnce")
    with Path(files[1]).open("a") as file:
        file.write("one_node: true\n")
    assert isoflop("submit", files[0]) == 0


def test_who_may_not_read_secrets_is_warned_and_continues(
    server: Server, isoflop: Call, files: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    server.fail("GET", "/secrets/", "403", times=9)
    assert isoflop("submit", files[0]) == 0
    assert "you may not read it" in caplog.text


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/configmaps"), ("POST", "/rayjobs"), ("PATCH", "/configmaps/")]
)
@pytest.mark.parametrize("fault", ["403", "422", "503", "drop"])
def test_a_failed_submit_leaves_nothing_and_says_so(
    *,
    server: Server,
    isoflop: Call,
    files: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    method: str,
    path: str,
    fault: str,
) -> None:
    server.fail(method, rf"{path}(?!.*dryRun)", fault, times=99)
    assert isoflop("submit", files[0]) == (2 if fault in ("403", "422") else 1)
    message = error(capsys)
    assert "was not submitted: " in message
    assert "nothing of it is left in the cluster" in message
    assert left(server) == []


def test_what_cannot_be_removed_is_named(
    server: Server, isoflop: Call, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    server.fail("PATCH", "/configmaps/", "403")
    server.fail("DELETE", "/rayjobs/", "403")
    assert isoflop("submit", files[0]) == 2
    assert "RayJob may be left there: `kubectl -n isoflop delete rayjob,configmap" in error(capsys)


@pytest.mark.parametrize("path", ["/configmaps", "/rayjobs"])
@pytest.mark.parametrize("fault", ["lost", "half"])
def test_an_answer_that_never_came_is_looked_up(
    *, server: Server, isoflop: Call, files: tuple[str, str], name: str, path: str, fault: str
) -> None:
    server.fail("POST", rf"{path}(?!.*dryRun)", fault)
    assert isoflop("submit", files[0]) == 0
    assert left(server) == [name, name]
    assert server.store.objects[f"{MAPS}/{name}"]["metadata"]["ownerReferences"]


def test_a_server_that_stumbles_is_asked_again(
    server: Server, isoflop: Call, files: tuple[str, str]
) -> None:
    for fault in ("503", "429", "drop", "half"):
        server.fail("GET", "/secrets/", fault)
    assert isoflop("submit", files[0]) == 0


def test_a_sweep_that_runs_is_left_alone_and_one_that_ended_makes_room(
    server: Server,
    isoflop: Call,
    files: tuple[str, str],
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert isoflop("submit", files[0]) == 0
    first = server.store.objects[f"{JOBS}/{name}"]["metadata"]["uid"]
    server.status(name, jobDeploymentStatus="Running", jobStatus="RUNNING")
    assert isoflop("submit", files[0]) == 0
    assert "is already running" in capsys.readouterr().err
    assert server.store.objects[f"{JOBS}/{name}"]["metadata"]["uid"] == first

    server.status(name, jobDeploymentStatus="Failed", jobStatus="FAILED")
    server.stopping = 0.3
    server.collecting = 0.7
    assert isoflop("submit", files[0]) == 0
    job = server.store.objects[f"{JOBS}/{name}"]["metadata"]
    assert job["uid"] != first
    owner = server.store.objects[f"{MAPS}/{name}"]["metadata"]["ownerReferences"]
    assert [o["uid"] for o in owner] == [job["uid"]]


def test_a_study_that_a_submit_left_behind_is_taken_over(
    server: Server, isoflop: Call, files: tuple[str, str], name: str
) -> None:
    labels = {"app.kubernetes.io/managed-by": "isoflop"}
    server.put(f"{MAPS}/{name}", {"metadata": {"labels": labels}, "data": {"study.yaml": "old"}})
    assert isoflop("submit", files[0]) == 0
    study = server.store.objects[f"{MAPS}/{name}"]
    assert study["data"]["study.yaml"] != "old"
    assert study["metadata"]["ownerReferences"]


def test_a_config_map_of_someone_else_stays(
    server: Server,
    isoflop: Call,
    files: tuple[str, str],
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.put(f"{MAPS}/{name}", {"data": {"mine": "x"}})
    assert isoflop("submit", files[0]) == 2
    assert "does not belong to isoflop" in error(capsys)
    assert server.store.objects[f"{MAPS}/{name}"]["data"] == {"mine": "x"}
    assert server.names(JOBS) == []


def test_of_two_submits_at_once_the_second_breaks_nothing(
    server: Server,
    isoflop: Call,
    files: tuple[str, str],
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = {"metadata": {"annotations": {SUBMISSION: "another"}}, "spec": {}}
    server.on[f"POST {MAPS}"] = lambda: server.put(f"{JOBS}/{name}", other) and None
    assert isoflop("submit", files[0]) == 2
    assert "someone else submitted it" in error(capsys)
    assert server.names(JOBS) == [name]


def test_ctrl_c_in_the_midst_of_a_submit_leaves_nothing(
    server: Server, isoflop: Call, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    server.fail("PATCH", "/configmaps/", "slow")
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    def person() -> None:
        server.until(lambda: server.asked("PATCH") > 0)
        signal.pthread_kill(main_thread, signal.SIGINT)

    try:
        with running(person):
            assert isoflop("submit", files[0]) == 2
    finally:
        signal.signal(signal.SIGINT, before)
    assert "interrupted; nothing of it is left" in error(capsys)
    server.until(lambda: left(server) == [])


def test_a_server_that_is_not_there_is_one_line(
    tmp_path: Path,
    isoflop: Call,
    files: tuple[str, str],
    server: Server,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = yaml.safe_load(server.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    server.kubeconfig.write_text(yaml.safe_dump(config))
    assert isoflop("submit", files[0]) == 1
    assert "https://127.0.0.1:9 must answer, but: " in error(capsys)
    config["users"][0]["user"]["token"] = "wrong"
    config["clusters"][0]["cluster"]["server"] = server.host
    server.kubeconfig.write_text(yaml.safe_dump(config))
    assert isoflop("submit", files[0]) == 2
    assert "rejects your credentials (401)" in error(capsys)
    del config["clusters"][0]["cluster"]["certificate-authority-data"]
    server.kubeconfig.write_text(yaml.safe_dump(config))
    assert isoflop("submit", files[0]) == 1
    assert "certificate" in error(capsys).lower()
    assert isoflop("submit", files[0], "--context", "nowhere") == 2
    assert "kubectl config get-contexts" in error(capsys)
