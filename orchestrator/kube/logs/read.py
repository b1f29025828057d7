"""What a sweep's driver prints, and what else there is to say of a sweep."""

import contextlib
import time
from collections.abc import Iterator

from methods.errors import KubernetesError, ServerAway
from orchestrator.kube.api import PODS, Api, Refused
from orchestrator.kube.pods import KEPT, LOG_CONTAINER, RUNS
from orchestrator.kube.sweeps import Sweep, find
from orchestrator.kube.troubles import troubles

PAUSE = 2.0
"""Seconds between two looks for a pod that is not there yet."""
MOST = 6
"""The most troubles that are printed at once."""


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
            printed, pod = 0, head  # a head that was evicted: its successor has another log
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
    """What else there is to say of a sweep: its troubles, and of one that runs the last log line.

    Nothing where the server does not say it: the sweep's state matters more.
    """
    if sweep.succeeded or sweep.deleting:
        return []
    lines = troubles(api, namespace, sweep)[:MOST]
    if sweep.job == "RUNNING" and not sweep.ended:
        with contextlib.suppress(KubernetesError):
            head = _head(api, namespace, sweep.cluster)
            lines += _lines(api, namespace, head, tailLines="1")
    return lines


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
            f"{sweep.name} has no pods left to read its log from ({sweep.line}{why}); the logs of "
            "its pods, the driver's too, are kept on the claim of `storage`, in "
            f"{KEPT.removeprefix(f'{RUNS}/')}/{sweep.name}, and its results are in MLflow: "
            "`isoflop board`"
        )
    return KubernetesError(
        f"{sweep.name} has no log yet ({sweep.line}); `isoflop logs {sweep.name} --namespace "
        f"{namespace} --follow` waits for it"
    )
