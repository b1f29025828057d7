"""What must hold of a pod after a template: isoflop's own parts stay, and what is added fits."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from posixpath import normpath
from typing import Any

from methods.errors import KubernetesError, nearest
from methods.values import shown
from orchestrator.kube.template.fields import RAY, SCRATCH
from orchestrator.kube.template.merge import KEYS, identity
from orchestrator.kube.template.quantities import amount
from orchestrator.kube.template.schema import lacking

Manifest = dict[str, Any]
Path = tuple[str, ...]

LEAST_STORE = 75 << 20
"""Bytes of the smallest object store with which Ray 2.60 starts."""
FREE: tuple[Path, ...] = (
    ("metadata", "annotations", "*"),
    ("spec", "serviceAccountName"),
    ("spec", "enableServiceLinks"),
    ("spec", "securityContext"),
    ("spec", "automountServiceAccountToken"),
    ("spec", "containers", "*", "securityContext"),
    *(("spec", "containers", name, "resources") for name in ("driver-log", "kept-logs")),
    ("spec", "volumes", "shm", "emptyDir", "sizeLimit"),
    *(("spec", "volumes", name, way) for name in SCRATCH for way in ("emptyDir", "ephemeral")),
    *(
        ("spec", "containers", "*", "env", name, "value")
        for name in ("HOME", "HF_HOME", "MPLCONFIGDIR", "PYTHONUNBUFFERED")
    ),
    ("spec", "containers", "*", "env", "RAY_USAGE_STATS_ENABLED", "value"),
)
"""What a template may change of what isoflop renders; names of entries stand for their place."""
WHOLE = ("env", "ports", "volumeMounts", "volumes", "imagePullSecrets")
"""Lists whose entries get no further fields."""
CONTAINERS = ("initContainers", "containers")
PLACES = {"volumeMounts": "mountPath", "volumeDevices": "devicePath"}
"""What a container has in its file system, and the field that says where."""
OPEN = PurePosixPath("/tmp")
"""The one mount in whose folders a template may mount more."""
WHY: Mapping[Path, str] = {
    ("spec", "affinity"): "the head, where the driver runs, stays off spot nodes",
    ("spec", "imagePullSecrets"): "the cluster file's `pull_secret` says it",
    ("spec", "automountServiceAccountToken"): "KubeRay's autoscaler needs the token",
}


def check_merged(base: Manifest, merged: Manifest, pod: str, *, token: bool = False) -> None:
    """Refuse a pod that lost something of isoflop's, or that no Kubernetes would start.

    `pod` says which it is; `token` is whether it needs that of its service account.

    Raises:
        KubernetesError: one thing about it must be otherwise.
    """
    for path, before, after in _changes(base, merged, ()):
        free = not (token and path == ("spec", "automountServiceAccountToken"))
        if free and _is_free(path):
            continue
        becomes = "it takes it away" if after is None else f"it makes it {shown(after)}"
        reason = WHY.get(path[:2], "isoflop needs it so")
        raise KubernetesError(
            f"pod_template must leave {_named(path)} of {pod} as it is ({shown(before)}), because "
            f"{reason}, but {becomes}; leave that out of it"
        )
    for flaw in (*_flaws(merged["spec"]), *_covering(base["spec"], merged["spec"])):
        raise KubernetesError(f"pod_template, merged into {pod}: {flaw}")


def check_store(pod: Manifest, store: int, name: str, memory: str) -> None:
    """Refuse an object store that does not fit /dev/shm, or a /dev/shm that fills the memory.

    Raises:
        KubernetesError: one of them is too large or too small.
    """
    (volume,) = (each for each in pod["volumes"] if each["name"] == "shm")
    size = volume["emptyDir"].get("sizeLimit")
    shared = amount(size or memory)
    if store < LEAST_STORE:
        raise KubernetesError(
            f"`object_store` must be at least {LEAST_STORE >> 20}Mi, with which Ray starts, but is "
            f"{store >> 20}Mi in {name}; let it be larger"
        )
    if shared < store:
        raise KubernetesError(
            f"Ray's object store lies in /dev/shm, which must hold its {store / 2**30:.3g} GiB, "
            f"but has {size} in {name}; give the volume shm more, or let `object_store` be smaller"
        )
    if shared >= amount(memory):
        raise KubernetesError(
            f"/dev/shm counts as memory, so it must be smaller than `memory: {memory}` of {name}, "
            f"but has {size or 'no limit'}; give the pod more `memory`, or let /dev/shm be smaller"
        )


def _changes(before: Any, after: Any, path: Path) -> Iterator[tuple[Path, Any, Any]]:
    """What differs of `before`, and what is added to an entry that must stay whole."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        added = {name: after[name] for name in after if name not in before}
        if len(path) > 1 and path[-2] in WHOLE:
            yield from (((*path, name), None, part) for name, part in added.items())
        for name, part in before.items():
            yield from _changes(part, after.get(name), (*path, name))
    elif path and path[-1] in KEYS and isinstance(before, list) and isinstance(after, list):
        entries = {identity(path[-1], entry): entry for entry in after}
        for entry in before:
            same = entries.get(identity(path[-1], entry))
            yield from _changes(entry, same, (*path, str(entry[KEYS[path[-1]]])))
    elif before != after:
        yield path, before, after


