"""A small study with real evidence in a separate store, for the tests of `verify`."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mlflow import MlflowClient

from methods.api import Task
from orchestrator import store
from orchestrator.record import evidence
from orchestrator.record.depot import Folder
from orchestrator.record.events import decode_metrics, decode_points
from orchestrator.record.evidence import Alike, Decided, Evidence, Shot, Subject
from orchestrator.record.history import History
from orchestrator.record.ledger import Ledger
from orchestrator.record.provenance import provenance
from orchestrator.record.result import Ending, Outcome
from orchestrator.record.trials import Ticket
from orchestrator.report.publish import Source, publish
from orchestrator.search.confirming import confirm_plan, current
from orchestrator.study.file import Study
from orchestrator.study.identity import search_name
from orchestrator.study.params import derive
from orchestrator.study.space import Space, searches

IMAGES = 200
DEAR = "costs 1.3 MMACs at least, the largest budget is 1"
STOPPED = "at epoch 1 of 30 its probability of joining the front is 0.001, below 0.1"
WIDTH = {"low": 0.25, "high": 1.0}
FIXED = {"depth": 8, "gate": "rnn", "alpha": 1, "target": 0, "policy_lr": 0.01}
STUDY = Study.model_validate(
    {
        "name": "kept",
        "data": "digits",
        "budgets": [0.5, 1],
        "methods": {
            "dense": {"depth": 8, "width": WIDTH},
            "skipnet": {
                "depth": 8,
                "width": WIDTH,
                "gate": "rnn",
                "alpha": 1,
                "target": 0,
                "policy_lr": 0.01,
            },
        },
        "search": {"trials": 2},
        "confirm": {"seeds": 3},
    }
)
Points = list[dict[str, Any]]


PLAIN = {"width": 0.71}
"""Validation accuracy of an operating point that decides nothing, and is the best of its runs."""


class Place(NamedTuple):
    """A study in a separate store."""

    out: Path
    uri: str
    client: MlflowClient
    runs: dict[str, str]
    """By trial, `report` or `board: METHOD`: the run's id."""

    def artefact(self, run: str, name: str) -> Path:
        """Where a file of a run lies."""
        return next(self.folder(run).glob(name))

    def folder(self, run: str) -> Path:
        """Where a run's files lie."""
        return self.out / "mlartifacts" / "kept" / self.runs[run] / "artifacts"

    def copied(self, out: Path) -> "Place":
        """A copy in another folder, which the first knows nothing of."""
        shutil.copytree(self.out, out)
        uri = f"sqlite:///{out / 'mlflow.db'}"
        return Place(out, uri, MlflowClient(uri), self.runs)


def seen(draw: np.random.Generator, truth: np.ndarray, right: float, price: float) -> Shot:
    """A run's predictions: right for a share of the images, each at a cost of its own."""
    wrong = draw.random(IMAGES) > right
    guesses = np.where(wrong, (truth + 1) % 10, truth)
    macs = np.floor(price * (0.5 + draw.random(IMAGES)))
    among_five = (guesses == truth) | (np.arange(IMAGES) % 2 == 0)
    return Shot(guesses, macs, draw.random(IMAGES), decided(draw, truth, macs), among_five)


def decided(draw: np.random.Generator, truth: np.ndarray, macs: np.ndarray) -> Decided:
    """Decisions that are worth something: another image's are right for fewer images."""
    another = np.where(draw.random((IMAGES, 4)) > 0.6, (truth[:, None] + 1) % 10, truth[:, None])
    majority = Alike(np.where(draw.random(IMAGES) > 0.7, 0, truth), np.full(IMAGES, macs.mean()))
    return Decided(draw.random((IMAGES, 3)) > 0.5, another, majority, None)


def ended(ledger: Ledger, ticket: Ticket, points: Points, kept: str = "") -> None:
    ledger.history.start(ticket)
    ledger.history.epoch(
        ticket.trial, 1, 1000, decode_metrics({"curve/val_acc": 0.5, "curve/seconds": 1.0})
    )
    ledger.history.end(
        ticket.trial,
        Ending("COMPLETE", points=decode_points(points), device="cpu", evidence=kept, seconds=1.5),
    )


