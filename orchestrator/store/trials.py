"""A study's trials read back from MLflow, with a cache that holds what has ended."""

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException

from methods.errors import StudyError
from orchestrator.record.rows import Row
from orchestrator.store import tags as layout
from orchestrator.store.cache import Cache
from orchestrator.store.place import experiment_of, runs_of, storage_errors

OVERLAP = 600_000
"""Milliseconds before the latest known end that are asked for again: clocks of drivers differ."""
TRIALS = "tags.role LIKE 'trial-%'"
CURVE = "curve/val_acc"


class _Kept(NamedTuple):
    """A trial's run as far as rows need it."""

    end: int
    """Milliseconds; 0 while it runs."""
    tags: dict[str, str]


def read_rows(
    uri: str, study: str, *, cache: Path | None = None, refresh: bool = False
) -> list[Row]:
    """Every trial that ended, from the store alone, one row per operating point.

    As `read_trials`, without those that run.

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
    """Every trial, from the store alone: one row per operating point, or one that says RUNNING.

    With a folder as `cache` only what ended since the last reading is fetched, and what runs. Runs
    that were deleted or edited by hand long after their end show with `refresh`, which reads all. A
    run whose tags cannot be read is a row that says why.

    Raises:
        StudyError: the store holds no study of this name.
        StorageError: the store cannot be used.
    """
    with storage_errors(uri):
        client = MlflowClient(uri)
        experiment = experiment_of(client, study)
        if cache is None:
            kept = _all(client, experiment)
        else:
            kept = _cached(
                client, experiment, _cache(cache, "trials", uri, experiment), refresh=refresh
            )
    found = sorted(kept.items(), key=lambda item: (item[1].tags.get("trial", ""), item[0]))
    return [row for run_id, run in found for row in layout.rows(study, run.tags, run_id)]


def trial_of(uri: str, run_id: str) -> tuple[str, str]:
    """The study and the trial of a run.

    Raises:
        StudyError: the store has no run of this id, or none of a trial.
        StorageError: the store cannot be used.
    """
    with storage_errors(uri):
        try:
            tags = MlflowClient(uri).get_run(run_id).data.tags
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            tags = {}
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
    """Validation accuracy by epoch of these trials (name -> run id), as far as they have any.

    One request for each that the cache does not hold: name those that are shown, not all.

    Raises:
        StudyError: the store holds no study of this name.
        StorageError: the store cannot be used.
    """
    with storage_errors(uri):
        client = MlflowClient(uri)
        place = cache and _cache(cache, "curves", uri, experiment_of(client, study))
        rows = place.load()[0] if place and not refresh else []
        known: dict[str, list[list[float]]] = {
            row["run_id"]: json.loads(row["curve"]) for row in rows
        }
        missing = sorted(set(trials.values()) - known.keys())
        for run_id in missing:
            history = client.get_metric_history(run_id, CURVE)
            known[run_id] = sorted({m.step: [m.step, m.value] for m in history}.values())
    if place and missing:
        ids = sorted(known)
        place.save({"run_id": ids, "curve": [json.dumps(known[i]) for i in ids]}, {})
    return {
        trial: [(int(step), value) for step, value in known[run_id]]
        for trial, run_id in sorted(trials.items())
        if known[run_id]
    }


def _cache(folder: Path, name: str, uri: str, experiment: Experiment) -> Cache:
    """Of this experiment and no other: a store made anew counts its experiments from 1 again."""
    facts = {
        "uri": uri,
        "experiment": experiment.experiment_id,
        "created": experiment.creation_time,
        "hash": experiment.tags.get("study_hash"),
    }
    return Cache(folder, name, facts)


def _cached(
    client: MlflowClient, experiment: Experiment, cache: Cache, *, refresh: bool
) -> dict[str, _Kept]:
    """All trials, of which the ended ones outside the window come from the cache."""
    now = time.time_ns() // 1_000_000
    rows, notes = ([], {}) if refresh else cache.load()
    known = {row["run_id"]: _Kept(row["end"], json.loads(row["tags"])) for row in rows}
    found = None
    if known:
        since = min(_latest(known), notes["read"]) - OVERLAP
        found = _since(client, experiment, known, since)
    if found is None:
        found = _all(client, experiment)
    ended = {run_id: run for run_id, run in found.items() if run.end}
    if ended != known:
        columns: dict[str, list[Any]] = {
            "run_id": list(ended),
            "end": [run.end for run in ended.values()],
            "tags": [json.dumps(run.tags, sort_keys=True) for run in ended.values()],
        }
        cache.save(columns, {"read": now})
    return found


def _latest(known: Mapping[str, _Kept]) -> int:
    """The last end that the log told: the store has them in the log's order, however late.

    A run that was merely interrupted has the time at which that was noted, which may lie after
    ends that are yet to come.
    """
    return max((run.end for run in known.values() if "state" in run.tags), default=0)


def _since(
    client: MlflowClient, experiment: Experiment, known: Mapping[str, _Kept], since: int
) -> dict[str, _Kept] | None:
    """What is known, renewed from `since` on; None where the store lost what it had there.

    First what runs, then what ended: a trial that ends in between is in the second answer.
    """
    running = _kept(runs_of(client, experiment, f"{TRIALS} AND attributes.status = 'RUNNING'"))
    recent = _kept(runs_of(client, experiment, f"{TRIALS} AND attributes.end_time >= {since}"))
    expected = {run_id for run_id, run in known.items() if run.end >= since}
    if not expected <= recent.keys() | running.keys():
        return None
    return {**known, **running, **recent}


def _all(client: MlflowClient, experiment: Experiment) -> dict[str, _Kept]:
    return _kept(runs_of(client, experiment, TRIALS))


def _kept(runs: Iterable[Run]) -> dict[str, _Kept]:
    return {run.info.run_id: _Kept(_end(run), _own(run.data.tags)) for run in runs}


def _end(run: Run) -> int:
    """A run that goes on again keeps the end that it had."""
    return 0 if run.info.status == "RUNNING" else int(run.info.end_time or 0)


def _own(tags: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in tags.items() if not name.startswith("mlflow.")}
