"""What a cluster must have before anything is created there; `render` checks the rest offline."""

import contextlib
import logging
from collections.abc import Iterator
from typing import cast, get_args

from methods.errors import KubernetesError
from orchestrator.kube.api import CLAIMS, NAMESPACES, QUEUES, RAY_JOBS, SECRETS, Api, Refused
from orchestrator.kube.cluster import Cluster, claim
from orchestrator.kube.names import GROUP, VERSION
from orchestrator.kube.operator import check_operator
from orchestrator.kube.pods import KEYS
from orchestrator.kube.render import Rendered, templates
from orchestrator.kube.template.security import LABEL, Level, refused

logger = logging.getLogger(__name__)

SHARED = "ReadWriteMany"


def check(api: Api, rendered: Rendered, cluster: Cluster) -> None:
    """Refuse an unsuitable cluster, before anything is created.

    Raises:
        KubernetesError: something is missing; the message gives a remedy.
        ServerAway: the API server does not answer.
    """
    if "rayjobs" not in api.served(GROUP, VERSION):
        raise KubernetesError(
            f"KubeRay must be installed, but {api.host} knows no RayJob ({GROUP}/{VERSION}); "
            "`helm install kuberay-operator kuberay/kuberay-operator --version 1.7.0 --namespace "
            "kuberay-system --create-namespace` installs it"
        )
    _namespace(api, cluster.namespace, rendered)
    check_operator(api, cluster.namespace)
    _secret(api, cluster.namespace, "mlflow", cluster.mlflow.secret, cluster.mlflow.key)
    if cluster.optuna:
        _secret(api, cluster.namespace, "optuna", cluster.optuna.secret, cluster.optuna.key)
    if cluster.bucket_secret:
        for key in KEYS[:2]:
            _secret(api, cluster.namespace, "bucket_secret", cluster.bucket_secret, key)
    if cluster.pull_secret:
        key = ".dockerconfigjson"
        _secret(api, cluster.namespace, "pull_secret", cluster.pull_secret, key)
    heads = ("ReadWriteOnce", "ReadWriteOncePod") if cluster.bucket else ()
    _claim(api, cluster, "storage", cluster.storage, SHARED, *heads)
    if cluster.datasets:
        _claim(api, cluster, "datasets", cluster.datasets, SHARED, "ReadOnlyMany")
    if cluster.queue:
        _queue(api, cluster.namespace, cluster.queue)
    try:
        api.create(RAY_JOBS, rendered.ray_job, dry_run=True)
    except Refused as refusal:
        if refusal.status != 409:  # the name alone is taken, by the sweep that is resumed
            raise


def _namespace(api: Api, name: str, rendered: Rendered) -> None:
    with _unless_forbidden(f"namespace {name}"):
        namespace = api.find(NAMESPACES, "", name)
        if namespace is None:
            raise KubernetesError(
                f"the namespace must exist, but there is no {name!r}; "
                f'`helm install {name} "$(isoflop chart)" --set namespace.name={name}` creates it '
                "and its contents"
            )
        if (namespace.get("status") or {}).get("phase") == "Terminating":
            raise KubernetesError(
                f"the namespace {name!r} is being deleted; wait, then create it again"
            )
        labels = namespace["metadata"].get("labels") or {}
        _admitted(rendered, name, labels.get(LABEL))


def _admitted(rendered: Rendered, namespace: str, level: str | None) -> None:
    """Refuse pods that Pod Security would: it looks at pods alone, and admits their RayJob."""
    if level not in get_args(Level):
        return
    for pod, template in templates(rendered.ray_job).items():
        for field in refused(template, cast(Level, level)):
            raise KubernetesError(
                f"namespace {namespace!r} enforces Pod Security `{level}`, but {pod} would have "
                f"{field}; take it out of `pod_template`, or take a namespace that admits it"
            )


def _secret(api: Api, namespace: str, field: str, name: str, key: str) -> None:
    with _unless_forbidden(f"Secret {name}"):
        secret = api.find(SECRETS, namespace, name)
        if secret is None:
            raise KubernetesError(
                f"`{field}` names Secret {name!r}, but there is none in namespace {namespace!r}; "
                f"`kubectl -n {namespace} create secret generic {name} --from-literal={key}=...` "
                "creates it"
            )
        keys = sorted(secret.get("data") or {})
        if key not in keys:
            raise KubernetesError(
                f"Secret {name!r} must have the key {key!r} (`{field}`), but has: "
                f"{', '.join(keys) or 'none'}"
            )


def _claim(api: Api, cluster: Cluster, field: str, uri: str, *enough: str) -> None:
    name = claim(uri)
    volume = api.find(CLAIMS, cluster.namespace, name)
    if volume is None:
        raise KubernetesError(
            f"`{field}` names PersistentVolumeClaim {name!r}, but there is none in namespace "
            f"{cluster.namespace!r}; isoflop's Helm chart creates isoflop-runs"
        )
    if (volume.get("status") or {}).get("phase") == "Lost":
        raise KubernetesError(f"PersistentVolumeClaim {name!r} has lost its volume")
    modes = set(volume["spec"].get("accessModes") or [])
    if modes.isdisjoint({*enough, "ReadWriteOnce"} if cluster.one_node else enough):
        raise KubernetesError(
            f"all pods mount `{field}`, so PersistentVolumeClaim {name!r} must be {SHARED}, but is "
            f"{' and '.join(sorted(modes))}; take a storage class that can be shared, give a "
            "`bucket`, or set `one_node: true` if all pods run on one node"
        )


def _queue(api: Api, namespace: str, name: str) -> None:
    with _unless_forbidden(f"queue {name}"):
        if not any(api.find(queues, namespace, name) for queues in QUEUES):
            raise KubernetesError(
                f"`queue` names Kueue's LocalQueue {name!r}, but there is none in namespace "
                f"{namespace!r}; `queue.create` in the values of isoflop's Helm chart creates one, "
                "for a cluster with Kueue"
            )


@contextlib.contextmanager
def _unless_forbidden(what: str) -> Iterator[None]:
    """Who may not read something is warned; the submit continues."""
    try:
        yield
    except Refused as refusal:
        if refusal.status != 403:
            raise
        logger.warning("whether %s exists is not known: you may not read it", what)
