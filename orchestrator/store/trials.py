"""A study's trials read back from MLflow, with a cache that holds what has ended."""

import functools
import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from methods import files
from methods.errors import StudyError
from orchestrator.record import events
from orchestrator.record import rows as records
from orchestrator.record.rows import Row
from orchestrator.store import tags as layout
from orchestrator.store.reading.failures import storage_errors
from orchestrator.store.reading.runs import Experiment, Reader, Run, experiment_of, reader

logger = logging.getLogger(__name__)

OVERLAP = 600_000
"""Milliseconds before the latest known end that are read again: clocks of drivers differ."""
CURVE = "curve/val_acc"
VERSION = 3
"""The cache's: 1 held tags, which took five times as long to read as rows; 2 rows with names."""
TUPLES = [i for i, field in enumerate(fields(Row)) if field.name in ("budgets", "serves")]
"""The fields of a row that JSON gives back as lists."""
KEY = b"isoflop-cache"
"""The key of our metadata, as JSON, in the Parquet file's."""


class _TrialRun(NamedTuple):
    """A trial's run, as rows."""

    end: int
    """Milliseconds; 0 while it runs."""
    logged: bool
    """Whether its end came from the log."""
    trial: str
    rows: list[Row]


def read_rows(
    uri: str, study: str, *, cache: Path | None = None, refresh: bool = False
) -> list[Row]:
    """Every trial that ended, from the store alone, one row per operating point.

    As `read_trials`, without those that are running.

    Raises:
        StudyError: the store holds no study of this name.
        StorageError: the store cannot be used.
    """
    return [
        row
        for row in read_trials(uri, study, cache=cache, refresh=refresh)
        if row.state != layout.RUNNING
    ]


def read_trials(
    uri: str, study: str, *, cache: Path | None = None, refresh: bool = False
) -> list[Row]:
    """Every trial, from the store alone: one row per operating point, or one in state RUNNING.

    With a folder as `cache`, only trials are fetched that ended since the last reading or that are
    running. `refresh` reads all, so that runs show that were deleted or edited by hand long after
    their end. A run whose tags cannot be read is a row that says why.

    Raises:
        StudyError: the store holds no study of this name.
        StorageError: the store cannot be used.
    """
    with storage_errors(uri):
        source = reader(uri)
        experiment = experiment_of(source, study)
        if cache is None:
            runs = _all(source, experiment)
        else:
            kept = _cache(cache, "trials", uri, experiment, rows=_code())
            runs = _cached(source, experiment, kept, refresh=refresh)
    ordered = sorted(runs.items(), key=lambda item: (item[1].trial, item[0]))
    return [row for _, run in ordered for row in run.rows]


def trial_of(uri: str, run_id: str) -> tuple[str, str]:
    """The study and the trial of a run.

    Raises:
        StudyError: the store has no run of this id, or none of a trial.
        StorageError: the store cannot be used.
    """
    with storage_errors(uri):
        run = reader(uri).run(run_id)
    tags = run.tags if run else {}
    if not {"study", "trial"} <= tags.keys():
        raise StudyError(f"this MLflow store must have a trial's run {run_id}, but has none")
    return tags["study"], tags["trial"]


def read_curves(
    uri: str,
    study: str,
    trials: Mapping[str, str],
    *,
    cache: Path | None = None,
    refresh: bool = False,
) -> dict[str, list[tuple[int, float]]]:
    """Validation accuracy by epoch of these trials (name -> run id); without those that have none.

    Each trial that the cache does not hold costs one request.

    Raises:
        StudyError: the store holds no study of this name.
        StorageError: the store cannot be used.
    """
    with storage_errors(uri):
        source = reader(uri)
        place = cache and _cache(cache, "curves", uri, experiment_of(source, study))
        rows = place.load()[0] if place and not refresh else []
        curves: dict[str, list[list[float]]] = {
            row["run_id"]: json.loads(row["curve"]) for row in rows
        }
        missing = sorted(set(trials.values()) - curves.keys())
        for run_id in missing:
            history = source.history(run_id, CURVE)
            curves[run_id] = sorted({step: [step, value] for step, value in history}.values())
    if place and missing:
        ids = sorted(curves)
        place.save({"run_id": ids, "curve": [json.dumps(curves[i]) for i in ids]}, {})
    return {
        trial: [(int(step), value) for step, value in curves[run_id]]
        for trial, run_id in sorted(trials.items())
        if curves[run_id]
    }


