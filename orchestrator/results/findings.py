"""The comparisons of a verification, and the differences."""

import math
from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Flaw:
    """One difference: its place, its name, the stored and the recomputed value."""

    where: str
    what: str
    stored: str
    recomputed: str


@dataclass
class Findings:
    """The comparisons by kind, and the differences."""

    study: str
    checked: Counter[str] = field(default_factory=Counter)
    flaws: list[Flaw] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """The comparisons that were left out, and why."""

    def same(self, kind: str, where: str, what: str, stored: object, recomputed: object) -> bool:
        """Notes one comparison; floats are the same to the last digit, NaN is itself."""
        self.checked[kind] += 1
        alike = stored == recomputed or (_nan(stored) and _nan(recomputed))
        if not alike:
            self.flaws.append(Flaw(where, what, _text(stored), _text(recomputed)))
        return alike


def _nan(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(value: object) -> str:
    return "nothing" if value is None else repr(value) if isinstance(value, float) else str(value)
