"""A copy of what was read from a store, in one Parquet file, so that only news is asked for.

A file that is torn, damaged, from another store or from another version counts as empty and is
replaced.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from methods import files

logger = logging.getLogger(__name__)

VERSION = 1
KEY = b"isoflop-cache"
"""The key of our metadata, as JSON, in the Parquet file's."""


class Cache:
    """One table of one experiment; `facts` identify it."""

    def __init__(self, folder: Path, name: str, facts: Mapping[str, Any]) -> None:
        text = json.dumps({**facts, "name": name, "version": VERSION}, sort_keys=True)
        self._identity = files.digest(text)  # a URI may hold a password
        place = f"{facts['uri']} {facts['experiment']}"
        self._file = folder / f"{name}-{files.digest(place)[:12]}.parquet"

    def load(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The rows and the notes that were saved last; empty where they cannot be trusted."""
        try:
            table = pq.read_table(self._file, page_checksum_verification=True)
            metadata = json.loads((table.schema.metadata or {})[KEY])
            if (metadata["identity"], metadata["rows"]) == (self._identity, table.num_rows):
                return table.to_pylist(), dict(metadata["notes"])
        except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
            pass
        return [], {}

    def save(self, rows: Mapping[str, list[Any]], notes: Mapping[str, Any]) -> None:
        """Replaces the table by these columns; a disk that refuses them costs a warning."""
        table = pa.table(dict(rows))
        metadata = {"identity": self._identity, "rows": table.num_rows, "notes": dict(notes)}
        table = table.replace_schema_metadata({KEY: json.dumps(metadata)})
        try:
            files.write(
                self._file, lambda file: pq.write_table(table, file, write_page_checksum=True)
            )
        except OSError as error:
            logger.warning("the cache %s was not written: %s", self._file, error)
