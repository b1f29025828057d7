"""Every number of a published board, recomputed from what the MLflow store alone holds.

Trials are checked against their tags and seals, confirm runs against the prediction and the
cost of every test image, the board against both, and every run against what they imply. Training
is not repeated.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from methods.errors import EvidenceError, StudyError
from methods.files import digest
from orchestrator import store
from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.rules import Rules
from orchestrator.record import evidence
from orchestrator.record.events import CURVES, End, Start, encode_points
from orchestrator.record.evidence import Evidence, Subject
from orchestrator.record.provenance import SOURCE, Clock, Provenance, decode_provenance
from orchestrator.record.rows import FIGURES, Row, config_hash, trial_rows
from orchestrator.results.board_check import check_board
from orchestrator.results.boards import located
from orchestrator.results.contents import (
    Reader,
    check_data,
    check_sources,
    check_starts,
    digest_here,
)
from orchestrator.results.findings import Findings
from orchestrator.results.runs_check import check_curves, check_runs
from orchestrator.store import Stored, StoredRun
from orchestrator.store import tags as layout
from orchestrator.study.file import Study
from orchestrator.study.identity import search_name, search_of
from orchestrator.study.params import derive

TRIALS = "trials: tags, seals, seeds, hashes"


def verify(study: str, out: Path, *, uri: str | None = None) -> Findings:
    """Checks a study, by its name or file, in its MLflow store.

    Raises:
        StudyError, StorageError: there is no such study, or no store.
        EvidenceError: what a board could be made from is not there.
    """
    place, name = located(study, out, uri)
    return verified(name, store.read_stored(place, name), digest_here, out / name / SOURCE)


def verified(
    name: str, stored: Stored, reader: Reader | None = None, sources: Path | None = None
) -> Findings:
    """Checks what a store holds of the study `name`, and its data if a `reader` is given.

    `sources` is the folder in which the study keeps the source of methods of other packages, beside
    that of trained weights.

    Raises:
        StudyError: the study has not begun.
        EvidenceError: what a board could be made from is not there.
    """
    findings = Findings(name)
    study, provenance = _study(stored, findings)
    rows: list[Row] = []
    confirmed: dict[str, Evidence] = {}
    trials: dict[str, tuple[Start, End | None]] = {
        run.run_id: (start, None)
        for run in stored.others
        if (start := _running(run, study, findings)) is not None
    }
    for run in stored.trials:
        trial = _trial(run, study, findings)
        if trial is None:
            continue
        _check_times(_named(run), trial[1], provenance.clock, findings)
        start, end = trials[run.run_id] = trial
        board_rows = trial_rows(name, start, end, run.run_id)
        if end.state == "COMPLETE" and start.role == "confirm":
            content = stored.evidence.get(run.run_id)
            if (predictions := _evidence(run, content, trial, provenance, findings)) is not None:
                confirmed[start.trial] = predictions
                board_rows = [_recomputed(row, predictions) for row in board_rows]
        rows += board_rows
    _labels(confirmed, provenance, findings)
    images = {
        (trial, point): predictions.per_image(point)
        for trial, predictions in confirmed.items()
        for point in predictions.points
    }
    board = leaderboard(rows, Rules.of(study, provenance), images)
    check_board(stored, board, findings)
    check_curves(stored.trials, trials, findings)
    check_runs(stored, board, trials, provenance, findings)
    if reader is not None:
        check_data(study, provenance.data, reader, findings)
    if sources is not None:
        check_sources(provenance, sources, findings)
        check_starts(provenance, sources.parent, findings)
    return findings


def _study(stored: Stored, findings: Findings) -> tuple[Study, Provenance]:
    """The study and where its numbers come from; the report's files, by their digests."""
    if stored.report is None:
        raise StudyError(f"study {findings.study!r} has not started; `isoflop run` starts it")
    digests = _json(stored.report.tags.get("files", "null"))
    if not isinstance(digests, dict):
        raise EvidenceError(
            f"study {findings.study!r} must have a published board, but this store holds none; "
            "`isoflop run` publishes it when the sweep has ended"
        )
    for name in sorted(digests.keys() | stored.files.keys()):
        content = stored.files.get(name)
        present = "no such artefact" if content is None else digest(content)
        findings.same(
            "files of the report", f"report/{name}", "SHA-256", digests.get(name), present
        )
    content = _json(stored.files.get("provenance.json", b"null").decode(errors="replace"))
    try:
        provenance = decode_provenance(content)
        study = Study.model_validate(provenance.study).known_as(provenance.study_hash)
    except ValueError:  # pydantic's errors are
        raise EvidenceError(
            f"the artefact provenance.json of the run `report` must hold study {findings.study!r}, "
            "but it is missing or cannot be read: nothing can be recomputed without it"
        ) from None
    findings.same(
        "study", "report/provenance.json", "study hash", provenance.study_hash, study.hash
    )
    findings.same("study", "experiment", "tag study_hash", stored.study_hash, study.hash)
    findings.same("study", "experiment", "name", stored.name, study.name)
    batch = provenance.clock.batch if provenance.clock else None
    findings.same("study", "report/provenance.json", "batch", batch, study.cost.batch)
    return study, provenance


