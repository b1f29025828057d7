"""What a sweep's driver tells, from the log of a pod's container that repeats it."""

import time
from collections.abc import Iterator

from methods.errors import KubernetesError, ServerAway
from orchestrator.kube.api import PODS, Api, Refused
from orchestrator.kube.follow import Seen
from orchestrator.kube.pods import LOG_CONTAINER
from orchestrator.kube.submit import find

PAUSE = 2.0
"""Seconds between two looks for a pod that is not there yet."""


def driver_log(api: Api, namespace: str, name: str, *, follow: bool) -> Iterator[str]:
    """The driver's lines so far; with `follow` until the sweep ends, through broken streams.

    Raises:
        KubernetesError: there is no pod that has them, and there will be none.
    """
    told, pod = 0, ""
    while True:
        job = find(api, namespace, name)
        current = _head(api, namespace, job.cluster)
        if current and current != pod:
            told, pod = 0, current  # a head that was evicted: its successor has a log of its own
        try:
            skip = told
            for line in _lines(api, namespace, current, follow=follow) if current else ():
                if skip:
                    skip -= 1
                    continue
                told += 1
                yield line
        except ServerAway:
            if not follow:
                raise
        except Refused as refusal:
            if refusal.status not in (400, 404):  # its container is not up yet, or no more
                raise
        if not follow or job.ended or job.deleting:
            if not told and not pod:
                raise _nothing(job)
            return
        time.sleep(PAUSE)


def last_line(api: Api, namespace: str, cluster: str) -> str:
    """The driver's last line; empty where there is none to be had."""
    try:
        pod = _head(api, namespace, cluster)
        found = list(_lines(api, namespace, pod, follow=False, tail=1)) if pod else []
    except KubernetesError:
        return ""
    return found[-1] if found else ""


def _lines(
    api: Api, namespace: str, pod: str, *, follow: bool, tail: int | None = None
) -> Iterator[str]:
    query = {"container": LOG_CONTAINER}
    if follow:
        query["follow"] = "true"
    if tail is not None:
        query["tailLines"] = str(tail)
    return api.lines(f"{PODS.format(namespace)}/{pod}/log", query)


def _head(api: Api, namespace: str, cluster: str) -> str:
    """The name of a cluster's head pod, empty where there is none."""
    if not cluster:
        return ""
    words = f"ray.io/cluster={cluster},ray.io/node-type=head"
    pods = api.get(PODS.format(namespace), labelSelector=words)["items"]
    return str(pods[-1]["metadata"]["name"]) if pods else ""


def _nothing(job: Seen) -> KubernetesError:
    if job.ended:
        why = "" if job.succeeded else f": {job.why}"
        return KubernetesError(
            f"a driver's log goes with its pods, and {job.name} has none any more ({job.line}"
            f"{why}); what was measured stands in MLflow: `isoflop board`"
        )
    return KubernetesError(
        f"{job.name} has no log yet ({job.line}); `isoflop logs {job.name} --follow` waits for it"
    )
