"""A study and a cluster file as a RayJob: what is refused, what Ray makes of it."""

import copy
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from conftest import CLUSTER, STUDY
from manifests import WAITS_WITH, chart, crd, flaws, pods, ray_pods
from value_sets import SETS

from methods.errors import KubernetesError, MethodError, StudyError
from orchestrator.kube.cluster import Cluster, load
from orchestrator.kube.preface import preface
from orchestrator.kube.render import Rendered, dump, render
from orchestrator.sweep.memory import SHARE

WORKERS = "  - {name: cpu, replicas: 2, cpu: 2, memory: 4Gi}\n"


def rendered(folder: Path, cluster: str = CLUSTER, study: str = STUDY) -> Rendered:
    (folder / "study.yaml").write_text(study)
    (folder / "cluster.yaml").write_text(cluster)
    return render(folder / "study.yaml", load(folder / "cluster.yaml"))


def job(folder: Path, cluster: str = CLUSTER, study: str = STUDY) -> dict[str, Any]:
    return rendered(folder, cluster, study).ray_job


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("storage:", "storge:"), "did you mean 'storage'?"),
        (("name: cpu,", "name: cpu, gpus: 1,"), "did you mean 'gpu'?"),
        (
            ("storage: pvc://isoflop-runs\n", ""),
            "storage must be given, but is missing; write `storage: pvc://runs`",
        ),
        (("pvc://isoflop-runs", "s3://bucket/runs"), "give it as `bucket`"),
        (("pvc://isoflop-runs", "file:///runs"), "not visible to the other pods"),
        (("pvc://isoflop-runs", "/runs"), "storage"),
        (("-ray2.60.0", ""), "let its tag end in -ray2.60.0"),
        (("-ray2.60.0", "-ray2.59.0"), "has 2.59.0 and this environment 2.60.0"),
        (("isoflop:0.1.0-ray2.60.0", "isoflop:latest"), "a tag other than `latest`"),
        (("isoflop:0.1.0-ray2.60.0", "isoflop"), "must have a digest or a tag"),
        (("replicas: 2,", "replicas: 0,"), "one pod at least"),
        (("replicas: 2,", "max_replicas: 3,"), "needs `autoscaling: true`"),
        (("memory: 4Gi", "memory: 4G"), "memory"),
        (("name: cpu,", "name: cpu, spot: ec2,"), "spot"),
        ((WORKERS, 2 * WORKERS), "different names"),
        (("workers:", "trial: {cpu: 3}\nworkers:"), "cpu has 2 CPUs and 0 GPUs"),
        (("workers:", "trial: {gpu: 0.5}\nworkers:"), "takes 1 CPUs and 0.5 GPUs"),
        (("workers:", "trial: {gpu: 1.5}\nworkers:"), "whole"),
        (("name: cpu,", "name: cpu, tolerations: [{key: a, value: b}],"), "operator: Equal"),
    ],
)
def test_a_cluster_file_that_does_not_do_is_refused_in_a_line(
    tmp_path: Path, change: tuple[str, str], sentence: str
) -> None:
    assert change[0] in CLUSTER
    with pytest.raises(KubernetesError) as caught:
        rendered(tmp_path, CLUSTER.replace(*change))
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (("name: tiny", f"name: {'x' * 35}"), KubernetesError, "may have 34 characters"),
        (("data: digits", "data: ./flowers"), StudyError, "a place on this machine"),
        (("data: digits", "data: /data/flowers"), StudyError, "a place on this machine"),
        (("depth: 8", "dpeth: 8"), StudyError, "dpeth"),
        (("depth: 8", "depth: 7"), (StudyError, MethodError), "depth"),
        (("budgets: [1]", f"# {'x' * 900_001}\nbudgets: [1]"), StudyError, "at most 128 KiB"),
    ],
)
def test_a_study_that_cannot_run_there_is_refused(
    tmp_path: Path, change: tuple[str, str], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        rendered(tmp_path, study=STUDY.replace(*change))


def test_a_name_of_the_longest_length_does(tmp_path: Path) -> None:
    objects = rendered(tmp_path, study=STUDY.replace("tiny", "x" * 34))
    assert len(objects.name) == 47


def test_data_on_a_claim_are_mounted_where_the_study_looks(tmp_path: Path) -> None:
    manifest = job(
        tmp_path,
        CLUSTER + "datasets: pvc://flowers\n",
        STUDY.replace("digits", "/data/flowers.parquet"),
    )
    for _, pod in pods([manifest]):
        mounts = {m["mountPath"]: m for m in pod["spec"]["containers"][0]["volumeMounts"]}
        assert mounts["/data"] == {"name": "data", "mountPath": "/data", "readOnly": True}


def test_the_driver_is_told_what_fits_when_all_pods_are_there(tmp_path: Path) -> None:
    cluster = CLUSTER.replace("cpu: 2, memory: 4Gi", "cpu: 8, memory: 4Gi, gpu: 2")
    study = STUDY + "resources: {cpu: 1, gpu: 0.3, concurrency: 64}\n"
    assert "--slots 12 " in job(tmp_path, cluster, study)["spec"]["entrypoint"]
    assert "--slots 8 " in job(tmp_path, cluster + "trial: {cpu: 2}\n", study)["spec"]["entrypoint"]
    pairs = cluster + "trial: {gpu: 2}\n"
    assert "--slots 2 " in job(tmp_path, pairs, study)["spec"]["entrypoint"]
    study = study.replace("64", "5")
    assert "--slots 5 " in job(tmp_path, cluster, study)["spec"]["entrypoint"]


def test_what_a_trial_takes_here_stands_in_the_study_that_travels(tmp_path: Path) -> None:
    plain = rendered(tmp_path)
    assert plain.config_map["data"]["study.yaml"].strip() == STUDY.strip()
    cluster = CLUSTER.replace("4Gi}", "4Gi, gpu: 1}") + "trial: {gpu: 0.5}\n"
    changed = rendered(tmp_path, cluster, STUDY + "resources: {cpu: 2}\n")
    study = yaml.safe_load(changed.config_map["data"]["study.yaml"])
    assert study["resources"] == {"cpu": 2, "gpu": 0.5}
    assert changed.name == plain.name, "resources are no part of a study's hash"


def test_a_dry_run_begins_with_what_must_exist_and_what_is_taken(tmp_path: Path) -> None:
    text = CLUSTER + "optuna: {secret: optuna, key: url}\ndatasets: pvc://flowers\n"
    objects = rendered(tmp_path, text)
    lines = preface(objects, load(tmp_path / "cluster.yaml")).splitlines()
    assert all(line.startswith("# ") for line in lines)
    for line in (
        "# Must be installed: KubeRay 1.6 or newer.",
        "#   PersistentVolumeClaim isoflop-runs, ReadWriteMany",
        "#   PersistentVolumeClaim flowers, ReadWriteMany or ReadOnlyMany",
        "#   Secret optuna, key url",
        "# Takes at most 3 pods, 6.06 CPUs, 14.09 GiB of memory, no GPUs.",
        "# Runs 4 trials at once when all pods are there.",
        "# Makes at most 3 attempts; each has 30 min to start.",
    ):
        assert line in lines
    objects = rendered(tmp_path, FULL + "retries: 0\n")
    lines = preface(objects, load(tmp_path / "cluster.yaml")).splitlines()
    for line in (
        "# Must be installed: KubeRay 1.6 or newer and Kueue.",
        "#   Secret registry, of the registry",
        "#   LocalQueue sweeps, of Kueue",
        "# Takes at most 8 pods, 43.14 CPUs, 153.7 GiB of memory, 8 nvidia.com/mig-1g.10gb.",
        "# Makes at most 1 attempt; each has 30 min to start, 1.5 h until it is ended.",
    ):
        assert line in lines, lines
    secrets = {
        source["name"]
        for _, pod in pods([objects.ray_job])
        for container in pod["spec"]["containers"]
        for variable in container.get("env", [])
        if (source := variable.get("valueFrom", {}).get("secretKeyRef"))
    }
    assert all(any(f"Secret {name}" in line for line in lines) for name in secrets)


def test_what_is_printed_is_what_is_sent(tmp_path: Path) -> None:
    objects = rendered(tmp_path)
    assert list(yaml.safe_load_all(dump(objects.objects))) == objects.objects


FULL = (
    CLUSTER.replace(
        WORKERS,
        """
  - name: mig
    replicas: 1
    max_replicas: 4
    cpu: 8
    memory: 32Gi
    gpu: 2
    gpu_resource: nvidia.com/mig-1g.10gb
    spot: karpenter
    node_selector: {zone: a}
    tolerations: [{key: nvidia.com/gpu, effect: NoSchedule}]
  - {name: cpu, replicas: 2, cpu: 4, memory: 8Gi}
""",
    )
    + """
mode: k8s-job
autoscaling: true
queue: sweeps
optuna: {secret: isoflop-optuna}
pull_secret: registry
hours: 1.5
head: {cpu: 2, memory: 8Gi, node_selector: {pool: main}}
"""
)


def test_every_option_at_once_is_valid_and_locked_down(tmp_path: Path) -> None:
    manifest = job(tmp_path, FULL)
    names = [name for name, _ in ray_pods(manifest)]
    assert names == ["head", "workers/mig", "workers/cpu", "submitter"]
    for name, pod in pods([manifest]):
        assert list(flaws(pod["spec"])) == [], name
        assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    spec = manifest["spec"]
    assert spec["submissionMode"] == "K8sJobMode"
    assert spec["activeDeadlineSeconds"] == 5400
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "sweeps"
    assert "suspend" not in spec, "Kueue's webhook decides it"
    jsonschema.Draft7Validator(crd("rayjobs")).validate(manifest)


def test_the_driver_never_stands_on_a_spot_node_and_takes_no_trial(tmp_path: Path) -> None:
    cluster = job(tmp_path, FULL)["spec"]["rayClusterSpec"]
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == head["rayStartParams"]["num-gpus"] == "0"
    affinity = head["template"]["spec"]["affinity"]["nodeAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    rule = {"key": "karpenter.sh/capacity-type", "operator": "NotIn", "values": ["spot"]}
    assert term["matchExpressions"] == [rule]
    worker = cluster["workerGroupSpecs"][0]["template"]["spec"]
    assert worker["nodeSelector"] == {"zone": "a", "karpenter.sh/capacity-type": "spot"}


@pytest.mark.parametrize("own", ["", "node.kubernetes.io/unreachable"])
def test_the_head_leaves_a_lost_node_before_kuberay_gives_the_sweep_up(
    tmp_path: Path, own: str
) -> None:
    """50 s until a node counts as lost and the eviction: within KubeRay's 300 s without status."""
    taint = f"head: {{tolerations: [{{key: {own}, effect: NoExecute}}]}}\n" if own else ""
    cluster = job(tmp_path, CLUSTER + taint)["spec"]["rayClusterSpec"]
    tolerations = cluster["headGroupSpec"]["template"]["spec"]["tolerations"]
    seconds = {each["key"]: each.get("tolerationSeconds") for each in tolerations}
    keys = {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}
    assert len(tolerations) == len(seconds)
    assert seconds == {key: None if key == own else 30 for key in keys}
    assert all(each["effect"] == "NoExecute" for each in tolerations)


def test_who_requests_no_gpu_sees_none_whatever_the_image_says(tmp_path: Path) -> None:
    gpus = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}
    manifest = job(tmp_path, FULL)
    options = manifest["spec"]["rayClusterSpec"]["autoscalerOptions"]
    assert gpus in options["env"]
    objects = [manifest, *(each for name in SETS for each in chart(name))]
    containers = [
        (name, container)
        for name, pod in pods(objects)
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
        if container["name"] not in ("autoscaler", "postgres", "wait-gcs-ready")
    ]
    assert len(containers) == 30
    for name, container in containers:
        requested = [key for key in container["resources"]["limits"] if "nvidia" in key]
        assert (gpus in container["env"]) != bool(requested), name


def test_a_worker_pod_that_fills_up_ends_a_trial_before_kubernetes_ends_all(tmp_path: Path) -> None:
    cluster = job(tmp_path, FULL)["spec"]["rayClusterSpec"]
    variables = [
        {v["name"]: v.get("value") for v in group["template"]["spec"]["containers"][0]["env"]}
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    ]
    head, *workers = variables
    assert head["RAY_memory_monitor_refresh_ms"] == "0", "it would end the driver"
    assert SHARE not in head
    for each in workers:
        assert float(each["RAY_memory_monitor_refresh_ms"] or 0) > 0
        shares = float(each[SHARE] or 0), float(each["RAY_memory_usage_threshold"] or 1)
        assert 0.5 < shares[0] < shares[1] < 1, "the largest trial, before Ray's youngest worker"


@pytest.mark.full
def test_the_container_that_waits_for_the_head_has_memory_enough() -> None:
    """KubeRay gives it 256 MiB; Ray's health check needs half of that, caches of files aside."""
    command = [
        str(Path(sys.executable).with_name("ray")),
        "health-check",
        "--address",
        "127.0.0.1:1",
    ]
    peak, grew = 0, time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as check:
        while check.poll() is None and time.monotonic() - grew < 4:
            status = Path(f"/proc/{check.pid}/status").read_text()
            pages = int((re.search(r"RssAnon:\s+(\d+) kB", status) or ["", "0"])[1])
            if pages > peak:
                peak, grew = pages, time.monotonic()
            time.sleep(0.02)
        check.kill()
    limit = int(WAITS_WITH["memory"].removesuffix("Mi"))
    assert 32 < peak / 1024 < 0.75 * limit


def test_only_the_head_sees_secrets(tmp_path: Path) -> None:
    for name, pod in pods([job(tmp_path, FULL)]):
        secrets = {
            variable["name"]
            for container in pod["spec"]["containers"]
            for variable in container.get("env", [])
            if "secretKeyRef" in variable.get("valueFrom", {})
        }
        assert bool(secrets) == name.endswith("/head"), name


def test_rays_own_autoscaler_reads_it(tmp_path: Path) -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import (
        _derive_autoscaling_config_from_ray_cr,
    )

    manifest = job(tmp_path, FULL)
    cluster = {
        "metadata": {"name": "c", "namespace": "isoflop"},
        "spec": copy.deepcopy(manifest["spec"]["rayClusterSpec"]),
    }
    types = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    head = types["headgroup"]["resources"]
    assert (head["CPU"], head.get("GPU", 0)) == (0, 0)
    mig = types["mig"]
    assert (mig["min_workers"], mig["max_workers"]) == (1, 4)
    assert (mig["resources"]["CPU"], mig["resources"]["GPU"]) == (8, 2)
    assert types["cpu"]["resources"]["CPU"] == 4
    assert (types["cpu"]["min_workers"], types["cpu"]["max_workers"]) == (2, 2)


def test_every_field_of_a_cluster_file_is_explained() -> None:
    fields = Cluster.model_json_schema()["properties"]
    assert [name for name, field in fields.items() if not field.get("description")] == []
