"""What was read, image by image: names, labels and contents, and how two readings differ."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import PIL
from jaxtyping import Int, Int64, UInt8, UInt64

from methods.data.digest import Digest, PartDigest
from methods.data.load import Data
from methods.data.parts import Census, Part, Stamps, chunks
from methods.data.splits import Resident

SAMPLE = 2048
"""Images of each part, evenly spaced, whose content is hashed where a data set is streamed; names,
labels, and the sizes of files are taken of all."""
SIZES = 10
"""Sizes of images that a digest counts one by one, the most common first."""
EXAMPLES = 3
"""Files that a phrase about changed data names."""

Codes = UInt64[np.ndarray, " images"]


@dataclass(frozen=True)
class Listing:
    """The images of one part, in order."""

    names: Sequence[str]
    labels: Int[np.ndarray, " images"]
    pixels: Codes
    """64 bits of a hash of each image as it is trained on; 0 where it was not hashed."""
    bytes: Int64[np.ndarray, " images"]
    """Size of each image's file; 0 where all contents are hashed."""
    times: Int64[np.ndarray, " images"]
    """When each image's file was changed last, in nanoseconds since 1970; no part of a digest."""


@dataclass(frozen=True)
class Contents:
    """The images of a data set, by part."""

    class_names: tuple[str, ...]
    parts: Mapping[str, Listing]
    """By role, as the data set is divided."""
    pillow: str = PIL.__version__
    """The version of the library that decoded them."""


@dataclass(frozen=True)
class Survey:
    """A data set as one study reads it."""

    contents: Contents
    digest: Digest
    cut: Mapping[str, tuple[str, Int[np.ndarray, " rows"]]]
    """By role, as the study divides it: the part that it takes, and the rows of it."""


def survey(data: Data) -> Survey:
    """What `load` read."""
    origin = data.origin
    assert origin is not None, "arrays that another process shares were surveyed there"
    source = origin.source
    pixels = {role: np.zeros(len(p.labels), np.uint64) for role, p in source.parts.items()}
    resident = all(isinstance(getattr(data, role).store, Resident) for role in origin.cut)
    if resident:
        for split, (role, rows) in origin.cut.items():
            pixels[role][rows] = pixel_codes(getattr(data, split).store.pixels.cpu().numpy())
    else:
        for role, part in source.parts.items():
            for rows in chunks(_sample(part), part):
                pixels[role][rows] = pixel_codes(part.pixels(rows))
    listings = {
        role: Listing(
            [_printable(name) for name in part.names],
            part.labels,
            pixels[role],
            *_stamps(part, resident),
        )
        for role, part in source.parts.items()
    }
    contents = Contents(tuple(map(_printable, source.class_names)), listings)
    censuses = {role: part.census for role, part in source.parts.items()}
    return Survey(contents, _digest(contents, censuses, origin.cut, resident), origin.cut)


def pixel_codes(images: UInt8[np.ndarray, "images height width channels"]) -> Codes:
    """The first 64 bits of each image's SHA-256."""
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    return _first_bits(hashlib.sha256(row.data).digest() for row in rows)


def changes(before: Contents, now: Contents) -> list[str]:
    """How a data set differs from an earlier reading of it, a phrase per kind and part."""
    phrases = []
    for role in dict.fromkeys((*before.parts, *now.parts)):
        old, new = before.parts.get(role), now.parts.get(role)
        if old is not None and new is not None:
            phrases += [f"{role}: {phrase}" for phrase in _changes(before, now, role)]
        elif (listing := old or new) is not None:
            state = "new" if old is None else "gone"
            phrases.append(f"{role}: {state}, {len(listing.names):,} images")
    if not phrases and before.class_names != now.class_names:
        names = " and then ".join(", ".join(c.class_names) for c in (before, now))
        phrases.append(f"the classes were {names}")
    return phrases


def retimed(before: Contents, now: Contents) -> int:
    """Images whose file was written again, as far as times were noted."""
    pairs = [(old.times, now.parts[role].times) for role, old in before.parts.items()]
    return sum(int((old != new).sum()) for old, new in pairs)


