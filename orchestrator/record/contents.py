"""The data that a study began with, image by image, in its folder; other data are refused."""

import io
import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from methods import files
from methods.data.digest import Digest, decode_digest, encode_digest
from methods.data.survey import Contents, Listing, Survey, changes, retimed
from methods.errors import StorageError, StudyError
from orchestrator.record.events import Begun

logger = logging.getLogger(__name__)

FILE = "data.parquet"
"""A row per image, in the study's folder."""
FORMAT = 1
"""Version of the file's layout."""
FACTS = b"isoflop"
"""Where the Parquet schema carries what belongs to no single image, as JSON."""


def refuse_other_data(folder: Path, survey: Survey) -> None:
    """Refuse data that differ from what the study in `folder` began with; writes nothing.

    Raises:
        StudyError: says what changed.
        StorageError: the record of the data cannot be read.
    """
    if not (folder / FILE).exists():
        return
    before, digest = read(folder)
    now = survey.contents
    if digest.sha256 == survey.digest.sha256:
        if images := retimed(before, now):
            logger.warning(
                "the files of %d images were written again since study %r began; names, labels "
                "and sizes are the same, and so is what was sampled of the contents",
                images,
                folder.name,
            )
        return
    phrases = "; ".join(changes(before, now))
    if before.pillow != now.pillow:
        phrases += f"; Pillow {before.pillow} decoded them then, and {now.pillow} does now"
    raise StudyError(_refusal(folder.name, phrases))


def refuse_other_digest(study: str, recorded: Digest, digest: Digest) -> None:
    """The same from the digests alone, where there is no record of the images.

    Raises:
        StudyError: names the parts that differ.
    """
    if recorded.sha256 != digest.sha256:
        parts = ", ".join(recorded.differing(digest)) or "the names of the classes"
        sums = f"{recorded.sha256[:12]} then, {digest.sha256[:12]} now"
        raise StudyError(_refusal(study, f"{parts} ({sums})"))


def keep(folder: Path, survey: Survey, begun: Begun | None) -> None:
    """Record the data of a study that begins, or that `begun` earlier and resumes.

    Raises:
        StudyError, StorageError: see `refuse_other_data`.
        OSError: the record cannot be written.
    """
    if begun is not None and begun.provenance.data is not None:
        refuse_other_digest(folder.name, begun.provenance.data, survey.digest)
    if (folder / FILE).exists():
        refuse_other_data(folder, survey)
        return
    if begun is not None and begun.provenance.data is None:
        logger.warning(
            "study %r began without a record of its data: those that it reads now are recorded, "
            "and later runs are held to them",
            folder.name,
        )
    write(folder, survey)


def write(folder: Path, survey: Survey) -> None:
    """Put the record of the data into the study's folder.

    Raises:
        OSError: it cannot be written.
    """
    tables = [_table(role, listing, survey) for role, listing in survey.contents.parts.items()]
    facts = {
        "format": FORMAT,
        "class_names": survey.contents.class_names,
        "pillow": survey.contents.pillow,
        "digest": encode_digest(survey.digest),
    }
    table = pa.concat_tables(tables).replace_schema_metadata({FACTS: json.dumps(facts)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    files.write(folder / FILE, buffer.getvalue())


def read(folder: Path) -> tuple[Contents, Digest]:
    """The record of the data in a study's folder.

    Raises:
        StorageError: it cannot be read.
    """
    path = folder / FILE
    try:
        table = pq.ParquetFile(path).read()
        facts = json.loads(table.schema.metadata[FACTS])
        if facts["format"] != FORMAT:
            raise ValueError(f"it has format {facts['format']}, and this version reads {FORMAT}")
        roles = table.column("part").unique().to_pylist()
        parts = {role: _listing(table, role) for role in roles}
        contents = Contents(tuple(facts["class_names"]), parts, facts["pillow"])
        return contents, decode_digest(facts["digest"])
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise StorageError(
            f"{path} must hold the record of the study's data, but cannot be read: {error}; "
            "remove it, and the next run records the data again"
        ) from None


def _refusal(study: str, phrases: str) -> str:
    return (
        f"the data of study {study!r} must be those that it began with, but differ: {phrases}; "
        "restore the data, which `isoflop data PATH` shows as they are now, or give the study "
        "another name"
    )


def _table(role: str, listing: Listing, survey: Survey) -> pa.Table:
    splits = np.full(len(listing.names), "", object)
    for split, (part, rows) in survey.cut.items():
        if part == role:
            splits[rows] = split
    return pa.table(
        {
            "part": pa.array([role] * len(listing.names), pa.string()),
            "split": pa.array(splits, pa.string()),
            "name": pa.array(listing.names, pa.string()),
            "label": pa.array(listing.labels, pa.int64()),
            "pixels": pa.array(listing.pixels, pa.uint64()),
            "bytes": pa.array(listing.bytes, pa.int64()),
            "time": pa.array(listing.times, pa.int64()),
        }
    )


def _listing(table: pa.Table, role: str) -> Listing:
    rows = table.filter(pc.equal(table.column("part"), role))
    labels, pixels, sizes, times = (
        rows.column(name).to_numpy() for name in ("label", "pixels", "bytes", "time")
    )
    return Listing(rows.column("name").to_pylist(), labels, pixels, sizes, times)
