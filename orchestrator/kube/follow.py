"""The states of a sweep on Kubernetes until its end, whatever happens to the watch."""

import time
from collections.abc import Iterator

from methods.errors import ServerAway, SweepFailed
from orchestrator.kube.api import RAY_JOBS, Api, Json, Refused
from orchestrator.kube.sweeps import RESUMES, Sweep

WATCH = 20.0
"""Seconds of one watch."""
SETTLES = 60.0
"""Seconds after a server was away in which a 403 is no answer: one that has just started knows no
roles yet."""
PAUSE = 0.5
"""Seconds before a server that is away is asked again; they double, up to 15."""


def follow(
    api: Api, namespace: str, name: str, *, uid: str | None = None, timeout: float | None = None
) -> Iterator[Sweep | ServerAway]:
    """Every state of a sweep from now on, the last one its end; and word of a server that is away.

    A watch that drops, expires (410) or is refused with 5xx is begun again with a fresh list; a
    server that is away is asked again, less and less often, until it is back; a 403 of the first
    `SETTLES` seconds after that, too. A silent watch yields its last state again, every `WATCH`
    seconds.

    Raises:
        SweepFailed: it was deleted, or replaced by another.
        TimeoutError: `timeout` seconds went by.
        KubernetesError: the server refuses.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    version: str | None = None
    last: Sweep | None = None
    pause, settled = PAUSE, 0.0
    while True:
        left = _left(deadline)
        try:
            if version is None:
                jobs = api.snapshot(RAY_JOBS, namespace, name, left)
                version = str(jobs["metadata"]["resourceVersion"])
                last = _same(jobs["items"], name, uid)
                uid = last.uid
                yield last
                if last.ended:
                    return
            began = time.monotonic()
            for event in api.watch(RAY_JOBS, namespace, name, version, min(WATCH, left)):
                version = str(event["object"]["metadata"]["resourceVersion"])
                if event["type"] == "BOOKMARK":
                    continue
                last = _same([] if event["type"] == "DELETED" else [event["object"]], name, uid)
                yield last
                if last.ended:
                    return
                pause = PAUSE
                _left(deadline)
            if last is not None:
                yield last
            if time.monotonic() - began < PAUSE:  # dropped at once: do not storm the server
                time.sleep(min(PAUSE, _left(deadline)))
        except (ServerAway, Refused) as error:
            version = None  # list again
            if isinstance(error, ServerAway):
                settled = time.monotonic() + SETTLES
            elif error.status == 410:  # it expired
                continue
            elif error.status != 403 or time.monotonic() > settled:
                raise
            yield ServerAway(str(error))
            time.sleep(min(pause, _left(deadline)))
            pause = min(2 * pause, 15.0)


def _same(jobs: list[Json], name: str, uid: str | None) -> Sweep:
    """The sweep that is followed, of the RayJobs of its name.

    Raises:
        SweepFailed: there is none, or another one of the same name.
    """
    if not jobs:
        raise SweepFailed(f"{name} was deleted; {RESUMES}")
    sweep = Sweep.of(jobs[0])
    if uid is not None and sweep.uid != uid:
        raise SweepFailed(f"{name} was deleted, and another of the same name was submitted since")
    return sweep


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
