"""A sweep with a bucket: the claim is the head's alone, and workers have the bucket's keys."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import CLUSTER, STUDY
from manifests import chart, crd, flaws, helm
from server import Server

from methods.errors import KubernetesError, StudyError
from orchestrator.kube.cluster import load
from orchestrator.kube.pods import KEYS
from orchestrator.kube.preface import preface
from orchestrator.kube.render import Rendered, render, templates

Call = Callable[..., int]
BUCKET = "bucket: s3://runs/team?region=eu-west-1\n"
SECRET = "bucket_secret: runs-s3\n"


def rendered(folder: Path, extra: str, study: str = STUDY) -> Rendered:
    (folder / "study.yaml").write_text(study)
    (folder / "cluster.yaml").write_text(CLUSTER + extra)
    return render(folder / "study.yaml", load(folder / "cluster.yaml"))


def container(rendered: Rendered, pod: str) -> dict[str, Any]:
    return dict(templates(rendered.ray_job)[pod]["spec"]["containers"][0])


def test_only_the_head_has_the_claim(tmp_path: Path) -> None:
    sweep = rendered(tmp_path, BUCKET + SECRET)
    jsonschema.validate(sweep.ray_job, crd("rayjobs"))
    words = shlex.split(sweep.ray_job["spec"]["entrypoint"])
    assert words[words.index("--bucket") + 1] == "s3://runs/team?region=eu-west-1"
    pods = templates(sweep.ray_job)
    for pod, template in pods.items():
        volumes = {each["name"] for each in template["spec"]["volumes"]}
        assert list(flaws(template["spec"])) == []
        ray = template["spec"]["containers"][0]
        mounts = {each["mountPath"] for each in ray["volumeMounts"]}
        env = {each["name"]: each for each in ray["env"]}
        head = pod == "the head"
        assert ("runs" in volumes, "/runs" in mounts) == (head, head), pod
        assert env["HF_HOME"]["value"] == ("/runs" if head else "/tmp") + "/.huggingface"
        for key in KEYS:
            reference = env[key]["valueFrom"]["secretKeyRef"]
            assert (reference["name"], reference["key"]) == ("runs-s3", key)
            assert reference.get("optional", False) == (key not in KEYS[:2])


def test_without_a_secret_the_pods_have_no_keys(tmp_path: Path) -> None:
    sweep = rendered(tmp_path, BUCKET)
    for pod in templates(sweep.ray_job):
        assert {each["name"] for each in container(sweep, pod)["env"]}.isdisjoint(KEYS)
    plain = rendered(tmp_path, "")
    assert "--bucket" not in plain.ray_job["spec"]["entrypoint"]
    assert "runs" in str(templates(plain.ray_job)["the workers 'cpu'"])


def test_a_dry_run_says_what_must_exist(tmp_path: Path) -> None:
    text = preface(rendered(tmp_path, BUCKET + SECRET), load(tmp_path / "cluster.yaml"))
    lines = [line.removeprefix("# ").strip() for line in text.splitlines()]
    assert (
        "Must exist: s3://runs/team, which head and workers can write, list, read and delete by "
        "the keys of its Secret." in lines
    )
    assert (
        "PersistentVolumeClaim isoflop-runs, ReadWriteOnce or ReadWriteMany, for the head alone"
        in lines
    )
    secret = "Secret runs-s3, keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; "
    assert [line for line in lines if line.startswith(secret)]
    text = preface(rendered(tmp_path, BUCKET), load(tmp_path / "cluster.yaml"))
    assert "delete by their service accounts." in text


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ("bucket: runs\n", "must be s3://BUCKET/PREFIX, but got 'runs'"),
        ("bucket: s3://AKIA:hidden-word@runs\n", "without keys, but has some"),
        (SECRET, "needs `bucket: s3://...`"),
        ("bucket: gs://runs\n", "must be s3://BUCKET/PREFIX, but got 'gs://runs'"),
    ],
)
def test_what_is_no_bucket_is_refused_with_its_line(
    tmp_path: Path, extra: str, sentence: str
) -> None:
    with pytest.raises(KubernetesError, match=re.escape(sentence)) as caught:
        rendered(tmp_path, extra)
    assert "hidden-word" not in str(caught.value)


def test_data_on_the_heads_claim_are_refused(tmp_path: Path) -> None:
    study = STUDY.replace("data: digits", "data: /runs/data")
    rendered(tmp_path, "", study)
    with pytest.raises(StudyError, match="lie in the pods' /data/"):
        rendered(tmp_path, BUCKET, study)


def test_a_claim_for_one_node_is_enough(
    server: Server, isoflop: Call, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    server.claim("isoflop-runs", "ReadWriteOnce")
    assert isoflop("submit", files[0]) == 2
    assert "give a `bucket`" in " ".join(capsys.readouterr().err.split())
    with Path(files[1]).open("a") as file:
        file.write(BUCKET)
    assert isoflop("submit", files[0]) == 0


def test_the_secret_of_the_bucket_must_exist(
    server: Server, isoflop: Call, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with Path(files[1]).open("a") as file:
        file.write(BUCKET + SECRET)
    assert isoflop("submit", files[0]) == 2
    assert "`bucket_secret` names Secret 'runs-s3'" in " ".join(capsys.readouterr().err.split())


def test_the_chart_lets_sweeps_reach_a_bucket_in_the_network() -> None:
    def named(values: dict[str, Any]) -> list[Any]:
        (reply,) = helm({"values": {"network": values}})
        return [name for name in ("ray-to-bucket",) if f"name: {name}\n" in reply["text"]]

    inside = {"bucket": ["10.2.0.0/16"], "bucketPorts": [9000]}
    assert named(inside) == []
    assert named({**inside, "bucketOfSweeps": True}) == ["ray-to-bucket"]
    shipped = chart("production")
    assert not [each for each in shipped if each["metadata"]["name"] == "ray-to-bucket"]
