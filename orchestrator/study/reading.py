"""From YAML to typed values: strict models, readable numbers, and one sentence for each mistake."""

from collections.abc import Callable
from typing import Any

import pydantic

from methods.errors import nearest


class Strict(pydantic.BaseModel):
    """A frozen part of a study that refuses what it does not know."""

    model_config = pydantic.ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        serialize_by_alias=True,
    )


def numbers(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as text; a study means the number."""
    if isinstance(value, dict):
        return {key: numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [numbers(item) for item in value]
    if isinstance(value, str) and value[:1] in "+-.0123456789" and "e" in value.lower():
        try:
            return float(value)
        except ValueError:
            return value
    return value


Location = tuple[int | str, ...]
"""Where in a study file something stands: keys and positions, outermost first."""


def sentence(error: pydantic.ValidationError, siblings: Callable[[Location], list[str]]) -> str:
    """The first mistake in one sentence; `siblings` lists the fields that stand beside a place."""
    unknown = [found for found in error.errors() if found["type"] == "extra_forbidden"]
    first = (unknown or error.errors())[0]  # a misspelt field is why the right one is missing
    where = ".".join(str(part) for part in first["loc"] if part not in ("range", "choices"))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        return f"{where} is no field of a study; {nearest(name, siblings(first['loc']))}"
    if first["type"] == "missing":
        return f"{where} is missing"
    if first["type"] == "string_pattern_mismatch":
        message = "must start with a lower-case letter, then letters, digits or dashes, 47 at most"
    if first["type"] == "value_error":
        return f"{where}: {message}" if where else message
    return f"{where}: {message}, got {first['input']!r}"
