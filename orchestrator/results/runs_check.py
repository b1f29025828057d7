"""Every run of a study's experiment, and all that stands on it, against what the record implies.

The record implies which runs there are and what each is called, tagged and described, which
metrics were logged how often, and which files lie beside them. Whatever else there is, is named.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.board.model import Board
from orchestrator.record import evidence
from orchestrator.record.events import CURVES, End, Start, curve_sha256
from orchestrator.record.provenance import Provenance
from orchestrator.results.board_check import claims_alike, written_earlier
from orchestrator.results.findings import Findings
from orchestrator.store import Stored, StoredRun
from orchestrator.store import tags as layout
from orchestrator.store.lines import (
    LAYOUT,
    NOTE,
    VIEW_TAG,
    board_note,
    board_run,
    content_of,
    dataset,
    dataset_text,
    report_note,
    study_note,
    view,
)
from orchestrator.store.reading.runs import LATENCIES

Trials = Mapping[str, tuple[Start, End | None]]
"""By run id: what a trial's tags say; no end while it runs."""
LATER = ("outcome",)
"""Tags that an earlier version did not write."""
THEIRS = "mlflow."
"""How the tags begin that MLflow and its pages write."""


@dataclass(frozen=True)
class Implied:
    """What the record implies of a run, where no other check compares it."""

    name: str
    role: str
    tags: Mapping[str, str]
    """With these values."""
    sealed: Collection[str] = ()
    """Further tags, which other checks compare."""
    files: Collection[str] = ()
    statuses: Collection[str] = ("FINISHED",)
    measured: bool = False
    """Whether other checks compare its metrics; otherwise it has none, or the curves of a trial."""
    params: Mapping[str, str] = field(default_factory=dict)
    """With these values; those of a trial are compared by another check."""
    datasets: tuple[str, ...] = ()
    epochs: int | None = 0
    """The last step of its curves; None while it runs."""


def check_runs(
    stored: Stored, board: Board, trials: Trials, origin: Provenance, findings: Findings
) -> None:
    """Compares all runs, their names and what stands on them, and names what is too much."""
    verdict = _verdict(stored)
    implied = _implied(stored, board, verdict, trials, origin)
    keys = {run.run_id: _key(run) for run in stored.runs}
    counts = Counter(keys.values())
    for run in stored.runs:
        key, where = keys[run.run_id], f"run {run.name!r} ({run.run_id})"
        if (expected := implied.get(key)) is None:
            findings.same("runs", where, "run", "a run that no sweep wrote", "no run")
            continue
        findings.same("runs", where, f"runs of {key}", counts[key], 1)
        _check_run(run, expected, where, findings)
    for key in sorted(implied.keys() - counts.keys()):
        findings.same("runs", key, "run", "no run", "a run")
    _check_experiment(stored, verdict, board, findings)
    running = sorted(start.trial for start, end in trials.values() if end is None)
    if running:
        findings.notes.append(
            f"{len(running)} trials have no end yet, {running[0]} first: what they measured was "
            "not checked."
        )


def _check_run(run: StoredRun, implied: Implied, where: str, findings: Findings) -> None:
    findings.same("runs", where, "name", run.name, implied.name)
    findings.same("runs", where, "tag role", run.tags.get("role"), implied.role)
    if run.status not in implied.statuses:
        findings.same("runs", where, "status", run.status, " or ".join(sorted(implied.statuses)))
    for name, value in sorted(implied.tags.items()):
        if name in run.tags or name not in LATER:
            findings.same("runs: tags", where, f"tag {name}", run.tags.get(name), value)
    if NOTE not in implied.tags:
        findings.same("runs: tags", where, "description", run.tags.get(NOTE), None)
    known = {"role", *implied.tags, *implied.sealed}
    added = [name for name in sorted(run.tags) if name not in known and THEIRS not in name]
    if added:
        findings.notes.append(f"{where} has tags that no sweep wrote: {', '.join(added)}.")
    for name in sorted(() if implied.role.startswith("trial-") else {*run.params, *implied.params}):
        param = run.params.get(name)
        findings.same("runs", where, f"parameter {name}", param, implied.params.get(name))
    findings.same("runs", where, "data sets", run.datasets, implied.datasets)
    for name in sorted(() if implied.measured else run.metrics):
        if name not in CURVES or implied.epochs is not None:
            findings.same("runs", where, f"metric {name}", run.metrics[name], None)
    for name in sorted({*implied.files} ^ {*run.artefacts}):
        stored, recomputed = (name in files for files in (run.artefacts, implied.files))
        findings.same("runs: files", where, f"file {name} is there", stored, recomputed)
    _check_history(run, implied, where, findings)


def _check_history(run: StoredRun, implied: Implied, where: str, findings: Findings) -> None:
    """A figure was logged once, and each curve once an epoch; a later value hides an earlier."""
    kind = "runs: history of metrics"
    for name, values in run.history.items():
        steps = [step for step, _ in values]
        if name not in CURVES:
            findings.same(kind, where, f"steps of {name}", steps, [0])
            continue
        last = max(steps, default=0) if implied.epochs is None else implied.epochs
        wrong = sorted(step for step, n in Counter(steps).items() if n > 1 or not 0 < step <= last)
        findings.same(kind, where, f"steps of {name} twice, or outside 1 to {last}", wrong, [])


