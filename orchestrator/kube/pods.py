"""The pods of a RayJob: head, workers, submitter, and what they mount."""

from typing import Any

from orchestrator.kube.cluster import SPOT, Cluster, Head, Pods, Workers, claim
from orchestrator.kube.template.hold import check_merged, check_store
from orchestrator.kube.template.merge import merge
from orchestrator.kube.template.quantities import amount

Manifest = dict[str, Any]

RUNS, DATA, STUDY = "/runs", "/data", "/etc/isoflop"
"""Where pods mount the claims of ledgers and of data, and the head the study's ConfigMap."""
ACCOUNT = "ray-sweep"
"""The head's service account, which the Helm chart creates."""
USER = 1000
"""User and group of every process in the image."""
OBJECT_STORE = 500_000_000
"""Bytes of Ray's object store in a pod that does not say otherwise."""
SHARED = "1Gi"
"""Size of such a pod's /dev/shm, where the object store lies."""
BESIDE_STORE = 512
"""MiB by which /dev/shm is larger than an object store that the cluster file gives."""
LOGS: Manifest = {"name": "ray-logs", "mountPath": "/tmp/ray"}
"""Ray's own folder; KubeRay mounts this name here too, for its autoscaler."""
RAY_LOGS = f"{LOGS['mountPath']}/session_latest/logs"
LOG_CONTAINER = "driver-log"
"""The head's container whose output is the driver's."""
KEEPER = "kept-logs"
"""The container of a worker pod that keeps its logs, as the head's `driver-log` does."""
KEPT = f"{RUNS}/.logs"
"""Where the claim has a folder of logs for each sweep: SWEEP/ATTEMPT/POD."""
KEPT_EVERY = 30
"""Seconds between two copies of the logs that changed."""
NOT_ROOT: Manifest = {"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER}
OWNERSHIP: Manifest = {"fsGroup": USER, "fsGroupChangePolicy": "OnRootMismatch"}
PROFILE: Manifest = {"seccompProfile": {"type": "RuntimeDefault"}}
HARDENED: Manifest = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    **NOT_ROOT,
    **PROFILE,
}
"""A container's security context: Pod Security `restricted`, and a root that cannot be written."""
LOST_NODE = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
"""The taints of a node that no longer answers."""
EVICTED_AFTER = 30
"""Seconds until the head leaves such a node; Kubernetes' 300 exceed the patience of KubeRay, which
fails a sweep for good that shows no job status for 300 s."""
NO_GPU: Manifest = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}
"""Where NVIDIA's runtime is the default, an image may ask for every GPU of the node; a container
that requests none must see none."""
NO_MONITOR: Manifest = {"name": "RAY_memory_monitor_refresh_ms", "value": "0"}
"""For the head, where Ray's memory monitor could end the driver alone, and with it the sweep."""
MEMORY: list[Manifest] = [
    {"name": "ISOFLOP_MEMORY_SHARE", "value": "0.85"},
    {"name": "RAY_memory_monitor_refresh_ms", "value": "100"},
    {"name": "RAY_memory_usage_threshold", "value": "0.95"},
]
"""Fractions of a worker pod's memory: at the first its largest trial fails, at the second Ray ends
its youngest workers. At the whole of it Kubernetes ends all processes of the container."""
HEAD = "ray-head"
"""The head's container in which Ray and the driver run."""
KEYS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
)
"""Keys of `bucket_secret`, and environment variables of the same names; the first two must be."""
TMP: Manifest = {"name": "tmp", "mountPath": "/tmp"}
HOME: Manifest = {"name": "HOME", "value": "/tmp"}


def head(cluster: Cluster, config_map: str) -> Manifest:
    """Ray's head, where the driver runs; it alone mounts the study, and sees all Secrets."""
    mlflow, optuna = cluster.mlflow, cluster.optuna
    env = [
        _secret("ISOFLOP_MLFLOW", mlflow.secret, mlflow.key),
        _secret("MLFLOW_TRACKING_USERNAME", mlflow.secret, "username", optional=True),
        _secret("MLFLOW_TRACKING_PASSWORD", mlflow.secret, "password", optional=True),
        *([_secret("ISOFLOP_OPTUNA", optuna.secret, optuna.key)] if optuna else []),
    ]
    env += [NO_GPU, NO_MONITOR]
    container = _ray_container(cluster, HEAD, cluster.head.cpu, cluster.head.memory, env)
    ports = {"gcs-server": 6379, "dashboard": 8265, "client": 10001}
    container["ports"] = [{"name": name, "containerPort": port} for name, port in ports.items()]
    container["volumeMounts"] += [LOGS, {"name": "study", "mountPath": STUDY, "readOnly": True}]
    logs = _keeper(cluster, LOG_CONTAINER, config_map, {**LOGS, "readOnly": True}, "head")
    pod = _ray_pod(cluster, cluster.head, [container, logs])
    pod["volumes"] += [
        {"name": LOGS["name"], "emptyDir": {"sizeLimit": "5Gi"}},
        {"name": "study", "configMap": {"name": config_map}},
    ]
    pod["tolerations"] = [*pod.get("tolerations", []), *_left_soon(cluster.head)]
    pod["serviceAccountName"] = ACCOUNT
    pod["automountServiceAccountToken"] = cluster.autoscaling
    pod |= _off_spot(cluster)
    annotations = {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }
    return {
        "rayStartParams": {
            "dashboard-host": "0.0.0.0",
            "num-cpus": "0",
            "num-gpus": "0",
            "object-store-memory": str(_object_store(cluster.head)),
        },
        "template": _with_template(
            cluster,
            cluster.head,
            {
                "metadata": {"labels": _labels("head"), "annotations": annotations},
                "spec": pod,
            },
            "the head",
        ),
    }


