"""Make a sweep's objects, all of them or none; and end one."""

import contextlib
import copy
import logging
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from methods.errors import KubernetesError, ServerAway
from orchestrator.kube.api import JOBS, MAPS, Api, Json, Refused
from orchestrator.kube.check import check
from orchestrator.kube.cluster import Cluster
from orchestrator.kube.follow import Seen, seen
from orchestrator.kube.render import STUDY_LABEL, Rendered

logger = logging.getLogger(__name__)

SUBMISSION = "isoflop.dev/submission"
"""Annotation that tells our own objects from those of a submit at the same time."""
GONE = 180.0
"""Seconds that KubeRay is given to stop a sweep's driver and take its cluster down."""


@dataclass(frozen=True)
class Submitted:
    """What `submit` came to."""

    job: Seen
    was_there: bool
    """Whether the same sweep was running already."""


def submit(api: Api, rendered: Rendered, cluster: Cluster) -> Submitted:
    """Check the cluster, then make the ConfigMap and the RayJob that owns it.

    A sweep that runs already is left alone; one that ended makes room: the new one goes on from
    where it was.

    Raises:
        KubernetesError: something is missing or refused, and nothing is left behind, or it says
            what is.
        ServerAway: the API server does not answer, likewise.
    """
    path = f"{JOBS.format(rendered.namespace)}/{rendered.name}"
    found = api.find(path)
    if found is not None and not (seen(found).ended or seen(found).deleting):
        return Submitted(seen(found), was_there=True)
    check(api, rendered, cluster)
    if found is not None:
        remove(api, rendered.namespace, seen(found))
    return Submitted(seen(_make(api, rendered)), was_there=False)


def find(api: Api, namespace: str, name: str) -> Seen:
    """A sweep by its own name, or the newest one of a study's name.

    Raises:
        KubernetesError: there is none.
    """
    job = api.find(f"{JOBS.format(namespace)}/{name}")
    if job is not None:
        return seen(job)
    own = sorted(
        (s for s in sweeps(api, namespace) if s.labels.get(STUDY_LABEL) == name),
        key=lambda s: s.created,
    )
    if own:
        return own[-1]
    raise KubernetesError(
        f"no sweep is called {name!r} in namespace {namespace!r}; `isoflop status` lists all. One "
        "that is over and cleared away stands in MLflow: `isoflop board`"
    )


def sweeps(api: Api, namespace: str) -> list[Seen]:
    """Every sweep of a namespace, by name."""
    jobs = api.get(JOBS.format(namespace), labelSelector="app.kubernetes.io/managed-by=isoflop")
    return sorted((seen(job) for job in jobs["items"]), key=lambda s: s.name)


def remove(api: Api, namespace: str, job: Seen) -> None:
    """Delete a RayJob and all it owns, and wait until nothing of it is left.

    Raises:
        KubernetesError: it was still there after `GONE` seconds.
    """
    path = f"{JOBS.format(namespace)}/{job.name}"
    options = {"propagationPolicy": "Foreground", "preconditions": {"uid": job.uid}}
    try:
        if not api.delete(path, options):
            return
    except Refused as refusal:
        if refusal.status == 409:  # another of the name by now: ours is gone
            return
        raise
    deadline = time.monotonic() + GONE
    while time.monotonic() < deadline:
        found = api.find(path)
        if found is None or seen(found).uid != job.uid:
            return
        time.sleep(0.5)
    raise KubernetesError(
        f"{job.name} must go away once it is deleted, but is still there after {GONE:.0f} s; does "
        f"KubeRay's operator run? `kubectl -n {namespace} describe rayjob {job.name}`"
    )


