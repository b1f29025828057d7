"""Which bucket the trials of a study keep their files in, by the record in the study's folder.

The bucket bears a mark of the study's folder: checkpoints of another sweep, of the same name, are
neither read nor deleted.
"""

import json
import uuid
from dataclasses import dataclass
from pathlib import Path

from methods.errors import StorageError
from orchestrator.record.depot import depot_of
from orchestrator.record.depot.bucket import Bucket

KEY = "bucket"
"""Where `study.json` has the record."""
MARK = "sweep"
"""The bucket's file with the mark."""


@dataclass(frozen=True)
class Lent:
    """A bucket as a study's folder records it."""

    uri: str
    mark: str


def encode_lent(bucket: str | None) -> dict[str, dict[str, str]]:
    """The record of a study that begins, as a part of its JSON object."""
    return {KEY: {"uri": bucket, "mark": uuid.uuid4().hex}} if bucket else {}


def lent(folder: Path) -> Lent | None:
    """The recorded bucket of a study that has begun; None where it has none.

    Raises:
        FileNotFoundError: no study has begun in the folder.
    """
    record = json.loads((folder / "study.json").read_text()).get(KEY)
    return Lent(record["uri"], record["mark"]) if record else None


def refuse_other_bucket(folder: Path, bucket: str | None) -> None:
    """Refuses another bucket than that in which a study began; writes nothing.

    Raises:
        StorageError: says which it is.
    """
    try:
        began = lent(folder)
    except FileNotFoundError:
        return
    recorded = began.uri if began else None
    if recorded != bucket:
        here = f"in {recorded}" if recorded else "in the study's folder"
        there = f"--bucket {bucket}" if bucket else "no --bucket"
        remedy = f"give --bucket {recorded}" if recorded else "leave --bucket out"
        raise StorageError(
            f"the trials of {folder.name!r} must keep their files where it began, {here}, but "
            f"there is {there}; {remedy}, or give the study another name"
        )


def check(folder: Path, bucket: str | None) -> None:
    """Refuses a bucket that cannot be used for the study of this folder, before it is taken.

    Raises:
        StorageError: it cannot be used, is another one, or holds the files of another sweep.
    """
    refuse_other_bucket(folder, bucket)
    depot = depot_of(folder, bucket)
    if not isinstance(depot, Bucket):
        return
    depot.check()
    try:
        began = lent(folder)
    except FileNotFoundError:
        began = None
    mark = depot.read(MARK)
    if mark is not None and (began is None or mark.decode() != began.mark):
        raise StorageError(
            f"a study's part of a bucket must hold nothing but its own files, but {depot} has "
            f"those of another sweep; delete them, or let --bucket have another prefix"
        )


def mark(folder: Path) -> None:
    """Marks the bucket of a study that has begun as that of its folder.

    Raises:
        BucketAway: it did not answer in time.
        StorageError: another sweep has marked it.
    """
    if began := lent(folder):
        depot = depot_of(folder, began.uri)
        if depot.read(MARK) is None:
            depot.write(MARK, began.mark.encode())
        if depot.read(MARK) != began.mark.encode():  # marked since `check` looked
            raise StorageError(
                f"a study's part of a bucket must hold nothing but its own files, but another "
                f"sweep took {depot} at the same time; let --bucket have another prefix"
            )
