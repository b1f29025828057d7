"""What KubeRay deletes after the end of a sweep, and when."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import CLUSTER, STUDY
from manifests import ROOT, crd

from methods.errors import KubernetesError
from orchestrator.kube.cluster import load
from orchestrator.kube.preface import preface
from orchestrator.kube.render import Rendered, render

ORDER = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")
"""Each may not come before the one to its left."""
Spec = dict[str, Any]


def rendered(folder: Path, extra: str = "") -> Rendered:
    (folder / "study.yaml").write_text(STUDY)
    (folder / "cluster.yaml").write_text(CLUSTER + extra)
    return render(folder / "study.yaml", load(folder / "cluster.yaml"))


def refused(spec: Spec) -> Iterator[str]:
    """What the operator of KubeRay 1.6 and 1.7 refuses, beside what the schema does.

    By its source, ray-operator/controllers/ray/utils/validation.go, and the rules in the CRD that a
    JSON schema cannot express.
    """
    rules = spec.get("deletionStrategy", {}).get("deletionRules", [])
    if not spec["shutdownAfterJobFinishes"] and spec.get("ttlSecondsAfterFinished", 0) > 0:
        yield "a time to live without shutdown"
    if spec["shutdownAfterJobFinishes"] and rules:
        yield "shutdown and rules"
    times: dict[tuple[str, str], dict[str, int]] = {}
    for rule in rules:
        condition = rule["condition"]
        if ("jobStatus" in condition) == ("jobDeploymentStatus" in condition):
            yield "a condition must have one state"
        if rule["policy"] == "DeleteWorkers" and spec["rayClusterSpec"].get(
            "enableInTreeAutoscaling"
        ):
            yield "workers of an autoscaler"
        end = condition.get("jobStatus", ""), condition.get("jobDeploymentStatus", "")
        if rule["policy"] in times.setdefault(end, {}):
            yield "a rule twice"
        times[end][rule["policy"]] = condition["ttlSeconds"]
    for each in times.values():
        seconds = [each[policy] for policy in ORDER if policy in each]
        if seconds != sorted(seconds):
            yield "out of order"


@pytest.mark.parametrize(
    ("extra", "steps", "line"),
    [
        (
            "cleanup: {job_hours: 24}\n",
            {"DeleteCluster": 600, "DeleteSelf": 86_400},
            "its pods are deleted after 10 min, the RayJob after 24 h.",
        ),
        (
            "keep_minutes: 60\ncleanup: {workers_minutes: 0}\n",
            {"DeleteWorkers": 0, "DeleteCluster": 3600},
            "its workers are deleted after 0 min and its head after 60 min; the RayJob stays until "
            "`isoflop cancel`.",
        ),
        (
            "keep_minutes: 261\ncleanup: {job_hours: 4.35}\n",  # no whole seconds as a float
            {"DeleteCluster": 15_660, "DeleteSelf": 15_660},
            "its pods are deleted after 261 min, the RayJob after 4.35 h.",
        ),
        (
            "keep_minutes: 60\ncleanup: {workers_minutes: 60, job_hours: 1}\n",
            {"DeleteWorkers": 3600, "DeleteCluster": 3600, "DeleteSelf": 3600},
            "its workers are deleted after 60 min and its head after 60 min, the RayJob after 1 h.",
        ),
    ],
)
def test_every_end_is_cleaned_up_in_steps(
    tmp_path: Path, extra: str, steps: dict[str, int], line: str
) -> None:
    objects = rendered(tmp_path, extra)
    spec = objects.ray_job["spec"]
    ends: dict[str, dict[str, int]] = {}
    for rule in spec["deletionStrategy"]["deletionRules"]:
        condition = dict(rule["condition"])
        seconds = condition.pop("ttlSeconds")
        ends.setdefault(str(condition), {})[rule["policy"]] = seconds
    assert ends == {
        "{'jobStatus': 'SUCCEEDED'}": steps,
        "{'jobStatus': 'FAILED'}": steps,
        "{'jobDeploymentStatus': 'Failed'}": steps,
    }
    assert "ttlSecondsAfterFinished" not in spec
    assert list(refused(spec)) == []
    assert f"# At its end {line}" in preface(objects, load(tmp_path / "cluster.yaml")).splitlines()
    jsonschema.Draft7Validator(crd("rayjobs")).validate(objects.ray_job)


def test_by_default_the_pods_go_and_the_ray_job_stays(tmp_path: Path) -> None:
    objects = rendered(tmp_path)
    spec = objects.ray_job["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] == 600
    assert "deletionStrategy" not in spec
    assert list(refused(spec)) == []
    assert (
        "# At its end its pods are deleted after 10 min; the RayJob stays until `isoflop cancel`."
    ) in preface(objects, load(tmp_path / "cluster.yaml"))


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ("cleanup: {}\n", "`workers_minutes` or `job_hours`"),
        ("cleanup: {job_hours: 0.5}\n", "job_hours"),
        ("cleanup: {hours: 5}\n", "did you mean"),
        ("keep_minutes: 90\ncleanup: {job_hours: 1}\n", "`keep_minutes` must fit into `job_hours`"),
        ("cleanup: {workers_minutes: 11}\n", "`workers_minutes <= keep_minutes` must hold"),
        ("queue: sweeps\ncleanup: {job_hours: 1}\n", "must stand without `queue`"),
        (
            "autoscaling: true\ncleanup: {workers_minutes: 1}\n",
            "must stand without `autoscaling`",
        ),
    ],
)
def test_a_cleanup_that_kuberay_would_refuse_is_refused_in_a_line(
    tmp_path: Path, extra: str, sentence: str
) -> None:
    with pytest.raises(KubernetesError) as caught:
        rendered(tmp_path, extra)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_oracle_refuses_what_it_should(tmp_path: Path) -> None:
    spec = rendered(tmp_path, "cleanup: {workers_minutes: 0, job_hours: 1}\n").ray_job["spec"]
    rules = spec["deletionStrategy"]["deletionRules"]
    spec["shutdownAfterJobFinishes"] = True
    spec["rayClusterSpec"]["enableInTreeAutoscaling"] = True
    rules[0]["condition"] = {"jobStatus": "SUCCEEDED", "ttlSeconds": 900}
    rules[4] = rules[3]
    rules[6]["condition"]["jobStatus"] = "FAILED"
    assert set(refused(spec)) == {
        "shutdown and rules",
        "a condition must have one state",
        "workers of an autoscaler",
        "a rule twice",
        "out of order",
    }


def test_the_page_has_a_cleanup_that_renders(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "watching.md").read_text()
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    spec = rendered(tmp_path, text).ray_job["spec"]
    rules = spec["deletionStrategy"]["deletionRules"]
    seconds = {rule["policy"]: rule["condition"]["ttlSeconds"] for rule in rules}
    assert seconds == {"DeleteWorkers": 0, "DeleteCluster": 7200, "DeleteSelf": 604_800}
    assert list(refused(spec)) == []
