"""`pod_template` in the cluster file: a part of a PodTemplate, in Kubernetes' own words."""

from collections.abc import Iterator, Mapping
from typing import Any

import pydantic
from pydantic import Field

from methods.values import shown
from orchestrator.kube.template.merge import Manifest
from orchestrator.kube.template.schema import check_fragment
from orchestrator.study.places import Location
from orchestrator.study.reading import Misfit, Strict

RAY = "ray"
"""The name of Ray's own container in a template, whatever it is called in the head and workers."""
KUBERAYS = ("wait-gcs-ready", "autoscaler", "ray-job-submitter", "ray-head", "ray-worker")
"""Containers that KubeRay adds, or that a template addresses as `ray`."""
OWN_FIELDS: Mapping[str, str] = {
    "nodeSelector": "`node_selector`",
    "tolerations": "`tolerations`",
    "resources": "`cpu` and `memory`",
}
"""Part of a pod's specification -> the cluster file's own fields for it."""
UNFIT: Mapping[str, str] = {
    "schedulingGates": "holds the pods back until something removes it, and nothing here does; "
    "leave it out, or write `queue` to wait in one of Kueue's",
    "activeDeadlineSeconds": "ends single pods, which KubeRay replaces; write `hours` at the top "
    "of the cluster file instead, after which the whole sweep is ended",
}
"""Part of a pod's specification with which no sweep ends -> why, and what to write instead."""
SCRATCH = ("tmp", "ray-logs")
"""Volumes that may be larger, or of a storage class."""
SPEC_OF_KUBERAY = ("restartPolicy", "ephemeralContainers", "nodeName", "hostname", "subdomain")
OWN_IN_RAY: Mapping[str, str] = {"image": "`image`", "imagePullPolicy": "`pull_policy`"}
STARTS = ("command", "args", "stdin", "stdinOnce", "tty", "restartPolicy", "restartPolicyRules")
"""Fields of Ray's container by which KubeRay starts Ray."""
VARIABLES_OF_KUBERAY = {
    *("FQ_RAY_IP", "KUBERAY_GEN_RAY_START_CMD", "RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"),
    *("RAY_CLOUD_INSTANCE_ID", "RAY_CLUSTER_NAME", "RAY_IP", "RAY_NODE_TYPE_NAME", "RAY_PORT"),
}
"""Environment variables that KubeRay sets in Ray's container."""
LABELS_OF_OTHERS = ("ray.io/", "kueue.x-k8s.io/", "isoflop.dev/", "app.kubernetes.io/")
"""Beginnings of labels that KubeRay, Kueue, isoflop and the NetworkPolicies go by."""


class TemplateMetadata(Strict):
    """Labels and annotations of the pods; `null` deletes one."""

    annotations: dict[str, str | None] = Field(default_factory=dict)
    """Annotations, as of a service mesh or of a collector of logs."""
    labels: dict[str, str | None] = Field(default_factory=dict)
    """Labels beside isoflop's own."""


class PodTemplate(Strict):
    """A part of a Kubernetes PodTemplate that is merged into pods, as `kubectl patch` merges."""

    metadata: TemplateMetadata = TemplateMetadata()
    """Labels and annotations."""
    spec: dict[str, Any] = Field(default_factory=dict)
    """Fields of Kubernetes' PodSpec; Ray's container is called `ray`."""

    @pydantic.model_validator(mode="after")
    def _fits(self) -> "PodTemplate":
        for name in self.metadata.labels:
            if name.startswith(LABELS_OF_OTHERS):
                raise Misfit(
                    f"metadata.labels must not have {name}: KubeRay, Kueue and NetworkPolicies go "
                    "by such labels; choose another name",
                    *("metadata", "labels", name),
                )
        check_fragment(self.spec, "spec")
        for at, reason in _reserved(self.spec):
            raise Misfit(f"{'.'.join(map(str, at))} {reason}", *at)
        return self

    def patch(self, container: str) -> Manifest:
        """The patch for pods in which Ray's container has this name."""
        names = {RAY: container}
        spec = dict(self.spec)
        if spec.get("containers"):
            spec["containers"] = [
                {**each, "name": names.get(each["name"], each["name"])} if "name" in each else each
                for each in spec["containers"]
            ]
        metadata = {name: part for name, part in self.metadata.model_dump().items() if part}
        return {**({"metadata": metadata} if metadata else {}), "spec": spec}


def _reserved(spec: Mapping[str, Any]) -> Iterator[tuple[Location, str]]:
    """Where a template says what is said elsewhere, and where."""
    for name in spec:
        if name in OWN_FIELDS:
            yield (
                ("spec", name),
                f"has its own place in the cluster file; write {OWN_FIELDS[name]} under `head` or "
                "in the group of workers instead",
            )
        if name in SPEC_OF_KUBERAY:
            yield ("spec", name), "is for KubeRay and Kubernetes to set; leave it out"
        if name in UNFIT:
            yield ("spec", name), UNFIT[name]
    system = (spec.get("os") or {}).get("name")
    if system not in (None, "linux"):
        yield ("spec", "os", "name"), f"must be linux, but got {shown(system)}; leave `os` out"
    for index, volume in enumerate(spec.get("volumes") or []):
        medium = (volume.get("emptyDir") or {}).get("medium")
        if volume.get("name") in SCRATCH and medium:
            yield (
                ("spec", "volumes", index, "emptyDir", "medium"),
                f"must stay the node's disk for {volume['name']}, where Ray puts what memory does "
                f"not hold, but got {shown(medium)}; leave it out",
            )
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(kind) or []):
            at = ("spec", kind, index)
            name = container.get("name")
            if name in KUBERAYS:
                yield (
                    (*at, "name"),
                    f"must not be {name!r}, which KubeRay manages; Ray's container is called "
                    f"`{RAY}` here, in the head and in workers",
                )
            if name == RAY and kind == "containers":
                yield from ((at + place, reason) for place, reason in _of_ray(container))


def _of_ray(container: Mapping[str, Any]) -> Iterator[tuple[Location, str]]:
    for name in container:
        if name in OWN_IN_RAY:
            yield (
                (name,),
                f"has its own place in the cluster file; write {OWN_IN_RAY[name]} at its top "
                "instead, for all pods",
            )
        if name in STARTS:
            yield (name,), "is how KubeRay starts Ray; leave it out"
        if name == "$patch":
            yield (name,), "must leave Ray's container as it is; write the fields that change"
    for kind, amounts in (container.get("resources") or {}).items():
        for name in amounts or {} if kind in ("requests", "limits") else {}:
            if field := _own_amount(str(name)):
                yield (
                    ("resources", kind, name),
                    f"has its own place in the cluster file; write {field} under `head` or in the "
                    "group of workers instead, by which Ray counts",
                )
    for index, variable in enumerate(container.get("env") or []):
        if variable.get("name") in VARIABLES_OF_KUBERAY:
            yield (
                ("env", index, "name"),
                f"must not be {variable['name']}, which KubeRay sets; leave it out",
            )


def _own_amount(resource: str) -> str | None:
    """The cluster file's field for an amount of a resource."""
    if resource in ("cpu", "memory"):
        return f"`{resource}`"
    gpu = resource.startswith(("nvidia.com/", "amd.com/")) or resource.endswith("gpu")
    return "`gpu`, with `gpu_resource`," if gpu else None
