"""Where the trials of a study keep their files: a folder that all workers see, or a bucket."""

from pathlib import Path

from orchestrator.record.depot.bucket import Bucket
from orchestrator.record.depot.place import Depot, Folder

__all__ = ["Bucket", "Depot", "Folder", "depot_of", "lend"]


def depot_of(folder: Path, bucket: str | None) -> Depot:
    """Where trials keep their files, of the study whose folder this is.

    `bucket` is an object store's URI, in which each study has a folder of its own.
    """
    return Bucket(bucket).below(folder.name) if bucket else Folder(folder)


def lend(folder: Path, depot: Depot, *names: str) -> None:
    """Puts folders of a study's own folder, with all in them, where its workers read them.

    Raises:
        BucketAway: the bucket did not answer in time.
    """
    for name in names:
        here, there = Folder(folder / name), depot.below(name)
        for file in sorted(set(here.names()) - set(there.names())):
            there.write(file, here.read(file) or b"")
