"""Dynamic networks, their cost and their training; imports nothing of the orchestrator."""

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from methods.api import Method


class Catalogue(MutableMapping[str, "type[Method]"]):
    """Methods by name, imported on first use.

    Beside isoflop's own, each given as "package.module:Class", it has those that installed packages
    register, see `methods.outside`, and any at a "package.module:Class", which it does not list.
    """

    def __init__(self, places: dict[str, str]) -> None:
        self._methods: dict[str, str | type[Method]] = dict(places)
        self._outside: dict[str, type[Method]] = {}
        self._places: dict[str, str] = {}

    def __getitem__(self, name: str) -> "type[Method]":
        method = self._methods.get(name)
        if isinstance(method, str):
            module, _, attribute = method.partition(":")
            method = self._methods[name] = getattr(import_module(module), attribute)
        return method or self._of_others(name)

    def __setitem__(self, name: str, method: "type[Method]") -> None:
        self._methods[name] = method

    def __delitem__(self, name: str) -> None:
        del self._methods[name]

    def __contains__(self, name: object) -> bool:
        if name in self._methods or name in self._places:
            return True
        return isinstance(name, str) and (":" in name or name in self._registered())

    def __iter__(self) -> Iterator[str]:
        yield from self._methods
        yield from (name for name in self._registered() if name not in self._methods)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def own(self) -> list[str]:
        """The names of isoflop's own methods, which no package can take."""
        return list(self._methods)

    def place(self, name: str) -> str | None:
        """Where a method of another package lies, "package.module:Class"; None for isoflop's own.

        Raises:
            MethodError: see `methods.outside.place_of`.
        """
        if name in self._methods:
            return None
        if ":" in name:
            return name
        from methods.outside import place_of  # noqa: PLC0415  # a built-in needs none of it

        return self._places.get(name) or place_of(name)

    def use(self, folder: Path) -> None:
        """Takes methods from the source that a study recorded; see `methods.outside.use`."""
        from methods.outside import use  # noqa: PLC0415

        self._places |= use(folder)

    def _of_others(self, name: str) -> "type[Method]":
        """A method of another package.

        Raises:
            KeyError: no package registers this name.
            MethodError: it cannot be imported, or is no method.
        """
        place = self.place(name)
        if place is None:
            raise KeyError(name)
        if place not in self._outside:
            from methods.outside import resolve  # noqa: PLC0415

            self._outside[place] = resolve(place)
        if name != place:
            self._places[name] = place  # what is installed is searched once
        return self._outside[place]

    def _registered(self) -> list[str]:
        from methods.outside import registered  # noqa: PLC0415

        return list(registered())


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
