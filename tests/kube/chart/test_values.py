"""The chart's values: each described, known to the schema, checked, and put to use."""

import functools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from manifests import K8S, Json, chart, helm, named, notes, pods
from rendering import CHART, merged
from value_sets import TEAM

VALUES: Json = yaml.safe_load((CHART / "values.yaml").read_text())
FREE = {"hard", "requests", "limits", "accountAnnotations", "nodeSelector", "quotas", "resources"}
FREE |= {"labels", "borrowing"}
"""Maps whose entries are for who installs to name."""


def paths(values: Json, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every value by its names; a map that has names of its own counts as one value."""
    for name, value in values.items():
        here = (*before, name)
        if isinstance(value, dict) and not (name in FREE and here != ("limits",)):
            yield from paths(value, here)
        else:
            yield here


def nested(path: tuple[str, ...], value: Any) -> Json:
    for name in reversed(path):
        value = {name: value}
    return dict(value)


def test_every_value_is_described_where_it_is_set() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    missing = []
    for path in paths(VALUES):
        start = 0
        for depth, name in enumerate(path):
            pattern = re.compile(rf"{'  ' * depth}{re.escape(name)}:")
            start = next(n for n in range(start, len(lines)) if pattern.match(lines[n]))
        if not lines[start - 1].lstrip().startswith("#"):
            missing.append(path)
    assert missing == []


def test_the_schema_knows_every_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    del schema["properties"]["global"]  # Helm's own

    def known(part: Json, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        for name, field in part["properties"].items():
            here = (*before, name)
            if "properties" in field:
                assert field["additionalProperties"] is False, here
                yield from known(field, here)
            else:
                yield here

    assert schema["additionalProperties"] is False
    assert set(known(schema)) == set(paths(VALUES))


def test_a_typo_is_refused_wherever_it_is() -> None:
    groups = {path[:depth] for path in paths(VALUES) for depth in range(len(path))}
    assert len(groups) > 10
    replies = helm(*({"values": nested((*group, "typo"), "x")} for group in groups))
    for group, reply in zip(groups, replies, strict=True):
        assert "typo" in reply.get("error", ""), group
    kinds = helm(*({"values": nested(path, {"a": [1]})} for path in paths(VALUES)))
    for path, reply in zip(paths(VALUES), kinds, strict=True):
        assert path[-1] in reply.get("error", ""), path


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"network": {"dns": ["10.0.0.1"]}}, "dns"),
        ({"mlflow": {"replicas": 0}}, "replicas"),
        ({"namespace": {"name": "Team_A"}}, "name"),
        ({"submitters": [{"kind": "Person", "name": "x"}]}, "submitters"),
        ({"image": {"digest": "sha256:short"}}, "digest"),
        ({"runs": {"size": "50 GB"}}, "size"),
        ({"postgres": {"image": "postgres"}}, "image"),
        ({"network": {"https": ["300.1.1.1/24"]}}, "https"),
        ({"network": {"https": ["10.0.0.0/33"]}}, "https"),
        ({"network": {"https": ["2001:db8::/129"]}}, "https"),
        ({"network": {"databasePorts": []}}, "databasePorts"),
        ({"network": {"bucketPorts": [70000]}}, "bucketPorts"),
        ({"runs": {"size": -1}}, "size"),
    ],
)
def test_a_value_that_cannot_be_is_refused(values: Json, field: str) -> None:
    (reply,) = helm({"values": values})
    assert field in reply["error"]


def queue(quotas: Json, gpus: str | None = None) -> Json:
    """A queue with one kind of nodes, and so many GPUs on any."""
    flavor = {"name": "kind", "nodeLabels": {"a": "b"}, "quotas": quotas}
    return {"queue": {"create": True, "quotas": {"nvidia.com/gpu": gpus}, "flavors": [flavor]}}


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"namespace": "isoflop"}, "namespace.create must be false"),
        ({"values": {"mlflow": {"replicas": 2}}}, "mlflow.artifacts.create must be false"),
        (
            {"values": {"mlflow": {"artifacts": {"create": False}}}},
            "tracking.secrets must be false",
        ),
        ({"values": {"mlflow": {"secret": "postgres"}}}, "mlflow.secret must not be postgres"),
        ({"values": {"mlflow": {"secret": "isoflop-mlflow"}}}, "mlflow.secret must not be"),
        ({"values": {"mlflow": {"secret": "team-isoflop"}}}, "mlflow.secret must not be"),
        ({"namespace": "isoflop-tracking"}, "namespace.create must be false"),
        ({"values": {"tracking": {"create": False}}}, "tracking.namespace must be named"),
        (
            {"values": {"tracking": {"create": False, "namespace": "isoflop"}}},
            "tracking.namespace must be another one",
        ),
        (
            {"values": {"queue": {"create": True, "borrowing": {"cpu": "1"}}}},
            "queue.cohort must be named",
        ),
        (
            {"values": {"queue": {"create": True, "cohort": "c", "borrowing": {"x": "1"}}}},
            "borrowing of x must be of a resource in the same quotas",
        ),
        ({"values": queue({"nvidia.com/gpu": "4"}, "4")}, "must not be in queue.quotas"),
        ({"values": queue({"nvidia.com/gpu": "17"})}, "requests.nvidia.com/gpu of 17 or more"),
        (
            {"values": queue({"nvidia.com/mig-1g.10gb": "1"})},
            "quota.hard must have requests.nvidia.com/mig-1g.10gb of 1 or more",
        ),
        (
            {"values": merged(queue({"nvidia.com/gpu": "4"}), {"namespace": {"name": "kind"}})},
            "queue.flavors must have different names",
        ),
    ],
)
def test_values_that_exclude_each_other_are_refused(request_: Json, sentence: str) -> None:
    (reply,) = helm(request_)
    assert sentence in reply["error"]


@pytest.mark.parametrize("field", ["https", "database", "bucket"])
def test_no_network_opens_a_metadata_server(field: str) -> None:
    closed = [
        *("0.0.0.0/1", "128.0.0.0/1", "168.0.0.0/7", "169.0.0.0/8", "169.254.0.0/15"),
        *("169.254.0.0/16", "169.254.169.254/32", "::/1", "0::/0", "0:0:0:0:0:0:0:0/0", "::/16"),
        *("fe80::/16", "FE80::1/128", "fd00::/8", "FD00:EC2::/32", "fd00:0ec2::254/128"),
        *("fd00::/16", "fd00:e00::/24", "::ffff:a9fe:a9fe/128", "64:ff9b::/96"),
    ]
    opened = ["0.0.0.0/0", "::/0", "10.0.0.0/8", "169.1.0.0/16", "2001:db8::/32", "fd12:3::/48"]
    replies = helm(*({"values": {"network": {field: [each]}}} for each in closed + opened))
    refused = [
        each for each, reply in zip(closed + opened, replies, strict=True) if "error" in reply
    ]
    assert refused == closed
    assert all("network " in reply["error"] for reply in replies[: len(closed)])


@pytest.mark.parametrize("amount", ["0.5", 0.5, 2, "1.5Gi", "2Ei", "1E", "1e3", "128e-3", ".5"])
def test_kubernetes_amounts_are_taken(amount: str | float) -> None:
    (reply,) = helm({"values": {"mlflow": {"resources": {"limits": {"cpu": amount}}}}})
    limits = [
        each["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"]
        for each in yaml.safe_load_all(reply["text"])
        if each["kind"] == "Deployment"
    ]
    assert [str(each) for each in limits] == [str(amount)]


def alternatives() -> dict[tuple[str, ...], Any]:
    """Another value for each: a team's, or one of these."""
    team = {
        path: functools.reduce(lambda part, name: part[name], path, TEAM) for path in paths(TEAM)
    }
    amounts = {"requests": {"cpu": "3"}}
    return team | {
        ("mlflow", "auth", "create"): False,
        ("image", "repository"): "mine",
        ("runs", "create"): False,
        ("runs", "size"): "1Ti",
        ("quota", "create"): False,
        ("limits", "create"): False,
        ("limits", "requests"): {"cpu": "3"},
        ("limits", "limits"): {"cpu": "3"},
        ("network", "database"): ["10.1.0.0/16"],
        ("network", "databasePorts"): [6432],
        ("network", "bucket"): ["10.2.0.0/16"],
        ("network", "bucketPorts"): [9000],
        ("network", "bucketOfSweeps"): True,
        ("network", "identity"): True,
        ("mlflow", "replicas"): 2,
        ("mlflow", "bucketSecret"): "keys",
        ("mlflow", "uriSecret"): False,
        ("mlflow", "resources"): amounts,
        ("mlflow", "artifacts", "create"): False,
        ("mlflow", "artifacts", "size"): "1Ti",
        ("postgres", "create"): False,
        ("tracking", "create"): False,
        ("tracking", "secrets"): True,
        ("postgres", "image"): "postgres:18",
        ("postgres", "resources"): amounts,
        ("queue", "create"): False,
        ("queue", "createFlavors"): False,
        ("queue", "quotas"): {"cpu": "7"},
        ("queue", "borrowing"): {"cpu": "7"},
        ("monitoring", "create"): False,
    }


def test_every_value_changes_what_is_installed() -> None:
    """Each of them alone, against the defaults with all that is optional, but a password."""
    others = alternatives()
    assert set(others) == set(paths(VALUES))
    outside = {"database": ["10.0.0.0/8"], "bucket": ["0.0.0.0/0"]}
    base = {name: {"create": True} for name in ("queue", "monitoring")}
    base |= {"tracking": {"namespace": "beside", "secrets": False}, "network": outside}
    base["mlflow"] = {"auth": {"create": True}}
    base["queue"] |= {"cohort": "c", "quotas": {"nvidia.com/gpu": None}}
    base["quota"] = {"hard": {"requests.nvidia.com/mig-1g.5gb": "8"}}
    several = merged(base, {"mlflow": {"artifacts": {"create": False}}})
    open_to_all = merged(base, {"mlflow": {"auth": {"create": False}}})
    special = {"replicas": several, "uriSecret": open_to_all}
    bases = [special.get(path[-1], base) for path in others]
    changed = [
        merged(each, nested(path, others[path])) for each, path in zip(bases, others, strict=True)
    ]
    plain = helm(*({"values": each} for each in bases))
    replies = helm(*({"values": each} for each in changed))
    unchanged = [
        path
        for path, before, reply in zip(others, plain, replies, strict=True)
        if reply["text"] == before["text"]
    ]
    assert unchanged == []


def test_a_name_that_yaml_reads_as_another_type_stays_a_name() -> None:
    def values(name: str) -> Json:
        quotas = {"cpu": None, "memory": None, "nvidia.com/gpu": None, name: "1"}
        return {
            "namespace": {"name": name},
            "image": {"pullSecrets": [name]},
            "submitters": [
                {"kind": "ServiceAccount", "name": name, "namespace": name},
                {"kind": "ServiceAccount", "name": name},
            ],
            "runs": {"storageClass": name},
            "network": {"operator": name, "ingress": name},
            "mlflow": {"secret": name, "bucketSecret": name, "accountAnnotations": {"a": name}},
            "tracking": {"namespace": f"{name}-beside", "secrets": False},
            "postgres": {"storageClass": name},
            "pods": {"priorityClassName": name, "nodeSelector": {"pool": name}},
            "queue": {"create": True, "name": name, "quotas": quotas, "cohort": name},
            "quota": {"create": False},
        }

    names = ["on", "2024", "null", "1e3", "0x1f"]
    replies = helm(*({"values": values(name)} for name in ["some-word", *names]))
    word, *texts = [re.sub(r"-[0-9a-f]{8}\b", "-digest", reply["text"]) for reply in replies]
    expected = json.dumps(list(yaml.safe_load_all(word)))
    for name, text in zip(names, texts, strict=True):
        objects = list(yaml.safe_load_all(text))
        assert objects == json.loads(expected.replace("some-word", name))


def test_every_image_of_the_chart_is_pulled_with_the_registrys_secrets() -> None:
    given = [pod["spec"].get("imagePullSecrets") for _, pod in pods(chart("team"))]
    assert given == [[{"name": "pull"}]] * 3


def test_one_pod_with_a_claim_gives_way_before_its_successor_comes() -> None:
    steps = {name: (1, 0) if name == "production" else (0, 1) for name in ("local", "production")}
    for name, (more, fewer) in steps.items():
        strategy = named(chart(name), "Deployment", "mlflow")["spec"]["strategy"]
        update = {"maxSurge": more, "maxUnavailable": fewer}
        assert strategy == {"type": "RollingUpdate", "rollingUpdate": update}


def test_what_helm_prints_begins_a_cluster_file() -> None:
    from orchestrator.kube.cluster import Cluster

    plain = "  isoflop submit quickstart --wait\n"
    assert plain in notes("local")
    for name, queue in {"production": "sweeps", "team": "vision"}.items():
        assert plain not in notes(name)
        assert "isoflop submit quickstart --cluster CLUSTER.yaml --wait" in notes(name)
        lines = notes(name).partition("CLUSTER.yaml, to begin with:\n")[2].partition("\n\n")[0]
        cluster = Cluster.model_validate(yaml.safe_load(lines))
        assert cluster.namespace == ("team-a" if name == "team" else "isoflop")
        assert cluster.queue == queue
        assert cluster.optuna is not None
        assert cluster.pull_secret == ("pull" if name == "team" else None)
        assert not cluster.one_node
    shipped = yaml.safe_load((K8S / "clusters" / "local.yaml").read_text())
    (other,) = helm({"values": {"image": {"repository": "mine"}}})
    lines = other["notes"].partition("to begin with:\n")[2].partition("\n\n")[0]
    image = f"mine:{shipped['image'].partition(':')[2]}"
    assert yaml.safe_load(lines) == {**shipped, "image": image}
