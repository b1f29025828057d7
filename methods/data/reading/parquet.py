"""Parquet files, read by their literal names; large ones through an Arrow file in the cache."""

import contextlib
import functools
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from methods import files as atomic
from methods.data.decoding import cache
from methods.data.parts import Numbered
from methods.data.reading import tables
from methods.data.reading.encoded import Labelled
from methods.data.reading.folders import ROLES, split_word
from methods.data.reading.tables import HEAD, Columns, Rows
from methods.data.reading.walk import Omissions, shown
from methods.errors import DataError

MEMORY_BYTES = 1 << 29
"""Encoded images of a data set that are read into memory; more lie in an Arrow file."""

BLOCK_BYTES = 1 << 16
BLOCKS = 64
"""A large file's content is told by its size, its time and this many blocks, evenly spaced."""


BATCH = 256
"""Rows that are converted at once."""


def holds_images(path: Path) -> bool:
    """Whether a Parquet file has a column of images, with their bytes in it."""
    try:
        head = _head(path)
        values = head.column(tables.columns(str(path), head).image).to_pylist()
    except DataError:
        return False
    return any(value["bytes"] if isinstance(value, dict) else value for value in values)


def refers_to_images(path: Path) -> bool:
    """Whether a Parquet file has a column of images."""
    try:
        tables.columns(str(path), _head(path))
    except DataError:
        return False
    return True


def read(path: Path, files: Sequence[Path], omissions: Omissions) -> Labelled:
    """A Parquet file, or those of a folder, divided by the words in their names.

    Raises:
        DataError: unreadable, without images or labels, or with contradicting names.
    """
    root = path if path.is_dir() else path.parent
    groups = split_files(root, files) if path.is_dir() else {"train": list(files)}
    if "train" not in groups:
        raise DataError(f"{path} must have training samples, but its splits are {sorted(groups)}")
    heads = (_head(file) for file in groups["train"])
    head = next((head for head in heads if len(head)), None)
    if head is None:
        raise DataError(f"{path} must have training samples, but its files have no rows")
    chosen = tables.columns(str(path), head)
    mapped = sum(_size(file, chosen.image) for file in files) > MEMORY_BYTES
    splits = {role: _split(root, group, chosen, mapped=mapped) for role, group in groups.items()}
    return tables.labelled(str(path), splits, chosen, left_out=omissions.listed())


def _role(root: Path, file: Path) -> tuple[str, str]:
    """The role that the name of a file, or of a folder below the root, states; and its word for it.

    Raises:
        DataError: they state two roles.
    """
    words = [word for word in re.split(r"[^a-z]+", file.stem.casefold()) if word in ROLES]
    words += [word for part in file.relative_to(root).parts[:-1] if (word := split_word(part))]
    if len({ROLES[word] for word in words}) > 1:
        raise DataError(
            f"each file must belong to one split, but {shown(file, root)} names "
            f"{' and '.join(sorted(set(words)))}; rename it"
        )
    return (ROLES[words[0]], words[0]) if words else ("train", "train")


