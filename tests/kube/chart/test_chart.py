"""The chart: linted and rendered by Helm, every value described, checked and put to use."""

import base64
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from manifests import K8S, ROOT, chart, helm, leaves, named, tool
from rendering import CHART, RENDERED, golden_of
from server import Server
from value_sets import SETS, SHIPPED, SPACES, TOGETHER

MLFLOW = {"app.kubernetes.io/name": "mlflow"}
HEAD = {"ray.io/is-ray-node": "yes", "ray.io/node-type": "head"}
INFO = 1
"""The least severity of Helm's linter: a remark."""


def test_helm_finds_nothing_to_mend() -> None:
    for reply in helm(*SETS.values()):
        assert reply["lint"]["errors"] == []
        messages = [each for each in reply["lint"]["messages"] if each["severity"] > INFO]
        assert messages == []


@pytest.mark.parametrize("name", SHIPPED)
def test_what_kubectl_gets_is_what_helm_renders(name: str) -> None:
    (reply,) = helm({"set": name, "values": RENDERED[name]})
    file = CHART / "rendered" / f"{name}.yaml"
    assert golden_of(name, reply) == file.read_text(), "`make manifests` renders it again"


def test_what_helm_and_kubectl_install_differs_in_passwords_alone() -> None:
    secrets = {
        "local": {"postgres", "mlflow-server", "isoflop-optuna", "team-isoflop"},
        "production": {"mlflow-admin", "isoflop-mlflow", "team-isoflop"},
    }
    for name in SHIPPED:
        plain = list(yaml.safe_load_all((CHART / "rendered" / f"{name}.yaml").read_text()))
        assert plain[0]["kind"] == "Namespace"
        assert [each for each in chart(name) if each not in plain] == [
            each
            for each in chart(name)
            if each["kind"] == "Secret" and each["metadata"]["name"] in secrets[name]
        ]
        assert [each for each in plain if each not in chart(name)] == []


def test_the_command_prints_where_the_chart_is(capsys: pytest.CaptureFixture[str]) -> None:
    from orchestrator.cli import main

    with pytest.raises(SystemExit):
        main(["chart"])
    assert capsys.readouterr().out == f"{CHART}\n"


def test_the_version_is_isoflops() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert about["version"] == version
    clusters = [yaml.safe_load(file.read_text()) for file in (K8S / "clusters").glob("*.yaml")]
    tags = {each["image"].rpartition(":")[2].removesuffix("-cuda") for each in clusters}
    assert tags == {about["appVersion"]}


