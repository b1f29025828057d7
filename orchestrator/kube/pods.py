"""The pods of a RayJob: head, workers, submitter, and what they mount."""

from typing import Any

from orchestrator.kube.cluster import SPOT, Cluster, Placement, Workers, claim

Manifest = dict[str, Any]


RUNS, DATA, MOUNTED = "/runs", "/data", "/etc/isoflop"
USER = 1000
"""User and group of every process in the image."""


LOG_CONTAINER = "driver-log"
"""The head's container whose output is the driver's."""


LOGS = {"name": "ray-logs", "mountPath": "/tmp/ray"}
"""Ray's own folder; KubeRay mounts this name here too, for its autoscaler."""


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
