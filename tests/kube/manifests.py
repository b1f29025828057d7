"""What the manifest tests share: the chart as Helm renders it, pods, schemas, policies."""

import functools
import importlib.util
import ipaddress
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from value_sets import SETS, SPACES, TRACKING

from orchestrator.kube.template.security import refused

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
Json = dict[str, Any]
WAITS_WITH = {"cpu": "200m", "memory": "256Mi"}
"""What KubeRay gives to the container that waits for the head; no RayJob can change it."""


def tool(name: str) -> str:
    """A command of the environment, or of this machine; skips where there is none."""
    beside = Path(sys.executable).with_name(name)
    path = str(beside) if beside.exists() else shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed; `pip install -e '.[dev]'` installs it")
    return path


@functools.cache
def definitions() -> Json:
    """Kubernetes' own types by their names, as the OpenAPI of 1.37 has them."""
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    text = (folder / "v1.37.0-local-strict" / "_definitions.json").read_text()
    types: Json = json.loads(text)["$defs"]
    return types


@functools.cache
def _rendered() -> dict[str, Json]:
    """Every value set as Helm renders it."""
    return dict(zip(SETS, helm(*SETS.values()), strict=True))


def helm(*requests: Json) -> list[Json]:
    """Answers of Helm, in a process of its own; skips where its library is not installed."""
    if importlib.util.find_spec("helm_python") is None:
        pytest.skip("helm-python-sdk is not installed; `pip install -e '.[dev]'` installs it")
    script = Path(__file__).parent / "chart" / "rendering.py"
    done = subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[Json] = json.loads(done.stdout)
    return answers


@functools.cache
def chart(name: str) -> tuple[Json, ...]:
    """The objects of a value set."""
    reply = _rendered()[name]
    assert "error" not in reply, reply
    return tuple(yaml.safe_load_all(reply["text"]))


def notes(name: str) -> str:
    """What `helm install` prints at the end of a value set."""
    return str(_rendered()[name]["notes"])


def cluster(name: str) -> tuple[Json, ...]:
    """The objects of a value set, and of the release that has its MLflow."""
    return (*chart(name), *(chart("team") if name == "second" else ()))


def named(objects: tuple[Json, ...], kind: str, name: str, space: str = "") -> Json:
    """One object, in any namespace or in one."""
    matches = [
        o
        for o in objects
        if o["kind"] == kind
        and o["metadata"]["name"] == name
        and space in ("", o["metadata"].get("namespace"))
    ]
    assert len(matches) == 1, (kind, name)
    return matches[0]


