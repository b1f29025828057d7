"""The places of a file's values, and checks that hold for values from a file and from Python."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from methods.errors import IsoflopError
from methods.values import shown

Location = tuple[int | str, ...]
"""The place of a value in a file: keys and positions, outermost first."""

DEEPEST = 16
"""Largest depth of nested lists and fields."""
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
"""Characters that text must not contain."""

TIMM, TRIAL = re.compile(r"[\w.-]+"), re.compile(r"[a-z][a-z0-9-]*/[a-z][\w-]*")
"""Names of starts behind `timm:` and `trial:`."""
IN_BUCKET = re.compile(r"s3://[a-z0-9][-a-z0-9._]+(/[-\w.=]+)*/*", re.ASCII)
"""A bucket, and the prefix of a study's files in it."""
OPTIONS = {"endpoint_override", "region", "scheme"}
"""What may follow a bucket behind a question mark: no keys."""


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


def place_of_data(data: str) -> str:
    """A name or a path of data that any system can hold."""
    if CONTROL.search(data):
        raise ValueError(f"must be a name or a path, but has a control character: {shown(data)}")
    if len(data.encode()) > 4000 or any(len(part.encode()) > 255 for part in data.split("/")):
        raise ValueError(
            "must be a name or a path of at most 4,000 bytes, 255 in each part, but got one of "
            f"{len(data.encode()):,} bytes"
        )
    return data


def place_of_start(start: str) -> str:
    """Checks what trials start from."""
    kind, colon, name = start.partition(":")
    if not start.strip():
        raise ValueError("must name trained weights, but is empty; write a file, or `base`")
    if kind == "timm" and colon and not TIMM.fullmatch(name):
        raise ValueError(
            "must be `timm:` and the name of a model, such as `timm:resnet18.a1_in1k`, but got "
            f"{shown(start)}"
        )
    if kind == "trial" and colon and not TRIAL.fullmatch(name):
        raise ValueError(
            "must be `trial:STUDY/TRIAL`, a confirm run of an earlier study such as "
            f"`trial:cifar10/dense-00003-seed1`, but got {shown(start)}"
        )
    return place_of_data(start)


def place_of_bucket(uri: str) -> str:
    """A bucket's URI as a study records it, without a slash at its end."""
    place, mark, query = uri.partition("?")
    rest = place.partition("://")[2]
    what = "must be s3://BUCKET/PREFIX"
    if "@" in uri:
        raise ValueError(
            f"{what}, without keys, but has some; give them as the environment variables "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if not IN_BUCKET.fullmatch(place) or ".." in rest.split("/"):
        raise ValueError(f"{what}, but got {shown(place)}")
    names = [name for name, _ in parse_qsl(query, keep_blank_values=True)]
    if others := sorted(set(names) - OPTIONS):
        raise ValueError(
            f"{what}, and may be followed by ?endpoint_override=, region= and scheme=, but "
            f"got {', '.join(others)}"
        )
    return f"{place.rstrip('/')}{mark if query else ''}{query}"
