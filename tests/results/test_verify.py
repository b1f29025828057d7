"""An honest study follows from its evidence; one altered byte or number does not, and is named."""

import contextlib
import dataclasses
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from mlflow import MlflowClient

from methods.api import Task
from methods.errors import EvidenceError, StudyError
from methods.files import digest
from orchestrator import store
from orchestrator.record import evidence
from orchestrator.record.evidence import Evidence, Shot, facts_of
from orchestrator.record.ledger import Ledger
from orchestrator.record.provenance import provenance
from orchestrator.record.trials import Ticket
from orchestrator.report.publish import Source, publish
from orchestrator.results.boards import show
from orchestrator.results.verify import Findings, verify
from orchestrator.search.agenda import confirm_plan
from orchestrator.study.file import Study
from orchestrator.study.params import derive
from orchestrator.study.space import spaces

IMAGES = 200
STUDY = Study.model_validate(
    {
        "name": "kept",
        "data": "digits",
        "budgets": [0.5, 1],
        "methods": {
            "dense": {"depth": 8, "width": {"low": 0.25, "high": 1.0}},
            "skipnet": {
                "depth": 8,
                "width": {"low": 0.25, "high": 1.0},
                "gate": "rnn",
                "alpha": 1,
                "policy_lr": 0.01,
            },
        },
        "search": {"trials": 2},
        "confirm": {"seeds": 3},
    }
)
Points = list[dict[str, Any]]


class Place(NamedTuple):
    """A study in a store of its own."""

    out: Path
    uri: str
    client: MlflowClient
    runs: dict[str, str]
    """By trial, `report` or `board: METHOD`: the run's id."""

    def verified(self) -> Findings:
        return verify("kept", self.out)

    def artefact(self, run: str, name: str) -> Path:
        """Where a file of a run lies."""
        folder = self.out / "mlartifacts" / "kept" / self.runs[run] / "artifacts"
        return next(folder.glob(name))

    def tag(self, run: str, name: str) -> str:
        return str(self.client.get_run(self.runs[run]).data.tags[name])


def seen(draw: np.random.Generator, truth: np.ndarray, right: float, price: float) -> Shot:
    """A run's predictions: right for a share of the images, each at a cost of its own."""
    wrong = draw.random(IMAGES) > right
    guesses = np.where(wrong, (truth + 1) % 10, truth)
    return Shot(guesses, np.floor(price * (0.5 + draw.random(IMAGES))))


def ended(ledger: Ledger, ticket: Ticket, points: Points, kept: str = "") -> None:
    ledger.start(ticket)
    ledger.epoch(ticket.trial, 1, 1000, {"curve/val_acc": 0.5, "curve/seconds": 1.0})
    ledger.end(ticket.trial, "COMPLETE", points=points, device="cpu", evidence=kept, seconds=1.5)


def validated(accuracy: float, macs: float) -> dict[str, Any]:
    return {"val_acc": accuracy} | {f"val_macs_{name}": macs for name in ("mean", "p95", "max")}


def made(out: Path) -> Place:
    """A sweep as its ledger tells it, with real evidence, projected and published."""
    uri, folder = f"sqlite:///{out / 'mlflow.db'}", out / "kept"
    out.mkdir()
    store.claim(uri, STUDY.name, STUDY.hash)
    ledger, draw = Ledger(folder, STUDY), np.random.default_rng(5)
    facts = provenance(STUDY, Task("digits", 1, 8, 8, 10), IMAGES)
    ledger.begin(facts, lag=1, device="cpu")
    names = {"dense": [""], "skipnet": ["supervised", "policy"]}
    for space in spaces(STUDY).values():
        for number, width in enumerate((0.25, 0.5)):
            points = [
                {"point": name, **validated(0.7 + 0.1 * number, 3e5 * (1 + number))}
                for name in names[space.method]
            ]
            ended(ledger, ledger.add(space, {"width": width}), points)
    truth = draw.integers(10, size=IMAGES)
    for ticket in confirm_plan(ledger):
        shots = {name: seen(draw, truth, 0.8, 3e5) for name in names[ticket.method]}
        seed = derive(STUDY, ticket.config, ticket.seed)
        about = facts_of(ticket.trial, ticket.method, ticket.params, seed)
        kept = Evidence(about, truth, shots)
        points = [{"point": n, **validated(0.8, 3e5), **kept.figures(n)} for n in shots]
        sha256 = evidence.write(kept, folder)
        ended(ledger, ticket, points, sha256)
    rows = ledger.rows()
    ledger.close()
    store.project(folder / "wal.jsonl", uri, STUDY.name)
    correct = evidence.correctness(folder, rows)
    published = publish(Source(study=STUDY, rows=rows, provenance=facts, correct=correct), folder)
    assert set(published.board.drawn.values()) == {"predictions"}
    store.write_board(uri, STUDY.name, published.board, published.page.parent)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(STUDY.name)
    assert experiment is not None
    runs = {
        run.data.tags.get("trial") or str(run.info.run_name): run.info.run_id
        for run in client.search_runs([experiment.experiment_id])
    }
    return Place(out, uri, client, runs)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return made(tmp_path_factory.mktemp("store") / "runs")


