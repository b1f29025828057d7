"""A study and a cluster file in, a ConfigMap and a RayJob out: the same in, the same out.

What KubeRay injects (submitter, autoscaler, init containers) is hardened here too, so that a
namespace with Pod Security `restricted` admits it.
"""

import importlib.metadata
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from methods.errors import KubernetesError, StudyError
from orchestrator.kube import pods
from orchestrator.kube.cluster import Cluster
from orchestrator.kube.names import (
    GROUP,
    HASH_LABEL,
    MANAGED_BY,
    MANAGER,
    QUEUE_LABEL,
    STUDY_LABEL,
    VERSION,
    sweep_name,
)
from orchestrator.kube.pods import DATA, RUNS, STUDY, Manifest
from orchestrator.study.document import is_text, read
from orchestrator.study.file import Study, load
from orchestrator.study.sections import Resources

PATIENCE = 900
"""Seconds for which a driver waits for the one before it to let go of the study's folder."""


@dataclass(frozen=True)
class Rendered:
    """What `submit` creates."""

    name: str
    namespace: str
    study: str
    config_map: Manifest
    ray_job: Manifest
    slots: int
    """How many trials run at once when all pods are there."""
    trial: Resources
    """What each of them takes."""

    @property
    def objects(self) -> list[Manifest]:
        """In the order in which they are created."""
        return [self.config_map, self.ray_job]


def render(file: Path, cluster: Cluster) -> Rendered:
    """The objects of one sweep.

    Raises:
        StudyError, MethodError: the study cannot be run as written, or not on Kubernetes.
        KubernetesError: name, image or workers do not do for it.
    """
    from orchestrator.study.check import runnable  # noqa: PLC0415  # loads torch and optuna

    study = load(file)
    runnable(study)  # a mistake in a method's fields is an error here, not in the driver
    name = sweep_name(study)
    _same_ray(cluster)
    _reachable_data(study, cluster)
    trial = _resources(study, cluster)
    slots = _slots(trial, cluster)
    labels = {
        "app.kubernetes.io/name": "isoflop",
        "app.kubernetes.io/component": "sweep",
        MANAGED_BY: MANAGER,
        STUDY_LABEL: study.name.rstrip("-"),
        HASH_LABEL: study.hash,
    }
    metadata = {"name": name, "namespace": cluster.namespace, "labels": labels}
    head = pods.head(cluster, name)
    context = head["template"]["spec"]["containers"][0].get("securityContext") or {}
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {"study.yaml": _text(file, cluster)},
    }
    ray_job = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "RayJob",
        "metadata": {**metadata, **_queued(labels, cluster)},
        "spec": {
            "entrypoint": shlex.join(_entrypoint(slots, cluster.bucket)),
            "submissionMode": "HTTPMode" if cluster.mode == "http" else "K8sJobMode",
            **({"submitterConfig": {"backoffLimit": 3}} if cluster.mode == "k8s-job" else {}),
            "backoffLimit": cluster.retries,
            "preRunningDeadlineSeconds": 60 * cluster.start_minutes,
            **({"activeDeadlineSeconds": int(3600 * cluster.hours)} if cluster.hours else {}),
            **_cleaned(cluster),
            "rayClusterSpec": {
                "rayVersion": _ray_here(),
                "authOptions": {"mode": "token"},
                **(pods.autoscaling(context) if cluster.autoscaling else {}),
                "headGroupSpec": head,
                "workerGroupSpecs": [
                    pods.workers(cluster, group, name) for group in cluster.workers
                ],
            },
            **(
                {"submitterPodTemplate": pods.submitter(cluster)}
                if cluster.mode == "k8s-job"
                else {}
            ),
        },
    }
    return Rendered(name, cluster.namespace, study.name, config_map, ray_job, slots, trial)


def dump(objects: list[Manifest]) -> str:
    """YAML for people and `kubectl apply`."""
    return yaml.dump_all(
        objects, Dumper=_Dumper, sort_keys=False, explicit_start=True, width=100, allow_unicode=True
    )


def templates(ray_job: Manifest) -> dict[str, Manifest]:
    """The templates of a sweep's pods, by what the pods are."""
    spec = ray_job["spec"]
    cluster = spec["rayClusterSpec"]
    found = {"the head": cluster["headGroupSpec"]["template"]}
    for group in cluster["workerGroupSpecs"]:
        found[f"the workers {group['groupName']!r}"] = group["template"]
    if "submitterPodTemplate" in spec:
        found["the submitter"] = spec["submitterPodTemplate"]
    return found


