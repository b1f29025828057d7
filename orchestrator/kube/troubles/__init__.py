"""What keeps a sweep from running, as Kubernetes, KubeRay and Kueue say it."""

import contextlib
from collections.abc import Iterator

from methods.errors import KubernetesError
from orchestrator.kube.api import EVENTS, PODS, Api, Json, Refused
from orchestrator.kube.sweeps import Sweep
from orchestrator.kube.troubles.lines import line, minutes_since
from orchestrator.kube.troubles.operator import attempts, not_begun, not_created, not_taken
from orchestrator.kube.troubles.pods import claims_of, does_not_start, is_ready, without_volume
from orchestrator.kube.troubles.queue import waits_in_queue

TELLING = ("type=Warning", "reason=NotTriggerScaleUp")
"""Selectors of the events that tell of troubles; the second, by which the cluster's autoscaler says
why it adds no node, is no warning."""


def troubles(api: Api, namespace: str, sweep: Sweep) -> list[str]:
    """One line for each trouble, the most telling first; of what the user may not read, none.

    An operator that does nothing, the reason for which Kueue lets a sweep wait, pods that KubeRay
    could not create (a quota, a refusal by admission), attempts that failed and their deadline,
    claims without a volume, pods that do not start, and warnings about any of them.
    """
    lines: list[str] = []
    try:
        pods = _pods(api, namespace, sweep)
        waiting = [pod for pod in pods if not is_ready(pod)]
        claims = claims_of(waiting)
        lines += not_taken(sweep)
        for source in (waits_in_queue, not_created):
            lines += _unless_refused(source(api, namespace, sweep))
        lines += attempts(sweep)
        lines += _unless_refused(without_volume(api, namespace, claims))
        lines += _do_not_start(pods)
        lines += not_begun(sweep, pods)
        if sweep.job != "RUNNING" or sweep.ready < sweep.wanted:
            lines += _unless_refused(_warnings(api, namespace, sweep, pods, claims))
    except KubernetesError:  # the server is away: the sweep's state matters more
        pass
    return list(dict.fromkeys(lines))


def _unless_refused(lines: Iterator[str]) -> Iterator[str]:
    """The lines up to what the user may not read."""
    with contextlib.suppress(Refused):
        yield from lines


def _do_not_start(pods: list[Json]) -> Iterator[str]:
    """Why pods do not start; one line for those of which the same is to be said."""
    names: dict[str, list[str]] = {}
    for pod in pods:
        name = pod["metadata"]["name"]
        for each in dict.fromkeys(does_not_start(pod)):
            names.setdefault(each.removeprefix(f"{name}: "), []).append(name)
    for cause, (first, *others) in names.items():
        yield f"{first}{f' and {len(others)} more' if others else ''}: {cause}"


def _pods(api: Api, namespace: str, sweep: Sweep) -> list[Json]:
    """The pods of a sweep's cluster, and those that submit it (`mode: k8s-job`)."""
    selectors = [f"ray.io/cluster={sweep.cluster}"] if sweep.cluster else []
    selectors.append(f"job-name={sweep.name}")
    pods: list[Json] = []
    for each in selectors:
        with contextlib.suppress(Refused):
            pods += api.items(PODS, namespace, labels=each)
    return pods


def _warnings(
    api: Api, namespace: str, sweep: Sweep, pods: list[Json], claims: set[str]
) -> Iterator[str]:
    """Warnings about a sweep's objects, the newest first; not about pods that are ready by now."""
    ready = {pod["metadata"]["name"] for pod in pods if is_ready(pod)}
    names = {pod["metadata"]["name"] for pod in pods} | {sweep.name, sweep.cluster} | claims
    events = [each for fields in TELLING for each in api.items(EVENTS, namespace, fields=fields)]
    latest: dict[tuple[str, str], Json] = {}
    for event in sorted(events, key=_time):
        name = str((event.get("involvedObject") or {}).get("name", ""))
        if name not in ready and (name in names or name.startswith(f"{sweep.name}-")):
            latest[name, str(event.get("reason"))] = event
    for (name, _), event in sorted(latest.items(), key=lambda item: _time(item[1]), reverse=True):
        minutes = minutes_since(_time(event))
        yield line(name, event) + (f" ({minutes} min ago)" if minutes > 0 else "")


def _time(event: Json) -> str:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return next((str(time) for time in times if time), "")
