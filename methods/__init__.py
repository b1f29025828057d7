"""Dynamic networks, their cost and their training; imports nothing of the orchestrator."""

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from methods.api import Method


class Catalogue(MutableMapping[str, "type[Method]"]):
    """Methods by name. Each is given as "package.module:Class" and imported on first use."""

    def __init__(self, places: dict[str, str]) -> None:
        self._methods: dict[str, str | type[Method]] = dict(places)

    def __getitem__(self, name: str) -> "type[Method]":
        method = self._methods[name]
        if isinstance(method, str):
            module, _, attribute = method.partition(":")
            method = self._methods[name] = getattr(import_module(module), attribute)
        return method

    def __setitem__(self, name: str, method: "type[Method]") -> None:
        self._methods[name] = method

    def __delitem__(self, name: str) -> None:
        del self._methods[name]

    def __contains__(self, name: object) -> bool:
        return name in self._methods

    def __iter__(self) -> Iterator[str]:
        return iter(self._methods)

    def __len__(self) -> int:
        return len(self._methods)


METHODS = Catalogue(
    {
        "dense": "methods.dense:Dense",
        "skipnet": "methods.skipnet.method:SkipNet",
        "condensenet": "methods.condensenet.method:CondenseNet",
        "condconv": "methods.condconv.method:CondConv",
        "dsnet": "methods.dsnet.method:DSNet",
        "resrep": "methods.resrep.method:ResRep",
    }
)
"""Every method by the name that studies use; a new method adds one line here."""