def _make(api: Api, rendered: Rendered) -> Json:
    """All objects, or none.

    Raises:
        KubernetesError: says what went wrong, and that nothing is left, or what is.
    """
    token = uuid.uuid4().hex
    maps, jobs = MAPS.format(rendered.namespace), JOBS.format(rendered.namespace)
    with _all_or_none(api, rendered, token):
        _config_map(api, maps, _marked(rendered.config_map, token))
        try:
            job = _created(api, jobs, _marked(rendered.ray_job, token))
        except _Taken:
            raise KubernetesError(
                f"someone else submitted it at the same moment, `isoflop status {rendered.name}` "
                "shows that one"
            ) from None
        owner = {
            "apiVersion": rendered.ray_job["apiVersion"],
            "kind": "RayJob",
            "name": rendered.name,
            "uid": job["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
        api.patch(f"{maps}/{rendered.name}", {"metadata": {"ownerReferences": [owner]}})
    return job


class _Taken(Exception):
    """The name belongs to an object that is not ours."""


def _config_map(api: Api, path: str, body: Json) -> Json:
    """The study's ConfigMap; one that a submit left behind is taken over."""
    name = body["metadata"]["name"]
    for _ in range(10):
        try:
            return _created(api, path, body)
        except _Taken:
            found = api.find(f"{path}/{name}")
        if found is None:
            continue
        metadata = found["metadata"]
        if metadata.get("labels", {}).get("app.kubernetes.io/managed-by") != "isoflop":
            raise KubernetesError(f"ConfigMap {name!r} is there and not isoflop's: delete it first")
        if metadata.get("ownerReferences"):  # goes with the RayJob that was just deleted
            time.sleep(0.5)
            continue
        version = {"resourceVersion": metadata["resourceVersion"]}
        return api.put(f"{path}/{name}", {**body, "metadata": {**body["metadata"], **version}})
    raise KubernetesError(f"ConfigMap {name!r} belongs to a RayJob that is going away; try again")


def _created(api: Api, path: str, body: Json) -> Json:
    """Create, and find out what became of it where no answer came.

    Raises:
        _Taken: another object has the name.
        KubernetesError: it was refused, or the server is away.
    """
    name = body["metadata"]["name"]
    try:
        return api.post(path, body)
    except Refused as refusal:
        if refusal.status != 409:
            raise
        raise _Taken from None
    except ServerAway:
        found = api.find(f"{path}/{name}")
        if found is None:
            raise
        if found["metadata"].get("annotations", {}).get(SUBMISSION) != _token(body):
            raise _Taken from None
        return found


@contextlib.contextmanager
def _all_or_none(api: Api, rendered: Rendered, token: str) -> Iterator[None]:
    """Take back what was made if anything goes wrong, Ctrl-C included."""
    try:
        yield
    except (KubernetesError, KeyboardInterrupt) as error:
        left = _taken_back(api, rendered, token)
        told = "nothing of it is left in the cluster"
        if left:
            told = (
                f"{' and '.join(left)} may be left there: `kubectl -n {rendered.namespace} delete "
                f"rayjob,configmap {rendered.name}` removes them"
            )
        why = "stopped by hand" if isinstance(error, KeyboardInterrupt) else str(error)
        kind = ServerAway if isinstance(error, ServerAway) else KubernetesError
        raise kind(f"{rendered.name} was not submitted: {why}; {told}") from None


def _taken_back(api: Api, rendered: Rendered, token: str) -> list[str]:
    """Remove what bears our token, be it known to have been made or not; what may be left."""
    left = []
    for kind, paths in (("RayJob", JOBS), ("ConfigMap", MAPS)):
        path = f"{paths.format(rendered.namespace)}/{rendered.name}"
        try:
            found = api.find(path)
            if found is None or found["metadata"].get("annotations", {}).get(SUBMISSION) != token:
                continue
            same = {name: found["metadata"][name] for name in ("uid", "resourceVersion")}
            if kind == "RayJob":
                del same["resourceVersion"]  # KubeRay writes into its status all the time
            api.delete(path, {"propagationPolicy": "Background", "preconditions": same})
        except KubernetesError as error:
            if getattr(error, "status", None) != 409:  # else another submit took it over
                left.append(kind)
    return left


def _marked(body: Json, token: str) -> Json:
    marked = copy.deepcopy(body)
    marked["metadata"].setdefault("annotations", {})[SUBMISSION] = token
    return marked


def _token(body: Json) -> str:
    return str(body["metadata"]["annotations"][SUBMISSION])