def test_a_team_has_a_namespace_of_its_own() -> None:
    keys = [
        {(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in chart(name)}
        for name in ("team", "second", "production")
    ]
    assert keys[0] & keys[1] == keys[0] & keys[2] == keys[1] & keys[2] == set()
    objects = chart("team")
    queue = named(objects, "ClusterQueue", SPACES["team"])["spec"]
    assert queue["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "team-a"}
    assert named(objects, "LocalQueue", "vision")["spec"]["clusterQueue"] == "team-a"
    hard = named(objects, "ResourceQuota", "isoflop")["spec"]["hard"]
    assert hard["requests.nvidia.com/mig-1g.5gb"] == "8"
    rules = named(objects, "Role", "sweep-submitter")["rules"]
    assert ["team-a"] in [rule.get("resourceNames") for rule in rules]
    subjects = named(objects, "RoleBinding", "sweep-submitters")["subjects"]
    assert [each.get("namespace") for each in subjects] == [None, "builds", "team-a"]
    server = named(objects, "Deployment", "mlflow")["spec"]["template"]["spec"]
    hosts = next(v for v in server["containers"][0]["env"] if v["name"].endswith("HOSTS"))["value"]
    assert "mlflow.shared.svc.corp.example.com:5000" in hosts.split(",")
    assert "mlflow.example.com:8443" in hosts.split(",")
    assert leaves("team", HEAD, "10.8.1.1", 443)
    assert not leaves("team", HEAD, "10.9.1.1", 443)
    assert leaves("team", HEAD, "2001:db8::1", 443)
    assert not leaves("team", HEAD, "fd00:ec2::254", 443)
    assert leaves("team", MLFLOW, "10.43.0.10", 53)
    assert not leaves("team", MLFLOW, "10.43.0.11", 53)


KINDS = {
    "v1": (
        *("ConfigMap", "LimitRange", "Namespace", "PersistentVolumeClaim", "ResourceQuota"),
        *("Secret", "Service", "ServiceAccount"),
    ),
    "apps/v1": ("Deployment", "StatefulSet"),
    "batch/v1": ("Job",),
    "networking.k8s.io/v1": ("NetworkPolicy",),
    "rbac.authorization.k8s.io/v1": ("Role",),
}
"""What the default values install."""


def plural(kind: str) -> str:
    name = kind.lower()
    return f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"


@pytest.fixture
def empty(server: Server) -> Server:
    """A server without objects, which says what kinds it has, as Helm asks."""
    for path in list(server.store.objects):
        server.take(path)
    server.put("/version", {"major": "1", "minor": "37", "gitVersion": "v1.37.0"})
    server.put("/api", {"kind": "APIVersions", "versions": ["v1"]})
    groups = []
    for version, kinds in KINDS.items():
        resources = [
            {
                "name": plural(kind),
                "kind": kind,
                "namespaced": kind != "Namespace",
                "verbs": ["get"],
            }
            for kind in kinds
        ]
        path = "/api/v1" if version == "v1" else f"/apis/{version}"
        lists = {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
        server.put(path, lists)
        if version != "v1":
            at = {"groupVersion": version, "version": "v1"}
            group = version.partition("/")[0]
            groups.append({"name": group, "versions": [at], "preferredVersion": at})
    server.put("/apis", {"kind": "APIGroupList", "groups": groups})
    return server


def places(server: Server) -> set[str]:
    """The objects that a server has, by kind and name."""
    paths = [path.split("/")[-2:] for path in server.store.objects if "/namespaces/" in path]
    return {f"{kind} {name}" for kind, name in paths}


def test_a_password_that_the_cluster_has_stays(empty: Server) -> None:
    secret = "/api/v1/namespaces/isoflop-tracking/secrets/postgres"
    empty.put(secret, {"apiVersion": "v1", "kind": "Secret", "data": {"password": "b2xk"}})
    (reply,) = helm({"kubeconfig": str(empty.kubeconfig)})
    objects = tuple(yaml.safe_load_all(reply["text"]))
    assert empty.asked(f"GET {secret}") == 1
    assert named(objects, "Secret", "postgres")["data"] == {"password": "b2xk"}
    uri = base64.b64decode(named(objects, "Secret", "mlflow-server")["data"]["backend"])
    assert uri == b"postgresql://isoflop:old@postgres.isoflop-tracking.svc:5432/mlflow"


def test_a_release_is_installed_upgraded_and_removed(empty: Server) -> None:
    """By Helm itself; what it asks of the server is what counts."""
    request = {"kubeconfig": str(empty.kubeconfig), "steps": ["install", "upgrade", "uninstall"]}
    (reply,) = helm(request)
    first, second = (list(yaml.safe_load_all(text)) for text in reply["manifests"])
    assert first == second, "the upgrade has the password of the installation"
    assert len(first) == len(chart("local"))
    applied = [request.partition("?")[0] for request in empty.requests if "PATCH" in request]
    assert len(applied) == 2 * len(first)
    spaces = {f"PATCH /api/v1/namespaces/{name}" for name in ("isoflop", "isoflop-tracking")}
    assert set(applied[:2]) == spaces
    names = {f"{plural(each['kind'])} {each['metadata']['name']}" for each in first}
    assert {" ".join(path.split("/")[-2:]) for path in applied} == names
    kept = {
        *("namespaces isoflop", "namespaces isoflop-tracking"),
        *("persistentvolumeclaims isoflop-runs", "persistentvolumeclaims mlflow-artifacts"),
        *("secrets postgres", "secrets mlflow-server", "secrets isoflop-optuna"),
        "secrets team-isoflop",
    }
    assert places(empty) == kept
    again = {**request, "steps": ["install"]}
    stranger, other, same = helm({**again, "name": "x"}, {**again, "namespace": "other"}, again)
    assert "cannot be imported" in stranger["error"]
    assert "cannot be imported" in other["error"]
    assert list(yaml.safe_load_all(same["manifests"][0])) == first


def test_a_namespace_that_exists_is_left_alone(empty: Server) -> None:
    places = [f"/api/v1/namespaces/{name}" for name in ("isoflop", "isoflop-tracking")]
    for place in places:
        empty.put(place, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place}})
    before = [dict(empty.store.objects[place]) for place in places]
    request = {"kubeconfig": str(empty.kubeconfig), "steps": ["install"]}
    values = {"namespace": {"create": False}}
    refused, within, installed = helm(
        request,
        {**request, "namespace": "isoflop", "values": values},
        {**request, "values": values},
    )
    assert "cannot be imported" in refused["error"]
    assert "within the reach of submitters" in within["error"], "Helm's record has the passwords"
    objects = list(yaml.safe_load_all(installed["manifests"][0]))
    assert len(objects) == len(chart("local")) - 2
    assert [empty.store.objects[place] for place in places] == before


def test_what_an_earlier_chart_installed_is_not_left_behind(empty: Server) -> None:
    """Else an upgrade would show an empty MLflow, and say nothing of the claims with all runs."""
    old = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "mlflow"}}
    old["metadata"]["labels"] = {"app.kubernetes.io/part-of": "isoflop"}
    empty.put("/apis/apps/v1/namespaces/isoflop/deployments/mlflow", old)
    request = {"kubeconfig": str(empty.kubeconfig)}
    refused, kept = helm(request, {**request, "values": TOGETHER})
    assert "tracking.namespace=isoflop keeps them there" in refused["error"]
    objects = tuple(yaml.safe_load_all(kept["text"]))
    password = named(objects, "Secret", "postgres")["data"]["password"]
    uri = base64.b64decode(named(objects, "Secret", "isoflop-optuna")["data"]["uri"]).decode()
    assert uri.startswith(f"postgresql://isoflop:{base64.b64decode(password).decode()}@postgres")
    assert uri.endswith("/optuna"), "the trials of running studies"
    named(objects, "PersistentVolumeClaim", "mlflow-artifacts", "isoflop")
    named(objects, "StatefulSet", "postgres", "isoflop")
    assert "Job" not in {each["kind"] for each in objects}


