"""What a store told before, in one Parquet file, so that only what is new is asked for.

A file that is torn, damaged, of another store or of another version is no cache: it is read as
nothing and written anew.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

logger = logging.getLogger(__name__)

VERSION = 1
KEY = b"isoflop-cache"
"""Where the Parquet file's metadata holds ours, as JSON."""


class Cache:
    """One table of one experiment; `facts` are what must be equal for it to be that table."""

    def __init__(self, folder: Path, name: str, facts: Mapping[str, Any]) -> None:
        text = json.dumps({**facts, "name": name, "version": VERSION}, sort_keys=True)
        self._identity = hashlib.sha256(text.encode()).hexdigest()  # a URI may hold a password
        place = f"{facts['uri']} {facts['experiment']}"
        self._file = folder / f"{name}-{hashlib.sha256(place.encode()).hexdigest()[:12]}.parquet"

    def load(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The rows and the notes that were saved last; nothing where they cannot be trusted."""
        try:
            table = pq.read_table(self._file, page_checksum_verification=True)
            told = json.loads((table.schema.metadata or {})[KEY])
            if (told["identity"], told["rows"]) == (self._identity, table.num_rows):
                return table.to_pylist(), dict(told["notes"])
        except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
            pass
        return [], {}

    def save(self, rows: Mapping[str, list[Any]], notes: Mapping[str, Any]) -> None:
        """These columns, written aside and renamed; a disk that takes them not is no error."""
        table = pa.table(dict(rows))
        told = {"identity": self._identity, "rows": table.num_rows, "notes": dict(notes)}
        table = table.replace_schema_metadata({KEY: json.dumps(told)})
        aside = self._file.with_name(f".{self._file.name}.{os.getpid()}.part")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, aside, write_page_checksum=True)
            aside.replace(self._file)
        except OSError as error:
            logger.warning("the cache %s was not written: %s", self._file, error)
            aside.unlink(missing_ok=True)