def pods(objects: Iterator[Json] | tuple[Json, ...] | list[Json]) -> Iterator[tuple[str, Json]]:
    """Every pod template's metadata and spec, by a name."""
    for each in objects:
        name = f"{each['kind']}/{each['metadata']['name']}"
        if each["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield name, each["spec"]["template"]
        if each["kind"] == "RayJob":
            yield from ((f"{name}/{part}", pod) for part, pod in ray_pods(each))


def ray_pods(job: Json) -> Iterator[tuple[str, Json]]:
    """The pods of a RayJob as KubeRay 1.7.0 makes them, with what it injects.

    The autoscaler's container has the context and resources of `autoscalerOptions`, and nothing
    where there are none; `wait-gcs-ready` has the Ray container's context and environment, and
    resources of its own; the submitter of K8sJobMode is a pod without any context where no template
    is given.
    """
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    labels = {"ray.io/is-ray-node": "yes"}
    head = _pod(cluster["headGroupSpec"]["template"], {**labels, "ray.io/node-type": "head"})
    if cluster.get("enableInTreeAutoscaling"):
        options = cluster.get("autoscalerOptions", {})
        image = options.get("image", head["spec"]["containers"][0]["image"])
        given = {key: options[key] for key in ("securityContext", "resources") if key in options}
        head["spec"]["containers"].append({"name": "autoscaler", "image": image, **given})
    yield "head", head
    for group in cluster["workerGroupSpecs"]:
        worker = _pod(group["template"], {**labels, "ray.io/node-type": "worker"})
        ray = worker["spec"]["containers"][0]
        copied = {key: ray[key] for key in ("image", "securityContext", "env")}
        resources = {kind: dict(WAITS_WITH) for kind in ("requests", "limits")}
        wait = {"name": "wait-gcs-ready", **copied, "resources": resources}
        worker["spec"]["initContainers"] = [wait]
        yield f"workers/{group['groupName']}", worker
    if spec["submissionMode"] == "K8sJobMode":
        bare = {"spec": {"containers": [{"name": "ray-job-submitter", "image": "any:1"}]}}
        yield "submitter", _pod(spec.get("submitterPodTemplate", bare), {})


def _pod(template: Json, labels: dict[str, str]) -> Json:
    pod = json.loads(json.dumps(template))
    metadata = pod.setdefault("metadata", {})
    metadata["labels"] = {**metadata.get("labels", {}), **labels}
    return dict(pod)


@functools.cache
def crd(plural: str, group: str = "ray.io") -> Json:
    """The strict JSON schema of a resource, KubeRay's by default; skips where it is not at hand."""
    return dict(_strict(crd_file(plural, group), top=True))


def crd_file(plural: str, group: str = "ray.io") -> Json:
    """A resource's schema as its definition has it; skips where it is not at hand."""
    default = ROOT.parent / "shared" / "data" / "kuberay-crds"
    folder = Path(os.environ.get("ISOFLOP_KUBERAY_CRDS", default))
    path = folder / f"{plural}.v1.json"
    if not path.exists():
        pytest.skip(
            f"no schema at {path}; from a cluster: `kubectl get crd {plural}.{group} -o json`, its "
            "spec.versions as {versions: {v1: openAPIV3Schema}}, and ISOFLOP_KUBERAY_CRDS"
        )
    schema: Json = json.loads(path.read_text())["versions"]["v1"]
    return schema


def _strict(schema: Any, *, top: bool = False) -> Any:
    """Unknown fields are refused, as by `fieldValidation=Strict`; defaults may be left out."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    fields = schema.get("properties")
    strict = {key: _strict(value) for key, value in schema.items() if key != "properties"}
    if fields is not None:
        strict["properties"] = {name: _strict(part) for name, part in fields.items()}
    if isinstance(fields, dict) and schema.get("type") == "object":
        if "x-kubernetes-preserve-unknown-fields" not in schema:
            strict["additionalProperties"] = False
        if top:
            for name in ("apiVersion", "kind"):
                strict["properties"].setdefault(name, {"type": "string"})
            strict["properties"]["metadata"] = {"type": "object"}
        if "required" in schema:
            needed = [name for name in schema["required"] if "default" not in fields.get(name, {})]
            strict["required"] = needed
    if schema.get("x-kubernetes-int-or-string"):
        strict.pop("type", None)
    return strict


def flaws(pod: Json) -> Iterator[str]:
    """What Pod Security `restricted` would refuse of a pod, and what else we do not want."""
    yield from refused({"spec": pod}, "restricted")
    for volume in pod.get("volumes", []):
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"volume {volume['name']} has no limit"
    scales = any(container["name"] == "autoscaler" for container in pod["containers"])
    if not scales and pod.get("automountServiceAccountToken") is not False:
        yield "a token that nobody needs"
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        yield from (f"{container['name']}: {f}" for f in _container_flaws(container, pod))


def _container_flaws(container: Json, pod: Json) -> Iterator[str]:
    context = container.get("securityContext", {})
    if context.get("readOnlyRootFilesystem") is not True:
        yield "a root that can be written"
    if not {**pod.get("securityContext", {}), **context}.get("runAsUser"):
        yield "root"
    for kind in ("requests", "limits"):
        if not {"cpu", "memory"} <= set(container.get("resources", {}).get(kind, {})):
            yield f"no {kind}"
    if not re.search(r":(?!latest$)[^/]+$", container["image"]):
        yield f"image {container['image']}"


# NetworkPolicies, as the cluster would apply them.


def fits(selector: Json, labels: Json) -> bool:
    """Whether a selector of labels holds; only what the policies use is known here."""
    rules = selector.get("matchExpressions", [])
    assert all(rule["operator"] == "In" for rule in rules)
    return all(labels.get(k) == v for k, v in selector.get("matchLabels", {}).items()) and all(
        labels.get(rule["key"]) in rule["values"] for rule in rules
    )


BESIDE = ("mlflow", "postgres", "team-account")
"""The names of pods that are where MLflow is."""


def home(name: str, labels: Json) -> str:
    """The namespace in which a value set has pods of such labels."""
    beside = labels.get("app.kubernetes.io/name") in BESIDE
    return TRACKING[name] if beside else SPACES[name]


def rules(name: str, labels: Json, kind: str) -> list[Json] | None:
    """What policies let into or out of a pod; None where all may pass."""
    mine = [
        o["spec"]
        for o in cluster(name)
        if o["kind"] == "NetworkPolicy"
        and o["metadata"]["namespace"] == home(name, labels)
        and fits(o["spec"]["podSelector"], labels)
        and kind in o["spec"]["policyTypes"]
    ]
    return [rule for p in mine for rule in p.get(kind.lower(), [])] if mine else None


def open_at(rule: Json, port: int, protocol: str = "TCP") -> bool:
    pairs = [(p["port"], p["protocol"]) for p in rule.get("ports", [])]
    return not pairs or (port, protocol) in pairs


def allowed(name: str, source: Json, target: Json, port: int, space: str = "") -> bool:
    """Whether a pod of labels `source`, there or in another namespace, reaches one of `target`."""
    from_space, to_space = space or home(name, source), home(name, target)

    def passes(labels: Json, other: Json, kind: str, side: str, other_space: str) -> bool:
        listed = rules(name, labels, kind)
        return listed is None or any(
            "ipBlock" not in peer
            and (
                other_space == home(name, labels)
                if "namespaceSelector" not in peer
                else fits(peer["namespaceSelector"], {"kubernetes.io/metadata.name": other_space})
            )
            and fits(peer.get("podSelector", {}), other)
            for rule in listed
            if open_at(rule, port)
            for peer in rule.get(side, [{}])
        )

    out = bool(space) or passes(source, target, "Egress", "to", to_space)
    return out and passes(target, source, "Ingress", "from", from_space)


def leaves(name: str, source: Json, address: str, port: int, protocol: str = "TCP") -> bool:
    """Whether a pod reaches an address, in the cluster or outside it."""
    place = ipaddress.ip_address(address)
    return any(
        place in ipaddress.ip_network(block["cidr"])
        and not any(place in ipaddress.ip_network(each) for each in block.get("except", []))
        for rule in rules(name, source, "Egress") or []
        if open_at(rule, port, protocol)
        for block in (peer["ipBlock"] for peer in rule.get("to", []) if "ipBlock" in peer)
    )