def _trial(run: StoredRun, study: Study, findings: Findings) -> tuple[Start, End] | None:
    """A trial's start and end from its tags, each checked against all that repeats it."""
    where, kind = _named(run), TRIALS
    try:
        start, end = layout.events(run.tags)
        figures = layout.figures(end.points, start.point)
        trial_rows(findings.study, start, end)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        findings.same(
            kind, where, "tags", "a trial", f"cannot be read: {type(error).__name__} {error}"
        )
        return None
    _check_seal(run, "end", layout.end_tags(end), findings)
    _check_start(run, start, study, findings)
    status = layout.status(end)
    if end.state == "FAIL" and run.status == "FAILED":
        status = "FAILED"  # also where earlier versions wrote a trial over budget, or refused
    findings.same(kind, where, "status", run.status, status)
    tested = start.role != "confirm" and any(point.test for point in end.points)
    findings.same(kind, where, "a search trial has figures on test", tested, False)
    params = {name: str(value) for name, value in start.params.items()}
    for name in sorted(params.keys() | run.params.keys()):
        stored = run.params.get(name)
        findings.same("trials: parameters", where, f"parameter {name}", stored, params.get(name))
    metrics = {name: v for name, v in run.metrics.items() if name not in CURVES}
    for name in sorted(figures.keys() | metrics.keys()):
        findings.same(
            "trials: metrics", where, f"metric {name}", metrics.get(name), figures.get(name)
        )
    return start, end


def _check_times(where: str, end: End, clock: Clock | None, findings: Findings) -> None:
    """A trial's milliseconds follow from what its clock said, and from the study's reference."""
    for point in end.points:
        at, ms = f"{where} {point.point}".strip(), None
        if clock and point.clock_ms is not None and point.reference_ms:
            ms = point.clock_ms / point.reference_ms * clock.reference_ms
        if clock or point.ms is not None:
            findings.same("trials: milliseconds", at, "ms", point.ms, ms)


def _running(run: StoredRun, study: Study, findings: Findings) -> Start | None:
    """The start of a trial that has no end; None for another run."""
    try:
        start = layout.started(run.tags)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    _check_start(run, start, study, findings)
    return start


def _check_start(run: StoredRun, start: Start, study: Study, findings: Findings) -> None:
    where, kind = _named(run), TRIALS
    _check_seal(run, "start", layout.start_tags(start), findings)
    hashed = config_hash(start.method, start.params)
    findings.same(kind, where, "config_hash", start.config_hash, hashed)
    repeat = layout.start_tags(start).get("repeat", "none")
    findings.same(kind, where, "repeat", run.tags.get("repeat", "none"), repeat)
    repeated = study.search.repeats > 1 and start.role != "base"
    search = search_name(start.method, start.repeat if repeated else None)
    findings.same(kind, where, "search", search_of(start.config), search)
    seed = str(derive(study, start.config, start.seed))
    findings.same(kind, where, "torch_seed", run.tags.get("torch_seed", ""), seed)


def _check_seal(run: StoredRun, part: str, tags: Mapping[str, str], findings: Findings) -> None:
    name = f"{part}_sha256"
    sealed = layout.seal({key: run.tags.get(key, "") for key in tags if key != name})
    what = f"seal of the {part}'s tags"
    findings.same(TRIALS, _named(run), what, run.tags.get(name), sealed)


def _evidence(
    run: StoredRun,
    content: bytes | None,
    trial: tuple[Start, End],
    provenance: Provenance,
    findings: Findings,
) -> Evidence | None:
    """A confirm run's predictions, with its figures recomputed from them; None without any."""
    where, kind, (start, end) = _named(run), "evidence: files", trial
    if content is None:
        gone = "no such artefact" if end.evidence else "none was recorded"
        findings.same(kind, where, "evidence", end.evidence or "SHA-256 of a file", gone)
        return None
    sound = findings.same(kind, where, "SHA-256 of the evidence", end.evidence, digest(content))
    try:
        predictions = evidence.unpacked(content)
    except ValueError as error:
        if sound:
            findings.same(kind, where, "evidence", "a file of predictions", str(error))
        return None
    subject = Subject(
        start.trial,
        start.method,
        start.params,
        start.config_hash,
        start.torch_seed or 0,
        provenance.python or "",
        provenance.versions,
        _data(provenance, predictions.subject),
    )
    for name, value in vars(subject).items():
        present = getattr(predictions.subject, name)
        findings.same("evidence: run and versions", where, name, value, present)
    points = [point.point for point in end.points]
    findings.same("evidence: figures", where, "operating points", points, list(predictions.points))
    for point, stored in zip(end.points, encode_points(end.points), strict=True):
        if point.point in predictions.points:
            at = f"{where} {point.point}".strip()
            for name, value in predictions.figures(point.point).items():
                findings.same("evidence: figures", at, name, stored.get(name), value)
    return predictions


def _data(provenance: Provenance, subject: Subject) -> str:
    """The digest that a run's evidence must name; that of an earlier version names none."""
    known = provenance.data is not None and subject.data
    return provenance.data.sha256 if known and provenance.data else subject.data


def _labels(confirmed: Mapping[str, Evidence], provenance: Provenance, findings: Findings) -> None:
    """All confirm runs were read on the same test images."""
    first = next(iter(confirmed.values()), None)
    for trial, predictions in confirmed.items():
        assert first is not None, "there is one"
        images = provenance.test_images or len(predictions.labels)
        findings.same(
            "evidence: test images", trial, "test images", images, len(predictions.labels)
        )
        alike = np.array_equal(predictions.labels, first.labels)
        findings.same("evidence: test images", trial, "labels as in the first run", alike, True)


def _recomputed(row: Row, predictions: Evidence) -> Row:
    """The row with its test figures from the images."""
    if row.point not in predictions.points:
        return row
    figures = predictions.figures(row.point)
    recomputed: dict[str, Any] = {name: figures[name] for name in FIGURES if name in figures}
    return replace(row, **recomputed)


def _named(run: StoredRun) -> str:
    return f"{run.tags.get('trial', 'a trial')} ({run.run_id})"


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
