"""What must exist for pods beside what the cluster file names itself."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Manifest = Mapping[str, Any]

REFERENCES = {
    "secretKeyRef": ("Secret", "name"),
    "secretRef": ("Secret", "name"),
    "nodePublishSecretRef": ("Secret", "name"),
    "azureFile": ("Secret", "secretName"),
    "configMapKeyRef": ("ConfigMap", "name"),
    "configMapRef": ("ConfigMap", "name"),
    "configMap": ("ConfigMap", "name"),
    "secret": ("Secret", "secretName"),
    "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName"),
}
"""Field that refers to an object of the namespace -> its kind, and where its name stands."""
CLASSES = {
    "priorityClassName": "PriorityClass",
    "runtimeClassName": "RuntimeClass",
    "storageClassName": "StorageClass",
    "volumeAttributesClassName": "VolumeAttributesClass",
}
"""Field that is the name of an object of the cluster -> its kind."""
CLAIMS = {
    "resourceClaimName": "ResourceClaim",
    "resourceClaimTemplateName": "ResourceClaimTemplate",
}
"""Field that is the name of an object of the namespace -> its kind."""
PULLS = "imagePullSecrets"


def needs(specs: Iterable[Manifest]) -> tuple[list[str], list[str]]:
    """What pods refer to: objects of the cluster, and objects of their namespace, as `Kind name`.

    What may be missing (`optional: true`) is left out.
    """
    cluster: dict[str, None] = {}
    namespace: dict[str, None] = {}
    for spec in specs:
        cluster.update((each, None) for each in _by_name(spec, CLASSES))
        if spec.get("serviceAccountName"):
            namespace[f"ServiceAccount {spec['serviceAccountName']}"] = None
        namespace.update((f"Secret {each['name']}", None) for each in spec.get(PULLS) or [])
        namespace.update((each, None) for each in _referred(spec))
        namespace.update((each, None) for each in _by_name(spec, CLAIMS))
    return list(cluster), list(namespace)


def _maps(part: Any) -> Iterator[Manifest]:
    """All maps within a part of a manifest."""
    if isinstance(part, Mapping):
        yield part
    values = part.values() if isinstance(part, Mapping) else part if isinstance(part, list) else ()
    for each in values:
        yield from _maps(each)


def _by_name(spec: Manifest, kinds: Mapping[str, str]) -> Iterator[str]:
    for part in _maps(spec):
        yield from (f"{kind} {part[name]}" for name, kind in kinds.items() if part.get(name))


def _referred(spec: Manifest) -> Iterator[str]:
    for part in _maps(spec):
        for name, (kind, at) in REFERENCES.items():
            reference = part.get(name)
            if isinstance(reference, Mapping) and not reference.get("optional"):
                found = reference.get(at) or reference.get("name")  # a projected source calls it so
                if found:
                    yield f"{kind} {found}"
