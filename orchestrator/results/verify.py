"""Every number of a published board, made again from what the MLflow store alone holds.

Trials are checked against their own tags and seals, confirm runs against the prediction and the
cost of every test image, the board against both. Training is not repeated.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from methods.errors import EvidenceError, StudyError
from methods.files import digest
from orchestrator import store
from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.rules import Facts, Rules
from orchestrator.record import evidence
from orchestrator.record.events import End, Start, encode_points
from orchestrator.record.evidence import Evidence
from orchestrator.record.rows import Row, config_hash, trial_rows
from orchestrator.results.boards import located
from orchestrator.results.findings import Findings
from orchestrator.results.published import check_board
from orchestrator.store import Stored, StoredRun
from orchestrator.store import tags as layout
from orchestrator.study.file import Study
from orchestrator.study.params import derive


def verify(study: str, out: Path, *, uri: str | None = None) -> Findings:
    """Checks a study, by its name or file, in its MLflow store.

    Raises:
        StudyError, StorageError: there is no such study, or no store.
        EvidenceError: what a board could be made from is not there.
    """
    place, name = located(study, out, uri)
    return verified(name, store.read_stored(place, name))


def verified(name: str, stored: Stored) -> Findings:
    """Checks what a store holds of the study `name`.

    Raises:
        StudyError: the study has not begun.
        EvidenceError: what a board could be made from is not there.
    """
    findings = Findings(name)
    study, facts = _study(stored, findings)
    rows: list[Row] = []
    confirmed: dict[str, Evidence] = {}
    for run in stored.trials:
        trial = _trial(run, study, findings)
        if trial is None:
            continue
        start, end = trial
        own = trial_rows(name, start, end, run.run_id)
        if end.state == "COMPLETE" and start.role == "confirm":
            content = stored.evidence.get(run.run_id)
            if (proof := _evidence(run, content, trial, facts, findings)) is not None:
                confirmed[start.trial] = proof
                own = [_recomputed(row, proof) for row in own]
        rows += own
    _labels(confirmed, facts, findings)
    correct = {
        (trial, point): proof.correct(point)
        for trial, proof in confirmed.items()
        for point in proof.points
    }
    board = leaderboard(rows, Rules.of(study, Facts.of(facts)), correct)
    check_board(stored, board, findings)
    return findings


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
        what = Study.model_validate(facts["study"]).known_as(facts.get("study_hash", ""))
        classes, versions = int(facts["classes"]), dict(facts["versions"])
    except (TypeError, KeyError, ValueError, pydantic.ValidationError):
        raise EvidenceError(
            f"the artefact provenance.json of the run `report` must hold study {found.study!r}, "
            "but it is missing or cannot be read: nothing can be made again without it"
        ) from None
    found.same("study", "report/provenance.json", "study hash", facts.get("study_hash"), what.hash)
    found.same("study", "experiment", "tag study_hash", stored.study_hash, what.hash)
    return what, {**facts, "classes": classes, "versions": versions}


def _trial(run: StoredRun, study: Study, found: Findings) -> tuple[Start, End] | None:
    """A trial's start and end from its tags, each checked against all that repeats it."""
    where, kind = _named(run), "trials: tags, seals, seeds, hashes"
    try:
        start, end = layout.events(run.tags)
        again = {"start": layout.start_tags(start), "end": layout.end_tags(end)}
        figures = layout.figures(end.points, start.point)
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
        start.config_hash,
        config_hash(start.method, start.params),
    )
    seed = str(derive(study, start.config, start.seed))
    found.same(kind, where, "torch_seed", run.tags.get("torch_seed", ""), seed)
    status = "FAILED" if end.state == "FAIL" else "FINISHED"
    found.same(kind, where, "status", run.status, status)
    params = {name: str(value) for name, value in start.params.items()}
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
    trial: tuple[Start, End],
    facts: Mapping[str, Any],
    found: Findings,
) -> Evidence | None:
    """A confirm run's figures, made again from every test image; None where that cannot be."""
    where, kind, (start, end) = _named(run), "evidence: files", trial
    if content is None:
        gone = "no such artefact" if end.evidence else "none was kept"
        found.same(kind, where, "evidence", end.evidence or "SHA-256 of a file", gone)
        return None
    sound = found.same(kind, where, "SHA-256 of the evidence", end.evidence, digest(content))
    try:
        kept = evidence.unpacked(content)
    except ValueError as error:
        if sound:
            found.same(kind, where, "evidence", "a file of predictions", str(error))
        return None
    expected = {
        "trial": start.trial,
        "method": start.method,
        "params": start.params,
        "config_hash": start.config_hash,
        "seed": start.torch_seed or 0,
        "python": facts["python"],
        "versions": facts["versions"],
    }
    for name, value in expected.items():
        found.same("evidence: run and versions", where, name, value, kept.facts.get(name))
    points = [point.point for point in end.points]
    found.same("evidence: figures", where, "operating points", points, list(kept.points))
    for point, stored in zip(end.points, encode_points(end.points), strict=True):
        if point.point in kept.points:
            at = f"{where} {point.point}".strip()
            for name, value in kept.figures(point.point).items():
                found.same("evidence: figures", at, name, stored.get(name), value)
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


def _recomputed(row: Row, proof: Evidence) -> Row:
    """The row with its test figures from the images."""
    if row.point not in proof.points:
        return row
    figures = proof.figures(row.point)
    return replace(
        row,
        test_acc=figures["test_acc"],
        test_macs_mean=figures["test_macs_mean"],
        test_macs_p95=figures["test_macs_p95"],
        test_macs_max=figures["test_macs_max"],
    )


def _named(run: StoredRun) -> str:
    return f"{run.tags.get('trial', 'a trial')} ({run.run_id})"


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
