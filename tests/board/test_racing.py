"""Further seeds go where they decide something, alike in any order, and claims stay true."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boards import confirm, row

from methods.api import Task
from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.model import Comparison
from orchestrator.board.racing import Round, allotted, planned
from orchestrator.board.rules import LOOKS, Rules
from orchestrator.board.stats.contrasts import Difference
from orchestrator.board.verdict import notes
from orchestrator.record.ledger import Ledger
from orchestrator.record.result import decode_result
from orchestrator.record.rows import Row
from orchestrator.record.trials import Ticket
from orchestrator.search.agenda import Agenda
from orchestrator.study.file import Study
from orchestrator.study.params import derive


def study(*methods: str, seeds: int = 5, budget: int = 10, **changes: Any) -> Study:
    return Study.model_validate(
        {
            "name": "s",
            "data": "digits",
            "budgets": [1],
            "methods": {name: {} for name in methods},
            "confirm": {"seeds": seeds, "race": True, "budget": budget},
        }
        | changes
    )


def raced(what: Study, means: dict[str, float], seed: int, sd: float = 0.01) -> list[Row]:
    """A whole race over normal seeds; a run's figure depends on its method and seed alone."""
    rows = [row(method=name, trial=f"{name}-00000") for name in means]
    while True:
        given = planned(rows, what).given
        done = {r.trial for r in rows}
        new = [
            confirm(method=name, config=config, seed=i, test_acc=means[name] + sd * noise)
            for name in means
            for config in [f"{name}-00000"]
            for i in range(1, given[config] + 1)
            for noise in [np.random.default_rng([seed, len(name), i]).standard_normal()]
            if f"{config}-seed{i}" not in done
        ]
        if not new:
            return rows
        rows += new


def seeds_of(rows: list[Row]) -> Counter[str]:
    return Counter(r.method for r in rows if r.role == "confirm")


def test_without_a_race_every_cell_has_the_studys_number() -> None:
    plain = study("dense", "skipnet", confirm={"seeds": 4})
    rows = raced(plain, {"dense": 0.8, "skipnet": 0.801}, seed=0)
    assert seeds_of(rows) == {"dense": 4, "skipnet": 4}
    assert planned(rows, plain).spent == 0


def test_what_is_decided_gets_no_seed_and_what_is_open_gets_them() -> None:
    what = study("dense", "skipnet", "resrep", budget=9)
    means = {"dense": 0.8, "skipnet": 0.815, "resrep": 0.5}
    rows = raced(what, means, seed=1)
    given = seeds_of(rows)
    assert given["resrep"] == 5
    assert min(given["dense"], given["skipnet"]) > 5
    assert planned(rows, what).spent == given.total() - 15 <= 9
    clear = raced(what, {**means, "skipnet": 0.9}, seed=1)
    assert set(seeds_of(clear).values()) == {5}


