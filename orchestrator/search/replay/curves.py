"""A study's learning curves and costs as one Parquet table, with the spaces they came from."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import optuna
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from methods import METHODS, files
from methods.api import Task
from methods.errors import MethodError, StorageError, StudyError
from methods.values import Params
from orchestrator.record import log
from orchestrator.record.events import SIZES, Begun, End, Epoch, Event, Metrics, Start
from orchestrator.record.provenance import (
    SOURCE,
    Provenance,
    decode_provenance,
    encode_provenance,
)
from orchestrator.record.result import Outcome
from orchestrator.record.trials import EPOCHS
from orchestrator.study.distributions import Distribution
from orchestrator.study.file import Study
from orchestrator.study.params import recorded_parts
from orchestrator.study.space import Space, spaces

KEY = b"isoflop"
"""Where the Parquet file's metadata holds ours, as JSON."""
VERSION = 1
COLUMNS = {
    "trial": "string",
    "method": "string",
    "role": "string",
    "seed": "Int64",
    "state": "string",
    "params": "string",
    "floor_macs": "Float64",
    "step": "Int64",
    "epochs": "Int64",
    "val_acc": "Float64",
    "val_loss": "Float64",
    "macs_mean": "Float64",
    "seconds": "Float64",
    "final_acc": "Float64",
    "final_macs": "Float64",
    **{f"final_{name}": "Int64" for name in SIZES},
    "trial_seconds": "Float64",
}
"""One row per trial and epoch: fractions, MACs, seconds; what a trial ended in stands in each row.

`params` is a flat JSON object, `floor_macs` the least MACs that they can cost, `epochs` the length
of the whole trial, `final_*` the operating point that stood for it in the search.
"""


@dataclass(frozen=True)
class Table:
    """Recorded curves, and what they were drawn from."""

    rows: pd.DataFrame
    """As `COLUMNS` says, ordered by trial and epoch."""
    study: Study
    free: Mapping[str, Mapping[str, Distribution]]
    """The searched distributions of each method."""
    fixed: Mapping[str, Params]
    provenance: Provenance

    def space(self, method: str) -> Space:
        """The space that a method's trials were drawn from."""
        return Space(method, self.fixed[method], self.free[method])


def export(folder: Path) -> Table:
    """The curves that a study's folder holds by now; its driver may be running.

    Trials that took no worker have no curve; a trial that has no end yet is left out.

    Raises:
        StorageError: no study began in this folder.
        MethodError: this process has imported another source of a method of another package.
    """
    events = log.read(folder / "wal.jsonl")[0]
    begun = next((event for event in events if isinstance(event, Begun)), None)
    if begun is None:
        raise StorageError(f"{folder} must hold a study's log, but nothing ran there")
    provenance = begun.provenance
    METHODS.use(folder / SOURCE)
    study = Study.model_validate(provenance.study)
    task = Task(study.data, *provenance.image, provenance.classes)
    ended = (trial for trial in _ended(events) if trial.start.role != "base")
    rows = [row for trial in ended for row in _rows(trial, task)]
    opened = spaces(study)
    return Table(
        _typed(rows),
        study,
        {name: dict(space.free) for name, space in opened.items()},
        {name: dict(space.fixed) for name, space in opened.items()},
        provenance,
    )


def write(table: Table, path: Path) -> None:
    """The table as one Parquet file; the same table gives the same bytes.

    Raises:
        StorageError: the file cannot be written.
    """
    facts = {
        "version": VERSION,
        "rows": len(table.rows),
        "study": table.study.model_dump(mode="json"),
        "free": {
            method: {
                name: json.loads(optuna.distributions.distribution_to_json(distribution))
                for name, distribution in free.items()
            }
            for method, free in table.free.items()
        },
        "fixed": {method: dict(fixed) for method, fixed in table.fixed.items()},
        "provenance": encode_provenance(table.provenance),
    }
    content = pa.Table.from_pandas(table.rows, preserve_index=False)
    content = content.replace_schema_metadata({KEY: json.dumps(facts, sort_keys=True)})
    try:
        files.write(path, lambda file: pq.write_table(content, file))
    except OSError as error:
        raise StorageError(f"{path} must be writable, but: {error.strerror or error}") from None


