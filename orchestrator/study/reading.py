"""From a file's fields to typed values: strict models, and one sentence for each mistake."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import pydantic
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import (
    CoreSchema,
    no_info_after_validator_function,
    no_info_wrap_validator_function,
    simple_ser_schema,
)

from methods.errors import IsoflopError, nearest
from methods.names import same
from methods.values import Plain, joined, mistake, shown
from orchestrator.study.places import DEEPEST, NOWHERE, Location, Places

TAGS = ("range", "choices", "fixed")
"""Parts of pydantic's locations that name the form of a hyperparameter; files have none."""
M = TypeVar("M", bound=pydantic.BaseModel)


class Strict(Plain):
    """A frozen part of a file that refuses unknown fields."""

    model_config = pydantic.ConfigDict(serialize_by_alias=True, defer_build=True)


@dataclass(frozen=True)
class Matching:
    """Annotation of a text that matches a pattern; `words` says in words what it is."""

    pattern: str
    words: str

    def __get_pydantic_core_schema__(
        self, source: object, handler: pydantic.GetCoreSchemaHandler
    ) -> CoreSchema:
        return no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: pydantic.GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^{self.pattern}$"}

    def _checked(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"must be {self.words}, but got {shown(text)}")
        return text


@dataclass(frozen=True)
class Retired:
    """Annotation of a closed choice: words that only records of earlier versions may hold."""

    words: Sequence[str]
    why: str
    """Why they went, after `since`."""
    instead: str
    """The word to write."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: pydantic.GetCoreSchemaHandler
    ) -> CoreSchema:
        return no_info_wrap_validator_function(
            self._read, handler(source), serialization=simple_ser_schema("str")
        )

    def _read(self, value: object, choice: pydantic.ValidatorFunctionWrapHandler) -> object:
        return value if value in self.words else choice(value)


class Misfit(ValueError):
    """Incompatible fields; `at` is the place of the one to change, within its part."""

    def __init__(self, message: str, *at: int | str) -> None:
        super().__init__(message)
        self.at = at


def read_as(
    model: type[M], path: Path, *, what: str, error: type[IsoflopError], hint: str = ""
) -> tuple[M, Places]:
    """The model of the fields in a YAML file, and where they stand in it.

    `what` is what the file describes; `hint` ends the message where there is no file.

    Raises:
        IsoflopError: of the kind `error`: file, line, what must hold, what was found.
    """
    from orchestrator.study.document import read  # noqa: PLC0415  # a schema needs no parser

    document = read(path, f"{what} file", error, hint)
    fields, places = document.fields, document.places
    try:
        return model.model_validate(fields), places
    except pydantic.ValidationError as reason:
        at, sentence = explained(model, fields, reason, places, what)
        raise error(f"{places.prefix(at)}{sentence}", at=at) from None


def explained(
    model: type[pydantic.BaseModel],
    fields: Mapping[str, Any],
    error: pydantic.ValidationError,
    places: Places = NOWHERE,
    what: str = "a study",
) -> tuple[Location, str]:
    """Where the first mistake in a model's fields stands, and one sentence about it."""
    errors = error.errors()
    unknown = [each for each in errors if each["type"] == "extra_forbidden"]
    first = (unknown or errors)[0]  # a misspelt field is why the right one is missing
    at = _place(model, fields, first)
    reason = first.get("ctx", {}).get("error")
    if isinstance(reason, Misfit):
        return (*at, *reason.at), ".".join(map(str, at)) + ": " * bool(at) + str(reason)
    where = ".".join(map(str, at))
    if first["type"] == "extra_forbidden":
        return at, f"{where} is no field of {what}; {_meant(model, first['loc'])}"
    if first["type"] == "missing":
        owner, name = _owners(model, first["loc"])[0], str(first["loc"][-1])
        return at, f"{where} must be given, but is missing; {_example(owner, name)}"
    if "[key]" in first["loc"]:
        return at, f"{where} must have field names that are text, but got {shown(first['input'])}"
    sentence = mistake(first)
    if first["type"] == "string_type" and places.texts.get(at):
        sentence = f'must be text, but got a number or a flag; write "{places.texts[at]}"'
    return at, joined(where, sentence) if where else sentence


