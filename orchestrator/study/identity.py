"""The hash that identifies a study: equal for equal values, and unchanged for earlier studies."""

import json
import re
from collections.abc import Mapping
from typing import Any

from methods.files import digest

EXACT = 2**53
"""Whole numbers below it are the same as integers and as floats."""
WHOLE = re.compile("0|[1-9][0-9]{0,14}")
"""A whole number as text."""
EARLIER: Mapping[str, str] = {
    "ff850432eb52": "4fc9ddf50cf1",  # cifar10
    "c15b0fcd0a81": "4c2c92f35889",  # claim-condconv
    "e4db2e569f00": "c6a3c7e5c089",  # claim-condensenet
    "637a047fce9a": "b37d4f52a939",  # claim-dsnet
    "ce95d29a793f": "d057cf527d9b",  # claim-resrep
    "5463ec8d24e9": "e71dd59fa69e",  # claim-skipnet-small
    "f809023da90e": "9646bf0dc1ca",  # curves
    "d1d2feec3cbb": "773464705af9",  # quickstart
}
"""Canonical hash -> the hash of an earlier version, for the studies that isoflop ships.

In earlier versions 1 and 1.0 had different hashes. A user's study with such a hash resumes under
the hash that its folder records; see `Study.known_as`.
"""


def canonical(content: Mapping[str, Any]) -> str:
    """Twelve hex digits of a study's content, in which 1 and 1.0 are one value.

    So are 1 and "1" as the value of a field: a field takes text or numbers, and not both.
    """
    merged = {**content, **{part: _whole(content[part]) for part in ("recipe", "methods")}}
    merged["methods"] = {name: _numbers(fields) for name, fields in merged["methods"].items()}
    merged["search"] = {**content["search"], "points": _whole(content["search"]["points"])}
    name = as_written(merged)
    return EARLIER.get(name, name)


def as_written(content: Mapping[str, Any]) -> str:
    """Twelve hex digits of a study's content, in which 1 and 1.0 differ, as in earlier versions."""
    return digest(json.dumps(content, sort_keys=True))[:12]


def _numbers(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A method's fields, with whole numbers that are written as text as integers."""
    return {
        name: int(value) if isinstance(value, str) and WHOLE.fullmatch(value) else value
        for name, value in fields.items()
    }


def _whole(value: Any) -> Any:
    """The same values, with whole numbers as integers."""
    if isinstance(value, dict):
        return {name: _whole(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return int(value)
    return value
