"""What a team may reach, and what is its share: Secrets, passwords, queues and quotas."""

import base64
import re
from collections.abc import Iterator

import pytest
from manifests import K8S, ROOT, Json, chart, cluster, helm, named, notes, pods
from value_sets import SETS, SPACES, TRACKING
from yaml import safe_load, safe_load_all

from orchestrator.kube.template.quantities import amount

APART = [name for name in SETS if SPACES[name] != TRACKING[name]]
"""Value sets whose MLflow is in a namespace of its own."""
OURS = ("isoflop-mlflow", "isoflop-optuna")
"""The Secrets of a team."""
COMPUTE = ("cpu", "memory")


def secrets(name: str, space: str) -> dict[str, dict[str, str]]:
    """The Secrets of a namespace that the chart makes, by name."""

    def texts(secret: Json) -> dict[str, str]:
        coded = secret.get("data", {}).items()
        return {key: base64.b64decode(text).decode() for key, text in coded} | secret.get(
            "stringData", {}
        )

    return {
        each["metadata"]["name"]: texts(each)
        for each in cluster(name)
        if each["kind"] == "Secret" and each["metadata"]["namespace"] == space
    }


def referred(pod: Json) -> Iterator[str]:
    """The Secrets that a pod takes passwords from, but not those of an image's registry."""
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        for variable in container.get("env", []):
            if source := variable.get("valueFrom", {}).get("secretKeyRef"):
                yield source["name"]
        for each in container.get("envFrom", []):
            yield each["secretRef"]["name"]
    for volume in pod.get("volumes", []):
        if "secret" in volume:
            yield volume["secret"]["secretName"]


@pytest.mark.parametrize("name", APART)
def test_no_password_of_mlflow_or_its_database_is_where_people_submit(name: str) -> None:
    """Who may create RayJobs may mount any Secret of that namespace."""
    objects, space, tracking = cluster(name), SPACES[name], TRACKING[name]
    bindable = {o["metadata"]["namespace"] for o in objects if o["kind"] in ("Role", "RoleBinding")}
    assert tracking not in bindable, "nobody gets rights there"
    for each in objects:
        for _, pod in pods([each]):
            assert each["metadata"]["namespace"] == tracking, "the chart's own pods are beside"
            assert set(referred(pod["spec"])).isdisjoint(OURS)

    there = secrets(name, tracking)
    administration = {
        text
        for secret, texts in there.items()
        if not secret.startswith("team-")
        for key, text in texts.items()
        if key in ("password", "flask", "backend")
    }
    if name in ("local", "team", "second"):
        assert administration
    for secret, texts in secrets(name, space).items():
        assert secret in OURS
        for text in texts.values():
            assert not any(word in text or text in word for word in administration), secret
        uri = texts["uri"]
        assert not re.search("://(isoflop|postgres|admin):", uri), "a role of the team's own"
        assert texts.get("username", space) == space
        if secret == "isoflop-optuna":
            assert uri.endswith(f"/optuna-{space}")
    others = [other for other in there if other.startswith("team-") and other != f"team-{space}"]
    for other in others:
        mine = [text for texts in secrets(name, space).values() for text in texts.values()]
        assert not any(there[other]["password"] in text for text in mine), "another team's"

    assert set(by_hand(name, f"These must exist in {space}:")) <= set(OURS)


def by_hand(name: str, heading: str) -> list[str]:
    """The Secrets that the notes list below a line."""
    lines = notes(name).partition(f"{heading}\n")[2].partition("\n\n")[0]
    return re.findall(r"(?m)^  Secret ([\w-]+)", lines)


@pytest.mark.parametrize("name", SETS)
def test_a_secret_is_where_its_pod_is(name: str) -> None:
    tracking = TRACKING[name]
    there = set(secrets(name, tracking)) | set(by_hand(name, f"These must exist in {tracking}:"))
    there |= set(by_hand(name, "And there, with a password of the team's own:"))
    for _, pod in pods(chart(name)):
        assert set(referred(pod["spec"])) - {"mlflow-s3"} <= there
    sweeps = set(secrets(name, SPACES[name])) | set(by_hand(name, f"exist in {SPACES[name]}:"))
    assert set(OURS) <= sweeps


def test_the_pods_of_sweeps_take_no_other_secret() -> None:
    for file in sorted((K8S / "examples").glob("*.yaml")):
        for _, pod in pods([o for o in safe_load_all(file.read_text()) if o["kind"] == "RayJob"]):
            assert set(referred(pod["spec"])) <= set(OURS)


def test_in_one_namespace_the_notes_say_what_is_within_reach() -> None:
    sentence = "Who may submit may mount the Secrets of MLflow"
    assert [name for name in SETS if sentence in notes(name)] == ["together"]


def test_a_job_is_another_one_when_it_changes() -> None:
    """A Job's pod cannot be changed, so an upgrade would fail."""
    names = {o["metadata"]["name"] for name in SETS for o in chart(name) if o["kind"] == "Job"}
    assert len(names) == 7
    assert all(re.fullmatch(r"team-(isoflop|team-[ab])-[0-9a-f]{8}", name) for name in names)