class Cache:
    """What was read of one experiment, as one Parquet file, so that only news is asked for.

    `facts` identify the experiment. A file that is torn, damaged, from another store or from
    another version counts as empty and is replaced.
    """

    def __init__(self, folder: Path, name: str, facts: Mapping[str, Any]) -> None:
        text = json.dumps({**facts, "name": name, "version": VERSION}, sort_keys=True)
        self._identity = files.digest(text)  # a URI may hold a password
        place = f"{facts['uri']} {facts['experiment']}"
        self._file = folder / f"{name}-{files.digest(place)[:12]}.parquet"

    def load(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The rows and the notes that were saved last; empty where they cannot be trusted."""
        try:
            with pq.ParquetFile(self._file, page_checksum_verification=True) as file:
                table = file.read()  # pq.read_table loads pandas
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


def _cache(folder: Path, name: str, uri: str, experiment: Experiment, **more: str) -> Cache:
    """The experiment's cache; its id alone does not identify it, since each store counts from 1."""
    facts = {
        "uri": uri,
        "experiment": experiment.experiment_id,
        "created": experiment.creation_time,
        "hash": experiment.tags.get("study_hash"),
        **more,
    }
    return Cache(folder, name, facts)


def _cached(
    source: Reader, experiment: Experiment, cache: Cache, *, refresh: bool
) -> dict[str, _TrialRun]:
    """All trials, of which the ended ones outside the window come from the cache."""
    now = time.time_ns() // 1_000_000
    rows, notes = ([], {}) if refresh else cache.load()
    cached = _unpacked(rows)
    runs = None
    if cached:
        since = min(_latest(cached), notes["read"]) - OVERLAP
        runs = _since(source, experiment, cached, since)
    if runs is None:
        runs = _all(source, experiment)
    ended = {run_id: run for run_id, run in runs.items() if run.end}
    if ended != cached:
        columns: dict[str, list[Any]] = {
            "run_id": list(ended),
            "end": [run.end for run in ended.values()],
            "logged": [run.logged for run in ended.values()],
            "trial": [run.trial for run in ended.values()],
            "rows": [
                json.dumps([list(vars(row).values()) for row in run.rows]) for run in ended.values()
            ],
        }
        cache.save(columns, {"read": now})
    return runs


def _latest(runs: Mapping[str, _TrialRun]) -> int:
    """The last end that came from the log: the store has them in the log's order, however late.

    An interrupted run has the time at which the interruption was written, which may lie after ends
    that are yet to come.
    """
    return max((run.end for run in runs.values() if run.logged), default=0)


def _since(
    source: Reader, experiment: Experiment, cached: Mapping[str, _TrialRun], since: int
) -> dict[str, _TrialRun] | None:
    """The cached runs, read again from `since` on; None where the store lost some of these.

    First those that are running, then those that ended: a trial that ends in between is in the
    second answer.
    """

    def matching(query: str) -> dict[str, _TrialRun]:
        return _by_id(source.runs(experiment.experiment_id, query), experiment.name)

    running = matching("attributes.status = 'RUNNING'")
    recent = matching(f"attributes.end_time >= {since}")
    expected = {run_id for run_id, run in cached.items() if run.end >= since}
    if not expected <= recent.keys() | running.keys():
        return None
    return {**cached, **running, **recent}


def _all(source: Reader, experiment: Experiment) -> dict[str, _TrialRun]:
    return _by_id(source.runs(experiment.experiment_id, ""), experiment.name)


def _by_id(runs: Iterable[Run], study: str) -> dict[str, _TrialRun]:
    """The runs of trials among these, and whatever may be one: no run vanishes unlisted."""
    found = {}
    for run in runs:
        run_id, tags = run.run_id, _our_tags(run.tags)
        if layout.is_trial(tags):
            rows = layout.rows(study, tags, run_id)
            found[run_id] = _TrialRun(_end(run), "state" in tags, tags.get("trial", ""), rows)
    return found


def _unpacked(runs: Sequence[Mapping[str, Any]]) -> dict[str, _TrialRun]:
    """Runs from the cache, by their ids.

    Raises:
        ValueError, TypeError, KeyError: a damaged cache, which its checksum lets pass.
    """
    contents = json.loads(f"[{','.join(run['rows'] for run in runs)}]")
    return {
        run["run_id"]: _TrialRun(
            run["end"], run["logged"], run["trial"], [_row(values) for values in content]
        )
        for run, content in zip(runs, contents, strict=True)
    }


def _row(values: list[Any]) -> Row:
    for i in TUPLES:
        values[i] = tuple(values[i])
    return Row(*values)


@functools.cache
def _code() -> str:
    """A digest of the code that makes rows of tags: another version's rows are read again."""
    return files.digest(
        b"".join(Path(str(module.__file__)).read_bytes() for module in (layout, records, events))
    )


def _end(run: Run) -> int:
    """Milliseconds, 0 while it runs: a run that resumes keeps the end that it had."""
    return 0 if run.status == "RUNNING" else int(run.end_time or 0)


def _our_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in tags.items() if not name.startswith("mlflow.")}