def _changes(before: Contents, now: Contents, role: str) -> Iterator[str]:
    old, new = before.parts[role], now.parts[role]
    was = {name: row for row, name in enumerate(old.names)}
    rows = {name: row for row, name in enumerate(new.names)}
    added, removed = ([n for n in a if n not in b] for a, b in ((rows, was), (was, rows)))
    both = [(name, was[name], row) for name, row in rows.items() if name in was]
    labels = [
        (name, before.class_names[old.labels[i]], now.class_names[new.labels[j]])
        for name, i, j in both
    ]
    relabelled = [f"{name} from {one!r} to {two!r}" for name, one, two in labels if one != two]
    altered = [
        name
        for name, i, j in both
        if old.bytes[i] != new.bytes[j]
        or (old.pixels[i] != new.pixels[j] and old.pixels[i] and new.pixels[j])
    ]
    for kind, names in (
        ("added", added),
        ("removed", removed),
        ("relabelled", relabelled),
        ("with other pixels", altered),
    ):
        if names:
            more = ", ..." if len(names) > EXAMPLES else ""
            yield f"{len(names):,} {kind} ({', '.join(names[:EXAMPLES])}{more})"
    if not (added or removed or relabelled or altered) and list(was) != list(rows):
        yield "the same images in another order"


def _digest(
    contents: Contents,
    censuses: Mapping[str, Census],
    cut: Mapping[str, tuple[str, Int[np.ndarray, " rows"]]],
    resident: bool,
) -> Digest:
    classes = _codes(contents.class_names)
    parts = {
        role: PartDigest(
            images=len(listing.names),
            sha256=_sum(
                _text(listing.names), classes[listing.labels], listing.pixels, listing.bytes
            ),
            sizes=_counted(censuses[role]),
            modes=dict(sorted(censuses[role].modes.items())),
        )
        for role, listing in contents.parts.items()
    }
    codes = {role: _split_codes(contents.parts[part], rows) for role, (part, rows) in cut.items()}
    labels = {role: contents.parts[part].labels[rows] for role, (part, rows) in cut.items()}
    sums = [f"{role} {part.sha256}" for role, part in sorted(parts.items())]
    hashed = sum(int((listing.pixels != 0).sum()) for listing in contents.parts.values())
    return Digest(
        sha256=_sum(_text([*contents.class_names, *sums])),
        parts=parts,
        splits={role: _sum(np.sort(_paired(codes[role], classes[labels[role]]))) for role in cut},
        duplicates=_duplicates(codes),
        sampled=None if resident else hashed,
    )


def _split_codes(listing: Listing, rows: Int[np.ndarray, " rows"]) -> Codes:
    """A code per image: of its pixels, or of its name where they were not hashed."""
    codes = np.array(listing.pixels[rows])
    blank = np.flatnonzero(codes == 0)
    codes[blank] = _codes([listing.names[int(row)] for row in rows[blank]])
    return codes


def _duplicates(codes: Mapping[str, Codes]) -> dict[str, int]:
    """By role: images that also stand in a split that is used before it."""
    before = {"validation": ("train",), "test": ("train", "validation")}
    counts = {
        role: int(np.isin(codes[role], np.concatenate([codes[other] for other in others])).sum())
        for role, others in before.items()
    }
    return {role: count for role, count in counts.items() if count}


def _sample(part: Part) -> Int[np.ndarray, " rows"]:
    samples = len(part.labels)
    return np.arange(0, samples, max(1, -(-samples // SAMPLE)))


def _stamps(part: Part, resident: bool) -> Stamps:
    """Size and time of each image's file, where not all contents are hashed."""
    stamps = None if resident else part.stamps
    return stamps or Stamps(*np.zeros((2, len(part.labels)), np.int64))


def _printable(name: str) -> str:
    """A file's name as Unicode that every file can hold."""
    return name.encode("utf-8", "backslashreplace").decode()


def _codes(words: Sequence[str]) -> Codes:
    """64 bits of a hash of each word."""
    return _first_bits(hashlib.sha256(word.encode()).digest() for word in words)


def _first_bits(digests: Iterator[bytes]) -> Codes:
    return np.frombuffer(b"".join(digest[:8] for digest in digests), dtype="<u8").astype(np.uint64)


def _paired(one: Codes, other: Codes) -> Codes:
    """One code for each pair of codes."""
    return np.asarray(one ^ (other * np.uint64(0x9E3779B97F4A7C15)))


def _text(words: Sequence[str]) -> bytes:
    """Words as bytes that no other words have."""
    return b"".join(f"{len(word)}:{word}".encode() for word in words)


def _sum(*values: bytes | np.ndarray) -> str:
    total = hashlib.sha256()
    for value in values:
        total.update(value if isinstance(value, bytes) else np.ascontiguousarray(value).data)
    return total.hexdigest()


def _counted(census: Census) -> dict[str, int]:
    common = Counter(census.sizes).most_common(SIZES)
    counts = {f"{height}x{width}": images for (height, width), images in common}
    rest = census.counted - sum(counts.values())
    return {**counts, "others": rest} if rest else counts