def split_files(root: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """Role -> the files that state it by their names or folders; train if they state none.

    Raises:
        DataError: names that contradict each other.
    """
    groups: dict[str, list[Path]] = {}
    words: dict[str, str] = {}
    for file in files:
        role, word = _role(root, file)
        other = words.setdefault(role, word)
        if other != word and role != "train":
            raise DataError(
                f"{root} must have one {role} split, but its files name {other!r} and {word!r}; "
                "rename or move those of one"
            )
        groups.setdefault(role, []).append(file)
    return groups


def _head(path: Path) -> pa.Table:
    """The first rows, of all columns."""
    with _reading(path), _opened(path) as file:
        batch = next(file.iter_batches(batch_size=HEAD), None)
        return file.schema_arrow.empty_table() if batch is None else _marked(batch, file)


def _marked(batch: pa.RecordBatch, file: pq.ParquetFile) -> pa.Table:
    return pa.Table.from_batches([batch]).replace_schema_metadata(file.schema_arrow.metadata)


def _split(
    root: Path, paths: Sequence[Path], chosen: Columns, *, mapped: bool
) -> tuple[Rows, list[object]]:
    """Images and labels of the files of one split, in order."""
    images: list[pa.Array] = []
    labels: list[object] = []
    ends: list[int] = []
    for path in paths:
        with _reading(path), _opened(path) as file:
            missing = {chosen.image, chosen.label} - set(file.schema_arrow.names)
            if missing:
                raise DataError(
                    f"all Parquet files of a data set must have its columns, but {path} lacks "
                    f"{', '.join(sorted(missing))}"
                )
            labels += file.read([chosen.label]).column(chosen.label).to_pylist()
            images += _mapped(path, file, chosen.image) if mapped else _held(file, chosen.image)
        ends.append(len(labels))
        if sum(map(len, images)) != len(labels):
            raise DataError(f"{path} must have as many images as labels, but has not")
    names = Numbered(tuple(shown(path, root) for path in paths), tuple(ends))
    inside = all(_inside(piece) for piece in images)
    identity = functools.partial(keys, paths, chosen.image) if inside else None
    again = functools.partial(_reopened, paths, chosen.image) if mapped else None
    return Rows(tuple(images), names, tuple(path.parent for path in paths), identity, again), labels


def _reopened(paths: Sequence[Path], column: str) -> tuple[pa.Array, ...]:
    """The mapped images of these files, in another process than the one that read them."""
    images: list[pa.Array] = []
    for path in paths:
        with _reading(path), _opened(path) as file:
            images += _mapped(path, file, column)
    return tuple(images)


def _inside(images: pa.Array) -> bool:
    """Whether all bytes of images are in the file itself."""
    content = images.field("bytes") if pa.types.is_struct(images.type) else images
    return int(content.null_count) == 0


def _held(file: pq.ParquetFile, column: str) -> list[pa.Array]:
    """The images, in memory."""
    return list(file.read([column]).column(column).chunks)


def _mapped(path: Path, file: pq.ParquetFile, column: str) -> list[pa.Array]:
    """The images in an Arrow file of the cache, which is made unless it is there."""
    place = cache.folder() / f"{_key(path, column)}.arrow"
    if not place.exists():
        schema = pa.schema([file.schema_arrow.field(column)])
        batches = file.iter_batches(batch_size=BATCH, columns=[column])
        atomic.write(place, lambda target: _copy(batches, schema, target))
    table = pa.ipc.open_file(pa.memory_map(str(place))).read_all()
    return list(table.column(column).chunks)


def _copy(batches: Iterator[pa.RecordBatch], schema: pa.Schema, target: object) -> None:
    with pa.ipc.new_file(target, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _size(path: Path, column: str) -> int:
    """Bytes of a column once decompressed, as the file states them."""
    with _reading(path), _opened(path) as file:
        facts = file.metadata
        groups = (facts.row_group(number) for number in range(facts.num_row_groups))
        chunks = (group.column(number) for group in groups for number in range(group.num_columns))
        return sum(
            chunk.total_uncompressed_size
            for chunk in chunks
            if chunk.path_in_schema.split(".")[0] == column
        )


def keys(paths: Sequence[Path], column: str) -> str:
    """Tells sets of such files apart."""
    each = ascii([_key(path, column) for path in paths])
    return hashlib.blake2b(each.encode(), digest_size=16).hexdigest()


def _key(path: Path, column: str) -> str:
    """Tells files of other content apart: by name, size, time and a sample of the bytes."""
    status = path.stat()
    facts = (str(path.resolve()), column, status.st_size, status.st_mtime_ns)
    digest = hashlib.blake2b(ascii(facts).encode(), digest_size=16)
    with path.open("rb") as file:
        for number in range(BLOCKS):
            file.seek(max(0, status.st_size - BLOCK_BYTES) * number // (BLOCKS - 1))
            digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """By its literal name."""
    with path.open("rb") as stream, pq.ParquetFile(stream, page_checksum_verification=True) as file:
        yield file


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """All that pyarrow raises becomes a DataError."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(f"{path} must hold readable Parquet, but: {text}") from None