def workers(cluster: Cluster, group: Workers, sweep: str) -> Manifest:
    """One group of worker pods, where the trials run."""
    env = [*MEMORY, *([] if group.gpu else [NO_GPU])]
    container = _ray_container(cluster, "ray-worker", group.cpu, group.memory, env)
    if group.gpu:
        for kind in ("requests", "limits"):
            container["resources"][kind][group.gpu_resource] = str(group.gpu)
    containers = [container]
    if RUNS in [mount["mountPath"] for mount in container["volumeMounts"]]:
        containers.append(_keeper(cluster, KEEPER, sweep, {**TMP, "readOnly": True}))
    pod = _ray_pod(cluster, group, containers)
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
            "object-store-memory": str(_object_store(group)),
        },
        "template": _with_template(
            cluster,
            group,
            {"metadata": {"labels": _labels("worker")}, "spec": pod},
            f"the workers {group.name!r}",
        ),
    }


def submitter(cluster: Cluster) -> Manifest:
    """The pod of K8sJobMode; KubeRay's own has no security context and no limits."""
    container = _container(
        cluster, "ray-job-submitter", {"env": [HOME, NO_GPU]}, _resources("500m", "1Gi"), [TMP]
    )
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        **_pod(cluster, [container], [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}]),
    }
    return {"metadata": {"labels": _labels("submitter")}, "spec": pod}


def autoscaling(context: Manifest) -> Manifest:
    """The fields of a RayCluster whose groups grow and shrink; the autoscaler, which runs in the
    head's pod, has the security context of Ray's container."""
    return {
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "upscalingMode": "Default",
            "idleTimeoutSeconds": 120,
            "securityContext": context,
            "resources": _resources("500m", "512Mi"),
            "env": [HOME, NO_GPU],
            "volumeMounts": [TMP],
        },
    }


def _with_template(cluster: Cluster, place: Head | Workers, base: Manifest, name: str) -> Manifest:
    """A pod with what the cluster file's templates add, checked.

    Raises:
        KubernetesError: they take away or change what must stay, or do not fit.
    """
    merged = base
    for template in (cluster.pod_template, place.pod_template):
        if template:
            merged = merge(merged, template.patch(base["spec"]["containers"][0]["name"]))
    if merged is not base:
        token = bool(base["spec"]["automountServiceAccountToken"])
        check_merged(base, merged, name, token=token)
    if place.object_store or _volume(merged, "shm") != _volume(base, "shm"):
        check_store(merged["spec"], _object_store(place), name, place.memory)
    return merged


def _object_store(place: Pods) -> int:
    """Bytes of Ray's object store in a pod."""
    return int(amount(place.object_store)) if place.object_store else OBJECT_STORE


def _shared(place: Pods) -> str:
    """The size of a pod's /dev/shm."""
    if not place.object_store:
        return SHARED
    return f"{(_object_store(place) >> 20) + BESIDE_STORE}Mi"


def _volume(template: Manifest, name: str) -> Manifest:
    return next(dict(each) for each in template["spec"]["volumes"] if each["name"] == name)


