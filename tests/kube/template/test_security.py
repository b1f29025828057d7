"""Pod Security: what each level refuses of a pod, and that `submit` refuses it first."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import CLUSTER
from server import JOBS, Server

from orchestrator.kube.template.security import Level, refused

Json = dict[str, Any]
SAFE: Json = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod(container: Json | None = None, context: Json | None = None, **spec: Any) -> Json:
    """A pod that `restricted` admits, with changes."""
    inner = {"name": "c", "image": "x:1", "securityContext": {**SAFE, **(context or {})}}
    return {"spec": {"containers": [{**inner, **(container or {})}], **spec}}


BASELINE = [
    (pod(hostNetwork=True), "spec.hostNetwork: true"),
    (pod(hostPID=True), "spec.hostPID: true"),
    (pod(hostIPC=True), "spec.hostIPC: true"),
    (pod(volumes=[{"name": "v", "hostPath": {"path": "/"}}]), "spec.volumes.v.hostPath"),
    (pod(context={"privileged": True}), "securityContext.privileged: true"),
    (
        pod(context={"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}),
        "securityContext.capabilities.add: SYS_ADMIN",
    ),
    (pod({"ports": [{"containerPort": 1, "hostPort": 1}]}), "ports.hostPort: 1"),
    (pod(context={"procMount": "Unmasked"}), "procMount: Unmasked"),
    (pod(context={"seccompProfile": {"type": "Unconfined"}}), "seccompProfile.type: Unconfined"),
    (pod(context={"appArmorProfile": {"type": "Unconfined"}}), "appArmorProfile.type: Unconfined"),
    (pod(context={"seLinuxOptions": {"type": "spc_t"}}), "seLinuxOptions"),
    (pod(context={"seLinuxOptions": {"user": "root"}}), "seLinuxOptions"),
    (pod(context={"windowsOptions": {"hostProcess": True}}), "hostProcess: true"),
    (
        pod(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}),
        "spec.securityContext.sysctls: kernel.msgmax",
    ),
    (pod({"livenessProbe": {"httpGet": {"port": 1, "host": "h"}}}), "livenessProbe.httpGet.host"),
    (pod({"lifecycle": {"preStop": {"tcpSocket": {"port": 1, "host": "h"}}}}), "preStop.tcpSocket"),
    (
        {
            **pod(),
            "metadata": {
                "annotations": {"container.apparmor.security.beta.kubernetes.io/c": "unconfined"}
            },
        },
        "metadata.annotations",
    ),
]
RESTRICTED = [
    (pod(volumes=[{"name": "v", "nfs": {"server": "s", "path": "/"}}]), "spec.volumes.v.nfs"),
    (pod(context={"allowPrivilegeEscalation": None}), "allowPrivilegeEscalation"),
    (pod(context={"capabilities": {}}), "capabilities.drop, which must have ALL"),
    (pod(context={"capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}}), "add: CHOWN"),
    (pod(context={"runAsNonRoot": False}), "runAsNonRoot, which must be true"),
    (pod(context={"runAsUser": 0}), "runAsUser: 0"),
    (pod(securityContext={"runAsUser": 0}), "spec.securityContext.runAsUser: 0"),
    (pod(context={"seccompProfile": None}), "seccompProfile, which must be RuntimeDefault"),
]


@pytest.mark.parametrize(("template", "flaw"), BASELINE)
def test_both_levels_refuse_what_reaches_the_node(template: Json, flaw: str) -> None:
    for level in ("baseline", "restricted"):
        found = list(refused(template, level))  # type: ignore[arg-type]
        assert len(found) == 1
        assert flaw in found[0]


@pytest.mark.parametrize(("template", "flaw"), RESTRICTED)
def test_restricted_alone_demands_hardened_containers(template: Json, flaw: str) -> None:
    (found,) = refused(template, "restricted")
    assert flaw in found
    assert not list(refused(template, "baseline"))


@pytest.mark.parametrize("level", ["baseline", "restricted"])
def test_what_is_admitted(level: Level) -> None:
    assert not list(refused(pod(), level))
    sources = ("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "projected", "secret")
    volumes = [{"name": each, each: {}} for each in (*sources, "persistentVolumeClaim")]
    assert not list(refused(pod(volumes=volumes), level))
    added = {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}
    assert not list(refused(pod(context={"capabilities": added}), level))
    user = {"runAsNonRoot": True, "seccompProfile": {"type": "Localhost"}, "runAsUser": 5}
    inner = {key: SAFE[key] for key in ("allowPrivilegeEscalation", "capabilities")}
    assert not list(refused(pod({"securityContext": inner}, securityContext=user), level))
    sysctls = [{"name": "net.ipv4.tcp_rmem", "value": "1"}]
    assert not list(refused(pod(securityContext={"sysctls": sysctls}), level))


def test_init_containers_are_held_to_the_same() -> None:
    template = pod()
    bare = {"name": "init", "image": "x:1"}
    template["spec"]["initContainers"] = [bare]
    assert any("initContainers.init" in each for each in refused(template, "restricted"))
    assert not list(refused(template, "baseline"))


NAMESPACE = "/api/v1/namespaces/isoflop"
HOST = "pod_template: {spec: {hostNetwork: true}}\n"
USER = "{runAsNonRoot: false, runAsUser: null}"
ROOT = f"pod_template: {{spec: {{containers: [{{name: ray, securityContext: {USER}}}]}}}}\n"


def enforce(server: Server, level: str) -> None:
    labels = {"pod-security.kubernetes.io/enforce": level}
    server.put(NAMESPACE, {"metadata": {"labels": labels}, "status": {"phase": "Active"}})


@pytest.mark.parametrize(
    ("level", "template", "flaw"),
    [
        ("restricted", HOST, "`restricted`, but the head would have spec.hostNetwork: true"),
        ("baseline", HOST, "`baseline`, but the head would have spec.hostNetwork: true"),
        ("restricted", ROOT, "spec.containers.ray-head.securityContext.runAsNonRoot, which must"),
    ],
)
def test_submit_refuses_what_the_namespace_does_not_admit(  # noqa: PLR0917
    server: Server,
    files: tuple[str, str],
    isoflop: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    level: str,
    template: str,
    flaw: str,
) -> None:
    enforce(server, level)
    Path(files[1]).write_text(CLUSTER + template)
    assert isoflop("submit", files[0]) == 2
    assert flaw in capsys.readouterr().err
    assert not [request for request in server.requests if request.startswith("POST")]


@pytest.mark.parametrize(
    ("level", "template"),
    [("privileged", HOST), ("baseline", ROOT), ("restricted", ""), ("unheard-of", HOST)],
)
def test_submit_creates_what_the_namespace_admits(
    server: Server, files: tuple[str, str], isoflop: Callable[..., int], level: str, template: str
) -> None:
    enforce(server, level)
    Path(files[1]).write_text(CLUSTER + template)
    assert isoflop("submit", files[0]) == 0
    assert len(server.names(JOBS)) == 1


def test_the_workers_and_the_submitter_are_looked_at_too(
    server: Server,
    files: tuple[str, str],
    isoflop: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    enforce(server, "restricted")
    group = "4Gi, pod_template: {spec: {volumes: [{name: x, nfs: {server: s, path: /}}]}}}"
    Path(files[1]).write_text(CLUSTER.replace("4Gi}", group) + "mode: k8s-job\n")
    assert isoflop("submit", files[0]) == 2
    assert "but the workers 'cpu' would have spec.volumes.x.nfs" in capsys.readouterr().err
