"""The cluster files of docs/clouds.md, as the pods that KubeRay makes of them."""

import re
from pathlib import Path

import pytest
import yaml
from manifests import ROOT, ray_pods
from merging import rendered, validate

PAGE = (ROOT / "docs" / "clouds.md").read_text()
FILES = re.findall(r"```yaml\n# cluster.yaml\n(.*?)```", PAGE, re.DOTALL)
CLOUDS = re.findall(r"(?m)^## (.*)$", PAGE)


@pytest.mark.parametrize(("cloud", "text"), list(zip(CLOUDS, FILES, strict=True)), ids=CLOUDS)
def test_the_cluster_file_of_a_cloud_is_valid_and_locked_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cloud: str, text: str
) -> None:
    job = rendered(tmp_path, text).ray_job
    validate(job, monkeypatch)
    pods = dict(ray_pods(job))
    worker = next(pod["spec"] for name, pod in pods.items() if name.startswith("workers/"))
    spot = yaml.safe_load(text)["workers"][0].get("spot")
    assert bool(spot) == (cloud != "OpenShift")
    labels = {"gke": "cloud.google.com/gke-spot", "eks": "eks.amazonaws.com/capacityType"}
    assert spot is None or labels[spot] in worker["nodeSelector"]
    assert {each["key"] for each in worker["tolerations"]} >= {"nvidia.com/gpu"}
    assert "nvidia.com/gpu" in worker["containers"][0]["resources"]["limits"]