def _ray_container(
    cluster: Cluster, name: str, cpu: int, memory: str, env: list[Manifest]
) -> Manifest:
    claimed = cluster.bucket is None or name == HEAD
    plain = {
        "HOME": "/tmp",
        "HF_HOME": f"{RUNS if claimed else '/tmp'}/.huggingface",
        "MPLCONFIGDIR": "/tmp/matplotlib",
        "PYTHONUNBUFFERED": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    variables = [*({"name": key, "value": value} for key, value in plain.items()), *env]
    variables += [
        _secret(key, cluster.bucket_secret, key, optional=key not in KEYS[:2])
        for key in KEYS
        if cluster.bucket_secret
    ]
    mounts = [TMP, {"name": "shm", "mountPath": "/dev/shm"}]
    if claimed:
        mounts.append({"name": "runs", "mountPath": RUNS})
    if cluster.datasets:
        mounts.append({"name": "data", "mountPath": DATA, "readOnly": True})
    return _container(cluster, name, {"env": variables}, _resources(str(cpu), memory), mounts)


def _keeper(cluster: Cluster, name: str, sweep: str, logs: Manifest, *head: str) -> Manifest:
    """The container that copies a pod's logs to the claim, where they stay when the pod is gone.

    That of the head repeats the driver's output, too, which Ray writes to a file only.
    """
    fields = {"ATTEMPT": "metadata.labels['ray.io/cluster']", "POD": "metadata.name"}
    env = [NO_GPU, *({"name": key, "valueFrom": _field(path)} for key, path in fields.items())]
    command = ["python", "-P", "-m", "orchestrator.kube.logs.keep", RAY_LOGS]
    command += [f"{KEPT}/{sweep}/$(ATTEMPT)/$(POD)", str(KEPT_EVERY), *head]
    mounts = [logs, {"name": "runs", "mountPath": RUNS}]
    return _container(
        cluster, name, {"command": command, "env": env}, _resources("20m", "32Mi"), mounts
    )


def _container(
    cluster: Cluster, name: str, process: Manifest, resources: Manifest, mounts: list[Manifest]
) -> Manifest:
    """A hardened container of the image; `process` is its command or its environment."""
    return {
        "name": name,
        "image": cluster.image,
        "imagePullPolicy": cluster.pull_policy,
        **process,
        "resources": resources,
        "securityContext": HARDENED,
        "volumeMounts": mounts,
    }


def _ray_pod(cluster: Cluster, place: Pods, containers: list[Manifest]) -> Manifest:
    """A pod of Ray's cluster, with the claims, on the nodes that the cluster file names."""
    volumes: list[Manifest] = [
        {"name": "tmp", "emptyDir": {"sizeLimit": "10Gi"}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _shared(place)}},
    ]
    if any(mount["name"] == "runs" for each in containers for mount in each["volumeMounts"]):
        runs = {"claimName": claim(cluster.storage)}
        volumes.append({"name": "runs", "persistentVolumeClaim": runs})
    if cluster.datasets:
        source = {"claimName": claim(cluster.datasets), "readOnly": True}
        volumes.append({"name": "data", "persistentVolumeClaim": source})
    pod = _pod(cluster, containers, volumes)
    if place.node_selector:
        pod["nodeSelector"] = dict(place.node_selector)
    if place.tolerations:
        pod["tolerations"] = [t.model_dump(exclude_none=True) for t in place.tolerations]
    return pod


def _pod(cluster: Cluster, containers: list[Manifest], volumes: list[Manifest]) -> Manifest:
    secret = cluster.pull_secret
    return {
        "containers": containers,
        "volumes": volumes,
        "securityContext": {**NOT_ROOT, **OWNERSHIP, **PROFILE},
        "enableServiceLinks": False,
        **({"imagePullSecrets": [{"name": secret}]} if secret else {}),
    }


def _resources(cpu: str, memory: str) -> Manifest:
    return {kind: {"cpu": cpu, "memory": memory} for kind in ("requests", "limits")}


def _left_soon(head: Pods) -> list[Manifest]:
    """Tolerations by which the head leaves a lost node soon, unless the cluster file says when."""
    keys = [key for key in LOST_NODE if key not in [each.key for each in head.tolerations]]
    brief = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": EVICTED_AFTER}
    return [{"key": key, **brief} for key in keys]


def _off_spot(cluster: Cluster) -> Manifest:
    """The driver runs on the head: no spot node for it."""
    labels = dict(SPOT[group.spot] for group in cluster.workers if group.spot)
    rules = [
        {"key": label, "operator": "NotIn", "values": [value]} for label, value in labels.items()
    ]
    if not rules:
        return {}
    terms = {"nodeSelectorTerms": [{"matchExpressions": rules}]}
    node = {"requiredDuringSchedulingIgnoredDuringExecution": terms}
    return {"affinity": {"nodeAffinity": node}}


def _labels(component: str) -> dict[str, str]:
    return {"app.kubernetes.io/part-of": "isoflop", "app.kubernetes.io/component": component}


def _field(path: str) -> Manifest:
    return {"fieldRef": {"fieldPath": path}}


def _secret(variable: str, secret: str, key: str, *, optional: bool = False) -> Manifest:
    source = {"name": secret, "key": key, **({"optional": True} if optional else {})}
    return {"name": variable, "valueFrom": {"secretKeyRef": source}}
