"""Where the values of a file stand, and what holds for a value whether a file has it or not."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from methods.errors import IsoflopError

Location = tuple[int | str, ...]
"""Where in a file a value stands: keys and positions, outermost first."""

DEEPEST = 12
"""Lists and fields within each other, at most."""
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
"""Characters that no text may have."""


@dataclass(frozen=True, eq=False)
class Places:
    """The lines of a file's values; empty for what was written in Python."""

    file: str = ""
    lines: Mapping[Location, int] = field(default_factory=dict)
    texts: Mapping[Location, str] = field(default_factory=dict)
    """The characters of numbers and flags."""

    def __eq__(self, other: object) -> bool:
        """Two studies are equal wherever they were written."""
        return isinstance(other, Places)

    __hash__ = object.__hash__

    def prefix(self, at: Location) -> str:
        """`FILE:LINE: ` of the value, or of the nearest that it lies in; empty without a file."""
        if not self.file:
            return ""
        while at and at not in self.lines:
            at = at[:-1]
        return f"{self.file}:{self.lines.get(at, 1)}: "


NOWHERE = Places()
"""The places of what was written in Python."""


@contextlib.contextmanager
def standing(*at: str) -> Iterator[None]:
    """Adds to an error where in the study its field stands."""
    try:
        yield
    except IsoflopError as error:
        error.at = error.at or at
        raise
