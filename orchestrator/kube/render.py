"""A study and a cluster file in, a ConfigMap and a RayJob out: the same in, the same out.

What KubeRay injects (submitter, autoscaler, init containers) is hardened here too, so that a
namespace with Pod Security `restricted` admits it.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from methods.errors import KubernetesError, StudyError
from orchestrator.kube.spec import SPOT, Cluster, Placement, Workers, claim, client_version
from orchestrator.space import spaces
from orchestrator.study import Resources, Study
from orchestrator.study import load as load_study

Manifest = dict[str, Any]

LONGEST = 47
"""Characters of a RayJob's name; KubeRay makes longer names of it."""
RUNS, DATA, MOUNTED = "/runs", "/data", "/etc/isoflop"
USER = 1000
"""User and group of every process in the image."""
LOG_CONTAINER = "driver-log"
"""The head's container whose output is the driver's."""
LOGS = {"name": "ray-logs", "mountPath": "/tmp/ray"}
"""Ray's own folder; KubeRay mounts this name here too, for its autoscaler."""
PATIENCE = 900
"""Seconds for which a driver waits for the one before it to let go of the study's folder."""

REPEAT = """\
trap 'exit 0' TERM
told=
while :; do
  for log in /tmp/ray/session_latest/logs/job-driver-*.log; do
    case $told in *"$log"*) continue ;; esac
    [ -e "$log" ] || continue
    tail -n +1 -F "$log" &
    told="$told $log"
  done
  sleep 1 &
  wait $!
done
"""
"""What it runs: a job may be submitted a second time, and has another log then."""

GROUP, API_VERSION = "ray.io", "v1"
STUDY_LABEL = "isoflop.dev/study"
HASH_LABEL = "isoflop.dev/hash"

HARDENED: Manifest = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""A container's security context: Pod Security `restricted`, and a root that cannot be written."""


@dataclass(frozen=True)
class Rendered:
    """What `submit` creates."""

    name: str
    namespace: str
    study: str
    config_map: Manifest
    ray_job: Manifest

    @property
    def objects(self) -> list[Manifest]:
        """In the order in which they are made."""
        return [self.config_map, self.ray_job]


def render(file: Path, cluster: Cluster) -> Rendered:
    """The objects of one sweep.

    Raises:
        StudyError, MethodError: the study cannot be run as written, or not on Kubernetes.
        KubernetesError: name, image or workers do not do for it.
    """
    study = load_study(file)
    spaces(study)  # a mistake in a method's fields is told here, not by the driver
    name = sweep_name(study)
    _same_ray(cluster)
    _reachable_data(study, cluster)
    trial = _resources(study, cluster)
    slots = _slots(trial, cluster)
    labels = {
        "app.kubernetes.io/name": "isoflop",
        "app.kubernetes.io/component": "sweep",
        "app.kubernetes.io/managed-by": "isoflop",
        STUDY_LABEL: study.name.rstrip("-"),
        HASH_LABEL: study.hash,
    }
    metadata = {"name": name, "namespace": cluster.namespace, "labels": labels}
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {"study.yaml": _text(file, cluster)},
    }
    queue = {"kueue.x-k8s.io/queue-name": cluster.queue} if cluster.queue else {}
    annotations = (
        {"annotations": {"kueue.x-k8s.io/elastic-job": "true"}}
        if cluster.queue and cluster.autoscaling
        else {}
    )
    ray_job = {
        "apiVersion": f"{GROUP}/{API_VERSION}",
        "kind": "RayJob",
        "metadata": {**metadata, "labels": {**labels, **queue}, **annotations},
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
                "rayVersion": client_version(),
                "authOptions": {"mode": "token"},
                **(_autoscaling() if cluster.autoscaling else {}),
                "headGroupSpec": _head(cluster, name),
                "workerGroupSpecs": [_workers(cluster, group) for group in cluster.workers],
            },
            **({"submitterPodTemplate": _submitter(cluster)} if cluster.mode == "k8s-job" else {}),
        },
    }
    return Rendered(name, cluster.namespace, study.name, config_map, ray_job)


def sweep_name(study: Study) -> str:
    """The RayJob's name: the study's, and the hash of all that decides its numbers.

    Raises:
        KubernetesError: the study's name is too long for one.
    """
    name = f"{study.name}-{study.hash}"
    if len(name) > LONGEST:
        raise KubernetesError(
            f"a study's name may have {LONGEST - len(study.hash) - 1} characters on Kubernetes, "
            f"but {study.name!r} has {len(study.name)}; give it a shorter one"
        )
    return name


def dump(objects: list[Manifest]) -> str:
    """YAML for people and `kubectl apply`."""
    return yaml.dump_all(
        objects, Dumper=_Dumper, sort_keys=False, explicit_start=True, width=100, allow_unicode=True
    )


