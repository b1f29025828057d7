"""The strategic merge: its laws, its keys as Kubernetes' OpenAPI has them, its directives."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from manifests import definitions

from orchestrator.kube.template.merge import KEYS, SECOND, merge

POD = "io.k8s.api.core.v1.PodSpec"
Json = dict[str, Any]

NAMES = st.sampled_from(["a", "b", "c"])
LEAVES = st.one_of(st.integers(), st.sampled_from(["x", "y"]), st.lists(st.integers(), max_size=2))


def maps(leaves: st.SearchStrategy[Any], *, complete: bool) -> st.SearchStrategy[Json]:
    """Parts of pods: plain fields, nested ones, and lists with keys; patches delete, too."""

    def deeper(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
        entry = st.tuples(NAMES, st.dictionaries(NAMES, inner, max_size=2)).map(
            lambda pair: {**pair[1], "name": pair[0]}
        )
        entries = st.lists(entry, max_size=3, unique_by=lambda each: str(each["name"]))
        words = st.just({}) if complete else st.sampled_from([{}, {"$patch": "replace"}])
        plain = st.tuples(st.dictionaries(NAMES, inner, max_size=3), words)
        both = plain.map(lambda pair: {**pair[0], **pair[1]})
        return st.one_of(both, st.fixed_dictionaries({"env": entries}))

    return st.recursive(leaves, deeper, max_leaves=8).filter(lambda each: isinstance(each, dict))


BASES = maps(LEAVES, complete=True)
DELETES = st.sampled_from([None, {"$patch": "delete"}])
PATCHES = maps(st.one_of(LEAVES, DELETES), complete=False)


@given(BASES)
def test_an_empty_patch_changes_nothing(base: Json) -> None:
    assert merge(base, {}) == base


@given(BASES, PATCHES)
def test_a_patch_twice_is_a_patch_once_and_changes_no_argument(base: Json, patch: Json) -> None:
    arguments = copy.deepcopy((base, patch))
    once = merge(base, patch)
    assert merge(once, patch) == once
    assert (base, patch) == arguments
    assert "$patch" not in json.dumps(once)
    assert "null" not in json.dumps(once)


@given(BASES, NAMES)
def test_what_is_deleted_is_absent_and_the_rest_stays(base: Json, name: str) -> None:
    rest = {key: part for key, part in base.items() if key != name}
    assert merge(base, {name: None}) == rest
    assert merge(base, {name: {"$patch": "delete"}}) == rest
    env = [{"name": each, "value": each} for each in "abc"]
    deleted = merge({"env": env}, {"env": [{"name": name, "$patch": "delete"}]})
    assert deleted == {"env": [each for each in env if each["name"] != name]}


@given(BASES, BASES)
def test_a_patch_without_directives_is_contained_in_the_outcome(base: Json, patch: Json) -> None:
    def contains(outcome: Any, part: Any) -> bool:
        if isinstance(part, dict):
            return all(contains(outcome[name], each) for name, each in part.items())
        if isinstance(part, list) and part and isinstance(part[0], dict):
            by_name = {each["name"]: each for each in outcome}
            return all(contains(by_name[each["name"]], each) for each in part)
        return bool(outcome == part) or (part == [] and isinstance(outcome, list))

    assert contains(merge(base, patch), patch)


def test_lists_with_keys_are_merged_in_place_and_others_replaced() -> None:
    base = {
        "containers": [
            {"name": "ray", "args": ["a", "b"], "env": [{"name": "HOME", "value": "/tmp"}]},
            {"name": "log"},
        ],
        "tolerations": [{"key": "a"}],
    }
    patch = {
        "containers": [
            {"name": "mesh", "image": "mesh:1"},
            {"name": "ray", "args": ["c"], "env": [{"name": "PROXY", "value": "p"}]},
        ],
        "tolerations": [{"key": "b"}],
    }
    env = [{"name": "HOME", "value": "/tmp"}, {"name": "PROXY", "value": "p"}]
    assert merge(base, patch) == {
        "containers": [
            {"name": "ray", "args": ["c"], "env": env},
            {"name": "log"},
            {"name": "mesh", "image": "mesh:1"},
        ],
        "tolerations": [{"key": "b"}],
    }
    only = merge(base, {"containers": [{"$patch": "replace"}, {"name": "mesh"}]})
    assert only["containers"] == [{"name": "mesh"}]
    other = {"containers": [{"name": "ray", "$patch": "replace", "image": "x:1"}]}
    assert merge(base, other)["containers"] == [{"name": "ray", "image": "x:1"}, {"name": "log"}]


def lists() -> Iterator[tuple[str, Json]]:
    """The lists below a pod's specification, with their schemas."""
    open_, known = [POD], {POD}
    while open_:
        for name, field in definitions()[open_.pop()].get("properties", {}).items():
            if "items" in field:
                yield name, field
            for part in (field, field.get("items", {}), field.get("additionalProperties", {})):
                name_of = isinstance(part, dict) and part.get("$ref", "").rpartition("/")[2]
                if name_of and name_of not in known:
                    known.add(name_of)
                    open_.append(name_of)
    assert len(known) > 90


