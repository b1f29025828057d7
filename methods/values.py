"""Values as a user writes them: the types of a field, and a sentence for a value that does not
fit."""

import re
import reprlib
from collections.abc import Mapping
from functools import lru_cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pydantic
from pydantic_core import ErrorDetails

from methods.names import similar

Scalar = bool | int | float | str
"""The value of one hyperparameter or training setting."""
Params = Mapping[str, Scalar]
"""A trial's parameters, flat: name -> value."""

LARGEST = 2**63 - 1
"""The largest whole number that any field takes."""
FLAG = "true or false"
MUST: Mapping[str, str] = {
    "greater_than": "be above {gt}",
    "greater_than_equal": "be at least {ge}",
    "less_than": "be below {lt}",
    "less_than_equal": "be at most {le}",
    "multiple_of": "be a multiple of {multiple_of}",
    "int_type": "be a whole number",
    "int_parsing": "be a whole number",
    "int_parsing_size": "be a whole number",
    "int_from_float": "be a whole number",
    "float_type": "be a number",
    "float_parsing": "be a number",
    "finite_number": "be finite",
    "bool_type": f"be {FLAG}",
    "bool_parsing": f"be {FLAG}",
    "string_type": "be text",
    "string_too_short": "have at least {min_length} characters",
    "string_too_long": "have at most {max_length} characters",
    "string_pattern_mismatch": "match {pattern}",
    "list_type": "be a list",
    "dict_type": "hold `field: value` pairs",
    "mapping_type": "hold `field: value` pairs",
    "model_type": "hold `field: value` pairs",
    "model_attributes_type": "hold `field: value` pairs",
    "too_short": "have at least {min_length} entries",
    "too_long": "have at most {max_length} entries",
    "literal_error": "be {expected}",
    "recursion_loop": "not hold itself",
}
"""Kind of pydantic's errors -> what must hold, in our words."""


class Plain(pydantic.BaseModel):
    """A frozen value whose fields take their own kind only: a boolean or a text is no number."""

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _of_its_kind(cls, value: Any, info: Any) -> Any:  # a ValidationInfo, a plain protocol
        if info.field_name in cls.model_fields:
            for item in value if isinstance(value, list) else [value]:
                refuse_other_kind(cls.model_fields[info.field_name].annotation, item)
        return value


def refuse_other_kind(annotation: object, value: object) -> None:
    """Refuses what pydantic would turn into a number or a flag, and numbers beyond all bounds.

    Raises:
        ValueError: says what the annotation takes.
    """
    takes = _kinds(annotation)
    numeric = takes & {int, float}
    expected = FLAG if not numeric else "a number" if float in takes else "a whole number"
    boolean, text = isinstance(value, bool), isinstance(value, str)
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"must be at most {LARGEST} in size, but got {shown(value)}")
    if (
        (boolean and numeric and bool not in takes)
        or (text and (numeric or bool in takes) and str not in takes)
        or (isinstance(value, int | float) and not boolean and takes - {type(None)} == {bool})
    ):
        hint = _rewritten(value, flag=not numeric)
        raise ValueError(f"must be {expected}, but got {shown(value)}{hint}")


def mistake(error: ErrorDetails) -> str:
    """What must hold and what was given, in a sentence that lacks its subject."""
    kind, value, limits = error["type"], error["input"], error.get("ctx", {})
    if kind in ("value_error", "assertion_error"):
        return error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if kind == "missing":
        return "must be given, but is missing"
    if kind in MUST:
        short = {name: f"{x:g}" if isinstance(x, float) else x for name, x in limits.items()}
        must = "must " + MUST[kind].format_map(short)
    else:
        must = error["msg"].replace("Input should", "must", 1)
    hint = ""
    if kind == "literal_error" and isinstance(value, str):
        near = similar(value, re.findall(r"'([^']*)'", str(limits["expected"])))
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    if kind == "list_type" and isinstance(value, int | float | str):
        hint = f"; write [{shown(value)}]"
    if kind == "string_type" and isinstance(value, int | float):
        hint = f'; write "{shown(value)}"'
    return f"{must}, but got {shown(value)}{hint}"


def explain(model: type[pydantic.BaseModel], error: pydantic.ValidationError) -> str:
    """A validation error as one sentence: what must hold, what was given, and a correction."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        names = list(model.model_fields)
        near = similar(where, names)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{model.__name__} has no field {where!r}; {hint}valid: {', '.join(names)}"
    return joined(".".join(filter(None, (model.__name__, where))), mistake(first))


def joined(subject: str, predicate: str) -> str:
    """A sentence about a field; a predicate with its own subject follows a colon."""
    return f"{subject}{' ' if predicate.startswith('must ') else ': '}{predicate}"


def shown(value: object) -> str:
    """A value for a message: short, on one line, and as a study file would have it."""
    return _SHORT.repr(value)


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 60
        self.maxlevel = 3

    def repr_bool(self, value: bool, _level: int) -> str:
        return "true" if value else "false"

    def repr_NoneType(self, _value: None, _level: int) -> str:  # noqa: N802  # reprlib's name
        return "nothing"

    def repr_int(self, value: int, level: int) -> str:
        if value.bit_length() > 1000:
            return f"a number of about {int(value.bit_length() * 0.30103)} digits"
        return super().repr_int(value, level)


_SHORT = _Short()


@lru_cache(maxsize=1024)
def _kinds(annotation: object) -> frozenset[type]:
    """The plain types that an annotation takes; those of its entries for a list."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kinds(arguments[0])
    if origin is Literal:
        return frozenset(type(choice) for choice in arguments)
    if origin in (Union, UnionType, list):
        return frozenset[type]().union(*map(_kinds, arguments))
    return frozenset([annotation]) if isinstance(annotation, type) else frozenset([object, str])


def _rewritten(value: object, *, flag: bool) -> str:
    """A correction, where one can be guessed."""
    if flag:
        likely = str(value).casefold() in ("yes", "on", "y", "true", "1", "1.0")
        return f"; write {'true' if likely else 'false'}" if len(str(value)) < 6 else ""
    if not isinstance(value, str):
        return ""
    bare = value.strip().replace("_", "")
    if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", bare, re.IGNORECASE | re.ASCII):
        return f"; write {bare[:40]}, without quotes"
    if re.fullmatch(r"\d+(:\d+)+", bare, re.ASCII):
        return "; write one number, in the field's unit"
    return ""
