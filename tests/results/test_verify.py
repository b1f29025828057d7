"""An honest study follows from its evidence; one altered byte or number does not, and is named."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kept import DEAR, IMAGES, Place

from methods.errors import EvidenceError, StudyError
from methods.files import digest
from orchestrator import store
from orchestrator.record import evidence
from orchestrator.record.evidence import Evidence
from orchestrator.results.boards import show
from orchestrator.results.verify import verified, verify
from orchestrator.store import Stored, StoredRun
from orchestrator.store import tags as layout
from orchestrator.store.lines import NOTE


@pytest.fixture(scope="module")
def place(kept_study: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return kept_study.copied(tmp_path_factory.mktemp("store") / "runs")


@pytest.fixture(scope="module")
def honest(place: Place) -> Stored:
    """All that the store holds of the honest study, as a value to forge."""
    return store.read_stored(place.uri, "kept")


RUN = "skipnet-00001-seed2"


def trial(stored: Stored, name: str = RUN) -> StoredRun:
    return next(run for run in stored.trials if run.tags["trial"] == name)


def with_trial(
    stored: Stored,
    name: str = RUN,
    *,
    tags: dict[str, str] | None = None,
    metrics: dict[str, float] | None = None,
) -> Stored:
    """A trial with other tags or metrics."""
    old = trial(stored, name)
    new = replace(
        old, tags={**old.tags, **(tags or {})}, metrics={**old.metrics, **(metrics or {})}
    )
    return replace(stored, trials=tuple(new if run is old else run for run in stored.trials))


def with_file(stored: Stored, name: str, content: bytes) -> Stored:
    """Another file of the report."""
    return replace(stored, files={**stored.files, name: content})


def with_facts(stored: Stored, facts: dict[str, Any]) -> Stored:
    """Another provenance.json, and its digest."""
    assert stored.report is not None
    content = json.dumps(facts).encode()
    digests = {**json.loads(stored.report.tags["files"]), "provenance.json": digest(content)}
    tags = {**stored.report.tags, "files": json.dumps(digests)}
    forged = with_file(stored, "provenance.json", content)
    return replace(forged, report=replace(stored.report, tags=tags))


def with_evidence(stored: Stored, change: Callable[[Evidence], Evidence]) -> Stored:
    """Another file under the same name, as one who knows the format would write it."""
    identity = trial(stored).run_id
    content = evidence.packed(change(evidence.unpacked(stored.evidence[identity])))
    return replace(stored, evidence={**stored.evidence, identity: content})


def one_byte(stored: Stored) -> Stored:
    identity = trial(stored).run_id
    content = flipped(stored.evidence[identity])
    return replace(stored, evidence={**stored.evidence, identity: content})


def flipped(content: bytes) -> bytes:
    """The content with one bit of its middle byte turned."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def one_prediction(stored: Stored) -> Stored:
    def change(proof: Evidence) -> Evidence:
        shot = proof.points["policy"]
        guesses = shot.predictions.copy()
        right = np.flatnonzero(proof.correct("policy"))[0]
        guesses[right] = (guesses[right] + 1) % 10
        return replace(proof, points={**proof.points, "policy": replace(shot, predictions=guesses)})

    return with_evidence(stored, change)


def one_mac(stored: Stored) -> Stored:
    def change(proof: Evidence) -> Evidence:
        shot = proof.points["policy"]
        macs = shot.macs.copy()
        macs[7] += 1
        return replace(proof, points={**proof.points, "policy": replace(shot, macs=macs)})

    return with_evidence(stored, change)


def one_decision(stored: Stored) -> Stored:
    """Another image's decisions serve one image better than was published."""

    def change(proof: Evidence) -> Evidence:
        shot = proof.points["policy"]
        assert shot.decided is not None
        another = shot.decided.another.copy()
        wrong = np.argwhere(another != proof.labels[:, None])[0]
        another[tuple(wrong)] = proof.labels[wrong[0]]
        forged = replace(shot, decided=replace(shot.decided, another=another))
        return replace(proof, points={**proof.points, "policy": forged})

    return with_evidence(stored, change)


