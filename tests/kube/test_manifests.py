"""The manifests: linted, built, valid for two Kubernetes versions, safe, and walled as meant."""

import functools
import json
import re
import subprocess
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from deployed import environment, mlflow, spec_of, status
from manifests import K8S, ROOT, Json, chart, cluster, crd, flaws, named, notes, pods, tool
from packaging.requirements import Requirement
from postgres import Postgres
from value_sets import SETS, SHIPPED, SPACES, TRACKING

KUBERNETES = ("1.34", "1.37")
EXAMPLES = {
    "rayjob-cpu.yaml": ("quickstart.yaml", "local.yaml"),
    "rayjob-gpu.yaml": ("cifar10.yaml", "gpu.yaml"),
}
CUSTOM = ("kueue.x-k8s.io/v1beta2", "monitoring.coreos.com/v1", "ray.io/v1")
"""Kinds that are no part of Kubernetes; RayJob is held against its own schema."""


def example(name: str) -> list[Json]:
    return list(yaml.safe_load_all((K8S / "examples" / name).read_text()))


def every_object() -> list[Json]:
    """All that is built or printed, each once."""
    built = [each for name in SETS for each in chart(name)]
    return built + [each for name in EXAMPLES for each in example(name)]


def test_the_yaml_is_tidy() -> None:
    command = [tool("yamllint"), "--strict", "--config-file", str(K8S / ".yamllint.yaml"), str(K8S)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_dockerfile_is_tidy() -> None:
    command = [tool("hadolint"), str(K8S / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_image_is_slim_locked_not_root_and_gets_all_it_copies() -> None:
    lines = (K8S / "Dockerfile").read_text().splitlines()
    assert next(line for line in lines if line.startswith("ARG PYTHON")).endswith("slim-trixie")
    installs = [line for line in lines if "pip install" in line]
    assert len(installs) == 3
    assert all("--constraint requirements.lock" in line for line in installs)
    assert [line for line in lines if line.startswith("USER")] == ["USER 1000:1000"]
    assert any("NVIDIA_VISIBLE_DEVICES=void" in line for line in lines)
    passed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if "!" in line}
    copied = [
        word
        for line in lines
        if line.startswith("COPY") and "--from" not in line
        for word in line.split()[1:-1]
    ]
    assert set(copied) <= passed
    assert all((ROOT / word).exists() for word in copied)


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_object_is_valid_to_the_letter(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read_once = functools.cache(kubernetes_validate.utils.schema_contents)
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", read_once)
    distinct = {json.dumps(each): each for each in every_object()}
    for each in distinct.values():
        if each["apiVersion"] not in CUSTOM:
            kubernetes_validate.validate(each, version, strict=True)


def test_a_typo_would_be_found() -> None:
    deployment = named(chart("local"), "Deployment", "mlflow")
    typo = {**deployment, "spec": {**deployment["spec"], "replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(typo, KUBERNETES[1], strict=True)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_fit_kuberays_own_schema(name: str) -> None:
    import jsonschema

    job = example(name)[1]
    jsonschema.Draft7Validator(crd("rayjobs")).validate(job)
    metadata = {"name": "x", "namespace": "isoflop"}
    cluster = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": metadata}
    cluster["spec"] = job["spec"]["rayClusterSpec"]
    jsonschema.Draft7Validator(crd("rayclusters")).validate(cluster)
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["container"] = []
    with pytest.raises(jsonschema.ValidationError, match="'container' was unexpected"):
        jsonschema.Draft7Validator(crd("rayjobs")).validate(job)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_what_a_dry_run_prints(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.cli import main

    study, cluster = EXAMPLES[name]
    words = ["submit", f"studies/{study}", "--cluster", f"k8s/clusters/{cluster}", "--dry-run"]
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit):
        main(words)
    printed = capsys.readouterr().out
    golden = (K8S / "examples" / name).read_text()
    assert printed == golden, f"isoflop {' '.join(words)} > k8s/examples/{name}"


# Pod Security `restricted`, and more: limits, no token, a root that cannot be written.


def test_every_container_is_locked_down() -> None:
    count = 0
    for name, pod in pods(every_object()):
        for flaw in flaws(pod["spec"]):
            pytest.fail(f"{name}: {flaw}")
        count += 1
    assert count == 22, "MLflow in 8 sets, PostgreSQL in 3, 7 Jobs, two clusters' heads and workers"


def test_what_kuberay_injects_by_itself_would_be_found() -> None:
    job = example("rayjob-gpu.yaml")[1]
    del job["spec"]["rayClusterSpec"]["autoscalerOptions"]
    job["spec"]["submissionMode"] = "K8sJobMode"
    messages = [flaw for _, pod in pods([job]) for flaw in flaws(pod["spec"])]
    assert any("autoscaler" in flaw for flaw in messages)
    assert any("ray-job-submitter" in flaw for flaw in messages)


def test_the_namespace_enforces_it() -> None:
    spaces = [each for name in SETS for each in chart(name) if each["kind"] == "Namespace"]
    assert len(spaces) == 12
    for space in spaces:
        labels = space["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_no_secret_is_written_down() -> None:
    for name in SHIPPED:
        text = (K8S / "chart" / "rendered" / f"{name}.yaml").read_text()
        for each in (o for o in yaml.safe_load_all(text) if o["kind"] == "Secret"):
            assert (each["metadata"]["name"], each.get("data")) == ("isoflop-mlflow", None)
            assert each["stringData"] == {"uri": "http://mlflow.isoflop-tracking.svc:5000"}
    tracked = subprocess.run(
        ["git", "ls-files", "k8s"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not [path for path in tracked if path.endswith(".env")]
    for path in tracked:
        for address in re.findall(r"\w+://[^\s/]*:([^\s/@]+)@", (ROOT / path).read_text()):
            assert address in ("PASSWORD", "%s"), path
    for each in every_object():
        for name, pod in pods([each]):
            for container in pod["spec"]["containers"]:
                for variable in container.get("env", []):
                    if re.search("PASSWORD|SECRET|TOKEN|_MLFLOW|_OPTUNA", variable["name"]):
                        assert "secretKeyRef" in variable.get("valueFrom", {}), (name, variable)


def test_the_local_secrets_are_random_and_agree() -> None:
    import base64

    def values(name: str) -> dict[str, str]:
        data = named(chart("local"), "Secret", name)["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    password = values("postgres")["password"]
    assert len(password) == 36
    host = "postgres.isoflop-tracking.svc:5432"
    assert values("mlflow-server")["backend"] == f"postgresql://isoflop:{password}@{host}/mlflow"
    team, own = values("team-isoflop")["password"], "optuna-isoflop"
    assert values("isoflop-optuna")["uri"] == f"postgresql://{own}:{team}@{host}/{own}"
    assert team != password
    other = named(chart("team"), "Secret", "postgres")["data"]["password"]
    assert base64.b64decode(other).decode() != password


def test_ray_has_one_version_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(each for extra in extras for each in extra)]
    ranges = [Requirement(each).specifier for each in wanted if each.startswith("ray[")]
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    (locked,) = (line for line in lock if line.startswith("ray=="))
    version = locked.removeprefix("ray==")
    assert ranges
    assert all(each.contains(version) for each in ranges)
    tags = {
        container["image"].partition("@")[0].rpartition(":")[2]
        for _, pod in pods(every_object())
        for container in pod["spec"]["containers"]
        if "isoflop" in container["image"]
    }
    assert tags == {f"{project['version']}-ray{version}{v}" for v in ("", "-cuda")}
    for name in EXAMPLES:
        assert example(name)[1]["spec"]["rayClusterSpec"]["rayVersion"] == version


# What refers to what.


def test_the_pods_bear_the_labels_that_the_walls_go_by() -> None:
    job = example("rayjob-cpu.yaml")[1]
    for name, pod in pods([job, *chart("local"), *chart("team")]):
        labels = pod["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "isoflop", name
    service = named(chart("local"), "Service", "mlflow")["spec"]
    assert service["selector"] == {"app.kubernetes.io/name": "mlflow"}


@pytest.mark.parametrize("name", SETS)
def test_all_that_is_named_is_there_or_said_to_be_made(name: str) -> None:
    objects = chart(name)
    spaces = {SPACES[name], TRACKING[name]}
    assert {o["metadata"].get("namespace", SPACES[name]) for o in objects} == spaces
    there = {f"{o['kind']} {o['metadata']['name']}" for o in cluster(name)}
    there |= set(re.findall(r"(?m)^  ((?:Secret|PersistentVolumeClaim) [\w-]+)", notes(name)))
    job = example("rayjob-cpu.yaml")[1]
    for _, pod in pods([*objects, job]):
        for volume in pod["spec"].get("volumes", []):
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert f"PersistentVolumeClaim {claim}" in there
        containers = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
        for variable in (each for container in containers for each in container.get("env", [])):
            source = variable.get("valueFrom", {}).get("secretKeyRef")
            if source and not source.get("optional"):
                assert f"Secret {source['name']}" in there
        account = pod["spec"].get("serviceAccountName", "mlflow")
        assert f"ServiceAccount {account}" in there
    if name in SHIPPED:
        modes = named(objects, "PersistentVolumeClaim", "isoflop-runs")["spec"]["accessModes"]
        assert modes == (["ReadWriteOnce"] if name == "local" else ["ReadWriteMany"])


@pytest.mark.full
@pytest.mark.timeout(180)
def test_the_mlflow_server_starts_as_told_and_knows_its_own_names(
    tmp_path: Path, postgres: Postgres
) -> None:
    upgrade = spec_of("local", "Deployment", "mlflow")["initContainers"][0]
    secrets = {
        "MLFLOW_BACKEND_STORE_URI": postgres.url,
        "MLFLOW_ARTIFACTS_DESTINATION": str(tmp_path / "artifacts"),
    }
    _upgrade_in_two_pods_at_once(upgrade["command"], environment(upgrade, secrets, tmp_path))
    with mlflow("local", secrets, tmp_path) as port:
        api = "/api/2.0/mlflow/experiments/search?max_results=1"
        assert status(port, "/health", "10.1.2.3:5000") == 200, "kubelet calls a pod by its address"
        for host in ("mlflow:5000", "mlflow.isoflop-tracking.svc.cluster.local:5000", "localhost"):
            assert status(port, api, host) == 200, host
        address = named(chart("local"), "Secret", "isoflop-mlflow")["stringData"]["uri"]
        assert status(port, api, address.removeprefix("http://")) == 200
        assert status(port, api, "evil.example.com") == 403


def _upgrade_in_two_pods_at_once(command: list[str], environment: dict[str, str]) -> None:
    """Two replicas of production.yaml start on an empty database at the same moment."""
    assert named(chart("production"), "Deployment", "mlflow")["spec"]["replicas"] == 2
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    processes = [subprocess.Popen(command, env=environment, **pipes) for _ in range(2)]
    for process in processes:
        output = process.communicate()[0]
        assert process.returncode == 0, output
