"""Why Kueue has not admitted a sweep, or has evicted it."""

from collections.abc import Iterator

from orchestrator.kube.api import QUEUES, WORKLOADS, Api, Json, Refused
from orchestrator.kube.names import QUEUE_LABEL
from orchestrator.kube.sweeps import Sweep
from orchestrator.kube.troubles.lines import conditions, line, minutes_since


def waits_in_queue(api: Api, namespace: str, sweep: Sweep) -> Iterator[str]:
    """The reason in its Workload; or the queue's, or that there is no Workload."""
    queue = sweep.labels.get(QUEUE_LABEL)
    if not queue or sweep.ended:
        return
    name, workloads = f"queue {queue}", _workloads(api, namespace, sweep)
    waiting = [each for each in workloads if not _admitted(each)]
    for workload in waiting:
        yield from _reasons(name, workload)
    if waiting or not workloads:
        yield from _inactive(api, namespace, queue)
    if not workloads and not sweep.job and (minutes := minutes_since(sweep.created)):
        yield (
            f"{name}: Kueue has not taken the sweep for {minutes} min; does it run, with "
            "ray.io/rayjob among its integrations?"
        )


def _workloads(api: Api, namespace: str, sweep: Sweep) -> list[Json]:
    for resource in WORKLOADS:
        try:
            workloads = api.items(resource, namespace, labels=f"kueue.x-k8s.io/job-uid={sweep.uid}")
        except Refused as refusal:
            if refusal.status != 404:
                raise
            continue
        if workloads:
            return workloads
    return []


def _admitted(workload: Json) -> bool:
    kinds = {each["type"]: each.get("status") for each in conditions(workload)}
    return kinds.get("Admitted") == "True"


def _reasons(name: str, workload: Json) -> Iterator[str]:
    kinds = {each["type"]: each for each in conditions(workload)}
    for kind, status in (("Evicted", "True"), ("QuotaReserved", "False")):
        condition = kinds.get(kind, {})
        if condition.get("status") == status:
            yield line(name, condition)
    for check in (workload.get("status") or {}).get("admissionChecks") or []:
        if check.get("state") != "Ready":
            cause = {"reason": check.get("state"), "message": check.get("message")}
            yield line(f"{name}: admission check {check.get('name')}", cause)
    if (workload.get("spec") or {}).get("active") is False:
        yield f"{name}: its Workload is deactivated; `isoflop cancel` and submit it again"


def _inactive(api: Api, namespace: str, queue: str) -> Iterator[str]:
    """Why a queue admits nothing at all."""
    for resource in QUEUES:
        found = api.find(resource, namespace, queue)
        if found is None:
            continue
        for condition in conditions(found):
            if condition.get("type") == "Active" and condition.get("status") == "False":
                yield line(f"queue {queue}", condition)
        return
    yield f"queue {queue}: there is no such LocalQueue in namespace {namespace}"
