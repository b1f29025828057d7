"""Labels as words: what stands in a column or on a folder, checked, and numbered by class."""

import datetime
import math
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from methods.errors import DataError

SHOWN = 4
"""Rows or classes that a message names at most."""


@dataclass(frozen=True)
class Words:
    """A label per sample of one split, in words, which mean the same in every split."""

    words: Sequence[str | None]
    """None where a sample has none."""
    names: Sequence[str]
    """Per sample: as messages call it."""

    @property
    def labelled(self) -> bool:
        return any(word is not None for word in self.words)


def words(
    name: str, column: str, values: Sequence[object], declared: Sequence[str] | None
) -> list[str | None]:
    """Labels of one column of a split as words; None where a sample has none.

    A missing label is null, NaN, an empty string, or -1 among whole numbers that are not negative.
    `declared` are the class names that the file itself gives to numbers.

    Raises:
        DataError: values that are no classes, such as lists or fractions.
    """
    where = f"labels of {name} (column {column!r})"
    if declared is not None:
        return [_declared(where, value, declared) for value in values]
    texts = [_word(where, value) for value in values]
    numbers = {value for value in values if isinstance(value, int | float)}
    if -1 in numbers and numbers != {-1, 1} and not any(n < 0 for n in numbers - {-1}):
        return [None if value == -1 else text for value, text in zip(values, texts, strict=True)]
    return texts


def classes(name: str, train: Words, declared: Sequence[str] | None) -> dict[str, int]:
    """Class -> its number: in the declared order, else numbers by size and names by letter.

    Raises:
        DataError: two classes whose names differ by spaces alone.
    """
    if declared is not None:
        return {word: number for number, word in enumerate(declared)}
    present = {word for word in train.words if word is not None}
    check_names(name, present)
    whole = all(re.fullmatch(r"-?\d+", word) for word in present)
    return {word: n for n, word in enumerate(sorted(present, key=int if whole else str))}


def numbers(
    name: str, role: str, split: Words, classes: Mapping[str, int]
) -> Int[np.ndarray, " samples"]:
    """The number of each sample's class.

    Raises:
        DataError: a sample without a label, or of a class that training lacks.
    """
    missing = [n for n, word in zip(split.names, split.words, strict=True) if word is None]
    if missing:
        raise DataError(
            f"every sample must have a label, but {len(missing)} of {len(split.words)} {role} "
            f"samples of {name} have none (null, NaN, -1 or empty): {_few(missing)}"
        )
    for sample, word in zip(split.names, split.words, strict=True):
        if word not in classes:
            near = [known for known in classes if _plain(known) == _plain(word or "")]
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(
                f"every class must occur in training, but {role} sample {sample} of {name} is "
                f"of class {word!r}{hint}"
            )
    return np.array([classes[word] for word in split.words if word is not None], dtype=np.int64)


def check_names(name: str, names: Collection[str]) -> None:
    """Refuses classes whose names differ by spaces alone.

    Raises:
        DataError: two do.
    """
    by_letters: dict[str, str] = {}
    for word in sorted(names):
        other = by_letters.setdefault(" ".join(word.split()), word)
        if other != word:
            raise DataError(
                f"names of classes must differ by more than spaces, but {name} has {other!r} and "
                f"{word!r}"
            )


def composed(word: str) -> str:
    """A name in Unicode's composed form (NFC), which Linux writes; macOS writes the other."""
    return unicodedata.normalize("NFC", word)


def _declared(where: str, value: object, names: Sequence[str]) -> str | None:
    if value is None:
        return None
    if not isinstance(value, int) or value >= len(names):
        raise DataError(f"{where} must be numbers below {len(names)}, but one is {value!r}")
    return None if value < 0 else names[value]


def _word(where: str, value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise DataError(f"{where} must be text or numbers, but one is bytes") from None
    if isinstance(value, list | dict):
        raise DataError(
            f"{where} must be one class per image, but one is {str(value)[:60]}; "
            "write the number or the name of a single class"
        )
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if not value.is_integer():
            raise DataError(
                f"{where} must be classes, but one is the real number {value:g}; "
                "regression is not supported"
            )
    if isinstance(value, str):
        return composed(value) if value.strip() else None
    if isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta):
        raise DataError(f"{where} must be classes, but one is the time {value}")
    raise DataError(f"{where} must be text or whole numbers, but one is {value!r:.60}")


def _plain(word: str) -> str:
    return " ".join(composed(word).casefold().split())


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
