"""Columns of images and labels: which ones are read, and how a row becomes an image."""

import bisect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa

from methods.data.parts import LeftOut, Numbered, Stamps
from methods.data.reading import labels, picture
from methods.data.reading.encoded import Labelled
from methods.data.reading.labels import Words
from methods.data.reading.picture import Cell
from methods.errors import DataError

LABELS = ("label", "labels", "fine_label", "class", "target", "y", "category")
"""Names of a label column, most telling first; any other column of class labels comes after."""

IMAGES = ("image", "images", "img", "picture", "photo", "pixels", "jpg", "jpeg", "png")
"""Names that choose a column where several hold images, most telling first."""

HEAD = 64
"""Rows by which columns are chosen."""

PROBED = 8
"""Rows, the first with content, by which an unmarked binary column shows that it holds images."""


@dataclass(frozen=True)
class Mark:
    """What Hugging Face says of a column."""

    kind: object
    """Such as Image or ClassLabel."""
    names: tuple[str, ...] = ()
    """Class names, in the order of their numbers."""


UNMARKED = Mark(None)


@dataclass(frozen=True)
class Columns:
    """What is read of a table."""

    image: str
    label: str
    declared: tuple[str, ...] | None
    """Class names that the table itself gives to numbers."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rows:
    """Images of one split, a row each."""

    images: tuple[pa.Array, ...]
    """In any number of pieces: bytes, or bytes and paths."""
    names: Numbered
    folders: tuple[Path | None, ...]
    """Per file of `names`: what paths are relative to; None where a path is only a name."""
    identity: Callable[[], str | None] | None = None
    """What `Cells.key` is found out by."""
    again: Callable[[], tuple[pa.Array, ...]] | None = None
    """Opens the images in another process; None where they are sent there."""

    def __reduce__(self) -> tuple[Callable[..., "Rows"], tuple[object, ...]]:
        rest = (self.names, self.folders, self.identity)
        if self.again is None:
            return Rows, (self.images, *rest)
        return _reopened, (self.again, _measure(self.images), *rest)

    @cached_property
    def key(self) -> str | None:
        """See `Cells.key`."""
        return self.identity() if self.identity else None

    @property
    def stamps(self) -> Stamps | None:
        if None in self.folders:
            return None
        folders = [folder for folder in self.folders if folder is not None]
        names = [Path(file).name for file in self.names.files]
        each = Stamps.of(folder / name for folder, name in zip(folders, names, strict=True))
        counts = np.diff(self.names.ends, prepend=0)
        return Stamps(np.repeat(each.sizes, counts), np.repeat(each.times, counts))

    def cell(self, row: int) -> Cell:
        piece = bisect.bisect_right(self._ends, row)
        value = self.images[piece][row - (self._ends[piece - 1] if piece else 0)].as_py()
        name = self.names[row]
        if not isinstance(value, dict):
            return Cell(name, value)
        folder = self.folders[bisect.bisect_right(self.names.ends, row)]
        if value["bytes"] is not None or value.get("path") is None or folder is None:
            return Cell(name, value["bytes"])
        return Cell(f"{name} ({value['path']})", None, folder / value["path"])

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(len(piece) for piece in self.images))


def _reopened(
    again: Callable[[], tuple[pa.Array, ...]],
    measure: tuple[int, int],
    names: Numbered,
    folders: tuple[Path | None, ...],
    identity: Callable[[], str | None] | None,
) -> Rows:
    """What another process sent, see `Rows.again`.

    Raises:
        DataError: other images than those that it had.
    """
    images = again()
    if (found := _measure(images)) != measure:
        here, there = (f"{count:,} in {size:,} bytes" for count, size in (found, measure))
        raise DataError(
            f"all processes of a study must read the same images, but those of {names.files[0]} "
            f"are {here} here, and {there} where the study began; give every node the same files"
        )
    return Rows(images, names, folders, identity, again)


def _measure(images: tuple[pa.Array, ...]) -> tuple[int, int]:
    """Their number and bytes."""
    return sum(map(len, images)), sum(piece.nbytes for piece in images)


def columns(name: str, table: pa.Table) -> Columns:
    """The columns of images and labels of a table's first rows.

    Raises:
        DataError: none, or several of which none is named as such.
    """
    repeated = {key for key in table.column_names if table.column_names.count(key) > 1}
    if repeated:
        raise DataError(f"columns of {name} must have different names, but two are {repeated}")
    marks = _marks(table.schema)
    images = _images(table, marks)
    if not images:
        lists = [f.name for f in table.schema if pa.types.is_nested(f.type)]
        hint = f"; {lists[0]!r} holds no encoded files (PNG, JPEG, ...)" if lists else ""
        raise DataError(
            f"{name} must have a column of images, but its columns are {table.column_names}{hint}"
        )
    image = _preferred(images, IMAGES)
    if image is None:
        raise DataError(
            f"{name} must have one column of images, or one named {IMAGES[0]!r}, but has {images}"
        )
    label = _label(name, table, marks, image)
    declared = marks.get(label, UNMARKED).names
    notes = [f"images are column {image!r}, labels column {label!r}"]
    others = [key for key in images if key != image]
    if others:
        notes.append(f"columns {others} of images are not read")
    return Columns(image, label, declared or None, tuple(notes))


def labelled(
    name: str,
    splits: Mapping[str, tuple[Rows, Sequence[object]]],
    chosen: Columns,
    *,
    left_out: Sequence[LeftOut] = (),
) -> Labelled:
    """Splits of images and label values, numbered; those without any label are left out.

    Raises:
        DataError: no labelled training samples, or labels that are no classes.
    """
    words: dict[str, Words] = {}
    omitted = list(left_out)
    for role, (rows, values) in splits.items():
        read = labels.words(name, chosen.label, values, chosen.declared)
        if role != "train" and all(word is None for word in read):
            why = f"{len(read)} {role} samples without labels" if read else f"no {role} samples"
            omitted += [LeftOut(file, why) for file in rows.names.files]
        else:
            words[role] = Words(read, rows.names)
    if "train" not in words or not words["train"].words:
        raise DataError(f"{name} must have training samples, but its splits are {list(splits)}")
    classes = labels.classes(name, words["train"], chosen.declared)
    return Labelled(
        name=name,
        splits={
            role: (splits[role][0], labels.numbers(name, role, split, classes))
            for role, split in words.items()
        },
        class_names=tuple(classes),
        left_out=tuple(omitted),
        notes=chosen.notes,
    )


def _marks(schema: pa.Schema) -> dict[str, Mark]:
    """What Hugging Face wrote about the columns; nothing where it did not, or damaged."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            key: Mark(feature["_type"], tuple(map(str, feature.get("names") or ())))
            for key, feature in features.items()
            if isinstance(feature, dict) and "_type" in feature
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _images(table: pa.Table, marks: Mapping[str, Mark]) -> list[str]:
    """Columns that hold image files: marked as such, of bytes and path, or by their content."""
    marked = [key for key in table.column_names if marks.get(key, UNMARKED).kind == "Image"]
    marked = [key for key in marked if _holds_files(table.schema.field(key).type)]
    if marked:
        return marked
    types = {field.name: field.type for field in table.schema}
    files = [key for key, kind in types.items() if _is_file(kind)]
    binary = [key for key, kind in types.items() if _is_binary(kind)]
    files += [key for key in binary if _opens(table.column(key))]
    return files or (binary if len(binary) == 1 and binary[0].casefold() not in LABELS else [])