@pytest.mark.parametrize("budget", [2, 3, 9])
def test_the_budget_holds_and_rounds_share_it(budget: int) -> None:
    what = study("dense", "skipnet", "resrep", budget=budget)
    for seed in range(8):
        rows = raced(what, {"dense": 0.8, "skipnet": 0.806, "resrep": 0.795}, seed=seed)
        assert planned(rows, what).spent == seeds_of(rows).total() - 15 <= budget
        first = [r for r in rows if r.role == "search" or r.seed <= 5]
        assert planned(first, what).spent <= max(2, -(-budget // (LOOKS - 1)))


def test_nothing_is_decided_before_a_round_has_ended() -> None:
    """Any prefix of a race in which a run of the round is missing plans that round again."""
    what = study("dense", "skipnet", "resrep", budget=9)
    rows = raced(what, {"dense": 0.8, "skipnet": 0.806, "resrep": 0.795}, seed=6)
    whole, draw = planned(rows, what), random.Random(3)
    assert whole.spent > 0
    base = Round(dict.fromkeys(whole.given, 5))
    runs = [r for r in rows if r.role == "confirm"]
    for _ in range(10):
        missing = draw.choice([r for r in runs if r.seed <= 5])
        some = [r for r in rows if r is not missing and (r.role == "search" or draw.random() < 0.7)]
        assert planned(some, what) == base
        draw.shuffle(rows)
        assert planned(rows, what) == whole


def test_a_seed_that_failed_is_spent_and_holds_nothing_up() -> None:
    what = study("dense", "skipnet", budget=4)
    rows = [row(), row(method="skipnet", trial="skipnet-00000")]
    for name, mean in (("dense", 0.8), ("skipnet", 0.815)):
        rows += [
            confirm(method=name, config=f"{name}-00000", seed=i, test_acc=mean + 0.01 * (i % 3 - 1))
            for i in range(1, 6)
        ]
    further = planned(rows, what)
    assert further.spent == 2
    failed = {"state": "FAIL", "reason": "x", "test_acc": None, "point": ""}
    rows += [
        confirm(method=name, config=f"{name}-00000", seed=6, **failed)
        for name in ("dense", "skipnet")
    ]
    assert planned(rows, what).spent == 4
    board = leaderboard(rows, Rules(budgets=(1,), primary=1, seeds=5, extra=4))
    assert board.race is not None
    assert (board.race.spent, board.race.budget) == (2, 4)


def comparison(method: str, other: str, more: int | None, *, noise: bool = False) -> Comparison:
    result = Difference("tested", 0.01, 0.0, 0.02, 0.2)
    return Comparison(method, other, 1.0, result, 0.2, more=more, noise=noise)


def test_the_comparison_that_needs_the_fewest_comes_first() -> None:
    have = {"a": 5, "b": 5, "c": 7}
    family = [comparison("a", "b", 9), comparison("b", "c", 1)]
    assert allotted(family, have, 4) == {"b": 3, "c": 1}
    assert allotted(family, have, 8) == {"b": 3, "c": 1, "a": 4}
    hopeless = [comparison("a", "b", None), comparison("a", "c", 101)]
    assert not allotted([*hopeless, comparison("b", "c", 1, noise=True)], have, 4)


@pytest.mark.parametrize("races", [100, pytest.param(300, marks=pytest.mark.full)])
def test_a_race_claims_no_more_than_it_may(races: int) -> None:
    """Two methods that are one: any claim is false, and 5 % of them may be made."""
    what = study("dense", "skipnet", budget=10)
    claims, held = 0, 0
    for seed in range(races):
        rows = raced(what, {"dense": 0.8, "skipnet": 0.8}, seed=seed)
        board = leaderboard(rows, Rules(budgets=(1,), primary=1, seeds=5, extra=10))
        gain = board.gain("skipnet", 1)
        assert gain is not None
        assert gain.p_holm is not None
        assert gain.result.lo is not None
        assert gain.result.hi is not None
        claims += gain.p_holm < 0.05
        held += gain.result.lo <= 0 <= gain.result.hi
        assert (gain.p_holm < 0.05) == (not gain.result.lo <= 0 <= gain.result.hi)
    assert claims <= 0.05 * races
    assert held >= 0.95 * races


def test_a_board_says_what_the_race_left_open() -> None:
    what = study("dense", "skipnet", "resrep", budget=2)
    rows = raced(what, {"dense": 0.8, "skipnet": 0.806, "resrep": 0.5}, seed=3)
    board = leaderboard(rows, Rules(budgets=(1,), primary=1, seeds=5, extra=2))
    assert (board.rules.looks, board.rules.confidence) == (LOOKS, 0.95)
    assert board.race is not None
    assert [(c.method, c.other) for c in board.race.undecided] == [("skipnet", "dense")]
    told = " ".join(notes(board))
    assert f"corrected for {LOOKS} looks" in told
    assert "Not separated at 1 MMACs, with the seeds that would do it: skipnet and dense" in told
    assert "other cells have up to" not in told
    plain = leaderboard(rows, Rules(budgets=(1,), primary=1))
    for one, other in zip(board.gains, plain.gains, strict=True):
        assert one.p_holm == pytest.approx(min(1.0, LOOKS * (other.p_holm or 0)))
        assert one.result.p == other.result.p
    narrow, wide = (b.cell("dense", 1).accuracy for b in (plain, board))
    assert (wide.hi or 0) - (wide.lo or 0) > 1.2 * ((narrow.hi or 0) - (narrow.lo or 0))
    clear = leaderboard(
        raced(what, {"dense": 0.8, "skipnet": 0.9}, seed=3),
        Rules(budgets=(1,), primary=1, seeds=5, extra=2),
    )
    assert "The order at 1 MMACs is decided." in notes(clear)


@pytest.mark.parametrize("search", [{"trials": 1}, {"trials": 4, "repeats": 3}])
def test_a_driver_that_dies_in_a_race_resumes_as_if_it_had_not(
    search: dict[str, int], tmp_path: Path
) -> None:
    """The search itself, whose driver is new for every trial or never, ends in the same runs."""
    fixed = {"depth": 8, "width": 0.25}
    what = study(
        "dense",
        "skipnet",
        seeds=3,
        budget=6,
        methods={"dense": fixed, "skipnet": {**fixed, "gate": "rnn"}},
        search=search,
        recipe={"epochs": 2},
    )
    found = []
    for name, patience in (("steady", 1000), ("killed", 1)):
        ledger = Ledger(tmp_path / name, what)
        for number in range(1000):
            if number % patience == 0:
                ledger.close()
                ledger = Ledger(tmp_path / name, what)
                agenda = Agenda(ledger.history, Task("digits", 1, 8, 8, 10))
            ticket = agenda.next()
            if not isinstance(ticket, Ticket):
                assert agenda.finished
                break
            seed = derive(what, ticket.config, ticket.seed)
            draw = np.random.default_rng(seed).standard_normal()
            mean = 0.815 if ticket.method == "skipnet" else 0.8
            figures = {
                "acc": mean + 0.01 * draw,
                "macs_mean": 5e5,
                "macs_p95": 5e5,
                "macs_max": 5e5,
            }
            point = {f"{s}_{k}": v for s in ("val", "test") for k, v in figures.items()}
            names = ["supervised", "policy"] if ticket.method == "skipnet" else [""]
            end = {"state": "COMPLETE", "points": [{"point": n, **point} for n in names]}
            agenda.heard(ticket.trial, decode_result({"metrics": {}, "end": end}))
        found.append({name: record.start.seed for name, record in ledger.history.records.items()})
        ledger.close()
    assert found[0] == found[1]
    repeats = search.get("repeats", 1)
    assert len(found[0]) > 2 * repeats * (search["trials"] + 3)
    assert ("dense-r4-00000" in found[0]) == (repeats > 1)
