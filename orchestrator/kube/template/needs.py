"""What must exist for pods beside what the cluster file names itself."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Manifest = Mapping[str, Any]

REFERENCES = {
    "secretKeyRef": ("Secret", "name"),
    "secretRef": ("Secret", "name"),
    "configMapKeyRef": ("ConfigMap", "name"),
    "configMapRef": ("ConfigMap", "name"),
    "configMap": ("ConfigMap", "name"),
    "secret": ("Secret", "secretName"),
    "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName"),
}
"""Field that refers to an object of the namespace -> its kind, and where its name stands."""
CLASSES = {"priorityClassName": "PriorityClass", "runtimeClassName": "RuntimeClass"}
"""Field of a pod -> the kind of the object of the cluster that it names."""
PULLS = "imagePullSecrets"


def needs(specs: Iterable[Manifest]) -> tuple[list[str], list[str]]:
    """What pods refer to: objects of the cluster, and objects of their namespace, as `Kind name`.

    What may be missing (`optional: true`) is left out.
    """
    cluster: dict[str, None] = {}
    namespace: dict[str, None] = {}
    for spec in specs:
        for field, kind in CLASSES.items():
            if spec.get(field):
                cluster[f"{kind} {spec[field]}"] = None
        if spec.get("serviceAccountName"):
            namespace[f"ServiceAccount {spec['serviceAccountName']}"] = None
        namespace.update((f"Secret {each['name']}", None) for each in spec.get(PULLS) or [])
        namespace.update((each, None) for each in _referred(spec))
    return list(cluster), list(namespace)


def _referred(part: Any) -> Iterator[str]:
    if isinstance(part, list):
        for each in part:
            yield from _referred(each)
    if isinstance(part, Mapping):
        for name, each in part.items():
            if name in REFERENCES and isinstance(each, Mapping):
                kind, at = REFERENCES[name]
                at = at if at in each else "name"  # a projected source calls it so
                if each.get(at) and not each.get("optional"):
                    yield f"{kind} {each[at]}"
            else:
                yield from _referred(each)