def one_label(stored: Stored) -> Stored:
    return with_evidence(stored, lambda proof: replace(proof, labels=(proof.labels + 1) % 10))


def other_versions(stored: Stored) -> Stored:
    return with_evidence(
        stored, lambda proof: replace(proof, subject=replace(proof.subject, python="2.7"))
    )


def no_file(stored: Stored) -> Stored:
    identity = trial(stored).run_id
    return replace(stored, evidence={k: v for k, v in stored.evidence.items() if k != identity})


def a_tagged_number(stored: Stored) -> Stored:
    points = json.loads(trial(stored).tags["points"])
    points[1]["test_acc"] += 1 / IMAGES
    return with_trial(stored, tags={"points": json.dumps(points)})


def a_searched_number(stored: Stored) -> Stored:
    points = json.loads(trial(stored, "dense-00000").tags["points"])
    points[0]["val_macs_mean"] += 1
    return with_trial(stored, "dense-00000", tags={"points": json.dumps(points)})


def a_metric(stored: Stored) -> Stored:
    return with_trial(stored, metrics={"test/macs/mean_m": 0.1})


def a_parameter(stored: Stored) -> Stored:
    params = json.loads(trial(stored).tags["params"])
    return with_trial(stored, tags={"params": json.dumps({**params, "width": 0.75})})


def a_seed(stored: Stored) -> Stored:
    return with_trial(stored, tags={"seed": "9"})


def a_lost_run(stored: Stored) -> Stored:
    lost = trial(stored, "dense-00000")
    return replace(stored, trials=tuple(run for run in stored.trials if run is not lost))


def a_board_number(stored: Stored) -> Stored:
    return replace(
        stored,
        boards=tuple(
            replace(run, metrics={**run.metrics, "acc_percent/at_1m": 99.0})
            if run.tags["method"] == "dense"
            else run
            for run in stored.boards
        ),
    )


def a_published_digit(stored: Stored) -> Stored:
    text = stored.files["leaderboard.csv"].decode()
    cell = text.splitlines()[1].split(",")[6]
    forged = text.replace(cell, f"{float(cell) + 1e-9:.10g}", 1)
    return with_file(stored, "leaderboard.csv", forged.encode())


def another_verdict(stored: Stored) -> Stored:
    facts = json.loads(stored.files["provenance.json"])
    facts["board"]["verdict"] = "skipnet is best."
    return with_facts(stored, facts)


def no_table(stored: Stored) -> Stored:
    return replace(stored, files={k: v for k, v in stored.files.items() if k != "pairs.csv"})


ALTERED: list[tuple[Callable[[Stored], Stored], str, list[str]]] = [
    (one_byte, RUN, ["SHA-256 of the evidence"]),
    (one_prediction, RUN, ["SHA-256 of the evidence", "test_acc"]),
    (one_mac, RUN, ["SHA-256 of the evidence", "test_macs_mean"]),
    (one_decision, RUN, ["SHA-256 of the evidence", "test_another_acc"]),
    (one_label, RUN, ["SHA-256 of the evidence", "labels as in the first run"]),
    (other_versions, RUN, ["SHA-256 of the evidence", "python"]),
    (no_file, RUN, ["evidence"]),
    (a_tagged_number, RUN, ["seal of the end's tags", "test_acc"]),
    (a_searched_number, "dense-00000", ["seal of the end's tags"]),
    (a_metric, RUN, ["metric test/macs/mean_m"]),
    (a_parameter, RUN, ["config_hash", "parameter width", "params", "seal of the start's tags"]),
    (a_seed, RUN, ["torch_seed", "seal of the start's tags"]),
    (a_lost_run, "report/provenance.json", ["board.effort[1].search"]),
    (a_board_number, "board: dense", ["acc_percent/at_1m"]),
    (a_published_digit, "report/leaderboard.csv", ["SHA-256", "mean"]),
    (lambda s: with_file(s, "report.html", b"<html>"), "report/report.html", ["SHA-256"]),
    (another_verdict, "report/provenance.json", ["board.verdict"]),
    (no_table, "report/pairs.csv", ["SHA-256"]),
]


