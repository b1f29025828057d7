"""Whether KubeRay's operator reaches the head through a namespace's NetworkPolicies."""

from collections.abc import Mapping
from dataclasses import dataclass

from methods.errors import KubernetesError
from orchestrator.kube.api import NAMESPACES, NETWORK_POLICIES, PODS, Api, Json, Refused

OPERATOR = "app.kubernetes.io/component=kuberay-operator"
"""The label of the operator's pods, as its chart and its kustomization set it."""
JOBS_PORT = 8265
"""Where the head takes jobs."""
HEAD = {
    "ray.io/is-ray-node": "yes",
    "ray.io/node-type": "head",
    "app.kubernetes.io/part-of": "isoflop",
    "app.kubernetes.io/component": "head",
}
"""The labels of a head's pod that policies go by."""


def check_operator(api: Api, namespace: str) -> None:
    """Refuse a namespace whose NetworkPolicies keep KubeRay's operator from the head.

    Nothing where the user may not look into other namespaces, as most may not.

    Raises:
        KubernetesError: no operator is admitted.
    """
    try:
        operators = api.items(PODS, "", labels=OPERATOR)
        places = sorted({str(pod["metadata"].get("namespace")) for pod in operators})
        if not places:
            return
        policies = [each["spec"] for each in api.items(NETWORK_POLICIES, namespace)]
        spaces = {place: _labels(api.find(NAMESPACES, "", place), place) for place in places}
    except Refused as refusal:
        if refusal.status != 403:
            raise
        return
    for pod in operators:
        place = str(pod["metadata"].get("namespace"))
        peer = Peer(_labels(pod, place), spaces[place], beside=place == namespace)
        if admits(policies, peer):
            return
    raise KubernetesError(
        f"KubeRay's operator must reach the head at port {JOBS_PORT}, but it runs in namespace "
        f"{' and '.join(places)}, and no NetworkPolicy of {namespace!r} admits it; "
        "upgrade isoflop's Helm chart, with its value `network.operator` empty or that namespace"
    )


@dataclass(frozen=True)
class Peer:
    """A pod that wants to reach a head."""

    labels: Mapping[str, str]
    space: Mapping[str, str]
    """The labels of its namespace."""
    beside: bool
    """Whether that is the head's namespace, too."""


def admits(policies: list[Json], peer: Peer) -> bool:
    """Whether a pod reaches the jobs' port of a head, by the policies of the head's namespace."""
    over_head = [
        policy
        for policy in policies
        if "Ingress" in policy.get("policyTypes", ["Ingress"])
        and _selects(policy.get("podSelector"), HEAD)
    ]
    rules = [rule for policy in over_head for rule in policy.get("ingress") or []]
    return not over_head or any(_allows(rule, peer) for rule in rules)


def _allows(rule: Json, peer: Peer) -> bool:
    ports, sources = rule.get("ports"), rule.get("from")
    if ports and not any(_is_jobs_port(each) for each in ports):
        return False
    return not sources or any(_is_from(source, peer) for source in sources)


def _is_from(source: Json, peer: Peer) -> bool:
    if "ipBlock" in source:  # whether the pod's address lies in it is for the network to say
        return True
    spaces = source.get("namespaceSelector")
    inside = peer.beside if spaces is None else _selects(spaces, peer.space)
    return inside and _selects(source.get("podSelector"), peer.labels)


def _is_jobs_port(entry: Json) -> bool:
    port = entry.get("port")
    if entry.get("protocol", "TCP") != "TCP":
        return False
    if isinstance(port, int):
        return port <= JOBS_PORT <= int(entry.get("endPort", port))
    return port in (None, "dashboard")


def _selects(selector: Json | None, labels: Mapping[str, str]) -> bool:
    """Kubernetes' label selector; an empty one selects all."""
    selector = selector or {}
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for rule in selector.get("matchExpressions") or []:
        value, values = labels.get(rule["key"]), rule.get("values") or []
        holds = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not holds[rule["operator"]]:
            return False
    return True


def _labels(body: Json | None, namespace: str) -> dict[str, str]:
    labels = ((body or {}).get("metadata") or {}).get("labels") or {}
    return {"kubernetes.io/metadata.name": namespace, **labels}
