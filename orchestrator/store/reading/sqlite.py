"""MLflow's SQLite file, read as the tables that it is.

To import MLflow and open its store takes 1.7 s of CPU, to read a finished study hundredths of one.
Nothing is written here. Tables of another revision than the known ones are left to MLflow.
"""

import atexit
import contextlib
import math
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.record.address import Address
from orchestrator.store.reading.runs import Experiment, Run

REVISIONS = frozenset({"dc11669786a5"})
"""Revisions of MLflow's tables that are read here: that of 3.17."""
BUSY = 20.0
"""Seconds for which an SQLite file may be locked; MLflow waits as long."""
CHUNK = 500
"""Runs whose tags one statement reads."""
QUERY = re.compile(r"(tags|attributes)\.(\w+) (=|LIKE|>=) '?([^']*)'?")
_COPIES: dict[Path, Path] = {}
"""By file: what `copy_aside` made."""


def readable(file: Path) -> Path:
    """The SQLite file to open in place of this one: its copy, if one was made."""
    return _COPIES.get(file, file)


def copy_aside(file: Path) -> None:
    """Lets this process read a copy: beside some files SQLite must write, and may not.

    That is one whose last write was cut off, or one with a log of its own (WAL).
    """
    folder = Path(tempfile.mkdtemp(prefix="isoflop-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for ending in ("", "-journal", "-wal"):
        part = file.with_name(f"{file.name}{ending}")
        if part.exists():
            shutil.copyfile(part, folder / part.name)
    _COPIES[file] = folder / file.name


def opened(address: Address) -> "Tables | None":
    """The tables of a file; None where it is no file, or none whose tables are known."""
    if not address.is_file or not address.file.is_file():
        return None
    tables = Tables(readable(address.file), float(address.query.get("timeout", BUSY)))
    try:
        return tables if tables.revision() in REVISIONS else None
    except sqlite3.Error:  # MLflow finds words for it
        return None


class Tables:
    """A `Reader` of one file; each question is one transaction."""

    def __init__(self, file: Path, patience: float) -> None:
        self._file = file
        self._patience = patience

    def revision(self) -> str:
        """What MLflow calls the version of its tables."""
        with self._asking() as database:
            (found,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(found)

    def experiment(self, name: str) -> Experiment | None:
        with self._asking() as database:
            return next(_experiments(database, "name = ?", name), None)

    def experiments(self) -> list[Experiment]:
        with self._asking() as database:
            return list(_experiments(database, "lifecycle_stage = ?", "active"))

    def runs(self, experiment_id: str, query: str, *, deleted: bool = False) -> Iterator[Run]:
        condition, values = _condition(query)
        stage = "deleted" if deleted else "active"
        with self._asking() as database:
            yield from _runs(
                database,
                f"experiment_id = ? AND lifecycle_stage = ?{condition}",
                (int(experiment_id), stage, *values),
            )

    def run(self, run_id: str) -> Run | None:
        with self._asking() as database:
            return next(_runs(database, "run_uuid = ?", (run_id,)), None)

    def params(self, run_id: str) -> dict[str, str]:
        with self._asking() as database:
            query = "SELECT key, value FROM params WHERE run_uuid = ?"
            return dict(database.execute(query, (run_id,)))

    def history(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        with self._asking() as database:
            found = database.execute(
                "SELECT step, value, is_nan FROM metrics WHERE run_uuid = ? AND key = ? "
                "ORDER BY timestamp, step, value",
                (run_id, metric),
            )
            return [(step, math.nan if is_nan else value) for step, value, is_nan in found]

    @contextlib.contextmanager
    def _asking(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(
            sqlite3.connect(self._file, self._patience, isolation_level=None)
        ) as database:
            database.execute("BEGIN")
            yield database


def _experiments(database: sqlite3.Connection, condition: str, value: str) -> Iterator[Experiment]:
    columns = "experiment_id, name, artifact_location, lifecycle_stage, creation_time"
    query = f"SELECT {columns} FROM experiments WHERE workspace = 'default' AND {condition}"
    for number, name, place, stage, created in database.execute(query, (value,)).fetchall():
        tags = database.execute(
            "SELECT key, value FROM experiment_tags WHERE experiment_id = ?", (number,)
        )
        yield Experiment(str(number), name, place, stage, created, dict(tags))


def _runs(
    database: sqlite3.Connection, condition: str, values: Sequence[str | int]
) -> Iterator[Run]:
    query = f"SELECT run_uuid, name, status, end_time FROM runs WHERE {condition}"
    rows = database.execute(f"{query} ORDER BY start_time, run_uuid", values).fetchall()
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        tags: dict[str, dict[str, str]] = {run_id: {} for run_id, *_ in chunk}
        marks = ", ".join("?" * len(chunk))
        for run_id, key, value in database.execute(
            f"SELECT run_uuid, key, value FROM tags WHERE run_uuid IN ({marks})", [*tags]
        ):
            tags[run_id][key] = value
        for run_id, name, status, end in chunk:
            yield Run(run_id, name or "", status, end, tags[run_id])


def _condition(query: str) -> tuple[str, list[str | int]]:
    """A query as one more condition of SQL, with its values."""
    if not query:
        return "", []
    match = QUERY.fullmatch(query)
    assert match is not None, f"a query must be one condition, got {query!r}"
    place, name, sign, value = match.groups()
    if place == "attributes":
        return f" AND {name} {sign} ?", [int(value) if value.isdecimal() else value]
    like = {"=": "= ?", "LIKE": "GLOB ?"}[sign]
    of_tag = f"SELECT 1 FROM tags WHERE run_uuid = runs.run_uuid AND key = ? AND value {like}"
    return f" AND EXISTS ({of_tag})", [name, value.replace("%", "*")]
