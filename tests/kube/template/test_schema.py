"""Every field that Kubernetes' OpenAPI gives to a pod is one that a template may have."""

import datetime
from collections.abc import Iterator
from typing import Any, get_args

import pydantic
import pytest
from kubernetes.client.models.v1_pod_template_spec import V1PodTemplateSpec
from manifests import definitions

from orchestrator.kube.template.schema import Model, _map, check_fragment, lacking

Json = dict[str, Any]


def sample(schema: Json) -> Any:
    """A value that a schema admits, with what is required alone."""
    if "$ref" in schema:
        return sample(definitions()[schema["$ref"].rpartition("/")[2]])
    if "oneOf" in schema:
        return sample(schema["oneOf"][0])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if "array" in kinds:
        entry = sample(schema["items"])
        key = schema.get("x-kubernetes-patch-merge-key")
        return [{key: "a", **entry} if key else entry]
    if "object" in kinds and "additionalProperties" in schema and not schema.get("properties"):
        inner = schema["additionalProperties"]
        return {"a": sample(inner)} if isinstance(inner, dict) else {}
    if "object" in kinds:
        names = schema.get("required", [])
        return {name: sample(schema["properties"][name]) for name in names}
    time = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    text = time if schema.get("format") == "date-time" else "a"
    return {"string": text, "integer": 1, "number": 1, "boolean": True}[kinds[0]]


def inner(schema: Json) -> str | None:
    """The definition of a field's values, or of its entries."""
    for part in (schema, schema.get("items", {})):
        if "$ref" in part:
            return str(part["$ref"].rpartition("/")[2])
    return None


def models(annotation: Any) -> Iterator[Model]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models(part)


def walk() -> dict[Model, str]:
    """Every model below a pod's template, and the definition that it stands for."""
    pairs: dict[Model, str] = {V1PodTemplateSpec: "io.k8s.api.core.v1.PodTemplateSpec"}
    open_ = list(pairs)
    while open_:
        model = open_.pop()
        properties = definitions()[pairs[model]]["properties"]
        for name, field in model.model_fields.items():
            for below in models(field.annotation):
                definition = inner(properties[field.serialization_alias or name])
                assert definition
                if below not in pairs:
                    pairs[below] = definition
                    open_.append(below)
    return pairs


PAIRS = walk()


def test_all_models_are_looked_at() -> None:
    assert len(PAIRS) > 100
    assert {"V1Probe", "V1LifecycleHandler", "V1HTTPGetAction"} <= {m.__name__ for m in PAIRS}


@pytest.mark.parametrize("model", PAIRS, ids=lambda model: model.__name__)
def test_a_template_may_have_every_field_of_kubernetes(model: Model) -> None:
    definition = definitions()[PAIRS[model]]
    whole = sample(definition)
    for name, schema in definition["properties"].items():
        value = sample(schema)
        _map(model, {name: value}, ("spec",))
        _map(model, {name: None}, ("spec",))
        outcome = model.model_validate({**whole, name: value})
        assert name in outcome.model_dump(by_alias=True, exclude_none=True)


PROBES = [
    {"readinessProbe": {"httpGet": {"path": "/", "port": 8080}}},
    {"startupProbe": {"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 3}},
    {"livenessProbe": {"exec": {"command": ["true"]}}},
    {"lifecycle": {"preStop": {"exec": {"command": ["true"]}}}},
    {"lifecycle": {"postStart": {"sleep": {"seconds": 1}}, "stopSignal": "SIGINT"}},
]


@pytest.mark.parametrize("fields", PROBES)
def test_probes_and_lifecycles_are_known(fields: Json) -> None:
    spec = {"containers": [{"name": "mesh", **fields}]}
    check_fragment(spec, "spec")
    assert list(lacking(spec)) == []


def test_what_a_probe_lacks_is_told_in_kubernetes_own_words() -> None:
    probe: Json = {"exec": {"command": ["true"]}, "httpGet": {"path": "/"}}
    (flaw,) = lacking({"containers": [{"name": "mesh", "livenessProbe": probe}]})
    assert flaw == "spec.containers.0.livenessProbe.httpGet.port must be given, but is missing"
