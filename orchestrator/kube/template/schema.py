"""Kubernetes' own fields: a sentence for what no pod has, by the models of the official client."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any, Union, get_args, get_origin

import pydantic

from methods.names import similar
from methods.values import joined, mistake, shown
from orchestrator.kube.template.merge import DIRECTIVES, KEYS, PATCH, SECOND, identity
from orchestrator.study.places import Location
from orchestrator.study.reading import Misfit

Model = type[pydantic.BaseModel]


def check_fragment(spec: Mapping[str, Any], *at: str) -> None:
    """Refuse fields that no pod's specification has, and values of another kind.

    A fragment need not be complete, and `null` deletes; `at` is where it stands.

    Raises:
        Misfit: one of the fields is wrong.
    """
    _map(_pod_spec(), spec, at)


def lacking(spec: Mapping[str, Any]) -> Iterator[str]:
    """The fields that a complete specification lacks, as sentences."""
    try:
        _pod_spec().model_validate(spec)
    except pydantic.ValidationError as error:
        for each in error.errors():
            if each["type"] == "missing":
                yield joined(".".join(["spec", *map(str, each["loc"])]), mistake(each))


@functools.cache
def _pod_spec() -> Model:
    try:
        from kubernetes.client.models.v1_pod_spec import (  # noqa: PLC0415  # takes half a second
            V1PodSpec,
        )
    except ModuleNotFoundError:
        raise ValueError(
            "must be checked against Kubernetes' own fields, but its Python client is not "
            "installed; `pip install 'isoflop[k8s]'` installs it"
        ) from None
    return V1PodSpec


def _map(model: Model, value: Any, at: Location) -> None:
    if not isinstance(value, Mapping):
        raise Misfit(
            joined(_dotted(at), f"must hold `field: value` pairs, but got {shown(value)}"), *at
        )
    fields = {
        field.serialization_alias or name: field for name, field in model.model_fields.items()
    }
    for name, part in value.items():
        place = (*at, name)
        if name == PATCH:
            _directive(part, place)
        elif name not in fields:
            near = similar(str(name), list(fields))
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else ""
            known = f"it has {', '.join(fields)}" if len(fields) < 12 else "see `kubectl explain`"
            raise Misfit(
                f"{_dotted(place)} is no field that Kubernetes knows there; {hint or known}", *place
            )
        else:
            _value(fields[name].annotation, part, place)


def _value(annotation: Any, value: Any, at: Location) -> None:
    kind = _required(annotation)
    if value is None:
        return
    if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
        _map(kind, value, at)
        return
    inner = get_args(kind)[0] if get_origin(kind) is list else None
    if isinstance(inner, type) and issubclass(inner, pydantic.BaseModel):
        if not isinstance(value, list):
            raise Misfit(joined(_dotted(at), f"must be a list, but got {shown(value)}"), *at)
        for index, entry in enumerate(value):
            _map(inner, entry, (*at, index))
        if at[-1] in KEYS:
            _keyed(value, str(at[-1]), at)
        return
    if get_origin(kind) is dict and isinstance(value, Mapping):
        value = {name: each for name, each in value.items() if each is not None and name != PATCH}
    try:
        pydantic.TypeAdapter(kind).validate_python(value, strict=True)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = (*at, *(part for part in first["loc"] if part in value)) if value else at
        raise Misfit(joined(_dotted(place), mistake(first)), *place) from None


def _keyed(entries: list[Any], name: str, at: Location) -> None:
    """The entries of a list that is merged must say which they are, each once."""
    key = KEYS[name]
    keys = " and ".join(f"`{each}`" for each in (key, *SECOND.get(name, ())[:1]))
    seen: set[object] = set()
    for index, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or set(entry) == {PATCH}:
            continue
        if entry.get(key) is None:
            raise Misfit(
                f"{_dotted(at)} is merged by `{key}`, so each entry must have one, but got "
                f"{shown(dict(entry))}; write `{key}: ...` in it",
                *at,
                index,
            )
        if (same := identity(name, entry)) in seen:
            raise Misfit(
                f"{_dotted(at)} must have one entry for each {keys}, but has two for "
                f"{' and '.join(map(shown, same))}; write them as one",
                *at,
                index,
            )
        seen.add(same)


def _directive(word: Any, at: Location) -> None:
    if word not in DIRECTIVES:
        raise Misfit(
            f"{_dotted(at)} must be {', '.join(DIRECTIVES)}, but got {shown(word)}; a field is "
            "deleted by `null`, too",
            *at,
        )


def _required(annotation: Any) -> Any:
    """The annotation without None."""
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    return kinds[0] if get_origin(annotation) is Union and len(kinds) == 1 else annotation


def _dotted(at: Location) -> str:
    return ".".join(map(str, at))
