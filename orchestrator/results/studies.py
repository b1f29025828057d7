"""The studies of a folder and of its MLflow store, with their state."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from methods.errors import StudyError
from orchestrator import store
from orchestrator.record import log
from orchestrator.record.address import Address
from orchestrator.record.ledger import held
from orchestrator.store.place import default_uri

State = Literal["running", "interrupted", "finished", "published", "unpublished"]
END = b'"event": "end"'
"""What a trial's end has in the log, and nothing else: quotes within a text are escaped."""


@dataclass(frozen=True)
class Listed:
    """One study: its data, its progress, and the time of its verdict."""

    study: str
    data: str
    trials: int
    """Trials that ended."""
    state: State
    """State of the study; in MLflow alone, whether its board was published."""
    verdict: int | None
    """When nothing was left to run, in milliseconds since 1970; None before."""


def studies(out: Path, uri: str | None = None) -> list[Listed]:
    """Every study of a folder and of an MLflow store, by name; by default that of the folder.

    Raises:
        StudyError: there is neither a folder nor a store.
        StorageError: the store does not answer.
    """
    here = {wal.parent.name: _in(wal.parent) for wal in sorted(out.glob("*/wal.jsonl"))}
    place = uri or default_uri(out)
    if uri is None and not Address(place).file.exists():
        if not out.is_dir():
            raise StudyError(
                f"--out must be a folder of studies, but there is none at {out}; `isoflop run` "
                "creates one"
            )
        return list(here.values())
    store.check(place, reading=True)
    stored = [
        Listed(
            each.study,
            each.data,
            each.trials,
            "unpublished" if each.published is None else "published",
            each.published,
        )
        for each in store.read_studies(place, without=list(here))
    ]
    return sorted([*here.values(), *stored], key=lambda listed: listed.study)


def _in(folder: Path) -> Listed:
    """A study from its folder alone."""
    try:
        study = json.loads((folder / "study.json").read_text())
        data, declared = str(study["data"]), str(study["hash"])
    except (OSError, ValueError, KeyError, TypeError):
        data, declared = "", ""
    wal = folder / "wal.jsonl"
    with wal.open("rb") as file:
        trials = sum(END in line for line in file)
    finished = log.finished(wal, declared)
    state: State = "running" if held(folder) else "finished" if finished else "interrupted"
    mark = folder / "finished.json"
    verdict = mark.stat().st_mtime_ns // 1_000_000 if finished else None
    return Listed(folder.name, data, trials, state, verdict)
