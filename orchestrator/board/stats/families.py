"""Many tests at once: Holm's correction, intervals that agree with it, letters."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Adjusted:
    """A test as one of a family."""

    p: float
    """Adjusted: below the family's level where the test rejects."""
    confidence: float
    """Confidence of an interval that leaves out 0 exactly where the test rejects."""


def holm(
    p_values: Sequence[float | None], *, level: float = 0.05, weight: float = 1.0
) -> list[Adjusted | None]:
    """Each p-value adjusted for being one of a family (Holm, 1979); None is not in the family.

    The family has `weight` of the level: a half of it doubles all that is adjusted. An interval is
    taken at the step at which its test is rejected, or at the step that stopped.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[Adjusted | None] = [None] * len(p_values)
    floor, stopped = 0.0, None
    for done, (p, i) in enumerate(known):
        tests = (len(known) - done) / weight
        floor = max(floor, min(1.0, tests * p))
        if stopped is None and floor >= level:
            stopped = tests
        adjusted[i] = Adjusted(floor, 1 - level / (stopped or tests))
    return adjusted


def letters(names: Sequence[str], apart: Collection[frozenset[str]]) -> dict[str, str]:
    """Letters by name: two names share one exactly where they are not `apart`.

    Insert and absorb (Piepho, 2004). `names` are in their order of standing: the first has an `a`.
    """
    columns = [set(names)]
    for pair in sorted(apart, key=sorted):
        split = [column for column in columns if pair <= column]
        columns = [column for column in columns if not pair <= column]
        for half in [column - {name} for column in split for name in sorted(pair)]:
            if not any(half <= column for column in columns):
                columns = [column for column in columns if not column <= half] + [half]
    place = {name: i for i, name in enumerate(names)}
    columns.sort(key=lambda column: sorted(place[name] for name in column))
    return {
        name: "".join(_letter(i) for i, column in enumerate(columns) if name in column)
        for name in names
    }


def _letter(index: int) -> str:
    """From a to z, then a1 to z1, and so on."""
    return chr(ord("a") + index % 26) + (str(index // 26) if index >= 26 else "")
