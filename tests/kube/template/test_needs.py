"""What pods refer to, by every kind of reference that a template may have."""

from typing import Any

import pytest
from manifests import definitions

from orchestrator.kube.template.needs import CLAIMS, CLASSES, REFERENCES, needs

Json = dict[str, Any]


def volume(**source: Json) -> Json:
    return {"volumes": [{"name": "x", **source}]}


def ephemeral(**fields: str) -> Json:
    return volume(ephemeral={"volumeClaimTemplate": {"spec": fields}})


def container(**fields: Any) -> Json:
    return {"containers": [{"name": "x", **fields}]}


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ({"serviceAccountName": "a"}, "ServiceAccount a"),
        ({"imagePullSecrets": [{"name": "a"}]}, "Secret a"),
        (container(envFrom=[{"secretRef": {"name": "a"}}]), "Secret a"),
        (container(envFrom=[{"configMapRef": {"name": "a"}}]), "ConfigMap a"),
        (volume(secret={"secretName": "a"}), "Secret a"),
        (volume(projected={"sources": [{"secret": {"name": "a"}}]}), "Secret a"),
        (volume(projected={"sources": [{"configMap": {"name": "a"}}]}), "ConfigMap a"),
        (volume(persistentVolumeClaim={"claimName": "a"}), "PersistentVolumeClaim a"),
        (volume(csi={"driver": "d", "nodePublishSecretRef": {"name": "a"}}), "Secret a"),
        (volume(azureFile={"shareName": "s", "secretName": "a"}), "Secret a"),
        ({"resourceClaims": [{"name": "g", "resourceClaimName": "a"}]}, "ResourceClaim a"),
        (
            {"resourceClaims": [{"name": "g", "resourceClaimTemplateName": "a"}]},
            "ResourceClaimTemplate a",
        ),
    ],
)
def test_objects_of_the_namespace(spec: Json, name: str) -> None:
    assert needs([spec, spec]) == ([], [name])


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ({"priorityClassName": "a"}, "PriorityClass a"),
        ({"runtimeClassName": "a"}, "RuntimeClass a"),
        (ephemeral(storageClassName="a"), "StorageClass a"),
        (ephemeral(volumeAttributesClassName="a"), "VolumeAttributesClass a"),
    ],
)
def test_objects_of_the_cluster(spec: Json, name: str) -> None:
    assert needs([spec, spec]) == ([name], [])


def test_what_may_be_missing_or_is_empty_is_left_out() -> None:
    optional = volume(secret={"secretName": "a", "optional": True})
    assert needs([optional, ephemeral(storageClassName=""), volume(csi={"driver": "d"})]) == (
        [],
        [],
    )


def test_every_field_that_names_a_class_or_a_claim_is_known() -> None:
    """In the OpenAPI of Kubernetes, below a pod: what ends like a name of one, and Secrets."""
    prefix, open_ = "io.k8s.api.core.v1.", ["io.k8s.api.core.v1.PodSpec"]
    names, seen = set(), set(open_)
    while open_:
        for name, field in definitions()[open_.pop()].get("properties", {}).items():
            if name.lower().endswith(("classname", "claimname", "templatename", "secretref")):
                names.add(name)
            for part in (field, field.get("items", {})):
                below = part.get("$ref", "").rpartition("/")[2]
                if below.startswith(prefix) and below not in seen:
                    seen.add(below)
                    open_.append(below)
    assert names - {"claimName"} <= {*CLASSES, *CLAIMS, *REFERENCES}
    assert {*CLASSES, *CLAIMS} <= names