def validated(accuracy: float, macs: float) -> dict[str, Any]:
    return {"val_acc": accuracy} | {f"val_macs_{name}": macs for name in ("mean", "p95", "max")}


def further(history: History) -> list[Space]:
    """The spaces of the searches that a race adds now."""
    counts = current(history).searches
    asked = [search_name(name, i + 1) for name, count in counts.items() for i in range(count)]
    return [history.space(search) for search in asked if not history.numbers(search)]


def made(out: Path, study: Study = STUDY) -> Place:
    """A sweep as its ledger tells it, with real evidence, projected and published."""
    uri, folder = f"sqlite:///{out / 'mlflow.db'}", out / "kept"
    out.mkdir()
    store.claim(uri, study.name, study.hash)
    ledger, draw = Ledger(folder, study), np.random.default_rng(5)
    facts = provenance(study, Task("digits", 1, 8, 8, 10), IMAGES)
    ledger.history.begin(facts, lag=1, device="cpu")
    names = {"dense": [""], "skipnet": ["supervised", "policy", "width"]}
    spaces, truth = [*searches(study).values()], draw.integers(10, size=IMAGES)
    while spaces:
        for space in spaces:
            for number in range(study.search.trials if study.confirm.race else 2):
                points = [
                    {
                        "point": name,
                        **validated(PLAIN.get(name, 0.7) + 0.1 * number, 3e5 * (1 + number)),
                    }
                    for name in names[space.method]
                ]
                width = 0.25 * (1 + number)
                ended(ledger, ledger.history.add(space, {"width": width}), points)
        for ticket in confirm_plan(ledger.history):
            if ledger.history.ended(ticket.trial):
                continue
            shots = {name: seen(draw, truth, 0.8, 3e5) for name in names[ticket.method]}
            if "width" in shots:
                shots["width"] = replace(shots["width"], decided=None)
            seed = derive(study, ticket.config, ticket.seed)
            subject = Subject.of(ticket.trial, ticket.method, ticket.params, seed)
            kept = Evidence(subject, truth, shots)
            points = [{"point": n, **validated(0.8, 3e5), **kept.figures(n)} for n in shots]
            sha256 = evidence.write(kept, Folder(folder))
            ended(ledger, ticket, points, sha256)
        spaces = further(ledger.history)
    for outcome in (Outcome("over budget", DEAR), Outcome("refused", "they do not go together")):
        ticket = ledger.history.add(next(iter(searches(study).values())), {"width": 1.0}, over=0.3)
        ledger.history.start(ticket)
        ledger.history.end(ticket.trial, Ending.without_a_worker(outcome))
    if study.search.stop != "none":
        ticket = ledger.history.add(next(iter(searches(study).values())), {"width": 0.75})
        ledger.history.start(ticket)
        ledger.history.epoch(ticket.trial, 1, 1000, decode_metrics({"curve/val_acc": 0.2}))
        ledger.history.end(ticket.trial, Ending("PRUNED", STOPPED))
    rows = ledger.history.rows()
    ledger.close()
    store.project(folder / "wal.jsonl", uri, study.name)
    images = evidence.images(folder, rows)
    published = publish(Source(study=study, rows=rows, provenance=facts, images=images), folder)
    assert set(published.board.known.values()) == {"predictions"}
    store.write_board(uri, study.name, published.board, published.page.parent)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(study.name)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    runs = {label(run.data.tags, run.info.run_name): run.info.run_id for run in found}
    return Place(out, uri, client, runs)


def label(tags: Mapping[str, str], name: str) -> str:
    """How a test calls a run: by its trial, `board: METHOD` or its name."""
    if tags.get("role") == "leaderboard":
        return f"board: {tags['method']}"
    return tags.get("trial") or name
