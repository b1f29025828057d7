"""Where a sweep on Kubernetes stands, and how it ends, whatever becomes of the watch."""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from methods.errors import KubernetesError, ServerAway, SweepFailed
from orchestrator.kube.api import JOBS, PODS, Api, Json, Refused

logger = logging.getLogger(__name__)

WATCH = 20.0
"""Seconds of one watch."""
PAUSE = 0.5
"""Seconds before a server that is away is asked again; they double, up to 15."""
MEANING = {
    "": "accepted; KubeRay has not begun",
    "Initializing": "pods are starting",
    "Waiting": "waiting to be submitted",
    "Running": "running",
    "Retrying": "failed once, starts again on a fresh cluster",
    "Suspending": "giving its pods back",
    "Suspended": "queued",
    "Complete": "complete",
    "Failed": "failed",
    "ValidationFailed": "refused by KubeRay",
}
"""KubeRay's deployment states, for people."""
TROUBLES = (
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


@dataclass(frozen=True)
class Seen:
    """One look at a RayJob."""

    name: str
    uid: str
    deployment: str
    """KubeRay's state of the whole; one of `MEANING`."""
    job: str
    """Ray's state of the driver: PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED, or nothing yet."""
    reason: str
    message: str
    cluster: str
    """The RayCluster's name, where there is one."""
    ready: int
    """Worker pods that are ready."""
    wanted: int
    """Worker pods that are to be."""
    created: str
    labels: Mapping[str, str]
    deleting: bool

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.job == "STOPPED" or self.deployment in (
            "Complete",
            "Failed",
            "ValidationFailed",
        )

    @property
    def succeeded(self) -> bool:
        """Whether it ended, and well."""
        return self.deployment == "Complete" and self.job == "SUCCEEDED"

    @property
    def line(self) -> str:
        """The state in a few words."""
        if self.deleting:
            return "being cancelled"
        words = MEANING.get(self.deployment, self.deployment)
        if self.job == "STOPPED":
            words = "stopped"
        elif self.deployment == "Complete" and self.job != "SUCCEEDED":
            words = f"over, but its driver {self.job or 'was never seen'}"
        if not self.ended and self.wanted:
            words += f", {self.ready} of {self.wanted} workers ready"
        return words

    @property
    def why(self) -> str:
        """Reason and message of a bad end in a line; the driver's own last word if it had one."""
        lines = [line.strip() for line in self.message.splitlines() if line.strip()]
        told = [line for line in lines if line.startswith("isoflop: ")] or lines[-1:]
        parts = [self.reason, *(line.removeprefix("isoflop: ") for line in told[-1:])]
        return ": ".join(part for part in parts if part) or "KubeRay gives no reason"


def seen(job: Json) -> Seen:
    """What a RayJob's object tells."""
    metadata, status = job.get("metadata", {}), job.get("status") or {}
    workers = status.get("rayClusterStatus") or {}
    return Seen(
        name=str(metadata.get("name", "")),
        uid=str(metadata.get("uid", "")),
        deployment=str(status.get("jobDeploymentStatus") or ""),
        job=str(status.get("jobStatus") or ""),
        reason=str(status.get("reason") or ""),
        message=str(status.get("message") or ""),
        cluster=str(status.get("rayClusterName") or ""),
        ready=int(workers.get("readyWorkerReplicas") or 0),
        wanted=int(workers.get("desiredWorkerReplicas") or 0),
        created=str(metadata.get("creationTimestamp", "")),
        labels=dict(metadata.get("labels") or {}),
        deleting="deletionTimestamp" in metadata,
    )


def follow(
    api: Api, namespace: str, name: str, *, uid: str | None = None, timeout: float | None = None
) -> Iterator[Seen | ServerAway]:
    """Every state of a RayJob from now on, the last one its end; and word of a server that is away.

    A watch that drops, expires (410) or is refused with 5xx is begun again with a fresh list; a
    server that is away is asked again, less and less often, until it is back. A silent watch yields
    its last state again, every `WATCH` seconds.

    Raises:
        SweepFailed: it was deleted, or replaced by another.
        TimeoutError: `timeout` seconds went by.
        KubernetesError: the server refuses.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    path, field = JOBS.format(namespace), f"metadata.name={name}"
    version: str | None = None
    last: Seen | None = None
    pause = PAUSE
    while True:
        left = _left(deadline)
        try:
            if version is None:
                found = api.list_now(path, left, fieldSelector=field)
                version = str(found["metadata"]["resourceVersion"])
                last = _same(found["items"], name, uid)
                uid = last.uid
                yield last
                if last.ended:
                    return
            began = time.monotonic()
            for event in api.watch(path, version, min(WATCH, left), fieldSelector=field):
                version = str(event["object"]["metadata"]["resourceVersion"])
                if event["type"] == "BOOKMARK":
                    continue
                items = [] if event["type"] == "DELETED" else [event["object"]]
                last = _same(items, name, uid)
                yield last
                if last.ended:
                    return
                pause = PAUSE
                _left(deadline)
            if last is not None:
                yield last
            if time.monotonic() - began < PAUSE:  # dropped at once: do not storm the server
                time.sleep(min(PAUSE, _left(deadline)))
        except ServerAway as away:
            version = None
            yield away
            time.sleep(min(pause, _left(deadline)))
            pause = min(2 * pause, 15.0)
        except Refused as refusal:
            if refusal.status != 410:
                raise
            version = None  # it expired: list again


def failure(last: Seen) -> SweepFailed:
    """The error of a sweep that ended, and not well."""
    state = last.job if last.job == "STOPPED" else (last.deployment or last.job)
    return SweepFailed(f"{last.name} ended as {state}: {last.why}")


def troubles(api: Api, namespace: str, cluster: str) -> list[str]:
    """What keeps a cluster's pods from running, a line each; nothing where it may not be asked."""
    if not cluster:
        return []
    try:
        pods = api.get(PODS.format(namespace), labelSelector=f"ray.io/cluster={cluster}")
    except KubernetesError:
        return []
    return [line for pod in pods.get("items", []) for line in _trouble(pod)]


def _trouble(pod: Json) -> Iterator[str]:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            yield f"{name}: {condition.get('reason')}: {condition.get('message')}"
    kinds = ("initContainerStatuses", "containerStatuses")
    for container in (each for kind in kinds for each in status.get(kind) or []):
        waiting: dict[str, Any] = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in TROUBLES:
            yield f"{name}: {waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")


def _same(items: list[Json], name: str, uid: str | None) -> Seen:
    """The job among what was found.

    Raises:
        SweepFailed: it is not there, or is another one of the same name.
    """
    if not items:
        raise SweepFailed(
            f"{name} was deleted; what it had done is kept: the same submit goes on from there"
        )
    found = seen(items[0])
    if uid is not None and found.uid != uid:
        raise SweepFailed(f"{name} was deleted, and another of the same name was submitted since")
    return found


def _left(deadline: float | None) -> float:
    """Seconds until the deadline.

    Raises:
        TimeoutError: there are none.
    """
    if deadline is None:
        return float("inf")
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