def _cleaned(cluster: Cluster) -> Manifest:
    """What KubeRay deletes after the end, and when.

    A sweep whose pods never started, or whose head was lost, has no state of Ray: it is `Failed`
    for KubeRay alone. Several rules may hold at once; KubeRay then takes the one that deletes most.
    """
    kept, cleanup = 60 * cluster.keep_minutes, cluster.cleanup
    if cleanup is None:
        return {"shutdownAfterJobFinishes": True, "ttlSecondsAfterFinished": kept}
    workers, job = cleanup.workers_minutes, cleanup.job_seconds
    steps = {
        **({"DeleteWorkers": 60 * workers} if workers is not None else {}),
        "DeleteCluster": kept,
        **({"DeleteSelf": job} if job is not None else {}),
    }
    ends = (
        {"jobStatus": "SUCCEEDED"},
        {"jobStatus": "FAILED"},
        {"jobDeploymentStatus": "Failed"},
    )
    rules = [
        {"policy": policy, "condition": {**end, "ttlSeconds": seconds}}
        for end in ends
        for policy, seconds in steps.items()
    ]
    return {"shutdownAfterJobFinishes": False, "deletionStrategy": {"deletionRules": rules}}


def _queued(labels: dict[str, str], cluster: Cluster) -> Manifest:
    """Labels and annotations by which Kueue takes a sweep; nothing more where there is no queue."""
    if not cluster.queue:
        return {"labels": labels}
    queued = {"labels": {**labels, QUEUE_LABEL: cluster.queue}}
    elastic = {"annotations": {"kueue.x-k8s.io/elastic-job": "true"}}
    return {**queued, **(elastic if cluster.autoscaling else {})}


class _Dumper(yaml.SafeDumper):
    """Texts of many lines as they stand; no anchors; lists indented."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)


def _lines(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None if is_text(text) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _lines)


def _text(file: Path, cluster: Cluster) -> str:
    """The study file as it travels: as it stands, but for what the cluster file says of trials."""
    text = file.read_text(encoding="utf-8-sig")
    resources = cluster.trial.model_dump(exclude_none=True)
    if resources:
        content = dict(read(file, "a study file", StudyError).fields)
        content["resources"] = {**(content.get("resources") or {}), **resources}
        text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())  # else no block of lines


def _entrypoint(slots: int, bucket: str | None) -> list[str]:
    return [
        *("isoflop", "run", f"{STUDY}/study.yaml", "--out", RUNS, "--address", "auto"),
        *("--slots", str(slots), "--patience", str(PATIENCE)),
        *(("--bucket", bucket) if bucket else ()),
    ]


def _ray_here() -> str:
    return importlib.metadata.version("ray")


def _same_ray(cluster: Cluster) -> None:
    here, there = _ray_here(), cluster.ray_version
    if there is None:
        raise KubernetesError(
            f"the image's Ray must be known, but {cluster.image!r} does not name it; let its tag "
            f"end in -ray{here}, or say `ray: {here}` in the cluster file"
        )
    if here != there:
        raise KubernetesError(
            f"Ray must be the same everywhere, but the image {cluster.image!r} has {there} and "
            f"this environment {here}; build the image from this version of isoflop"
        )


def _reachable_data(study: Study, cluster: Cluster) -> None:
    """Data that lie on this machine are not in the pods."""
    place = study.data
    shared = [] if cluster.bucket else [RUNS]
    mounts = [*shared, *([DATA] if cluster.datasets else [])]
    if any(place.startswith(f"{mount}/") for mount in mounts):
        return
    places = " or ".join(f"{mount}/" for mount in mounts or [DATA])
    if place.startswith(("/", ".", "~")) or Path(place).exists():
        raise StudyError(
            f"data must be a name, or lie in the pods' {places}, but "
            f"got {place!r}, a place on this machine; copy it to a claim, name that under "
            f"`datasets` in the cluster file, and let `data` be {DATA}/..."
        )


def _resources(study: Study, cluster: Cluster) -> Resources:
    changes = cluster.trial.model_dump(exclude_none=True)
    try:
        resources = Resources.model_validate({**study.resources.model_dump(), **changes})
    except ValueError as error:
        raise KubernetesError(f"trial: {error}") from None
    return resources


def _slots(trial: Resources, cluster: Cluster) -> int:
    """How many trials run at once when all pods are there."""
    capacity = sum(group.most * group.holds(trial) for group in cluster.workers) // trial.spread
    if not capacity:
        groups = "; ".join(
            f"{group.name} has {group.cpu} CPUs and {group.gpu} GPUs" for group in cluster.workers
        )
        if trial.spread > 1:
            raise KubernetesError(
                f"the {trial.spread} workers of a trial must fit the pods, each with {trial.cpu:g} "
                f"CPUs and {trial.worker_gpu:g} GPUs, but {groups}; let `trial` take less, or give "
                "the workers more"
            )
        raise KubernetesError(
            f"a trial must fit one worker pod, but it takes {trial.cpu:g} CPUs and {trial.gpu:g} "
            f"GPUs, and {groups}; let `trial` take less, or give the workers more"
        )
    return min(capacity, trial.concurrency or capacity)