def plain(value: Any, depth: int = 0) -> Any:
    """Values from Python code as a file would have them: tuples are lists, paths text, NumPy's
    numbers Python's.

    Raises:
        ValueError: values lie too deep within each other, or within themselves.
    """
    if depth > DEEPEST + 1:
        raise ValueError(f"values must lie at most {DEEPEST} deep, but these lie deeper")
    if isinstance(value, Mapping):
        return {name: plain(each, depth + 1) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each, depth + 1) for each in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value


def _place(model: type[pydantic.BaseModel], fields: Any, error: ErrorDetails) -> Location:
    """Where a mistake stands in the file: pydantic's location without what the file lacks."""
    level: list[object] = [model]
    at: list[int | str] = []
    for part in error["loc"]:
        level, tag = _deeper(level, part)
        if tag:
            continue
        known = isinstance(fields, Mapping) and part in fields
        if known or (isinstance(fields, list) and isinstance(part, int) and part < len(fields)):
            fields = fields[part]
            at.append(part)
        elif error["type"] == "missing" and part == error["loc"][-1]:
            at.append(part)
    return tuple(at)


def _meant(model: type[pydantic.BaseModel], at: Location) -> str:
    """The likely meaning of a misspelt or misplaced field."""
    name = str(at[-1])
    beside = [field for owner in _owners(model, at) for field in _names(owner)]
    if not same(name, beside):
        for section, fields in _sections(model):
            if names := same(name, fields):
                return f"{names[0]} belongs to `{section}`; write `{section}: {{{names[0]}: ...}}`"
    return nearest(name, beside)


def _example(owner: type[pydantic.BaseModel], name: str) -> str:
    """An example for a field that is missing."""
    fields = owner.model_fields
    field = fields.get(name) or next(f for f in fields.values() if f.alias == name)
    example = json.dumps(field.examples[0]).replace('"', "") if field.examples else "..."
    return f"write `{name}: {example}`"


def _sections(model: type[pydantic.BaseModel]) -> Iterator[tuple[str, Sequence[str]]]:
    """The parts of a file that have fields; a study's recipe is loaded last."""
    for name, field in model.model_fields.items():
        for part in _flat(field.annotation):
            if isinstance(part, type) and issubclass(part, pydantic.BaseModel):
                yield name, _names(part)
    if "recipe" in model.model_fields:
        from methods.training.recipe import Recipe  # noqa: PLC0415  # loads torch

        yield "recipe", list(Recipe.model_fields)


def _owners(model: type[pydantic.BaseModel], at: Location) -> list[type[pydantic.BaseModel]]:
    """The models one of whose fields a location names."""
    level: list[object] = [model]
    for part in at[:-1]:
        level, _ = _deeper(level, part)
    parts = [kind for annotation in level for kind in _flat(annotation)]
    models = [k for k in parts if isinstance(k, type) and issubclass(k, pydantic.BaseModel)]
    return models or [model]


def _deeper(level: list[object], part: int | str) -> tuple[list[object], bool]:
    """The types that a part of a location leads to, and whether it is but the tag of one."""
    kinds = [kind for annotation in level for kind in _flat(annotation)]
    named = [k for k in kinds if isinstance(k, type) and k.__name__.casefold() == part]
    if len(kinds) > 1 and part in TAGS:
        return list[object](named), True
    return [deeper for kind in kinds for deeper in _inside(kind, part)], False


def _inside(kind: object, part: int | str) -> Iterator[object]:
    if get_origin(kind) in (list, dict):
        yield get_args(kind)[-1]
    elif isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
        for name, field in kind.model_fields.items():
            if part in (name, field.alias):
                yield field.annotation


def _flat(annotation: object) -> Iterator[object]:
    """The types that an annotation allows."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _flat(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for each in get_args(annotation):
            yield from _flat(each)
    else:
        yield annotation


def _names(model: type[pydantic.BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]