def test_the_keys_are_kubernetes_own() -> None:
    """Every list below a pod's specification has in the table the key of the OpenAPI, or none."""
    keys: dict[str, set[str | None]] = {}
    pairs: dict[str, set[str]] = {}
    for name, field in lists():
        keys.setdefault(name, set()).add(field.get("x-kubernetes-patch-merge-key"))
        if name in KEYS:
            more = set(field.get("x-kubernetes-list-map-keys", [])) - {KEYS[name]}
            pairs.setdefault(name, set()).update(more)
    assert {name: {key} for name, key in KEYS.items()} == {
        name: found for name, found in keys.items() if found != {None}
    }
    assert {name: {second} for name, (second, _) in SECOND.items()} == {
        name: more for name, more in pairs.items() if more
    }


DNS = [{"containerPort": 53, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}]
SPREAD = [
    {"topologyKey": "zone", "whenUnsatisfiable": when, "maxSkew": skew}
    for when, skew in (("DoNotSchedule", 3), ("ScheduleAnyway", 1))
]


@pytest.mark.parametrize(("name", "both"), [("ports", DNS), ("topologySpreadConstraints", SPREAD)])
def test_entries_of_one_key_are_told_apart_by_the_second(name: str, both: list[Json]) -> None:
    first, second = both
    key, (other, _) = KEYS[name], SECOND[name]
    assert merge({}, {name: both}) == {name: both}
    assert merge({name: [first]}, {name: both}) == {name: both}
    assert merge({name: both}, {name: both[::-1]}) == {name: both}
    more = {**second, "name": "x"}
    assert merge({name: both}, {name: [more]}) == {name: [first, more]}
    gone = {key: first[key], other: first[other], "$patch": "delete"}
    assert merge({name: both}, {name: [gone]}) == {name: [second]}
    all_gone = {key: first[key], "$patch": "delete"}
    assert merge({name: both}, {name: [all_gone]}) == {name: []}
    assert merge({name: both}, {name: [more, all_gone]}) == {name: [more]}


def test_one_entry_of_a_key_is_merged_as_kubectl_does() -> None:
    one = merge(
        {"topologySpreadConstraints": SPREAD[:1]}, {"topologySpreadConstraints": SPREAD[1:]}
    )
    assert one == {"topologySpreadConstraints": SPREAD[1:]}
    one = merge({"ports": [{"containerPort": 53, "name": "dns"}]}, {"ports": DNS[1:]})
    assert one == {"ports": [{**DNS[1], "name": "dns"}]}


def test_a_port_without_a_protocol_is_one_of_tcp() -> None:
    named = {"containerPort": 53, "name": "dns"}
    assert merge({"ports": DNS}, {"ports": [named]})["ports"] == [{**DNS[0], **named}, DNS[1]]


@pytest.mark.parametrize("patch", [{"a": None}, {"a": {"b": None}}, {"env": [{"name": "x"}]}])
def test_a_patch_on_nothing_leaves_no_trace_of_deletions(patch: Json) -> None:
    assert None not in merge({}, patch).values()