# Kueue. Its schema is not at hand: the fields are those of v1beta2's types, read in Kueue's source.

FIELDS: Json = {
    "ResourceFlavor": {"nodeLabels": str},
    "LocalQueue": {"clusterQueue": str},
    "ClusterQueue": {
        "cohortName": str,
        "preemption": {"reclaimWithinCohort": str},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": str}},
        "resourceGroups": [
            {
                "coveredResources": [str],
                "flavors": [
                    {
                        "name": str,
                        "resources": [{"name": str, "nominalQuota": str, "borrowingLimit": str}],
                    }
                ],
            }
        ],
    },
}


def fits(value: object, fields: object) -> bool:
    """Whether a part of an object has no fields but these, of these types."""
    if isinstance(fields, list):
        return isinstance(value, list) and all(fits(each, fields[0]) for each in value)
    if isinstance(fields, dict):
        return isinstance(value, dict) and all(
            key in fields and fits(each, fields[key]) for key, each in value.items()
        )
    return isinstance(value, str) or (
        isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
    )


def groups(name: str) -> list[Json]:
    (queue,) = (o for o in chart(name) if o["kind"] == "ClusterQueue")
    return list(queue["spec"]["resourceGroups"])


QUEUED = [name for name, request in SETS.items() if name in ("production", "team", "second")]


@pytest.mark.parametrize("name", QUEUED)
def test_a_queue_keeps_kueues_rules(name: str) -> None:
    kinds = {o["kind"]: o for o in chart(name) if o["apiVersion"].startswith("kueue")}
    for kind, each in kinds.items():
        assert fits(each.get("spec", {}), FIELDS[kind]), kind
    spec = kinds["ClusterQueue"]["spec"]
    covered = [each for group in groups(name) for each in group["coveredResources"]]
    flavors = [each["name"] for group in groups(name) for each in group["flavors"]]
    assert len(set(covered)) == len(covered), "a resource is in one group"
    assert len(set(flavors)) == len(flavors), "a flavor is in one group"
    for group in groups(name):
        for flavor in group["flavors"]:
            assert [each["name"] for each in flavor["resources"]] == group["coveredResources"]
            limits = [each for each in flavor["resources"] if "borrowingLimit" in each]
            assert not limits or spec.get("cohortName")
    made = {o["metadata"]["name"] for o in cluster(name) if o["kind"] == "ResourceFlavor"}
    assert set(flavors) <= made


@pytest.mark.parametrize("name", QUEUED)
def test_what_kueue_admits_the_quota_does_not_refuse(name: str) -> None:
    hard = named(chart(name), "ResourceQuota", "isoflop")["spec"]["hard"]
    for group in groups(name):
        for resource in group["coveredResources"]:
            quotas = [
                each
                for flavor in group["flavors"]
                for each in flavor["resources"]
                if each["name"] == resource
            ]
            most = sum(
                amount(each["nominalQuota"]) + amount(each.get("borrowingLimit", "0"))
                for each in quotas
            )
            assert amount(hard[f"requests.{resource}"]) >= most, resource
            if resource in COMPUTE:
                assert amount(hard[f"limits.{resource}"]) >= most


def test_teams_of_a_cohort_lend_each_other_gpus_and_parts_of_them() -> None:
    first, second = (
        {
            (flavor["name"], each["name"])
            for group in groups(name)
            for flavor in group["flavors"]
            for each in flavor["resources"]
        }
        for name in ("team", "second")
    )
    assert first == second, "Kueue lends within one flavor and resource"
    assert ("a100-mig", "nvidia.com/mig-1g.5gb") in first
    assert {("a100", "nvidia.com/gpu"), ("l4", "nvidia.com/gpu")} <= first
    queues = [o["spec"] for o in cluster("second") if o["kind"] == "ClusterQueue"]
    assert [each["cohortName"] for each in queues] == ["research", "research"]
    flavors = [o["metadata"]["name"] for o in cluster("second") if o["kind"] == "ResourceFlavor"]
    assert sorted(flavors) == ["a100", "a100-mig", "l4", "research"], "each once"
    selected = [each["namespaceSelector"]["matchLabels"] for each in queues]
    assert [list(each.values()) for each in selected] == [["team-b"], ["team-a"]]


def test_the_values_on_the_page_are_taken() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text()
    values = [safe_load(text) for text in re.findall(r"(?s)```yaml\n(# values.*?)```", page)]
    assert len(values) == 2
    replies = helm(*({"values": each} for each in values))
    assert [reply.get("error") for reply in replies] == [None, None]
    objects = [tuple(safe_load_all(reply["text"])) for reply in replies]
    assert {o["metadata"].get("namespace") for o in objects[0]} == {
        *("team-b", "team-a-tracking", None)
    }
    queue = next(o for o in objects[1] if o["kind"] == "ClusterQueue")["spec"]
    covered = [group["coveredResources"] for group in queue["resourceGroups"]]
    assert covered == [["cpu", "memory"], ["nvidia.com/gpu"], ["nvidia.com/mig-1g.10gb"]]
