"""Every number of a published board, made again from what the MLflow store alone holds.

Trials are checked against their own tags and seals, confirm runs against the prediction and the
cost of every test image, the board against both. Training is not repeated.
"""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydantic

from methods.errors import EvidenceError, StudyError
from methods.files import digest
from orchestrator import store
from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.model import Board
from orchestrator.board.rules import Facts, Rules
from orchestrator.record import evidence
from orchestrator.record.evidence import Evidence
from orchestrator.record.rows import Row, config_hash, trial_rows
from orchestrator.report import tables
from orchestrator.report.content import facts as board_facts
from orchestrator.results.boards import located
from orchestrator.store import Stored, StoredRun
from orchestrator.store import tags as layout
from orchestrator.study.file import Study
from orchestrator.study.params import derive

CLOSE = 1e-12
"""Relative difference of two machines' last digits, where a file holds more than it shows."""


@dataclass(frozen=True)
class Flaw:
    """One thing that does not follow: where it stands, what it is, as stored and as made again."""

    where: str
    what: str
    stored: str
    found: str


@dataclass
class Findings:
    """What was compared, by kind, and what differed."""

    study: str
    uri: str
    checked: Counter[str] = field(default_factory=Counter)
    flaws: list[Flaw] = field(default_factory=list)

    def same(self, kind: str, where: str, what: str, stored: object, found: object) -> bool:
        """Notes one comparison; floats are the same to the last digit, NaN is itself."""
        self.checked[kind] += 1
        alike = stored == found or (_nan(stored) and _nan(found))
        if not alike:
            self.flaws.append(Flaw(where, what, _text(stored), _text(found)))
        return alike


def verify(study: str, out: Path, *, uri: str | None = None) -> Findings:
    """Checks a study, by its name or file, in its MLflow store.

    Raises:
        StudyError, StorageError: there is no such study, or no store.
        EvidenceError: what a board could be made from is not there.
    """
    place, name = located(study, out, uri)
    stored, found = store.read_stored(place, name), Findings(name, place)
    what, facts = _study(stored, found)
    ends: list[Row] = []
    seen: dict[str, Evidence] = {}
    for run in stored.trials:
        told = _trial(run, what, found)
        if told is None:
            continue
        start, end = told
        rows = trial_rows(name, start, end, run.run_id)
        if end["state"] == "COMPLETE" and start["role"] == "confirm":
            kept = _evidence(run, stored.evidence.get(run.run_id), told, facts, found)
            if kept is not None:
                seen[start["trial"]] = kept
                rows = [_made_again(row, kept) for row in rows]
        ends += rows
    _labels(seen, facts, found)
    correct = {
        (trial, point): kept.correct(point) for trial, kept in seen.items() for point in kept.points
    }
    _board(stored, leaderboard(ends, Rules.of(what, Facts.of(facts)), correct), found)
    return found


def _study(stored: Stored, found: Findings) -> tuple[Study, dict[str, Any]]:
    """The study and where its numbers come from; the report's files, by their digests."""
    if stored.report is None:
        raise StudyError(f"study {found.study!r} has not begun; `isoflop run` begins it")
    digests = _json(stored.report.tags.get("files", "null"))
    if not isinstance(digests, dict):
        raise EvidenceError(
            f"study {found.study!r} must have a published board, but this store holds none; "
            "`isoflop run` publishes it when the sweep has ended"
        )
    for name in sorted(digests.keys() | stored.files.keys()):
        content = stored.files.get(name)
        now = "no such artefact" if content is None else digest(content)
        found.same("files of the report", f"report/{name}", "SHA-256", digests.get(name), now)
    facts = _json(stored.files.get("provenance.json", b"null").decode(errors="replace"))
    try:
        what = Study.model_validate(facts["study"])
        classes, versions = int(facts["classes"]), dict(facts["versions"])
    except (TypeError, KeyError, ValueError, pydantic.ValidationError):
        raise EvidenceError(
            f"the artefact provenance.json of the run `report` must hold study {found.study!r}, "
            "but it is missing or cannot be read: nothing can be made again without it"
        ) from None
    found.same("study", "report/provenance.json", "study hash", facts.get("study_hash"), what.hash)
    found.same("study", "experiment", "tag study_hash", stored.study_hash, what.hash)
    return what, {**facts, "classes": classes, "versions": versions}


