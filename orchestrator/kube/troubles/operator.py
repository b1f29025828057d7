"""What KubeRay has not done for a sweep, or has tried in vain."""

from collections.abc import Iterator

from orchestrator.kube.api import RAY_CLUSTERS, Api, Json
from orchestrator.kube.sweeps import Sweep
from orchestrator.kube.troubles.lines import conditions, line, minutes_since
from orchestrator.kube.troubles.pods import is_ready


def not_taken(sweep: Sweep) -> Iterator[str]:
    """Nobody has written a RayJob's status."""
    if not sweep.deployment and (minutes := minutes_since(sweep.created)):
        yield (
            f"KubeRay has not taken the sweep for {minutes} min; does its operator run, and watch "
            "this namespace? `kubectl get pods -A -l app.kubernetes.io/name=kuberay-operator`"
        )


def not_created(api: Api, namespace: str, sweep: Sweep) -> Iterator[str]:
    """Pods that KubeRay could not create, and why."""
    cluster = api.find(RAY_CLUSTERS, namespace, sweep.cluster) if sweep.cluster else None
    for condition in conditions(cluster or {}):
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            yield line(sweep.cluster, condition)
    status = (cluster or {}).get("status") or {}
    if status.get("reason") and status.get("state") == "failed":
        yield line(sweep.cluster, {"reason": "failed", "message": status["reason"]})


def not_begun(sweep: Sweep, pods: list[Json]) -> Iterator[str]:
    """All pods are there, and the driver is not."""
    if sweep.ended or sweep.deployment not in ("Initializing", "Running"):
        return
    if sweep.job == "PENDING":
        message = sweep.message or "its driver has not begun"
        yield line(sweep.name, {"reason": "PENDING", "message": message})
    since = [minutes_since(_ready_since(pod)) if is_ready(pod) else 0 for pod in pods]
    if not sweep.job and len(pods) > sweep.wanted and (minutes := min(since)):
        yield (
            f"all pods have been ready for {minutes} min, but KubeRay has submitted no driver: a "
            "NetworkPolicy or a service mesh may keep its operator from port 8265 of the head"
        )


def attempts(sweep: Sweep) -> Iterator[str]:
    """How far the attempts of a sweep are that has not begun, or has failed before."""
    if sweep.ended:
        return
    if sweep.deployment == "Retrying":
        yield f"the last attempt failed: {sweep.why}"
    elif sweep.failed:
        yield f"attempts that failed before: {sweep.failed}"
    if sweep.deployment == "Initializing" and sweep.patience:
        minutes = minutes_since(sweep.started)
        if minutes:
            yield (
                f"its pods have {sweep.patience // 60} min to start (`start_minutes`), of which "
                f"{minutes} have passed"
            )


def _ready_since(pod: Json) -> str:
    times = [each.get("lastTransitionTime") for each in conditions(pod) if each["type"] == "Ready"]
    return str(times[0]) if times else ""