def _holds_files(kind: pa.DataType) -> bool:
    return _is_file(kind) or _is_binary(kind)


def _is_file(kind: pa.DataType) -> bool:
    """Whether values are bytes, a path, or both, as Hugging Face writes images."""
    if not pa.types.is_struct(kind):
        return False
    fields = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
    return "bytes" in fields and _is_binary(fields["bytes"])


def _is_binary(kind: pa.DataType) -> bool:
    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(check(kind) for check in checks) or pa.types.is_fixed_size_binary(kind)


def _opens(column: pa.ChunkedArray) -> bool:
    """Whether any of the first values is an image."""
    values = [value for value in column.to_pylist() if value][:PROBED]
    return any(picture.is_image(value) for value in values)


def _preferred(keys: Sequence[str], names: Sequence[str]) -> str | None:
    """The only column, or the one whose name is most telling."""
    if len(keys) == 1:
        return keys[0]
    by_name = {key.casefold(): key for key in reversed(keys)}
    return next((by_name[name] for name in names if name in by_name), None)


def _label(name: str, table: pa.Table, marks: Mapping[str, Mark], image: str) -> str:
    keys = [key for key in table.column_names if key != image]
    by_name = {key.casefold(): key for key in reversed(keys)}
    named = [by_name[word] for word in LABELS if word in by_name]
    for other in named[1:]:
        if not _equivalent(table.column(named[0]), table.column(other)):
            raise DataError(
                f"{name} must have one column of labels, but {named[0]!r} and {other!r} differ; "
                "rename or remove the one that is not wanted"
            )
    declared = [key for key in keys if marks.get(key, UNMARKED).kind == "ClassLabel"]
    declared += [key for key in keys if pa.types.is_dictionary(table.schema.field(key).type)]
    if not named + declared:
        raise DataError(
            f"{name} must have a column of labels ({', '.join(LABELS)}), "
            f"but its columns are {table.column_names}"
        )
    return str((named + declared)[0])


def _equivalent(column: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    """Whether each value of one goes with one value of the other."""
    pairs = set(zip(map(str, column.to_pylist()), map(str, other.to_pylist()), strict=True))
    return len(pairs) == len({first for first, _ in pairs}) == len({last for _, last in pairs})
