"""Create a sweep's objects, all of them or none; and delete one."""

import contextlib
import copy
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from methods.errors import KubernetesError, ServerAway
from orchestrator.kube.api import CONFIG_MAPS, RAY_JOBS, Api, Json, Refused
from orchestrator.kube.check import check
from orchestrator.kube.cluster import Cluster
from orchestrator.kube.names import MANAGED_BY, MANAGER, SUBMISSION
from orchestrator.kube.render import Rendered
from orchestrator.kube.sweeps import Sweep

GONE = 180.0
"""Seconds that KubeRay is given to stop a sweep's driver and take its cluster down."""
COLLECTED = 60.0
"""Seconds that Kubernetes is given to delete the ConfigMap of a RayJob that is gone."""
LOOK = 0.5
"""Seconds between two looks at an object that is to go away."""


@dataclass(frozen=True)
class Submitted:
    """The outcome of `submit`."""

    sweep: Sweep
    was_running: bool
    """Whether the same sweep was running already."""


def submit(api: Api, rendered: Rendered, cluster: Cluster) -> Submitted:
    """Check the cluster, then create the ConfigMap and the RayJob that owns it.

    A sweep that runs already is left alone; one that ended makes room: the new one resumes it.

    Raises:
        KubernetesError: something is missing or refused; the message says that nothing is left
            behind, or what is.
        ServerAway: the API server does not answer, likewise.
    """
    job = api.find(RAY_JOBS, rendered.namespace, rendered.name)
    previous = Sweep.of(job) if job else None
    if previous and not (previous.ended or previous.deleting):
        return Submitted(previous, was_running=True)
    check(api, rendered, cluster)
    if previous:
        remove(api, rendered.namespace, previous)
    return Submitted(Sweep.of(_create(api, rendered)), was_running=False)


def remove(api: Api, namespace: str, sweep: Sweep) -> None:
    """Delete a RayJob and all it owns, and wait until nothing of it is left.

    Raises:
        KubernetesError: it was still there after `GONE` seconds.
    """
    options = {"propagationPolicy": "Foreground", "preconditions": {"uid": sweep.uid}}
    try:
        if not api.delete(RAY_JOBS, namespace, sweep.name, options):
            return
    except Refused as refusal:
        if refusal.status == 409:  # another has the name by now: this one is gone
            return
        raise
    deadline = time.monotonic() + GONE
    while time.monotonic() < deadline:
        job = api.find(RAY_JOBS, namespace, sweep.name)
        if job is None or Sweep.of(job).uid != sweep.uid:
            return
        time.sleep(LOOK)
    raise KubernetesError(
        f"{sweep.name} must disappear once it is deleted, but still exists after {GONE:.0f} s; "
        f"does KubeRay's operator run? `kubectl -n {namespace} describe rayjob {sweep.name}`"
    )


def _create(api: Api, rendered: Rendered) -> Json:
    """All objects, or none; the RayJob.

    Raises:
        KubernetesError: says what went wrong, and that nothing is left, or what is.
    """
    token = uuid.uuid4().hex
    with _all_or_none(api, rendered, token):
        _create_config_map(api, _marked(rendered.config_map, token))
        try:
            job = _create_or_look_up(api, RAY_JOBS, _marked(rendered.ray_job, token))
        except _Taken:
            raise KubernetesError(
                f"someone else submitted it at the same moment, `isoflop status {rendered.name} "
                f"--namespace {rendered.namespace}` shows that one"
            ) from None
        owner = {
            "apiVersion": rendered.ray_job["apiVersion"],
            "kind": "RayJob",
            "name": rendered.name,
            "uid": job["metadata"]["uid"],
            "controller": True,
            # True is refused where OwnerReferencesPermissionEnforcement is on (OpenShift)
            "blockOwnerDeletion": False,
        }
        owned = {"metadata": {"ownerReferences": [owner]}}
        api.patch(CONFIG_MAPS, rendered.namespace, rendered.name, owned)
    return job


class _Taken(Exception):
    """The name belongs to an object of another submit."""


def _create_config_map(api: Api, body: Json) -> None:
    """The study's ConfigMap; one that a submit left behind is taken over."""
    name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
    deadline = time.monotonic() + COLLECTED
    while time.monotonic() < deadline:
        with contextlib.suppress(_Taken):
            _create_or_look_up(api, CONFIG_MAPS, body)
            return
        other = api.find(CONFIG_MAPS, namespace, name)
        if other is None:
            continue
        metadata = other["metadata"]
        if metadata.get("labels", {}).get(MANAGED_BY) != MANAGER:
            raise KubernetesError(
                f"ConfigMap {name!r} exists and does not belong to isoflop; delete it first"
            )
        if metadata.get("ownerReferences"):  # goes with the RayJob that was just deleted
            time.sleep(LOOK)
            continue
        version = {"resourceVersion": metadata["resourceVersion"]}
        api.replace(CONFIG_MAPS, {**body, "metadata": {**body["metadata"], **version}})
        return
    raise KubernetesError(
        f"ConfigMap {name!r} belongs to a RayJob that is being deleted; try again"
    )


def _create_or_look_up(api: Api, resource: object, body: Json) -> Json:
    """Create; where no answer came, look up whether it was created.

    Raises:
        _Taken: another object has the name.
        KubernetesError: it was refused, or the server is away.
    """
    metadata = body["metadata"]
    try:
        return api.create(resource, body)
    except Refused as refusal:
        if refusal.status != 409:
            raise
        raise _Taken from None
    except ServerAway:
        created = api.find(resource, metadata["namespace"], metadata["name"])
        if created is None:
            raise
        if _token(created) != _token(body):
            raise _Taken from None
        return created


@contextlib.contextmanager
def _all_or_none(api: Api, rendered: Rendered, token: str) -> Iterator[None]:
    """Remove what was created if anything goes wrong, Ctrl-C included."""
    try:
        yield
    except (KubernetesError, KeyboardInterrupt) as error:
        kinds = _left_after_removal(api, rendered, token)
        outcome = "nothing of it is left in the cluster"
        if kinds:
            outcome = (
                f"{' and '.join(kinds)} may be left there: `kubectl -n {rendered.namespace} delete "
                f"rayjob,configmap {rendered.name}` removes them"
            )
        why = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
        kind = ServerAway if isinstance(error, ServerAway) else KubernetesError
        raise kind(f"{rendered.name} was not submitted: {why}; {outcome}") from None


def _left_after_removal(api: Api, rendered: Rendered, token: str) -> list[str]:
    """Remove what bears the token, whether or not an answer confirmed it; what may be left."""
    left = []
    for kind, resource in (("RayJob", RAY_JOBS), ("ConfigMap", CONFIG_MAPS)):
        try:
            body = api.find(resource, rendered.namespace, rendered.name)
            if body is None or _token(body) != token:
                continue
            same = {"uid": body["metadata"]["uid"]}
            if kind == "ConfigMap":  # KubeRay writes into a RayJob's status all the time
                same["resourceVersion"] = body["metadata"]["resourceVersion"]
            options = {"propagationPolicy": "Background", "preconditions": same}
            api.delete(resource, rendered.namespace, rendered.name, options)
        except KubernetesError as error:
            if getattr(error, "status", None) != 409:  # else another submit took it over
                left.append(kind)
    return left


def _marked(body: Json, token: str) -> Json:
    marked = copy.deepcopy(body)
    marked["metadata"].setdefault("annotations", {})[SUBMISSION] = token
    return marked


def _token(body: Json) -> str | None:
    token: str | None = body["metadata"].get("annotations", {}).get(SUBMISSION)
    return token