@pytest.fixture
def place(honest: Place, tmp_path: Path) -> Iterator[Place]:
    """The honest study, which is as it was when the test is over."""
    copy = tmp_path / "copy"
    shutil.copytree(honest.out, copy)
    yield honest
    shutil.rmtree(honest.out / "mlartifacts")
    shutil.copytree(copy / "mlartifacts", honest.out / "mlartifacts")
    with (
        contextlib.closing(sqlite3.connect(copy / "mlflow.db")) as old,
        contextlib.closing(sqlite3.connect(honest.out / "mlflow.db")) as new,
    ):
        old.backup(new)


RUN = "skipnet-00001-seed2"


def one_byte(place: Place) -> None:
    path = place.artefact(RUN, "*.parquet")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def forged(place: Place, change: Callable[[Evidence], Evidence]) -> None:
    """Another file under the same name, as one who knows the format would write it."""
    path = place.artefact(RUN, "*.parquet")
    path.write_bytes(evidence.packed(change(evidence.unpacked(path.read_bytes()))))


def one_prediction(place: Place) -> None:
    def change(kept: Evidence) -> Evidence:
        shot = kept.points["policy"]
        guesses = shot.predictions.copy()
        right = np.flatnonzero(kept.correct("policy"))[0]
        guesses[right] = (guesses[right] + 1) % 10
        return dataclasses.replace(kept, points={**kept.points, "policy": Shot(guesses, shot.macs)})

    forged(place, change)


def one_mac(place: Place) -> None:
    def change(kept: Evidence) -> Evidence:
        shot = kept.points["policy"]
        macs = shot.macs.copy()
        macs[7] += 1
        return dataclasses.replace(
            kept, points={**kept.points, "policy": Shot(shot.predictions, macs)}
        )

    forged(place, change)


def one_label(place: Place) -> None:
    forged(place, lambda kept: dataclasses.replace(kept, labels=(kept.labels + 1) % 10))


def other_versions(place: Place) -> None:
    forged(place, lambda kept: dataclasses.replace(kept, facts={**kept.facts, "python": "2.7"}))


def no_file(place: Place) -> None:
    place.artefact(RUN, "*.parquet").unlink()


def a_tagged_number(place: Place) -> None:
    points = json.loads(place.tag(RUN, "points"))
    points[1]["test_acc"] += 1 / IMAGES
    place.client.set_tag(place.runs[RUN], "points", json.dumps(points))


def a_searched_number(place: Place) -> None:
    points = json.loads(place.tag("dense-00000", "points"))
    points[0]["val_macs_mean"] += 1
    place.client.set_tag(place.runs["dense-00000"], "points", json.dumps(points))


def a_metric(place: Place) -> None:
    place.client.log_metric(place.runs[RUN], "test/macs/mean_m", 0.1, step=1)


def a_parameter(place: Place) -> None:
    params = json.loads(place.tag(RUN, "params"))
    place.client.set_tag(place.runs[RUN], "params", json.dumps({**params, "width": 0.75}))


def a_seed(place: Place) -> None:
    place.client.set_tag(place.runs[RUN], "seed", "9")


def a_lost_run(place: Place) -> None:
    place.client.delete_run(place.runs["dense-00000"])


def a_board_number(place: Place) -> None:
    place.client.log_metric(place.runs["board: dense"], "acc/at_1m", 0.99, step=1)


