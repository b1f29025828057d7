"""Kubernetes' strategic merge, as far as a pod goes.

No well-kept library on PyPI has it; the official client does not. The rules are those of
`kubectl patch` (Kubernetes, "Update API Objects in Place Using kubectl patch").
"""

from collections.abc import Mapping, Sequence
from typing import Any

Manifest = dict[str, Any]

PATCH = "$patch"
DIRECTIVES = ("merge", "replace", "delete")
"""What `$patch` may say in a map, or in an entry of a list that has a key."""
KEYS: Mapping[str, str] = {
    "containers": "name",
    "env": "name",
    "ephemeralContainers": "name",
    "evictionResponders": "name",
    "hostAliases": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ownerReferences": "uid",
    "ports": "containerPort",
    "resourceClaims": "name",
    "schedulingGates": "name",
    "topologySpreadConstraints": "topologyKey",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
"""List in a pod's specification -> the field by which its entries are merged: all that bear
`x-kubernetes-patch-merge-key` in Kubernetes 1.37's OpenAPI. Any other list is replaced."""


def merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> Manifest:
    """A map with a patch merged in; neither is changed. `null` deletes a field."""
    merged: Manifest = {} if patch.get(PATCH) == "replace" else dict(base)
    for name, part in patch.items():
        if name == PATCH:
            continue
        if part is None or _directive(part) == "delete":
            merged.pop(name, None)
        elif isinstance(part, Mapping):
            before = merged.get(name)
            merged[name] = merge(before if isinstance(before, Mapping) else {}, part)
        elif name in KEYS and isinstance(part, list):
            merged[name] = _merged(merged.get(name) or [], part, KEYS[name])
        else:
            merged[name] = part
    return merged


def _merged(base: Sequence[Any], patch: Sequence[Any], key: str) -> list[Any]:
    """A list whose entries have a key: known ones are merged in place, others are appended."""
    replaced = any(set(entry) == {PATCH} and _directive(entry) == "replace" for entry in patch)
    merged = {} if replaced else {entry[key]: entry for entry in base}
    for entry in patch:
        if key not in entry:
            continue
        if _directive(entry) == "delete":
            merged.pop(entry[key], None)
        else:
            merged[entry[key]] = merge(merged.get(entry[key], {}), entry)
    return list(merged.values())


def _directive(part: object) -> object:
    return part.get(PATCH) if isinstance(part, Mapping) else None