def _trial(
    run: StoredRun, study: Study, found: Findings
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """A trial's start and end from its tags, each checked against all that repeats it."""
    where, kind = _named(run), "trials: tags, seals, seeds, hashes"
    try:
        start, end = layout.events(run.tags)
        again = {"start": layout.start_tags(start), "end": layout.end_tags(end)}
        figures = layout.figures(end["points"], start["point"])
        trial_rows(found.study, start, end)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        found.same(
            kind, where, "tags", "a trial", f"cannot be read: {type(error).__name__} {error}"
        )
        return None
    for part, tags in again.items():
        name = f"{part}_sha256"
        own = {key: run.tags.get(key, "") for key in tags if key != name}
        found.same(kind, where, f"seal of the {part}'s tags", run.tags.get(name), layout.seal(own))
    found.same(
        kind,
        where,
        "config_hash",
        start["config_hash"],
        config_hash(start["method"], start["params"]),
    )
    seed = str(derive(study, start["config"], start["seed"]))
    found.same(kind, where, "torch_seed", str(start["torch_seed"]), seed)
    status = "FAILED" if end["state"] == "FAIL" else "FINISHED"
    found.same(kind, where, "status", run.status, status)
    params = {name: str(value) for name, value in start["params"].items()}
    for name in sorted(params.keys() | run.params.keys()):
        stored = run.params.get(name)
        found.same("trials: parameters", where, f"parameter {name}", stored, params.get(name))
    metrics = {name: v for name, v in run.metrics.items() if not name.startswith("curve/")}
    for name in sorted(figures.keys() | metrics.keys()):
        found.same("trials: metrics", where, f"metric {name}", metrics.get(name), figures.get(name))
    return start, end


def _evidence(
    run: StoredRun,
    content: bytes | None,
    told: tuple[dict[str, Any], dict[str, Any]],
    facts: Mapping[str, Any],
    found: Findings,
) -> Evidence | None:
    """A confirm run's figures, made again from every test image; None where that cannot be."""
    where, kind, (start, end) = _named(run), "evidence: files", told
    if content is None:
        gone = "no such artefact" if end["evidence"] else "none was kept"
        found.same(kind, where, "evidence", end["evidence"] or "SHA-256 of a file", gone)
        return None
    sound = found.same(kind, where, "SHA-256 of the evidence", end["evidence"], digest(content))
    try:
        kept = evidence.unpacked(content)
    except ValueError as error:
        if sound:
            found.same(kind, where, "evidence", "a file of predictions", str(error))
        return None
    expected = {name: start[name] for name in ("trial", "method", "params", "config_hash")}
    expected |= {"seed": int(start["torch_seed"] or 0)}
    expected |= {name: facts[name] for name in ("python", "versions")}
    for name, value in expected.items():
        found.same("evidence: run and versions", where, name, value, kept.facts.get(name))
    points = [point["point"] for point in end["points"]]
    found.same("evidence: figures", where, "operating points", points, list(kept.points))
    for point in end["points"]:
        if point["point"] in kept.points:
            at = f"{where} {point['point']}".strip()
            for name, value in kept.figures(point["point"]).items():
                found.same("evidence: figures", at, name, point.get(name), value)
    return kept


def _labels(seen: Mapping[str, Evidence], facts: Mapping[str, Any], found: Findings) -> None:
    """All confirm runs were read on the same test images."""
    first = next(iter(seen.values()), None)
    for trial, kept in seen.items():
        assert first is not None, "there is one"
        images = int(facts.get("test_images", len(kept.labels)))
        found.same("evidence: test images", trial, "test images", images, len(kept.labels))
        alike = np.array_equal(kept.labels, first.labels)
        found.same("evidence: test images", trial, "labels as in the first run", alike, True)


def _made_again(row: Row, kept: Evidence) -> Row:
    """The row with its test figures from the images."""
    if row.point not in kept.points:
        return row
    made = kept.figures(row.point)
    return replace(
        row,
        test_acc=made["test_acc"],
        test_macs_mean=made["test_macs_mean"],
        test_macs_p95=made["test_macs_p95"],
        test_macs_max=made["test_macs_max"],
    )


def _board(stored: Stored, board: Board, found: Findings) -> None:
    """The published board against the one that the evidence gives."""
    frames = {
        "leaderboard.csv": (tables.board_table(board), 2),
        "seeds.csv": (tables.seeds_table(board).drop(columns="run_id"), 3),
        "pairs.csv": (tables.pairs_table(board), 3),
    }
    for name, (frame, keys) in frames.items():
        if name in stored.files:
            _csv(name, stored.files[name], tables.csv(frame), keys, found)
    if (content := stored.files.get("leaderboard.parquet")) is not None:
        _parquet(content, frames["leaderboard.csv"][0], found)
    words = _json(stored.files["provenance.json"].decode(errors="replace"))
    told = _json(json.dumps(board_facts(board), default=str))
    for path, one, other in _leaves(words.get("board"), told, "board"):
        found.same("board: words and effort", "report/provenance.json", path, one, other)
    _lines(stored.boards, board, found)


def _csv(name: str, content: bytes, again: bytes, keys: int, found: Findings) -> None:
    """Cell by cell, as text: the digits that are published."""
    old, new = (
        list(csv.DictReader(io.StringIO(text.decode(errors="replace"))))
        for text in (content, again)
    )
    where = f"report/{name}"
    found.same("board: tables", where, "rows", len(old), len(new))
    for one, other in zip(old, new, strict=False):
        at = " ".join(list(other.values())[:keys])
        for column in other:
            found.same("board: tables", f"{where}, {at}", column, one.get(column), other[column])


def _parquet(content: bytes, again: pd.DataFrame, found: Findings) -> None:
    where = "report/leaderboard.parquet"
    try:
        old = pd.read_parquet(io.BytesIO(content))
    except (OSError, ValueError) as error:
        found.same("board: tables", where, "table", "a table", f"cannot be read: {error}")
        return
    found.same("board: tables", where, "columns", list(old.columns), list(again.columns))
    found.same("board: tables", where, "rows", len(old), len(again))
    for column in [name for name in again if name in old]:
        pairs = zip(old[column].tolist(), again[column].tolist(), strict=False)
        for line, (one, other) in enumerate(pairs):
            close = _close(one, other)
            at = f"{where}, {again['method'].iloc[line]} {again['budget_mmac'].iloc[line]:g}"
            found.same("board: tables", at, str(column), other if close else one, other)


def _lines(runs: Iterable[StoredRun], board: Board, found: Findings) -> None:
    """The runs of the board in MLflow: a line per method."""
    kind, lines = "board: runs in MLflow", {run.tags.get("method", ""): run for run in runs}
    for method in sorted({*board.methods, *lines}):
        run = lines.get(method)
        if run is None or method not in board.methods:
            is_there = "a run" if run else "no run"
            found.same(kind, f"board: {method}", "run", is_there, "no run" if run else "a run")
            continue
        metrics, words = layout.board_run(board, method)
        where = f"board: {method} ({run.run_id})"
        for name in sorted(metrics.keys() | run.metrics.keys()):
            found.same(kind, where, name, run.metrics.get(name), metrics.get(name))
        told = {name: value for name, value in run.tags.items() if name.startswith("at_")}
        for name in sorted(words.keys() | told.keys()):
            found.same(kind, where, name, told.get(name), words.get(name))


def _leaves(one: Any, other: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """The values of two JSON trees, by their paths; what is close enough is told as equal."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            yield from _leaves(one.get(key), other.get(key), f"{path}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from _leaves(a, b, f"{path}[{i}]")
    else:
        yield path, other if _close(one, other) else one, other


def _close(one: object, other: object) -> bool:
    if not (isinstance(one, float) and isinstance(other, float)):
        return False
    return math.isclose(one, other, rel_tol=CLOSE, abs_tol=CLOSE)


def _nan(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(value: object) -> str:
    return "nothing" if value is None else repr(value) if isinstance(value, float) else str(value)


def _named(run: StoredRun) -> str:
    return f"{run.tags.get('trial', 'a trial')} ({run.run_id})"


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
