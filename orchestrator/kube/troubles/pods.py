"""Why pods do not start, or do not stay."""

from collections.abc import Iterable, Iterator

from orchestrator.kube.api import CLAIMS, Api, Json
from orchestrator.kube.troubles.lines import conditions, holds, line, minutes_since

STUCK = (
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
)
"""Why a container waits, where it will not stop waiting by itself."""
PATIENCE = 2
"""Minutes for which an init container may run before that is told."""
UNWELL = (("PodScheduled", "False"), ("DisruptionTarget", "True"))
"""Conditions that tell why a pod does not run, or will not any more."""


def does_not_start(pod: Json) -> Iterator[str]:
    """What a pod's own status says: no node, no image, a loop of crashes, an eviction."""
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    if status.get("reason"):  # Evicted, NodeLost, OutOfcpu, UnexpectedAdmissionError
        yield line(name, status)
    for condition in conditions(pod):
        if (condition.get("type"), condition.get("status")) in UNWELL:
            yield line(name, condition)
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind) or []:
            yield from _container(name, container, init=kind.startswith("init"))


def is_ready(pod: Json) -> bool:
    """Whether a pod serves."""
    return holds(pod, "Ready")


def claims_of(pods: Iterable[Json]) -> set[str]:
    """The PersistentVolumeClaims that pods mount."""
    volumes = [each for pod in pods for each in (pod.get("spec") or {}).get("volumes") or []]
    sources = [volume.get("persistentVolumeClaim") or {} for volume in volumes]
    return {str(source["claimName"]) for source in sources if "claimName" in source}


def without_volume(api: Api, namespace: str, claims: Iterable[str]) -> Iterator[str]:
    """Claims that no volume is bound to."""
    for name in sorted(claims):
        claim = api.find(CLAIMS, namespace, name)
        if claim is None:
            yield f"PersistentVolumeClaim {name}: does not exist in namespace {namespace}"
            continue
        phase = (claim.get("status") or {}).get("phase")
        if phase in ("Pending", "Lost"):
            storage = (claim.get("spec") or {}).get("storageClassName") or "the default"
            yield f"PersistentVolumeClaim {name}: {phase}: it has no volume of class {storage}"


def _container(pod: str, container: Json, *, init: bool) -> Iterator[str]:
    name, state = container.get("name") or "container", container.get("state") or {}
    waiting, running = state.get("waiting") or {}, state.get("running") or {}
    before = _death(name, (container.get("lastState") or {}).get("terminated") or {})
    times = int(container.get("restartCount") or 0)
    if waiting.get("reason") in STUCK:
        yield f"{line(pod, waiting)}{f' ({before})' if before else ''}"
    elif death := _death(name, state.get("terminated") or {}):
        yield f"{pod}: {death}"
    elif before and not container.get("ready"):
        yield f"{pod}: {before}, and was started again, {times} times so far"
    minutes = minutes_since(str(running.get("startedAt")))
    if init and minutes >= PATIENCE:
        waits = "waits for the head" if name == "wait-gcs-ready" else "runs"
        yield f"{pod}: its init container {name} {waits} for {minutes} min"


def _death(name: str, terminated: Json) -> str:
    """How a container ended; '' where it has not, or well."""
    code = terminated.get("exitCode")
    if not code:
        return ""
    cause = {"reason": terminated.get("reason"), "message": terminated.get("message")}
    return line(name, cause) + f", exit code {code}"
