"""The places of a file's values, and checks that hold for values from a file and from Python."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from methods.errors import IsoflopError

Location = tuple[int | str, ...]
"""The place of a value in a file: keys and positions, outermost first."""

DEEPEST = 12
"""Largest depth of nested lists and fields."""
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
"""Characters that text must not contain."""


@dataclass(frozen=True, eq=False)
class Places:
    """The lines of a file's values; empty for values from Python."""

    file: str = ""
    lines: Mapping[Location, int] = field(default_factory=dict)
    texts: Mapping[Location, str] = field(default_factory=dict)
    """The source text of numbers and flags."""

    def __eq__(self, other: object) -> bool:
        """Two studies are equal wherever they were written."""
        return isinstance(other, Places)

    __hash__ = object.__hash__

    def prefix(self, at: Location) -> str:
        """`FILE:LINE: ` of the value, or of the closest part that holds it; empty without a
        file."""
        if not self.file:
            return ""
        while at and at not in self.lines:
            at = at[:-1]
        return f"{self.file}:{self.lines.get(at, 1)}: "


NOWHERE = Places()
"""The places of values from Python: none."""


@contextlib.contextmanager
def standing(*at: str) -> Iterator[None]:
    """Add to an error the place of its field in the study."""
    try:
        yield
    except IsoflopError as error:
        error.at = error.at or at
        raise
