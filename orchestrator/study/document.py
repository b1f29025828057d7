"""A YAML 1.2 file as plain values, each with the line that it stands on.

ruamel.yaml parses; what its events mean is decided here, by the core schema of YAML 1.2 (section
10.3.2) and more strictly: a key stands once, a number is written in one way, nothing holds itself.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
)

from methods.errors import IsoflopError
from orchestrator.study.places import CONTROL, DEEPEST, Location, Places

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]
"""The values that a file can hold."""

LARGEST = 128 * 1024
"""Largest size of a file in bytes; a study takes about 2,000."""
MOST = 20_000
"""Largest number of values in a file; those that an alias repeats count each time."""
LONGEST_NUMBER = 40
"""Largest number of characters in a number."""
LONGEST_KEY = 200
NULL = re.compile(r"|~|null|Null|NULL")
TRUE, FALSE = re.compile(r"true|True|TRUE"), re.compile(r"false|False|FALSE")
WHOLE = re.compile(r"[-+]?[0-9]+")
BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
BOUNDLESS = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
OTHER_ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x00\x00\xfe\xff": "UTF-32"}
SYNTAX = (
    ("'\\t'", "a tab must not indent a line; write spaces"),
    (
        "mapping values are not allowed",
        "a value must not contain a colon; quote the value, or align the field",
    ),
    ("while scanning a quoted scalar", "a quote must be closed; close it"),
    ("flow sequence", "a list needs commas and a closing ]; write [a, b]"),
    ("flow mapping", "fields in { } need commas and a closing }; write {a: 1, b: 2}"),
    ("expected <block end>", "the indentation must match the lines before; align it"),
    (
        "could not find expected ':'",
        "a field must have a colon behind its name; write `field: value`",
    ),
    (
        "cannot start any token",
        "a value must not begin with this character; put the value in quotes",
    ),
)
"""Message of ruamel.yaml -> what the mistake is, and what to write instead."""


@dataclass(frozen=True)
class Document:
    """The fields of a file, and the line of each."""

    fields: Mapping[str, Any]
    places: Places


def read(path: Path, what: str, error: type[IsoflopError], hint: str = "") -> Document:
    """The fields of a YAML file; `what` names the file, and `hint` ends the message if it does not
    exist.

    Raises:
        IsoflopError: of the kind `error`, where the file cannot be read or holds no fields.
    """
    name = str(path)
    if len(name) > 300:
        name = f"{name[:300]}..."
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise error(f"{what} must exist, but there is none at {name}{hint}") from None
    except IsADirectoryError:
        raise error(f"{what} must be a file, but {name} is a folder{hint}") from None
    except (OSError, ValueError) as reason:
        why = getattr(reason, "strerror", None) or reason
        raise error(f"{what} must be a file that can be read, but {name}: {why}") from None
    reader = _Reader()
    try:
        value = reader.document(_text(content))
        if not isinstance(value, dict):
            kind = (
                "a list" if isinstance(value, list) else "nothing" if value is None else "a value"
            )
            raise _Mistake(1, f"{what} must hold `field: value` lines, but holds {kind}")
    except _Mistake as mistake:
        raise error(f"{name}:{mistake.line}: {mistake}") from None
    return Document(value, Places(name, reader.lines, reader.texts))


def scalar(text: str) -> Value:
    """The value of an unquoted text.

    Raises:
        ValueError: a number that can be read in two ways, or beyond all bounds.
    """
    if NULL.fullmatch(text):
        return None
    if TRUE.fullmatch(text) or FALSE.fullmatch(text):
        return bool(TRUE.fullmatch(text))
    number = NUMBER.fullmatch(text) or BASED.fullmatch(text)
    if number and len(text) > LONGEST_NUMBER:
        raise ValueError(
            f"a number must have at most {LONGEST_NUMBER} characters, but got {len(text)}: "
            f"{text[:12]}...; put it in quotes if it is text"
        )
    if WHOLE.fullmatch(text):
        digits = text.lstrip("+-")
        if digits[0] == "0" and len(digits) > 1:
            raise ValueError(
                "a number must not begin with 0, which means base 8 to some readers, but got "
                f'{text}; write {int(text)}, or "{text}" if it is text'
            )
        return int(text)
    if BASED.fullmatch(text):
        return int(text, 0)
    if BOUNDLESS.fullmatch(text) or (number and not math.isfinite(float(text))):
        raise ValueError(
            f"a number must be finite, but got {text}; leave the field out, or bound it"
        )
    return float(text) if number else text


def is_text(text: str) -> bool:
    """Whether an unquoted text stands for itself."""
    try:
        return isinstance(scalar(text), str)
    except ValueError:
        return False


def parsed(text: str) -> Value:
    """The value of a piece of YAML, such as `0.5`, `true` or `[1, 2]`.

    Raises:
        ValueError: it is none; says why.
    """
    return _Reader().document(text)


class _Mistake(ValueError):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class _Reader:
    """One document's values from the parser's events."""

    def __init__(self) -> None:
        self.lines: dict[Location, int] = {}
        self.texts: dict[Location, str] = {}
        self._events: Iterator[Any] = iter(())
        self._anchors: dict[str, tuple[Value, int] | None] = {}
        self._count = 0
        self._line = 1

    def document(self, text: str) -> Value:
        self._events = YAML(typ="safe", pure=True).parse(text)
        try:
            next(self._events)
            first = next(self._events)
            if isinstance(first, StreamEndEvent):
                return None
            if first.version not in (None, (1, 2)):
                raise _Mistake(1, "must be YAML 1.2, but declares another version; delete %YAML")
            value = self._value(next(self._events), ())
            next(self._events)
            after = next(self._events)
            if isinstance(after, DocumentStartEvent):
                raise _Mistake(
                    after.start_mark.line + 1, "must be one document, but a second one begins here"
                )
        except MarkedYAMLError as error:
            opened = "quoted" in str(error.context) or "flow" in str(error.context)
            mark = error.context_mark if opened else error.problem_mark
            line = mark.line + 1 if mark else self._line
            raise _Mistake(line, f"must be YAML, but {_syntax(error)}") from None
        except _Mistake:
            raise
        except (YAMLError, ValueError) as error:  # the parser gives chr() what an escape says
            raise _Mistake(
                self._line, f"must be YAML, but {' '.join(str(error).split())}"
            ) from None
        return value

    def _value(self, event: Any, at: Location) -> Value:
        line = self._line = event.start_mark.line + 1
        self.lines.setdefault(at, line)
        if isinstance(event, AliasEvent):
            return self._repeated(event.anchor, line)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        before = self._count
        self._counted(1, line)
        if len(at) > DEEPEST:
            raise _Mistake(line, f"values must lie at most {DEEPEST} deep, but these lie deeper")
        if isinstance(event, ScalarEvent):
            value = _scalar(event, line)
            if not isinstance(value, str):
                self.texts[at] = event.value
        elif event.ctag is not None and event.tag not in (None, "!"):
            raise _Mistake(line, f"must hold plain values, but got the tag {event.tag}; delete it")
        elif isinstance(event, MappingStartEvent):
            value = self._fields(at, line)
        else:
            value = self._entries(at)
        if event.anchor is not None:
            self._anchors[event.anchor] = value, self._count - before
        return value

    def _repeated(self, name: str, line: int) -> Value:
        if name not in self._anchors:
            raise _Mistake(
                line, f"*{name} must repeat what &{name} names, but nothing has that name"
            )
        anchored = self._anchors[name]
        if anchored is None:
            raise _Mistake(line, f"*{name} must not be inside the value that &{name} names")
        self._counted(anchored[1], line)
        return anchored[0]

    def _entries(self, at: Location) -> list[Value]:
        values: list[Value] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            values.append(self._value(event, (*at, len(values))))
        return values

    def _fields(self, at: Location, line: int) -> dict[str, Value]:
        values: dict[str, Value] = {}
        merged: dict[str, Value] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            line = event.start_mark.line + 1
            if not isinstance(event, ScalarEvent) or not 0 < len(event.value) <= LONGEST_KEY:
                raise _Mistake(
                    line, f"a field's name must be a word of at most {LONGEST_KEY} characters"
                )
            if CONTROL.search(event.value):
                raise _Mistake(line, "a field's name must have no control characters")
            key, place = event.value, (*at, event.value)
            if key == "<<" and not event.style:
                for fields in _mappings(self._value(next(self._events), place), line):
                    merged = fields | merged
                continue
            if key in values:
                first = self.lines[place]
                where = f"in line {line}" if first == line else f"in lines {first} and {line}"
                raise _Mistake(
                    line,
                    f"{'.'.join(map(str, place))} must appear once, but appears twice, {where}; "
                    "delete one",
                )
            self.lines[place] = line
            values[key] = self._value(next(self._events), place)
        return merged | values

    def _counted(self, values: int, line: int) -> None:
        self._count += values
        if self._count > MOST:
            raise _Mistake(line, f"must hold at most {MOST:,} values, but holds more")


def _mappings(value: Value, line: int) -> list[dict[str, Value]]:
    """The fields that `<<` merges, or a list of such mappings."""
    fields = value if isinstance(value, list) else [value]
    mappings = [each for each in fields if isinstance(each, dict)]
    if len(mappings) != len(fields):
        raise _Mistake(line, "`<<` must name fields to take over, such as `<<: *defaults`")
    return mappings


def _scalar(event: Any, line: int) -> Value:
    if event.tag not in (None, "!", "tag:yaml.org,2002:str"):
        raise _Mistake(line, f"must hold plain values, but got the tag {event.tag}; delete it")
    if control := CONTROL.search(event.value):
        raise _Mistake(line, f"text must have no control characters, but got {control[0]!r}")
    if event.style or event.tag is not None:
        return str(event.value)
    try:
        return scalar(event.value)
    except ValueError as error:
        raise _Mistake(line, str(error)) from None


def _text(content: bytes) -> str:
    """A file's text.

    Raises:
        _Mistake: another encoding, a byte that is no text, or too much of it.
    """
    if len(content) > LARGEST:
        raise _Mistake(1, f"must have at most {LARGEST // 1024} KiB, but has more")
    for mark, name in OTHER_ENCODINGS.items():
        if content.startswith(mark):
            raise _Mistake(1, f"must be text in UTF-8, but is {name}; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise _Mistake(
            line, f"must be text in UTF-8, but has the byte 0x{byte:02x}; save it as UTF-8"
        ) from None
    if control := CONTROL.search(text):
        line = text.count("\n", 0, control.start()) + 1
        raise _Mistake(line, f"must be text, but has the character {control[0]!r}; delete it")
    return text


def _syntax(error: MarkedYAMLError) -> str:
    """A description of a syntax error, in a user's words where one is known."""
    words = " ".join(f"{error.context or ''} {error.problem or ''}".split())
    return next((meaning for sign, meaning in SYNTAX if sign in words), words)
