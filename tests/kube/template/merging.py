"""What the tests of templates share: a sweep that is rendered with one."""

import functools
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from conftest import CLUSTER, STUDY
from manifests import crd, flaws, ray_pods

from orchestrator.kube.cluster import load
from orchestrator.kube.render import Rendered, render

Json = dict[str, Any]


def rendered(folder: Path, cluster: str) -> Rendered:
    (folder / "study.yaml").write_text(STUDY)
    (folder / "cluster.yaml").write_text(cluster)
    return render(folder / "study.yaml", load(folder / "cluster.yaml"))


def job(folder: Path, template: str, cluster: str = CLUSTER) -> Json:
    return rendered(folder, f"{cluster}pod_template:\n  {template}\n").ray_job


def ray(folder: Path, fields: str, cluster: str = CLUSTER) -> Json:
    """A sweep whose Ray containers have these fields beside."""
    return job(folder, f"spec: {{containers: [{{name: ray, {fields}}}]}}", cluster)


def validate(manifest: Json, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against KubeRay's schema, Kubernetes' own for the pods, and our policies."""
    jsonschema.Draft7Validator(crd("rayjobs")).validate(manifest)
    read_once = functools.cache(kubernetes_validate.utils.schema_contents)
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", read_once)
    for name, pod in ray_pods(manifest):
        whole = {"apiVersion": "v1", "kind": "Pod", **pod}
        whole["metadata"] = {**pod["metadata"], "name": "x"}
        for version in ("1.34", "1.37"):
            kubernetes_validate.validate(whole, version, strict=True)
        assert list(flaws(pod["spec"])) == [], name