def a_published_digit(place: Place) -> None:
    path = place.artefact("report", "leaderboard.csv")
    text = path.read_text()
    cell = text.splitlines()[1].split(",")[6]
    path.write_text(text.replace(cell, f"{float(cell) + 1e-9:.10g}", 1))


def a_page(place: Place) -> None:
    path = place.artefact("report", "report.html")
    path.write_bytes(path.read_bytes() + b" ")


def another_verdict(place: Place) -> None:
    """The file and its digest, both."""
    path = place.artefact("report", "provenance.json")
    facts = json.loads(path.read_text())
    facts["board"]["verdict"] = "skipnet is best."
    path.write_text(json.dumps(facts))
    files = json.loads(place.tag("report", "files"))
    files["provenance.json"] = digest(path.read_bytes())
    place.client.set_tag(place.runs["report"], "files", json.dumps(files))


def no_table(place: Place) -> None:
    place.artefact("report", "pairs.csv").unlink()


ALTERED: list[tuple[Callable[[Place], None], str, list[str]]] = [
    (one_byte, RUN, ["SHA-256 of the evidence"]),
    (one_prediction, RUN, ["SHA-256 of the evidence", "test_acc"]),
    (one_mac, RUN, ["SHA-256 of the evidence", "test_macs_mean"]),
    (one_label, RUN, ["SHA-256 of the evidence", "labels as in the first run"]),
    (other_versions, RUN, ["SHA-256 of the evidence", "python"]),
    (no_file, RUN, ["evidence"]),
    (a_tagged_number, RUN, ["seal of the end's tags", "test_acc"]),
    (a_searched_number, "dense-00000", ["seal of the end's tags"]),
    (a_metric, RUN, ["metric test/macs/mean_m"]),
    (a_parameter, RUN, ["config_hash", "parameter width", "params", "seal of the start's tags"]),
    (a_seed, RUN, ["torch_seed", "seal of the start's tags"]),
    (a_lost_run, "report/provenance.json", ["board.effort[0].search"]),
    (a_board_number, "board: dense", ["acc/at_1m"]),
    (a_published_digit, "report/leaderboard.csv", ["SHA-256", "mean"]),
    (a_page, "report/report.html", ["SHA-256"]),
    (another_verdict, "report/provenance.json", ["board.verdict"]),
    (no_table, "report/pairs.csv", ["SHA-256"]),
]


def test_an_honest_study_follows_from_its_evidence(honest: Place) -> None:
    found = honest.verified()
    assert found.flaws == []
    assert len(found.checked) == 12
    assert all(found.checked.values())


@pytest.mark.parametrize(
    ("alter", "where", "what"), ALTERED, ids=lambda v: getattr(v, "__name__", "")
)
def test_one_altered_byte_or_number_is_named(
    place: Place, alter: Callable[[Place], None], where: str, what: list[str]
) -> None:
    alter(place)
    flaws = place.verified().flaws
    told = {flaw.what for flaw in flaws if flaw.where.startswith(where) or where in flaw.where}
    assert set(what) <= told, flaws
    assert all(flaw.stored != flaw.found for flaw in flaws)


def test_without_what_a_board_is_made_from_nothing_is_verified(
    place: Place, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match="no study 'other'"):
        verify("other", place.out)
    with pytest.raises(StudyError, match="must be a store of studies"):
        verify("kept", tmp_path / "nowhere")
    place.artefact("report", "provenance.json").write_text("{")
    with pytest.raises(EvidenceError, match=r"provenance\.json .* cannot be read"):
        place.verified()
    place.client.delete_tag(place.runs["report"], "files")
    with pytest.raises(EvidenceError, match="holds none"):
        place.verified()


def test_a_board_from_the_store_alone_draws_the_predictions_too(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    before = (place.out / "kept" / "report" / "leaderboard.csv").read_bytes()
    shutil.rmtree(place.out / "kept")
    outcome = show("kept", place.out)
    assert set(outcome.board.drawn.values()) == {"predictions"}
    assert (outcome.report.parent / "leaderboard.csv").read_bytes() == before
    assert all(pair.images is not None for pair in outcome.board.pairs)

    shutil.rmtree(place.out / "kept")
    no_file(place)
    outcome = show("kept", place.out)
    assert outcome.board.drawn == {0.5: "predictions", 1.0: "counts"}
    assert f"{RUN}, ...); `isoflop verify` says which" in caplog.text
