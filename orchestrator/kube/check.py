"""What a cluster must have before anything is created there; the rest `render` checks offline."""

import logging

from methods.errors import KubernetesError
from orchestrator.kube.api import JOBS, Api, Refused
from orchestrator.kube.cluster import Cluster, claim
from orchestrator.kube.render import API_VERSION, GROUP, Rendered

logger = logging.getLogger(__name__)

SHARED = "ReadWriteMany"


def check(api: Api, rendered: Rendered, cluster: Cluster) -> None:
    """Refuse a cluster that lacks something, before anything is created.

    Raises:
        KubernetesError: what is missing, and what would do.
        ServerAway: the API server does not answer.
    """
    _kuberay(api)
    _namespace(api, cluster.namespace)
    _secrets(api, cluster)
    _storage(api, cluster, "storage", cluster.storage, writes=True)
    if cluster.datasets:
        _storage(api, cluster, "datasets", cluster.datasets, writes=False)
    if cluster.queue:
        _queue(api, cluster.namespace, cluster.queue)
    api.post(JOBS.format(cluster.namespace), rendered.ray_job, dryRun="All")


def _kuberay(api: Api) -> None:
    found = api.find(f"/apis/{GROUP}/{API_VERSION}")
    kinds = {resource["name"] for resource in (found or {}).get("resources", [])}
    if "rayjobs" not in kinds:
        raise KubernetesError(
            f"KubeRay must be installed, but {api.host} knows no RayJob ({GROUP}/{API_VERSION}); "
            "`helm install kuberay-operator kuberay/kuberay-operator --version 1.7.0 --namespace "
            "kuberay-system --create-namespace` installs it"
        )


def _namespace(api: Api, name: str) -> None:
    try:
        found = api.find(f"/api/v1/namespaces/{name}")
    except Refused as refusal:
        if refusal.status != 403:
            raise
        logger.warning("whether namespace %s exists is not known: %s", name, refusal)
        return
    if found is None:
        raise KubernetesError(
            f"the namespace must exist, but there is no {name!r}; `kubectl apply -k "
            "k8s/overlays/local` makes it with all that belongs in it"
        )
    if (found.get("status") or {}).get("phase") == "Terminating":
        raise KubernetesError(f"the namespace {name!r} is being deleted; wait, then make it again")


def _secrets(api: Api, cluster: Cluster) -> None:
    wanted = [("mlflow", cluster.mlflow.secret, cluster.mlflow.key)]
    if cluster.optuna:
        wanted.append(("optuna", cluster.optuna.secret, cluster.optuna.key))
    if cluster.pull_secret:
        wanted.append(("pull_secret", cluster.pull_secret, ".dockerconfigjson"))
    for field, name, key in wanted:
        try:
            found = api.find(f"/api/v1/namespaces/{cluster.namespace}/secrets/{name}")
        except Refused as refusal:
            if refusal.status != 403:
                raise
            logger.warning("whether Secret %s exists is not known: you may not read it", name)
            continue
        if found is None:
            raise KubernetesError(
                f"`{field}` names Secret {name!r}, but there is none in namespace "
                f"{cluster.namespace!r}; `kubectl -n {cluster.namespace} create secret generic "
                f"{name} --from-literal={key}=...` makes it"
            )
        if key not in (found.get("data") or {}):
            keys = ", ".join(sorted(found.get("data") or {})) or "none"
            raise KubernetesError(
                f"Secret {name!r} must have the key {key!r} (`{field}`), but has: {keys}"
            )


def _storage(api: Api, cluster: Cluster, field: str, uri: str, *, writes: bool) -> None:
    name = claim(uri)
    path = f"/api/v1/namespaces/{cluster.namespace}/persistentvolumeclaims/{name}"
    found = api.find(path)
    if found is None:
        raise KubernetesError(
            f"`{field}` names PersistentVolumeClaim {name!r}, but there is none in namespace "
            f"{cluster.namespace!r}; k8s/base has one to begin with"
        )
    modes = set(found["spec"].get("accessModes") or [])
    if (found.get("status") or {}).get("phase") == "Lost":
        raise KubernetesError(f"PersistentVolumeClaim {name!r} has lost its volume")
    if SHARED in modes or (not writes and "ReadOnlyMany" in modes):
        return
    if cluster.one_node and "ReadWriteOnce" in modes:
        return
    raise KubernetesError(
        f"all pods mount `{field}`, so PersistentVolumeClaim {name!r} must be {SHARED}, but is "
        f"{' and '.join(sorted(modes))}; take a storage class that can be shared, or say "
        "`one_node: true` where all pods stand on one node"
    )


def _queue(api: Api, namespace: str, name: str) -> None:
    for version in ("v1beta2", "v1beta1"):
        path = f"/apis/kueue.x-k8s.io/{version}/namespaces/{namespace}/localqueues/{name}"
        try:
            if api.find(path) is not None:
                return
        except Refused as refusal:
            if refusal.status != 403:
                raise
            logger.warning("whether queue %s exists is not known: you may not read it", name)
            return
    raise KubernetesError(
        f"`queue` names Kueue's LocalQueue {name!r}, but there is none in namespace {namespace!r}; "
        "k8s/components/kueue has one to begin with, once Kueue is installed"
    )