def check_curves(runs: Iterable[StoredRun], trials: Trials, findings: Findings) -> None:
    """Compares each ended trial's curves with the sum that its end recorded."""
    unsealed = 0
    for run in runs:
        _, end = trials.get(run.run_id, (None, None))
        if end is None:
            continue
        if not end.curve and end.epochs:
            unsealed += 1
            continue
        by_step: dict[int, dict[str, float]] = {}
        for name, values in run.history.items():
            for step, value in values:
                if name in CURVES:
                    by_step.setdefault(step, {})[name] = value
        findings.same(
            "trials: learning curves",
            f"{end.trial} ({run.run_id})",
            "SHA-256 of the curve",
            end.curve,
            curve_sha256(by_step.items()),
        )
    if unsealed:
        findings.notes.append(
            f"{unsealed} trials ended under a version that recorded no sum of the learning curve: "
            "of their curves only the steps were checked."
        )


def _check_experiment(stored: Stored, verdict: str, board: Board, findings: Findings) -> None:
    where, report = "experiment", stored.report
    if written_earlier(stored):
        findings.notes.append(
            "The board was published by a version that wrote its runs in MLflow in another form: "
            "their figures are compared, their descriptions and the saved view are not; `isoflop "
            "run` publishes it anew."
        )
        return
    if report is not None:
        note = study_note(verdict, stored.experiment, report.run_id)
        findings.same("study", where, "description", stored.tags.get(NOTE), note)
    findings.same("study", where, "view of the board", stored.tags.get(VIEW_TAG), view(board))


def _verdict(stored: Stored) -> str:
    """The published one, which the check of the board compares."""
    published = json.loads(stored.files["provenance.json"]).get("board")
    return str(published.get("verdict")) if isinstance(published, dict) else ""


def _implied(
    stored: Stored, board: Board, verdict: str, trials: Trials, origin: Provenance
) -> dict[str, Implied]:
    """By key: every run that there must be."""
    study = str(origin.study["name"])
    assert stored.report is not None, "a study without one is refused"
    earlier, experiment = written_earlier(stored), stored.experiment
    note = report_note(verdict, experiment) if not earlier else verdict
    report = {"key": "report", "study": study, "provenance": origin.study_hash, NOTE: note}
    if origin.data is not None:
        report |= layout.data_tags(origin.data)
    files = {*json.loads(stored.report.tags["files"]), *({LATENCIES} & {*stored.report.artefacts})}
    implied = {"report": Implied("report", "report", report, ("files",), files)}
    for method in {start.method for start, _ in trials.values()}:
        tags = {"key": f"sweep/{method}", "method": method, "study": study}
        implied[f"sweep/{method}"] = Implied(f"sweep of {method}", "sweep", tags)
    parents = {run.tags.get("key"): run.run_id for run in stored.others}
    for start, end in trials.values():
        parent = parents.get(f"sweep/{start.method}", "")
        implied[start.trial] = _trial(start, end, study, parent)
    alike = claims_alike(stored)
    lines = {run.tags.get("method"): run for run in stored.boards}
    run_ids = {run.tags.get("trial", ""): run.run_id for run in stored.trials}
    data = None if earlier else dataset(origin)
    for method in board.methods:
        run, line = lines.get(method), board_run(board, method, earlier=earlier)
        words = {} if run is None else {k: v for k, v in run.tags.items() if k.startswith("at_")}
        metrics = {} if run is None else run.metrics
        tags = {
            "method": method,
            "study": study,
            "content": content_of(method, metrics, words),
            NOTE: board_note(board, method, experiment, stored.report.run_id, run_ids),
            **({} if earlier else LAYOUT),
        }
        name = line.name
        if run is not None and (earlier or not alike):
            tags[NOTE] = run.tags.get(NOTE, "")
        if run is not None and not (earlier or alike):
            name = run.name
        implied[f"board/{method}"] = Implied(
            name,
            "leaderboard",
            tags,
            words,
            measured=True,
            params=line.params,
            datasets=() if data is None else (dataset_text(data),),
        )
    return implied


def _trial(start: Start, end: End | None, study: str, parent: str) -> Implied:
    name, role = start.trial, f"trial-{start.role}"
    tags = {"key": name, "study": study, "mlflow.parentRunId": parent}
    sealed = {*layout.start_tags(start)}
    if end is None:
        return Implied(name, role, tags, sealed, statuses=("RUNNING", "KILLED"), epochs=None)
    files = [evidence.file_name(name, end.evidence)] if end.evidence else []
    return Implied(
        name,
        role,
        {**tags, **layout.outcome_tag(end)},
        sealed | layout.end_tags(end).keys(),
        files,
        statuses=("FINISHED", "FAILED"),
        measured=True,
        epochs=end.epochs,
    )


def _key(run: StoredRun) -> str:
    """What a run is, by its tags."""
    if run.tags.get("role") == "leaderboard" and "key" not in run.tags:
        return f"board/{run.tags.get('method')}"
    return run.tags.get("key", "")