def read(path: Path) -> Table:
    """The table in a Parquet file.

    Raises:
        StorageError: no such file, none that `isoflop table` wrote, one of another version, or one
            that is cut short.
    """
    if path.is_dir():
        raise StorageError(
            f"{path} must be a file that `isoflop table` wrote, but is a folder; `isoflop table "
            "STUDY` writes the file"
        )
    try:
        content = pq.read_table(path)
        facts = json.loads((content.schema.metadata or {}).get(KEY, b"{}"))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StorageError(f"{path} must be a table of curves, but: {_line(error)}") from None
    version = facts.get("version") if isinstance(facts, dict) else None
    if version != VERSION:
        held = "is none" if version is None else f"is one of version {_line(version)}"
        raise StorageError(
            f"{path} must be a table of curves of version {VERSION}, but {held}; `isoflop table` "
            "writes one"
        )
    rows, columns = facts.get("rows", content.num_rows), set(content.column_names)
    if content.num_rows != rows or not columns.issuperset(COLUMNS):
        lacking = ", ".join(name for name in COLUMNS if name not in columns)
        raise StorageError(
            f"{path} must be a whole table of curves, but "
            + (f"lacks {lacking}" if lacking else f"has {content.num_rows:,} of {rows} rows")
            + "; `isoflop table` writes it again"
        )
    try:
        return _table(content.to_pylist(), facts)
    except (AttributeError, KeyError, TypeError, ValueError, StudyError) as error:
        raise StorageError(
            f"{path} must be a table of curves with its study, spaces and provenance, but they "
            f"cannot be read ({_line(error)}); `isoflop table` writes it again"
        ) from None


def _table(rows: list[dict[str, Any]], facts: Mapping[str, Any]) -> Table:
    return Table(
        _typed(rows),
        Study.model_validate(facts["study"]),
        {
            method: {
                name: cast(
                    "Distribution",
                    optuna.distributions.json_to_distribution(json.dumps(distribution)),
                )
                for name, distribution in free.items()
            }
            for method, free in facts["free"].items()
        },
        {method: dict(fixed) for method, fixed in facts["fixed"].items()},
        decode_provenance(facts["provenance"]),
    )


def _line(what: object) -> str:
    """What is not ours to word, in one short line."""
    return " ".join(f"{what}".split())[:200]


@dataclass
class _Trial:
    """One trial, as the log records it."""

    start: Start
    curve: dict[int, Metrics]
    end: End | None = None


def _ended(events: Iterable[Event]) -> Iterator[_Trial]:
    """The trials that ended and took a worker, by name."""
    trials: dict[str, _Trial] = {}
    for event in events:
        match event:
            case Start():
                trials.setdefault(event.trial, _Trial(event, {}))
            case Epoch():
                trials[event.trial].curve.setdefault(event.step, event.metrics)
            case End():
                trials[event.trial].end = event
    for _, trial in sorted(trials.items()):
        if trial.end and Outcome.of(trial.end.state, trial.end.reason).took_a_worker:
            yield trial


def _rows(trial: _Trial, task: Task) -> list[dict[str, Any]]:
    start, end = trial.start, trial.end
    assert end is not None, "the trial ended"
    point = end.points[-1] if end.points and end.state == "COMPLETE" else None
    final = point.val if point else None
    whole = {
        "trial": start.trial,
        "method": start.method,
        "role": start.role,
        "seed": start.seed,
        "state": end.state,
        "params": json.dumps(start.params, sort_keys=True),
        "floor_macs": _floor(start.method, start.params, task),
        "epochs": start.params[EPOCHS],
        "final_acc": final.accuracy if final else None,
        "final_macs": final.macs_mean if final else None,
        **{f"final_{name}": getattr(point, name, None) for name in SIZES},
        "trial_seconds": end.seconds,
    }
    return [
        {
            **whole,
            "step": step,
            "val_acc": _written(metrics.val_acc),
            "val_loss": _written(metrics.val_loss),
            "macs_mean": _written(1e6 * metrics.macs_mean_m),
            "seconds": _written(metrics.seconds),
        }
        for step, metrics in sorted(trial.curve.items())
    ]


def _written(figure: float) -> float | None:
    return None if math.isnan(figure) else figure


def _floor(method: str, params: Params, task: Task) -> float | None:
    try:
        return float(recorded_parts(method, params)[0].floor(task))
    except MethodError:
        return None


def _typed(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows), columns=list(COLUMNS)).astype(COLUMNS)
    return frame.sort_values(["trial", "step"], ignore_index=True)
