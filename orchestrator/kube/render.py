"""A study and a cluster file in, a ConfigMap and a RayJob out: the same in, the same out.

What KubeRay injects (submitter, autoscaler, init containers) is hardened here too, so that a
namespace with Pod Security `restricted` admits it.
"""

import importlib.metadata
import shlex
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from methods.errors import KubernetesError, StudyError
from orchestrator.kube import pods
from orchestrator.kube.cluster import Cluster, claim
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
from orchestrator.kube.template.needs import needs
from orchestrator.kube.template.quantities import amount
from orchestrator.study.document import is_text, read
from orchestrator.study.file import Study, load
from orchestrator.study.sections import Resources

KUBERAY = "1.6"
"""The oldest KubeRay that knows every field that is rendered; the tests hold them against 1.7.0."""
DISK = "ephemeral-storage"
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


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long a sweep takes by `isoflop plan --rate`, and what its GPUs cost."""

    rate: float
    """Images per second that one GPU trains."""
    hours: float | None
    """None where the time of a method is not known."""
    gpus: int
    """GPUs of all pods."""
    busy: float
    """GPUs that trials use at once, at most."""
    price: float | None = None
    """What one GPU costs for one hour, in the user's currency."""


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
            "entrypoint": shlex.join(_entrypoint(slots)),
            "submissionMode": "HTTPMode" if cluster.mode == "http" else "K8sJobMode",
            **({"submitterConfig": {"backoffLimit": 3}} if cluster.mode == "k8s-job" else {}),
            "backoffLimit": cluster.retries,
            "preRunningDeadlineSeconds": 60 * cluster.start_minutes,
            **({"activeDeadlineSeconds": int(3600 * cluster.hours)} if cluster.hours else {}),
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 60 * cluster.keep_minutes,
            "rayClusterSpec": {
                "rayVersion": _ray_here(),
                "authOptions": {"mode": "token"},
                **(pods.autoscaling(context) if cluster.autoscaling else {}),
                "headGroupSpec": head,
                "workerGroupSpecs": [pods.workers(cluster, group) for group in cluster.workers],
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


def preface(rendered: Rendered, cluster: Cluster, effort: Effort | None = None) -> str:
    """What must be there for a sweep, and what it takes, as comments above its YAML."""
    mode = "ReadWriteOnce or ReadWriteMany" if cluster.one_node else "ReadWriteMany"
    specs = [template["spec"] for template in templates(rendered.ray_job).values()]
    ours = any(spec.get("serviceAccountName") == pods.ACCOUNT for spec in specs)
    objects = [
        *(["ServiceAccount ray-sweep (k8s/base has it)"] if ours else []),
        f"PersistentVolumeClaim {claim(cluster.storage)}, {mode}",
        *_data_claim(cluster, mode),
        f"Secret {cluster.mlflow.secret}, key {cluster.mlflow.key}; keys username and password "
        "where MLflow asks for them",
        *([f"Secret {cluster.optuna.secret}, key {cluster.optuna.key}"] if cluster.optuna else []),
        *([f"Secret {cluster.pull_secret}, of the registry"] if cluster.pull_secret else []),
        *([f"LocalQueue {cluster.queue}, of Kueue"] if cluster.queue else []),
    ]
    classes, referred = needs(specs)
    ours_too = {" ".join(each.replace(",", "").split()[:2]) for each in objects}
    referred = [each for each in referred if each not in {*ours_too, f"ConfigMap {rendered.name}"}]
    attempts = _count(cluster.retries + 1, "attempt")
    ends = f", {cluster.hours:g} h until it is ended" if cluster.hours else ""
    lines = [
        f"Must be installed: KubeRay {KUBERAY} or newer{' and Kueue' if cluster.queue else ''}.",
        *([f"Must exist in the cluster: {', '.join(classes)}."] if classes else []),
        f"Namespace {rendered.namespace} must exist, and in it:",
        *(f"  {each}" for each in [*objects, *referred]),
        f"Takes at most {_totals(rendered.ray_job)}.",
        f"Runs {_count(rendered.slots, 'trial')} at once when all pods are there.",
        f"Makes at most {attempts}; each has {cluster.start_minutes} min to start{ends}.",
        *(_effort(effort, cluster) if effort else []),
    ]
    return "".join(f"# {line}\n" for line in lines)


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


def _data_claim(cluster: Cluster, mode: str) -> list[str]:
    if not cluster.datasets:
        return []
    return [f"PersistentVolumeClaim {claim(cluster.datasets)}, {mode} or ReadOnlyMany"]


def _effort(effort: Effort, cluster: Cluster) -> list[str]:
    """Hours and cost, if no attempt fails."""
    gpus = _count(effort.gpus, "GPU")
    if effort.hours is None:
        return [
            f"Hours are not known: `isoflop plan --rate {effort.rate:g}` says of which methods."
        ]
    lines = [
        f"Runs about {effort.hours:.3g} h, as `isoflop plan --rate {effort.rate:g}` estimates, on "
        f"{gpus}, of which trials use {effort.busy:g} at most.",
    ]
    if effort.price is not None:
        cost = effort.price * effort.gpus * (effort.hours + cluster.keep_minutes / 60)
        most = "Costs at most about" if cluster.autoscaling else "Costs about"
        lines.append(
            f"{most} {cost:,.2f} for GPUs at {effort.price:g} per GPU-hour, in that price's "
            f"currency: {gpus} for those hours, and for {cluster.keep_minutes} min until the pods "
            "are deleted."
        )
        lines.append("CPUs, memory, storage and network are not in it, nor GPUs of a second try.")
    if cluster.hours and effort.hours > cluster.hours:
        lines.append(f"`hours: {cluster.hours:g}` would end it before that.")
    return lines


def _totals(ray_job: Manifest) -> str:
    """Pods and what they request, with every group at its largest."""
    spec = ray_job["spec"]
    cluster = spec["rayClusterSpec"]
    sets = [(cluster["headGroupSpec"]["template"], 1)]
    sets += [(group["template"], group["maxReplicas"]) for group in cluster["workerGroupSpecs"]]
    if "submitterPodTemplate" in spec:
        sets.append((spec["submitterPodTemplate"], 1))
    requests = [
        (_requested(container), copies)
        for template, copies in sets
        for container in template["spec"]["containers"]
    ]
    if "autoscalerOptions" in cluster:
        requests.append((cluster["autoscalerOptions"]["resources"]["requests"], 1))
    amounts: defaultdict[str, float] = defaultdict(float)
    for request, copies in requests:
        for resource, quantity in request.items():
            amounts[resource] += copies * amount(quantity)
    others = set(amounts) - {"cpu", "memory", DISK}
    gpus = [f"{amounts[key]:g} {key}" for key in sorted(others)]
    memory, disk = (amounts[key] / amount("1Gi") for key in ("memory", DISK))
    parts = [_count(sum(copies for _, copies in sets), "pod"), f"{amounts['cpu']:g} CPUs"]
    parts += [f"{memory:.4g} GiB of memory", *([f"{disk:.4g} GiB of disk"] if disk else [])]
    return ", ".join([*parts, *(gpus or ["no GPUs"])])


def _requested(container: Manifest) -> dict[str, str]:
    """What a container requests; where it only has limits, these."""
    resources = container.get("resources") or {}
    return {**(resources.get("limits") or {}), **(resources.get("requests") or {})}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


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


def _entrypoint(slots: int) -> list[str]:
    return [
        *("isoflop", "run", f"{STUDY}/study.yaml", "--out", RUNS, "--address", "auto"),
        *("--slots", str(slots), "--patience", str(PATIENCE)),
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
    mounts = [RUNS, *([DATA] if cluster.datasets else [])]
    if any(place.startswith(f"{mount}/") for mount in mounts):
        return
    if place.startswith(("/", ".", "~")) or Path(place).exists():
        raise StudyError(
            f"data must be a name, or lie in the pods' {' or '.join(f'{m}/' for m in mounts)}, but "
            f"got {place!r}, a place on this machine; copy it to a claim, name that under "
            f"`datasets` in the cluster file, and let `data` be {DATA}/..."
        )


def _resources(study: Study, cluster: Cluster) -> Resources:
    changes = cluster.trial.model_dump(exclude_none=True)
    try:
        return Resources.model_validate({**study.resources.model_dump(), **changes})
    except ValueError as error:
        raise KubernetesError(f"trial: {error}") from None


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
