"""What a template may add to isoflop's own containers, and what would break them."""

import itertools
from pathlib import Path

import pytest
import yaml
from conftest import CLUSTER
from manifests import ray_pods
from merging import job, ray

from methods.errors import KubernetesError

SCRATCH = "spec: {volumes: [{name: x, emptyDir: {}}], containers: [{name: %s, %s}]}"
DATA = CLUSTER + "datasets: pvc://data\n"
PATHS = [
    *("/", "//", "/runs/", "//runs", "runs", "/x/../runs", "/runs/.", "/runs/tiny", "/runs/a/b"),
    *("/tmp/", "/./tmp", "/tmp/..", "/dev", "/dev/shm/", "/dev/shm/x", "/data/", "/data/x"),
]


@pytest.mark.parametrize("path", [*PATHS, "/etc", "/etc/isoflop/", "/etc/isoflop/x", "/tmp/ray/x"])
def test_nothing_is_mounted_over_or_within_what_isoflop_mounts(tmp_path: Path, path: str) -> None:
    mounts = f"volumeMounts: [{{name: x, mountPath: {path}}}]"
    with pytest.raises(KubernetesError) as caught:
        job(tmp_path, SCRATCH % ("ray", mounts), DATA)
    assert "merged into the head: container 'ray-head' must have nothing over" in str(caught.value)
    assert f"but has 'x' at {path}; choose another path, as below /tmp" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", PATHS)
def test_nor_in_workers(tmp_path: Path, path: str) -> None:
    mounts = f"volumeMounts: [{{name: x, mountPath: {path}}}]"
    template = SCRATCH % ("ray", mounts)
    group = f"4Gi, pod_template: {{{template}}}}}"
    with pytest.raises(KubernetesError, match="container 'ray-worker' must have nothing over"):
        job(tmp_path, "{}", DATA.replace("4Gi}", group))


@pytest.mark.parametrize("path", ["/", "/tmp", "/tmp/ray/", "/tmp/ray/session_latest"])
def test_nor_in_the_container_that_repeats_the_log(tmp_path: Path, path: str) -> None:
    mounts = f"volumeMounts: [{{name: x, mountPath: {path}}}]"
    head = f"head: {{pod_template: {{{SCRATCH % ('driver-log', mounts)}}}}}\n"
    with pytest.raises(KubernetesError, match="container 'driver-log' must have nothing over"):
        job(tmp_path, "{}", CLUSTER + head)


def test_nor_a_block_device(tmp_path: Path) -> None:
    devices = "volumeDevices: [{name: x, devicePath: /runs}]"
    with pytest.raises(KubernetesError, match="over or within /runs"):
        job(tmp_path, SCRATCH % ("ray", devices))


@pytest.mark.parametrize(
    "path", ["/tmp/cache", "/tmp/ray2", "/runs2", "/etc/ssl", "/dev/infiniband", "/data", "/data/x"]
)
def test_other_places_are_free(tmp_path: Path, path: str) -> None:
    """Without a claim of data, `/data` is one of them."""
    manifest = job(tmp_path, SCRATCH % ("ray", f"volumeMounts: [{{name: x, mountPath: {path}}}]"))
    for _, pod in ray_pods(manifest):
        (own,) = (c for c in pod["spec"]["containers"] if c["name"].startswith("ray-"))
        assert path in [mount["mountPath"] for mount in own["volumeMounts"]]


def test_containers_of_ones_own_mount_what_they_like(tmp_path: Path) -> None:
    mounts = [f"{{name: runs, mountPath: {path}}}" for path in ("/", "/runs", "/runs/x")]
    for kind, some in itertools.product(("containers", "initContainers"), mounts):
        job(tmp_path, f"spec: {{{kind}: [{{name: x, image: 'x:1', volumeMounts: [{some}]}}]}}")


def test_a_mount_of_isoflops_may_be_named_again(tmp_path: Path) -> None:
    assert ray(tmp_path, "volumeMounts: [{name: runs, mountPath: /runs}]") == job(tmp_path, "{}")


@pytest.mark.parametrize(
    "template",
    [
        "spec: {os: {name: linux}}",
        "spec: {os: null}",
        "spec: {volumes: [{name: tmp, emptyDir: {medium: '', sizeLimit: 50Gi}}]}",
        "spec: {volumes: [{name: tmp, emptyDir: {medium: null}}]}",
        "spec: {volumes: [{name: x, emptyDir: {medium: Memory}}]}",
    ],
)
def test_what_changes_nothing_for_the_sweep_is_allowed(tmp_path: Path, template: str) -> None:
    job(tmp_path, template)


def test_two_ports_of_a_number_and_two_rules_of_a_topology_are_allowed(tmp_path: Path) -> None:
    ports = "[{containerPort: 53, protocol: TCP}, {containerPort: 53, protocol: UDP}]"
    rules = "[{topologyKey: zone, maxSkew: 3, whenUnsatisfiable: DoNotSchedule}, "
    rules += "{topologyKey: zone, maxSkew: 1, whenUnsatisfiable: ScheduleAnyway}]"
    template = f"containers: [{{name: ray, ports: {ports}}}], topologySpreadConstraints: {rules}"
    manifest = job(tmp_path, f"spec: {{{template}}}")
    for _, pod in ray_pods(manifest):
        assert pod["spec"]["topologySpreadConstraints"] == yaml.safe_load(rules)
        assert pod["spec"]["containers"][0]["ports"][-2:] == yaml.safe_load(ports)


def test_a_port_of_isoflops_may_have_a_namesake_of_another_protocol(tmp_path: Path) -> None:
    head = "ports: [%s{containerPort: 8265, protocol: UDP}]"
    manifest = ray(tmp_path, head % "{containerPort: 8265}, ")
    ports = dict(ray_pods(manifest))["head"]["spec"]["containers"][0]["ports"]
    assert [port["containerPort"] for port in ports] == [6379, 8265, 10001, 8265]
    for before in ("", "{containerPort: 8265, protocol: TCP, $patch: delete}, "):
        with pytest.raises(KubernetesError, match=r"leave spec\.containers\.ray-head\.ports\.8265"):
            ray(tmp_path, head % before)