def with_verdict(stored: Stored, old: str, new: str) -> Stored:
    """Other words where MLflow shows the verdict: described, of the report and the experiment."""
    assert stored.report is not None
    report, tags = (
        {**tags, NOTE: tags[NOTE].replace(old, new)} for tags in (stored.report.tags, stored.tags)
    )
    return replace(stored, report=replace(stored.report, tags=report), tags=tags)


def test_an_honest_study_follows_from_its_evidence(place: Place) -> None:
    findings = verify("kept", place.out)
    assert findings.flaws == []
    assert len(findings.checked) == 16
    assert all(findings.checked.values())


@pytest.mark.parametrize(
    ("alter", "where", "what"), ALTERED, ids=lambda v: getattr(v, "__name__", "")
)
def test_one_altered_byte_or_number_is_named(
    honest: Stored, alter: Callable[[Stored], Stored], where: str, what: list[str]
) -> None:
    flaws = verified("kept", alter(honest)).flaws
    named = {flaw.what for flaw in flaws if where in flaw.where}
    assert set(what) <= named, flaws
    assert all(flaw.stored != flaw.recomputed for flaw in flaws)


def test_a_board_of_an_earlier_version_is_verified(honest: Stored) -> None:
    """A trial over budget was FAILED in MLflow, and counted and listed as refused."""
    old, facts = trial(honest, "dense-00002"), json.loads(honest.files["provenance.json"])
    tags = {**old.tags, "reason": f"refused: {DEAR}"}
    sealed = layout.end_tags(layout.events(tags)[1]).keys() - {"end_sha256"}
    tags["end_sha256"] = layout.seal({name: tags[name] for name in sealed})
    trials = [run for run in honest.trials if run is not old]
    trials.append(replace(old, tags=tags, status="FAILED"))
    del facts["board"]["statistics"]
    facts["board"]["notes"] = ["A note in other words."]
    findings = verified("kept", replace(with_facts(honest, facts), trials=tuple(trials)))
    assert findings.flaws == []
    assert any("with other statistics" in note for note in findings.notes)


def test_without_what_a_board_is_made_from_nothing_is_verified(
    place: Place, honest: Stored, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match="no study 'other'"):
        verify("other", place.out)
    with pytest.raises(StudyError, match="must be a store of studies"):
        verify("kept", tmp_path / "nowhere")
    with pytest.raises(StudyError, match="has not started"):
        verified("kept", replace(honest, report=None))
    with pytest.raises(EvidenceError, match=r"provenance\.json .* cannot be read"):
        verified("kept", with_file(honest, "provenance.json", b"{"))
    assert honest.report is not None
    unpublished = replace(honest, report=replace(honest.report, tags={}))
    with pytest.raises(EvidenceError, match="holds none"):
        verified("kept", unpublished)


def test_a_board_from_the_store_alone_draws_the_predictions_too(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """The last test on this store: it loses a file, and a tag of it is forged."""
    before = (place.out / "kept" / "report" / "leaderboard.csv").read_bytes()
    shutil.rmtree(place.out / "kept")
    outcome = show("kept", place.out)
    assert set(outcome.board.known.values()) == {"predictions"}
    assert (outcome.report.parent / "leaderboard.csv").read_bytes() == before

    shutil.rmtree(place.out / "kept")
    place.artefact(RUN, "*.parquet").unlink()
    outcome = show("kept", place.out)
    assert outcome.board.known == {0.5: "predictions", 1.0: "counts"}
    assert f"{RUN}, ...); `isoflop verify` lists them" in caplog.text

    other = "dense-00001-seed1"
    path = place.artefact(other, "*.parquet")
    path.write_bytes(flipped(path.read_bytes()))
    place.client.set_tag(place.runs[RUN], "seed", "9")
    flaws = {(flaw.where.split()[0], flaw.what) for flaw in verify("kept", place.out).flaws}
    assert {(RUN, "evidence"), (RUN, "torch_seed"), (other, "SHA-256 of the evidence")} <= flaws
