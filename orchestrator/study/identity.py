"""What identifies a study, a search and a trial, the same everywhere.

A study has a hash: equal for equal values, and unchanged for earlier studies. Searches and trials
have names, from which all seeds derive: `dense-00003` is a trial of the only search of `dense`,
`dense-r2-00003` one of its second search, and `dense-r2-00003-seed1` a confirm run of that
configuration. `resrep-00003-unreduced-seed1` is a run of what `resrep-00003` is reduced from.
`base-00000` is a plain backbone that others start from.
"""

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
UNREDUCED = "-unreduced"
BASE = "base"
"""The search, of a kind, whose trials are the plain backbones that others start from; and the word
for such a start."""


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


def search_name(method: str, repeat: int | None) -> str:
    """The name of a method's search, by its number from 1 on; None is the only search."""
    return method if repeat is None else f"{method}-r{repeat}"


def repeat_of(search: str) -> tuple[str, int]:
    """The method in the name of one of its several searches, and which of them it is.

    Raises:
        ValueError: it is the name of a method's only search.
    """
    method, _, number = search.rpartition("-r")
    return method, int(number)


def trial_name(search: str, number: int) -> str:
    """The name of a search trial: its search, and its number there."""
    return f"{search}-{number:05d}"


def confirm_name(config: str, seed: int) -> str:
    """The name of a confirm run: the search trial whose parameters it has, and the seed's index."""
    return f"{config}-seed{seed}"


def unreduced_name(config: str) -> str:
    """The name of a configuration's unreduced network."""
    return f"{config}{UNREDUCED}"


def is_unreduced(config: str) -> bool:
    """Whether a name is that of an unreduced network."""
    return config.endswith(UNREDUCED)


def search_of(config: str) -> str:
    """The search in a configuration's name, which is a search trial's, reduced or not."""
    return config.removesuffix(UNREDUCED).rsplit("-", 1)[0]


def number_of(trial: str) -> int:
    """The number in a search trial's name."""
    return int(trial.rsplit("-", 1)[1])