def _is_free(path: Path) -> bool:
    return any(
        len(path) >= len(free) and all(map(fnmatchcase, path[: len(free)], free)) for free in FREE
    )


def _flaws(spec: Manifest) -> Iterator[str]:
    """Why Kubernetes would refuse the pod, beyond the kinds of fields."""
    yield from lacking(spec)
    volumes = {each["name"]: each for each in spec.get("volumes") or []}
    for name, volume in volumes.items():
        if len(sources := sorted(set(volume) - {"name"})) != 1:
            yield (
                f"volume {name!r} must have one source, but has "
                f"{' and '.join(sources) or 'none'}; a source is taken away by `null`"
            )
        if not _is_amount(limit := (volume.get("emptyDir") or {}).get("sizeLimit", "1")):
            yield f"volume {name!r} must have a sizeLimit such as 6Gi, but has {limit!r}"
    names: set[str] = set()
    for kind in CONTAINERS:
        for container in spec.get(kind) or []:
            if container["name"] in names:
                yield f"the name {container['name']!r} must be that of one container, but is of two"
            names.add(container["name"])
            yield from (
                f"container {container['name']!r} {flaw}" for flaw in _of(container, volumes)
            )


def _covering(base: Manifest, merged: Manifest) -> Iterator[str]:
    """Mounts that are added over those of isoflop's containers, or into them."""
    containers = {each["name"]: each for kind in CONTAINERS for each in merged.get(kind) or []}
    for before in (each for kind in CONTAINERS for each in base.get(kind) or []):
        name = before["name"]
        own = [each["mountPath"] for each in before["volumeMounts"]]
        for kind, field in PLACES.items():
            for each in containers[name].get(kind) or []:
                if each[field] in own and kind == "volumeMounts":
                    continue
                covered = [path for path in own if _overlaps(each[field], PurePosixPath(path))]
                if covered:
                    yield (
                        f"container {name!r} must have nothing over or within {covered[0]}, which "
                        f"isoflop mounts, but has {each['name']!r} at {each[field]}; choose "
                        "another path, as below /tmp"
                    )


def _overlaps(place: str, own: PurePosixPath) -> bool:
    """Whether a path hides a mount, or lies where only isoflop writes."""
    path = PurePosixPath(normpath("/" + place.lstrip("/")))
    return own.is_relative_to(path) or (path.is_relative_to(own) and own != OPEN)


def _of(container: Manifest, volumes: Mapping[str, Manifest]) -> Iterator[str]:
    if not container.get("image"):
        yield (
            "must have an image, but has none; isoflop's own containers are "
            f"`{RAY}` in every pod, `driver-log` in the head and `kept-logs` in workers"
        )
    for mount in container.get("volumeMounts") or []:
        if mount["name"] not in volumes:
            yield (
                f"mounts {mount['name']!r} at {mount['mountPath']}, which must be a volume of the "
                f"pod; {nearest(mount['name'], list(volumes))}"
            )
    for variable in container.get("env") or []:
        if "value" in variable and "valueFrom" in variable:
            yield f"must have `value` or `valueFrom` for {variable['name']}, but has both"
    resources = container.get("resources") or {}
    limits = resources.get("limits") or {}
    for kind in ("limits", "requests"):
        for name, quantity in (resources.get(kind) or {}).items():
            if not _is_amount(quantity):
                yield f"must have a quantity such as 500m or 6Gi as {name}, but has {quantity!r}"
            elif kind == "requests" and name in limits and amount(quantity) > amount(limits[name]):
                yield (
                    f"must request no more {name} than its limit {limits[name]}, but requests "
                    f"{quantity}"
                )


def _is_amount(text: str) -> bool:
    try:
        amount(text)
    except ValueError:
        return False
    return True


def _named(path: Path) -> str:
    return ".".join(path)
