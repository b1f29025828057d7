"""What the tests of templates share: a sweep that is rendered with one."""

from pathlib import Path
from typing import Any

from conftest import CLUSTER, STUDY

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
