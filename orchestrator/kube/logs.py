"""What a sweep's driver prints, and what keeps its pods from running."""

import time
from collections.abc import Iterator

from methods.errors import KubernetesError, ServerAway
from orchestrator.kube.api import PODS, Api, Json, Refused
from orchestrator.kube.pods import LOG_CONTAINER
from orchestrator.kube.sweeps import Sweep, find

PAUSE = 2.0
"""Seconds between two looks for a pod that is not there yet."""
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


def driver_log(api: Api, namespace: str, name: str, *, follow: bool) -> Iterator[str]:
    """The driver's lines so far; with `follow` until the sweep ends, through broken streams.

    Raises:
        KubernetesError: there is no pod that has them, and there will be none.
    """
    printed, pod = 0, ""
    while True:
        sweep = find(api, namespace, name)
        head = _head(api, namespace, sweep.cluster)
        if head and head != pod:
            printed, pod = 0, head  # a head that was evicted: its successor has a log of its own
        try:
            query = {"follow": "true"} if follow else {}
            for number, line in enumerate(_lines(api, namespace, head, **query), start=1):
                if number > printed:
                    printed = number
                    yield line
        except ServerAway:
            if not follow:
                raise
        except Refused as refusal:
            if refusal.status not in (400, 404):  # its container is not up yet, or no more
                raise
        if not follow or sweep.ended or sweep.deleting:
            if not printed and not pod:
                raise _no_log(sweep, namespace)
            return
        time.sleep(PAUSE)


def details(api: Api, namespace: str, sweep: Sweep) -> list[str]:
    """What else there is to say of a sweep that runs: pods in trouble, else the last log line.

    Nothing where the server does not say it: the sweep's state matters more.
    """
    if sweep.ended or sweep.deleting or not sweep.cluster:
        return []
    try:
        pods = api.items(PODS, namespace, labels=f"ray.io/cluster={sweep.cluster}")
        troubles = [line for pod in pods for line in _troubles(pod)]
        if troubles or sweep.job != "RUNNING":
            return troubles[:5]
        return list(_lines(api, namespace, _head(api, namespace, sweep.cluster), tailLines="1"))
    except KubernetesError:
        return []


def _troubles(pod: Json) -> Iterator[str]:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            yield f"{name}: {condition.get('reason')}: {condition.get('message')}"
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind) or []:
            waiting = container.get("state", {}).get("waiting") or {}
            if waiting.get("reason") in TROUBLES:
                yield f"{name}: {waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")


def _lines(api: Api, namespace: str, pod: str, **query: str) -> Iterator[str]:
    if pod:
        yield from api.log(namespace, pod, {"container": LOG_CONTAINER, **query})


def _head(api: Api, namespace: str, cluster: str) -> str:
    """The name of a cluster's head pod, empty where there is none."""
    if not cluster:
        return ""
    labels = f"ray.io/cluster={cluster},ray.io/node-type=head"
    pods = api.items(PODS, namespace, labels=labels)
    return str(pods[-1]["metadata"]["name"]) if pods else ""


def _no_log(sweep: Sweep, namespace: str) -> KubernetesError:
    if sweep.ended:
        why = "" if sweep.succeeded else f": {sweep.why}"
        return KubernetesError(
            f"a driver's log goes with its pods, and {sweep.name} has none any more ({sweep.line}"
            f"{why}); what was measured stands in MLflow: `isoflop board`"
        )
    return KubernetesError(
        f"{sweep.name} has no log yet ({sweep.line}); `isoflop logs {sweep.name} --namespace "
        f"{namespace} --follow` waits for it"
    )
