"""Kubernetes' strategic merge, as far as a pod goes.

No well-kept library on PyPI has it; the official client does not. The rules are those of
`kubectl patch` (Kubernetes, "Update API Objects in Place Using kubectl patch").
"""

from collections import Counter
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
SECOND: Mapping[str, tuple[str, str | None]] = {
    "ports": ("protocol", "TCP"),
    "topologySpreadConstraints": ("whenUnsatisfiable", None),
}
"""List whose entries Kubernetes tells apart by two fields -> the second, and its default."""


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
            merged[name] = _merged(merged.get(name) or [], part, name)
        else:
            merged[name] = part
    return merged


def identity(name: str, entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """What no two entries of a list may share: its key, and the second where it has one."""
    second, default = SECOND.get(name, (None, None))
    return (entry[KEYS[name]], *([entry.get(second) or default] if second else []))


def _merged(base: Sequence[Any], patch: Sequence[Any], name: str) -> list[Any]:
    """A list whose entries have a key: known ones are merged in place, others are appended.

    kubectl goes by the first key alone, so of 53/TCP and 53/UDP it leaves one. Here that key does
    where the list and the patch each have one entry of it; otherwise the second key decides, too,
    as in a server-side apply. Deletions come first; without the second key they take all.
    """
    key, (second, _) = KEYS[name], SECOND.get(name, (None, None))
    entries = [entry for entry in patch if key in entry]
    counts = [Counter(entry[key] for entry in part) for part in (base, entries)]

    def place(entry: Mapping[str, Any]) -> tuple[Any, ...]:
        shared = any(count[entry[key]] > 1 for count in counts)
        return identity(name, entry) if shared else (entry[key],)

    replaced = any(set(entry) == {PATCH} and _directive(entry) == "replace" for entry in patch)
    merged = {} if replaced else {place(entry): entry for entry in base}
    for entry in sorted(entries, key=lambda each: _directive(each) != "delete"):
        if _directive(entry) != "delete":
            merged[place(entry)] = merge(merged.get(place(entry), {}), entry)
        elif second in entry:
            merged.pop(place(entry), None)
        else:
            merged = {at: each for at, each in merged.items() if at[0] != entry[key]}
    return list(merged.values())


def _directive(part: object) -> object:
    return part.get(PATCH) if isinstance(part, Mapping) else None
