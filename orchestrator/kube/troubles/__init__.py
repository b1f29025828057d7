"""What keeps a sweep from running, as Kubernetes, KubeRay and Kueue say it."""

import datetime
from collections.abc import Iterator

from methods.errors import KubernetesError
from orchestrator.kube.api import (
    EVENTS,
    PODS,
    RAY_CLUSTERS,
    WORKLOADS,
    Api,
    Json,
    Refused,
)
from orchestrator.kube.names import QUEUE_LABEL
from orchestrator.kube.sweeps import Sweep

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
LONGEST = 400
"""Characters of a message at most."""


def troubles(api: Api, namespace: str, sweep: Sweep) -> list[str]:
    """One line for each trouble, the most telling first; of what the user may not read, none.

    The reason for which Kueue lets a sweep wait, pods that KubeRay could not create (a quota, a
    refusal by admission), pods that do not start, and warnings about any of them.
    """
    lines: list[str] = []
    try:
        pods = _pods(api, namespace, sweep)
        for source in (_waits_in_queue, _not_created):
            lines += _unless_refused(source(api, namespace, sweep))
        lines += [line for pod in pods for line in _does_not_start(pod)]
        if sweep.job != "RUNNING" or sweep.ready < sweep.wanted:
            lines += _unless_refused(_warnings(api, namespace, sweep, pods))
    except KubernetesError:  # the server is away: the sweep's state matters more
        pass
    return list(dict.fromkeys(lines))


def _unless_refused(lines: Iterator[str]) -> list[str]:
    try:
        return list(lines)
    except Refused:
        return []


def _pods(api: Api, namespace: str, sweep: Sweep) -> list[Json]:
    if not sweep.cluster:
        return []
    try:
        return api.items(PODS, namespace, labels=f"ray.io/cluster={sweep.cluster}")
    except Refused:
        return []


def _waits_in_queue(api: Api, namespace: str, sweep: Sweep) -> Iterator[str]:
    """Why Kueue has not admitted a sweep, or has evicted it."""
    queue = sweep.labels.get(QUEUE_LABEL)
    if not queue or sweep.ended:
        return
    for resource in WORKLOADS:
        try:
            workloads = api.items(resource, namespace, labels=f"kueue.x-k8s.io/job-uid={sweep.uid}")
        except Refused as refusal:
            if refusal.status != 404:
                raise
            continue
        for workload in workloads:
            conditions = {each["type"]: each for each in _conditions(workload)}
            if conditions.get("Admitted", {}).get("status") == "True":
                continue
            for kind, status in (("Evicted", "True"), ("QuotaReserved", "False")):
                condition = conditions.get(kind, {})
                if condition.get("status") == status:
                    yield _line(f"queue {queue}", condition)
        if workloads:
            return


def _not_created(api: Api, namespace: str, sweep: Sweep) -> Iterator[str]:
    """Pods that KubeRay could not create, and why."""
    cluster = api.find(RAY_CLUSTERS, namespace, sweep.cluster) if sweep.cluster else None
    for condition in _conditions(cluster or {}):
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            yield _line(sweep.cluster, condition)


def _does_not_start(pod: Json) -> Iterator[str]:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for condition in _conditions(pod):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            yield _line(name, condition)
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind) or []:
            waiting = container.get("state", {}).get("waiting") or {}
            if waiting.get("reason") in STUCK:
                yield _line(name, waiting)


def _warnings(api: Api, namespace: str, sweep: Sweep, pods: list[Json]) -> Iterator[str]:
    """Warnings about a sweep's objects, the newest first; not about pods that are ready by now."""
    ready = {pod["metadata"]["name"] for pod in pods if _is_ready(pod)}
    names = {pod["metadata"]["name"] for pod in pods} | {sweep.name, sweep.cluster}
    events = api.items(EVENTS, namespace, fields="type=Warning")
    latest: dict[tuple[str, str], Json] = {}
    for event in sorted(events, key=_time):
        name = str((event.get("involvedObject") or {}).get("name", ""))
        if name not in ready and (name in names or name.startswith(f"{sweep.name}-")):
            latest[name, str(event.get("reason"))] = event
    for (name, _), event in sorted(latest.items(), key=lambda item: _time(item[1]), reverse=True):
        yield f"{_line(name, event)}{_ago(_time(event))}"


def _is_ready(pod: Json) -> bool:
    return any(
        each.get("type") == "Ready" and each.get("status") == "True" for each in _conditions(pod)
    )


def _conditions(body: Json) -> list[Json]:
    return (body.get("status") or {}).get("conditions") or []


def _line(name: str, cause: Json) -> str:
    message = " ".join(str(cause.get("message") or "").split())[:LONGEST]
    return f"{name}: {cause.get('reason') or 'no reason given'}: {message}".rstrip(": ")


def _time(event: Json) -> str:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return next((str(time) for time in times if time), "")


def _ago(time: str) -> str:
    try:
        age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(time)
    except (ValueError, TypeError):
        return ""
    minutes = int(age.total_seconds() // 60)
    return f" ({minutes} min ago)" if minutes > 0 else ""