class _Dumper(yaml.SafeDumper):
    """Texts of many lines as they stand; no anchors; lists indented."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)


def _lines(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _lines)


def _text(file: Path, cluster: Cluster) -> str:
    """The study file as it travels: as it stands, but for what the cluster file says of trials."""
    text = file.read_text()
    own = cluster.trial.model_dump(exclude_none=True)
    if own:
        content = yaml.safe_load(text)
        content["resources"] = {**(content.get("resources") or {}), **own}
        text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
    if len(text.encode()) > 900_000:
        raise StudyError(f"a study must fit a ConfigMap (0.9 MB), but {file} is larger")
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())  # else no block of lines


def _entrypoint(slots: int) -> list[str]:
    return [
        *("isoflop", "run", f"{MOUNTED}/study.yaml", "--out", RUNS, "--address", "auto"),
        *("--slots", str(slots), "--patience", str(PATIENCE)),
    ]


def _same_ray(cluster: Cluster) -> None:
    here, there = client_version(), cluster.ray_version
    if there is None:
        raise KubernetesError(
            f"the image's Ray must be known, but {cluster.image!r} does not tell; let its tag end "
            f"in -ray{here}, or say `ray: {here}` in the cluster file"
        )
    if here != there:
        raise KubernetesError(
            f"Ray must be the same everywhere, but the image {cluster.image!r} has {there} and "
            f"this side {here}; build the image from this version of isoflop"
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
    own = {**study.resources.model_dump(), **cluster.trial.model_dump(exclude_none=True)}
    try:
        return Resources.model_validate(own)
    except ValueError as error:
        raise KubernetesError(f"trial: {error}") from None


def _slots(trial: Resources, cluster: Cluster) -> int:
    """How many trials run at once when all pods are there."""
    held = sum(group.most * group.holds(trial) for group in cluster.workers)
    if not held:
        pods = "; ".join(
            f"{group.name} has {group.cpu} CPUs and {group.gpu} GPUs" for group in cluster.workers
        )
        raise KubernetesError(
            f"a trial must fit one worker pod, but it takes {trial.cpu:g} CPUs and {trial.gpu:g} "
            f"GPUs, and {pods}; let `trial` take less, or give the workers more"
        )
    return min(held, trial.concurrency or held)


def _head(cluster: Cluster, name: str) -> Manifest:
    ports = {"gcs-server": 6379, "dashboard": 8265, "client": 10001}
    env = [_secret("ISOFLOP_MLFLOW", cluster.mlflow.secret, cluster.mlflow.key)]
    for variable, key in (
        ("MLFLOW_TRACKING_USERNAME", "username"),
        ("MLFLOW_TRACKING_PASSWORD", "password"),
    ):
        env.append(_secret(variable, cluster.mlflow.secret, key, optional=True))
    if cluster.optuna:
        env.append(_secret("ISOFLOP_OPTUNA", cluster.optuna.secret, cluster.optuna.key))
    study: Manifest = {"name": "study", "configMap": {"name": name}}
    container = _container(cluster, "ray-head", cluster.head.cpu, cluster.head.memory, env)
    container["ports"] = [{"name": key, "containerPort": port} for key, port in ports.items()]
    container["volumeMounts"] += [
        dict(LOGS),
        {"name": "study", "mountPath": MOUNTED, "readOnly": True},
    ]
    pod = _pod(cluster, cluster.head, [container, _driver_log(cluster)])
    pod["volumes"] += [{"name": LOGS["name"], "emptyDir": {"sizeLimit": "5Gi"}}, study]
    pod["serviceAccountName"] = "ray-sweep"
    pod["automountServiceAccountToken"] = cluster.autoscaling
    affinity = _off_spot(cluster)
    if affinity:
        pod["affinity"] = affinity
    return {
        "rayStartParams": {
            "dashboard-host": "0.0.0.0",
            "num-cpus": "0",
            "num-gpus": "0",
            "object-store-memory": "500000000",
        },
        "template": {
            "metadata": {
                "labels": _pod_labels("head"),
                "annotations": {
                    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
                    "karpenter.sh/do-not-disrupt": "true",
                },
            },
            "spec": pod,
        },
    }


def _workers(cluster: Cluster, group: Workers) -> Manifest:
    container = _container(cluster, "ray-worker", group.cpu, group.memory, [])
    if group.gpu:
        for kind in ("requests", "limits"):
            container["resources"][kind][group.gpu_resource] = str(group.gpu)
    pod = _pod(cluster, group, [container])
    pod["automountServiceAccountToken"] = False
    if group.spot:
        label, value = SPOT[group.spot]
        pod["nodeSelector"] = {**pod.get("nodeSelector", {}), label: value}
        pod.setdefault("tolerations", []).append(
            {"key": label, "operator": "Equal", "value": value, "effect": "NoSchedule"}
        )
    return {
        "groupName": group.name,
        "replicas": group.replicas,
        "minReplicas": group.replicas,
        "maxReplicas": group.most,
        "rayStartParams": {
            "num-cpus": str(group.cpu),
            "num-gpus": str(group.gpu),
            "object-store-memory": "500000000",
        },
        "template": {"metadata": {"labels": _pod_labels("worker")}, "spec": pod},
    }


def _container(cluster: Cluster, name: str, cpu: int, memory: str, env: list[Manifest]) -> Manifest:
    plain = {
        "HOME": "/tmp",
        "HF_HOME": f"{RUNS}/.huggingface",
        "MPLCONFIGDIR": "/tmp/matplotlib",
        "PYTHONUNBUFFERED": "1",
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    mounts: list[Manifest] = [
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "shm", "mountPath": "/dev/shm"},
        {"name": "runs", "mountPath": RUNS},
    ]
    if cluster.datasets:
        mounts.append({"name": "data", "mountPath": DATA, "readOnly": True})
    amounts = {"cpu": str(cpu), "memory": memory}
    return {
        "name": name,
        "image": cluster.image,
        "imagePullPolicy": cluster.pull_policy,
        "env": [*({"name": key, "value": value} for key, value in plain.items()), *env],
        "resources": {"requests": dict(amounts), "limits": dict(amounts)},
        "securityContext": HARDENED,
        "volumeMounts": mounts,
    }


def _driver_log(cluster: Cluster) -> Manifest:
    """Repeats the driver's output, so that a pod's log has it: Ray writes it to a file only."""
    amounts = {"cpu": "20m", "memory": "32Mi"}
    return {
        "name": LOG_CONTAINER,
        "image": cluster.image,
        "imagePullPolicy": cluster.pull_policy,
        "command": ["/bin/sh", "-c", REPEAT],
        "resources": {"requests": dict(amounts), "limits": dict(amounts)},
        "securityContext": HARDENED,
        "volumeMounts": [{**LOGS, "readOnly": True}],
    }


def _pod(cluster: Cluster, where: Placement, containers: list[Manifest]) -> Manifest:
    volumes: list[Manifest] = [
        {"name": "tmp", "emptyDir": {"sizeLimit": "10Gi"}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        {"name": "runs", "persistentVolumeClaim": {"claimName": claim(cluster.storage)}},
    ]
    if cluster.datasets:
        source = {"claimName": claim(cluster.datasets), "readOnly": True}
        volumes.append({"name": "data", "persistentVolumeClaim": source})
    pod: Manifest = {
        "containers": containers,
        "volumes": volumes,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "enableServiceLinks": False,
    }
    if cluster.pull_secret:
        pod["imagePullSecrets"] = [{"name": cluster.pull_secret}]
    if where.node_selector:
        pod["nodeSelector"] = dict(where.node_selector)
    if where.tolerations:
        pod["tolerations"] = [t.model_dump(exclude_none=True) for t in where.tolerations]
    return pod


def _submitter(cluster: Cluster) -> Manifest:
    """The pod of K8sJobMode; KubeRay's own has no security context and no limits."""
    amounts = {"cpu": "500m", "memory": "1Gi"}
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "ray-job-submitter",
                "image": cluster.image,
                "imagePullPolicy": cluster.pull_policy,
                "env": [{"name": "HOME", "value": "/tmp"}],
                "resources": {"requests": dict(amounts), "limits": dict(amounts)},
                "securityContext": HARDENED,
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
    }
    if cluster.pull_secret:
        pod["imagePullSecrets"] = [{"name": cluster.pull_secret}]
    return {"metadata": {"labels": _pod_labels("submitter")}, "spec": pod}


def _autoscaling() -> Manifest:
    amounts = {"cpu": "500m", "memory": "512Mi"}
    return {
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "upscalingMode": "Default",
            "idleTimeoutSeconds": 120,
            "securityContext": HARDENED,
            "resources": {"requests": dict(amounts), "limits": dict(amounts)},
            "env": [{"name": "HOME", "value": "/tmp"}],
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        },
    }


def _off_spot(cluster: Cluster) -> Manifest:
    """The driver stands on the head: no spot node for it."""
    labels = dict(SPOT[group.spot] for group in cluster.workers if group.spot)
    rules = [
        {"key": label, "operator": "NotIn", "values": [value]} for label, value in labels.items()
    ]
    if not rules:
        return {}
    terms = {"nodeSelectorTerms": [{"matchExpressions": rules}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def _pod_labels(component: str) -> dict[str, str]:
    return {"app.kubernetes.io/part-of": "isoflop", "app.kubernetes.io/component": component}


def _secret(name: str, secret: str, key: str, *, optional: bool = False) -> Manifest:
    source: Manifest = {"name": secret, "key": key}
    return {
        "name": name,
        "valueFrom": {"secretKeyRef": {**source, **({"optional": True} if optional else {})}},
    }
