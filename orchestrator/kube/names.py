"""What a sweep and its objects are called in a cluster, and where the cluster itself is named."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from methods.errors import KubernetesError

if TYPE_CHECKING:
    from orchestrator.study.file import Study

GROUP, VERSION = "ray.io", "v1"
"""KubeRay's API."""
NAMESPACE = "isoflop"
"""The namespace of sweeps where nothing names another."""
MANAGED_BY, MANAGER = "app.kubernetes.io/managed-by", "isoflop"
"""The label, and its value, of every object that `submit` creates."""
STUDY_LABEL = "isoflop.dev/study"
HASH_LABEL = "isoflop.dev/hash"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""The label by which Kueue takes a sweep into a queue."""
SUBMISSION = "isoflop.dev/submission"
"""The annotation that distinguishes this submit's objects from those of a concurrent one."""
LONGEST = 47
"""Characters of a RayJob's name at most; KubeRay derives longer names from it."""


def sweep_name(study: "Study") -> str:
    """The RayJob's name: the study's, and the hash of all that decides its numbers.

    Raises:
        KubernetesError: the study's name is too long for one.
    """
    name = f"{study.name}-{study.hash}"
    if len(name) > LONGEST:
        raise KubernetesError(
            f"a study's name may have {LONGEST - len(study.hash) - 1} characters on Kubernetes, "
            f"but {study.name!r} has {len(study.name)}; give it a shorter one"
        )
    return name


def namespace_of(option: str | None, context: str | None) -> str:
    """The namespace to look into: as the option says, else as the kubeconfig's context does.

    Raises:
        KubernetesError: no namespace can be called so.
    """
    if option is not None and not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", option):
        raise KubernetesError(
            "--namespace must be lower-case letters, digits and dashes between them, at most 63, "
            f"but got {option!r}"
        )
    return option or context or NAMESPACE


def resolve(sweep: str) -> str:
    """The name to look up: a study file's sweep, or the name of a sweep or study as it is."""
    if not sweep.endswith((".yaml", ".yml")):
        return sweep
    from orchestrator.study.file import load  # noqa: PLC0415, most calls name no file

    return sweep_name(load(Path(sweep)))


def check_kubeconfig() -> None:
    """Check that a kubeconfig names a cluster.

    Raises:
        KubernetesError: there is no file, and this is no pod of a cluster.
    """
    named = os.environ.get("KUBECONFIG", "~/.kube/config")
    files = [Path(part).expanduser() for part in named.split(os.pathsep) if part]
    in_cluster = "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ
    if not in_cluster and not any(file.exists() for file in files):
        raise KubernetesError(
            f"a kubeconfig must name a cluster, but there is none at {named}; set KUBECONFIG"
        )
