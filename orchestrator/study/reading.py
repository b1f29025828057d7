"""From YAML to typed values: strict models, readable numbers, and one sentence for each mistake."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import yaml

from methods.errors import IsoflopError, nearest

Location = tuple[int | str, ...]
"""Where in a file something stands: keys and positions, outermost first."""


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


def mapping(path: Path, what: str, error: type[IsoflopError], hint: str = "") -> dict[str, Any]:
    """The fields of a YAML file that is `what`; `hint` ends the message where there is none.

    Raises:
        IsoflopError: of the kind `error`, where the file cannot be read or holds no fields.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise error(f"{what} must exist, but there is none at {path}{hint}") from None
    except (OSError, UnicodeDecodeError) as reason:
        raise error(f"{path} cannot be read: {reason}") from None
    except yaml.YAMLError as reason:
        raise error(f"{path} is not YAML: {' '.join(str(reason).split())}") from None
    if not isinstance(content, dict):
        raise error(f"{path} must hold `field: value` lines, found {type(content).__name__}")
    return content


def sentence(
    error: pydantic.ValidationError,
    siblings: Callable[[Location], list[str]],
    what: str = "a study",
) -> str:
    """The first mistake in one sentence; `siblings` lists the fields that stand beside a place."""
    unknown = [mistake for mistake in error.errors() if mistake["type"] == "extra_forbidden"]
    first = (unknown or error.errors())[0]  # a misspelt field is why the right one is missing
    where = ".".join(str(part) for part in first["loc"] if part not in ("range", "choices"))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        return f"{where} is no field of {what}; {nearest(name, siblings(first['loc']))}"
    if first["type"] == "missing":
        return f"{where} is missing"
    if first["type"] == "string_pattern_mismatch" and where == "name":
        message = "must start with a lower-case letter, then letters, digits or dashes, 47 at most"
    if first["type"] == "value_error":
        return f"{where}: {message}" if where else message
    return f"{where}: {message}, got {first['input']!r}"