def test_a_password_that_a_uri_cannot_take_is_refused(empty: Server) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret"}
    secret["data"] = {"password": base64.b64encode(b"p@ss/word").decode()}
    empty.put("/api/v1/namespaces/isoflop-tracking/secrets/postgres", secret)
    (reply,) = helm({"kubeconfig": str(empty.kubeconfig)})
    assert "must be of letters and digits alone" in reply["error"]


def test_an_archive_of_the_chart_renders_the_same(tmp_path: Path) -> None:
    request = {"set": "production", "values": RENDERED["production"]}
    archived, folder = helm({**request, "package": str(tmp_path)}, request)
    assert archived["text"] == folder["text"]
    assert not [name for name in archived["files"] if "rendered" in name]
    assert "production.yaml" in archived["files"]


def test_an_overlay_of_yours_stands_on_what_is_rendered(tmp_path: Path) -> None:
    (tmp_path / "production.yaml").write_text((CHART / "rendered/production.yaml").read_text())
    patch = [{"op": "replace", "path": "/spec/resources/requests/storage", "value": "2Ti"}]
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["production.yaml"],
        "images": [{"name": "registry.example.com/isoflop", "newName": "mine", "newTag": "1"}],
        "patches": [
            {
                "target": {"kind": "PersistentVolumeClaim", "name": "isoflop-runs"},
                "patch": yaml.safe_dump(patch),
            }
        ],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    command = [tool("kubectl"), "kustomize", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = tuple(yaml.safe_load_all(done.stdout))
    plain = yaml.safe_load_all((CHART / "rendered/production.yaml").read_text())
    assert len(built) == len(list(plain))
    claim = named(built, "PersistentVolumeClaim", "isoflop-runs")["spec"]
    assert claim["resources"]["requests"]["storage"] == "2Ti"
    server = named(built, "Deployment", "mlflow")["spec"]["template"]["spec"]
    assert {c["image"] for c in (*server["initContainers"], *server["containers"])} == {"mine:1"}


def test_the_page_creates_the_secrets_that_helm_would(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "cluster.md").read_text().replace("\\\n", "")
    lines = re.findall(r"(?m)^(kubectl -n isoflop\S* create secret .*)$", page)
    script = "".join(f"echo ---\n{line} --dry-run=client -o yaml\n" for line in lines)
    environment = {
        "PATH": f"{Path(tool('kubectl')).parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "host": re.findall(r"(?m)^host=(.*)$", page)[0],
        "password": "P",
        "team": "T",
    }
    command = ["bash", "-euc", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    created = {each["metadata"]["name"]: each for each in yaml.safe_load_all(done.stdout)}
    random = {
        base64.b64decode(named(chart("local"), "Secret", name)["data"]["password"]): letter
        for name, letter in {"postgres": b"P", "team-isoflop": b"T"}.items()
    }
    for name, secret in created.items():
        made = named(chart("local"), "Secret", name, secret["metadata"]["namespace"])["data"]
        expected = {key: base64.b64decode(text) for key, text in made.items()}
        for password, letter in random.items():
            expected = {key: text.replace(password, letter) for key, text in expected.items()}
        assert {key: base64.b64decode(text) for key, text in secret["data"].items()} == expected
    assert set(created) == {"postgres", "mlflow-server", "isoflop-optuna", "team-isoflop"}
