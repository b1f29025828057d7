"""A method beside the baseline of its own cost, and not of its budget."""

from pathlib import Path

import pytest
from boards import confirm, row

from orchestrator.board.choose import to_confirm
from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.rules import Rules
from orchestrator.record.ledger import Ledger
from orchestrator.search.confirming import confirm_plan
from orchestrator.study.file import Study

RULES = Rules(budgets=(0.5, 1.0), primary=1.0, matched=True)
DENSE = {"dense-00000": (0.9, 9e5), "dense-00001": (0.8, 5.5e5), "dense-00002": (0.7, 4e5)}


def rows(*, confirmed=("dense-00000", "dense-00001", "dense-00002")):
    """Dense at three costs; a method that takes 0.6 of a budget of 1."""
    found = [row(trial=t, val_acc=acc, val_macs_mean=macs) for t, (acc, macs) in DENSE.items()]
    found.append(row(method="resrep", trial="resrep-00000", val_acc=0.85, val_macs_mean=6e5))
    for seed in range(1, 6):
        for trial in confirmed:
            accuracy, macs = DENSE[trial]
            figures = {"test_acc": accuracy + seed / 1000, "test_macs_mean": macs}
            found.append(confirm(config=trial, seed=seed, **figures))
        found.append(
            confirm(
                method="resrep",
                config="resrep-00000",
                seed=seed,
                test_acc=0.85 + seed / 1000,
                test_macs_mean=6e5,
            )
        )
    return found


def test_the_baseline_of_its_cost_stands_beside_a_method():
    board = leaderboard(rows(), RULES)
    (pair,) = board.matched
    assert (pair.method, pair.base.choice.config) == ("resrep", "dense-00001")
    assert pair.result.difference == pytest.approx(0.05)
    assert board.gain("resrep", 1).result.difference == pytest.approx(-0.05)
    assert pair.result.lo < 0.05 < pair.result.hi
    assert not board.excluded, "its runs stand on the board"


def test_without_runs_for_it_what_was_confirmed_for_budgets_serves():
    some = rows(confirmed=("dense-00000", "dense-00002"))
    plain = leaderboard(some, Rules(budgets=(0.5, 1.0), primary=1.0))
    assert plain.matched[0].base.choice.config == "dense-00002"
    assert leaderboard(some, RULES).matched == (), "its own choice has not been confirmed yet"
    none = rows(confirmed=("dense-00000",))
    assert leaderboard(none, Rules(budgets=(1.0,), primary=1.0)).matched == ()


def test_of_several_searches_each_finds_the_baseline_of_the_cost():
    repeated = [
        row(
            trial=f"dense-r{r}-0000{i}", repeat=r, val_acc=0.7 + i / 10, val_macs_mean=3e5 * (i + 1)
        )
        for r in (1, 2)
        for i in (0, 1, 2)
    ]
    repeated += [
        row(method="dsnet", trial=f"dsnet-r{r}-00000", repeat=r, val_macs_mean=macs)
        for r, macs in ((1, 5e5), (2, 8e5))
    ]
    found = to_confirm(repeated, [1.0], 1.0, "dense", matched=True)
    beside = [c for c in found if c.budget not in (1.0,)]
    assert [(c.config, c.budget) for c in beside] == [
        ("dense-r1-00001", 0.65),
        ("dense-r2-00001", 0.65),
    ]


@pytest.mark.parametrize("matched", [True, False])
def test_a_study_confirms_the_baseline_there_where_it_says_so(
    tmp_path: Path, matched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study.model_validate(
        {
            "name": "s",
            "data": "digits",
            "budgets": [0.5, 1],
            "methods": {"dense": {}, "resrep": {}},
            "confirm": {"seeds": 2, "matched": matched},
        }
    )
    assert (
        study.hash == Study.model_validate({**study.model_dump(), "confirm": {"seeds": 2}}).hash
    ) is not matched
    ledger = Ledger(tmp_path, study)
    searched = [r for r in rows() if r.role == "search"]
    monkeypatch.setattr(ledger.history, "rows", lambda: searched)
    planned = {ticket.config for ticket in confirm_plan(ledger.history)}
    assert planned == {"dense-00000", "dense-00002", "resrep-00000"} | (
        {"dense-00001"} if matched else set()
    )
    ledger.close()
