"""A real study with unreduced networks: in the store, on the board, in every view, and verified."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from boards import undraw
from executor import rows_without_ray
from exported import digits
from kept import Place
from mlflow import MlflowClient
from rich.console import Console

from methods.dense import Dense
from orchestrator import store
from orchestrator.board.model import Board
from orchestrator.record import evidence
from orchestrator.record.ledger import Ledger
from orchestrator.report.publish import Source, publish
from orchestrator.report.terminal import terminal
from orchestrator.results.boards import show
from orchestrator.results.export import export, find
from orchestrator.results.verify import verified, verify
from orchestrator.store import StoredRun
from orchestrator.store.lines import NOTE
from orchestrator.study.file import Study
from orchestrator.study.identity import is_unreduced
from orchestrator.study.params import recorded_parts

STUDY = Study.model_validate(
    {
        "name": "whole",
        "data": "digits",
        "budgets": [0.06, 0.15],
        "recipe": {"epochs": 2, "batch_size": 128, "lr": 0.1},
        "methods": {
            "dense": {"depth": 8, "width": 0.25},
            "resrep": {"depth": 8, "width": 0.5, "target": 0.6, "prune_lr": 0.1, "strength": 20},
            "condensenet": {"stages": "1-1-1", "growth": 8},
        },
        "search": {"trials": 1, "published": False},
        "confirm": {"seeds": 2, "unreduced": True},
    }
)
WHOLE = "resrep-00000-unreduced-seed1"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Place:
    out = tmp_path_factory.mktemp("whole")
    shutil.copy(template, out)
    uri, folder = f"sqlite:///{out / 'mlflow.db'}", out / STUDY.name
    store.claim(uri, STUDY.name, STUDY.hash)
    rows = rows_without_ray(STUDY, folder, lag=1)
    ledger = Ledger(folder, STUDY)
    begun = ledger.history.begun
    ledger.close()
    assert begun is not None
    store.project(folder / "wal.jsonl", uri, STUDY.name)
    images = evidence.images(folder, rows)
    source = Source(study=STUDY, rows=rows, provenance=begun.provenance, images=images)
    with pytest.MonkeyPatch.context() as changed:
        undraw(changed)
        published = publish(source, folder)
    store.write_board(uri, STUDY.name, published.board, published.page.parent)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(STUDY.name)
    assert experiment is not None
    runs = {
        run.data.tags.get("trial", f"{run.data.tags['role']}/{run.data.tags.get('method')}"): (
            run.info.run_id
        )
        for run in client.search_runs([experiment.experiment_id])
    }
    return Place(out, uri, client, runs)


@pytest.fixture(scope="module")
def board(ran: Place) -> Board:
    with pytest.MonkeyPatch.context() as changed:
        undraw(changed)
        return show(STUDY.name, ran.out).board


def test_what_is_read_back_is_what_was_run(ran: Place) -> None:
    ledger = Ledger(ran.out / STUDY.name, STUDY)
    recorded = ledger.history.rows()
    ledger.close()
    rows = store.read_rows(ran.uri, STUDY.name)
    assert [replace(row, run_id=None) for row in rows] == recorded
    wholes = [row for row in rows if is_unreduced(row.config)]
    assert len(wholes) == 2 * 2
    assert {row.state for row in wholes} == {"COMPLETE"}
    assert {row.point for row in wholes} == {""}
    (pruned,) = {recorded_parts(r.method, r.params)[0] for r in wholes if r.method == "resrep"}
    assert pruned == Dense(depth=8, width=0.5)


def test_both_are_beside_what_they_are_reduced_from(board: Board) -> None:
    pairs = {pair.method: pair for pair in board.unreduced}
    assert pairs.keys() == {"resrep", "condensenet"}
    for name, pair in pairs.items():
        assert pair.base.n == 2
        assert pair.base.units.correct is not None, "paired by image"
        assert pair.saved is not None
        assert 0.2 < pair.saved < 0.9, name
    assert pairs["resrep"].base.macs_mean == Dense(depth=8, width=0.5).floor(digits().task)


def test_every_view_shows_it(ran: Place, board: Board) -> None:
    folder = ran.out / STUDY.name / "report"
    page = (folder / "report.html").read_text()
    assert "Compared with their unreduced networks" in page
    assert "Unreduced runs" in page
    facts = json.loads((folder / "provenance.json").read_text())["board"]
    assert [pair["method"] for pair in facts["unreduced"]] == [p.method for p in board.unreduced]
    assert WHOLE in next(p["trials"] for p in facts["unreduced"] if p["method"] == "resrep")
    table = pd.read_parquet(folder / "leaderboard.parquet").set_index(["method", "budget_mmac"])
    resrep = next(pair for pair in board.unreduced if pair.method == "resrep")
    assert table.loc[("resrep", 0.15), "unreduced_gain"] == resrep.result.difference
    assert table["unreduced"].notna().sum() == 2
    seeds = pd.read_csv(folder / "seeds.csv")
    assert not seeds["config"].str.endswith("unreduced").any()
    shown = io.StringIO()
    Console(width=80, no_color=True, file=shown).print(terminal(board))
    assert all(len(line.rstrip()) <= 80 for line in shown.getvalue().splitlines())
    assert "networks unreduced" in " ".join(shown.getvalue().split())
    line = ran.client.get_run(ran.runs["leaderboard/resrep"]).data
    assert line.metrics["over_unreduced_points/at_0.15m"] == round(
        100 * (resrep.result.difference or 0), 2
    )
    assert f"runs/{ran.runs[WHOLE]}" in line.tags[NOTE]


def test_an_honest_study_is_verified_and_a_forged_run_is_named(ran: Place) -> None:
    assert verify(STUDY.name, ran.out).flaws == []
    honest = store.read_stored(ran.uri, STUDY.name)
    assert verified(STUDY.name, honest).flaws == []

    def without(run: StoredRun) -> bool:
        return run.tags.get("trial") != WHOLE

    gone = replace(
        honest,
        trials=tuple(filter(without, honest.trials)),
    )
    flaws = verified(STUDY.name, gone).flaws
    assert any("unreduced" in flaw.what for flaw in flaws)


def test_a_network_that_was_trained_to_compare_is_exported_too(ran: Place, tmp_path: Path) -> None:
    folder = export(find(f"{STUDY.name}/{WHOLE}", ran.out), "torch", tmp_path / "shipped")
    card = json.loads((folder / "card.json").read_text())
    assert (card["network"]["method"], card["network"]["params"]["width"]) == ("dense", 0.5)


def test_at_another_budget_it_stands_beside_the_choices_that_are_the_same(
    ran: Place, board: Board
) -> None:
    other = show(STUDY.name, ran.out, primary=0.06).board
    same = {
        name
        for name in ("resrep", "condensenet")
        if other.cell(name, 0.06).choices
        and other.cell(name, 0.06).seeds == board.cell(name, 0.15).seeds
    }
    assert {pair.method for pair in other.unreduced} == same
