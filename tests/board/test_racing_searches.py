"""Further searches go where they decide something, and claims about methods stay true."""

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from boards import confirm, row
from rich.console import Console

from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.racing import planned
from orchestrator.board.rules import LOOKS, Rules
from orchestrator.board.verdict import notes
from orchestrator.record.rows import Row
from orchestrator.report.content import facts
from orchestrator.report.terminal import terminal
from orchestrator.study.file import Study

OPEN = {"dense": 0.8, "skipnet": 0.815, "resrep": 0.5}
"""Means of which the first two are close."""


def study(*methods: str, repeats: int = 5, budget: int = 6, **changes: Any) -> Study:
    """A study whose race adds searches; each configuration has two seeds."""
    return Study.model_validate(
        {
            "name": "s",
            "data": "digits",
            "budgets": [1],
            "methods": {name: {} for name in methods},
            "search": {"trials": 8, "repeats": repeats},
            "confirm": {"seeds": 2, "race": True, "budget": budget},
        }
        | changes
    )


def searched(method: str, repeat: int, **changes: Any) -> Row:
    """The only trial of a search."""
    trial = f"{method}-r{repeat}-00000"
    return row(method=method, repeat=repeat, trial=trial, **changes)


def raced_searches(
    what: Study, means: dict[str, float], seed: int, lost: frozenset[str] = frozenset()
) -> list[Row]:
    """A whole race over normal searches, which differ by 1 point and their seeds by 0.2; those
    `lost` have no trial under the budget."""

    def draw(name: str, *index: int) -> float:
        return float(np.random.default_rng([seed, len(name), *index]).standard_normal())

    rows: list[Row] = []
    while True:
        now, done = planned(rows, what), {r.trial for r in rows}
        new = [
            searched(name, repeat, val_macs_mean=9e6 if f"{name}-r{repeat}" in lost else 1e6)
            for name, count in now.searches.items()
            for repeat in range(1, count + 1)
            if f"{name}-r{repeat}-00000" not in done
        ]
        for r in [r for r in rows if r.role == "search"]:
            for i in range(1, now.given.get(r.config, 0) + 1):
                if f"{r.config}-seed{i}" not in done:
                    found = means[r.method] + 0.01 * draw(r.method, r.repeat)
                    found += 0.002 * draw(r.method, r.repeat, i)
                    changes = {"method": r.method, "repeat": r.repeat, "test_acc": found}
                    new.append(confirm(config=r.config, seed=i, **changes))
        if not new:
            return rows
        rows += new


def searches_of(rows: list[Row]) -> Counter[str]:
    return Counter(method for method, _ in {(r.method, r.repeat) for r in rows})


def test_where_searches_are_repeated_what_is_open_gets_further_ones() -> None:
    what = study("dense", "skipnet", "resrep")
    rows = raced_searches(what, OPEN, seed=1)
    given, now = searches_of(rows), planned(rows, what)
    assert given["resrep"] == 5
    assert min(given["dense"], given["skipnet"]) > 5
    assert dict(now.searches) == given
    assert now.spent == given.total() - 15 <= 6
    assert set(now.given.values()) == {2}, "seeds are as the study asks"
    assert Counter(
        r.repeat for r in rows if r.role == "confirm" and r.method == "dense"
    ) == dict.fromkeys(range(1, given["dense"] + 1), 2)
    clear = raced_searches(what, {**OPEN, "skipnet": 0.9}, seed=1)
    assert set(searches_of(clear).values()) == {5}
    plain = study("dense", "skipnet", confirm={"seeds": 2})
    assert set(searches_of(raced_searches(plain, OPEN, seed=1)).values()) == {5}


@pytest.mark.parametrize("budget", [2, 3, 9])
def test_the_budget_of_searches_holds_and_rounds_share_it(budget: int) -> None:
    what = study("dense", "skipnet", "resrep", budget=budget)
    spent = Counter[int]()
    for seed in range(8):
        rows = raced_searches(what, {"dense": 0.8, "skipnet": 0.806, "resrep": 0.795}, seed=seed)
        now = planned(rows, what)
        assert now.spent == searches_of(rows).total() - 15 <= budget
        first = [r for r in rows if r.repeat <= 5]
        assert planned(first, what).spent <= max(2, -(-budget // (LOOKS - 1)))
        spent[now.spent] += 1
    assert max(spent) == budget


def test_no_search_is_added_before_a_round_has_ended() -> None:
    """A run or a search that is missing holds the round up, whatever later rows say."""
    what = study("dense", "skipnet", "resrep", budget=9)
    rows = raced_searches(what, OPEN | {"skipnet": 0.81}, seed=0)
    whole, draw = planned(rows, what), random.Random(3)
    assert whole.spent > 5, "three rounds"
    second = planned([r for r in rows if r.repeat <= 5], what)
    assert 0 < second.spent < whole.spent
    late = [r for r in rows if r.repeat > 5 and r.repeat <= second.searches[r.method]]
    early = [r for r in rows if r.repeat <= 5]
    for _ in range(20):
        missing = draw.choice([r for r in early if r.role == "confirm"])
        some = [r for r in rows if r is not missing and (r in early or draw.random() < 0.7)]
        assert planned(some, what).spent == 0
        missing = draw.choice(late)
        some = [r for r in rows if r is not missing and (r in early or draw.random() < 0.7)]
        assert planned(some, what).searches == second.searches
        draw.shuffle(rows)
        assert planned(rows, what) == whole
    going = planned(rows, what, lambda method, repeat: (method, repeat) != ("dense", 6))
    assert going.searches == second.searches, "a search that has trials left"
    assert planned(rows, what, lambda _, repeat: repeat > 1).spent == 0


def test_a_further_search_that_found_nothing_is_spent_and_holds_nothing_up() -> None:
    what = study("dense", "skipnet", budget=4)
    lost = frozenset({"dense-r6", "skipnet-r6"})
    rows = raced_searches(what, {"dense": 0.8, "skipnet": 0.815}, seed=2, lost=lost)
    assert searches_of(rows) == {"dense": 7, "skipnet": 7}
    board = leaderboard(rows, Rules.of(what))
    assert board.race is not None
    assert (board.race.spent, board.race.searches) == (4, {"dense": 7, "skipnet": 7})
    assert board.cell("dense", 1).n == 6


def test_a_method_without_a_point_holds_no_race_up() -> None:
    what = study("dense", "skipnet", "resrep")
    dear = frozenset(f"resrep-r{repeat}" for repeat in range(1, 6))
    rows = raced_searches(what, OPEN, seed=1, lost=dear)
    assert searches_of(rows)["resrep"] == 5
    assert planned(rows, what).spent > 0


def test_dense_at_equal_cost_is_confirmed_for_the_searches_of_each_round() -> None:
    """A further search changes what a method costs, and with it what dense is matched at."""
    changes = {"confirm": {"seeds": 2, "race": True, "budget": 6, "matched": True}}
    what = study("dense", "skipnet", budgets=[1, 2], **changes)

    def trials(name: str, repeat: int) -> list[Row]:
        """Dense has a cheap trial and one at each budget; skipnet gets dearer by the search."""
        macs = [3e5, 1e6, 2e6] if name == "dense" else [1e6, (1.2 + 0.1 * repeat) * 1e6]
        return [
            row(
                method=name,
                repeat=repeat,
                trial=f"{name}-r{repeat}-{i:05d}",
                val_acc=0.7 + 0.01 * i,
                val_macs_mean=cost,
            )
            for i, cost in enumerate(macs)
        ]

    rows: list[Row] = []
    for _ in range(20):
        now, done = planned(rows, what), {r.trial for r in rows}
        new = [
            r
            for name, count in now.searches.items()
            for repeat in range(1, count + 1)
            for r in trials(name, repeat)
            if r.trial not in done
        ]
        for config, seeds in now.given.items():
            name, repeat = config.split("-")[0], int(config.split("-")[1].removeprefix("r"))
            noise = np.random.default_rng([len(name), repeat]).standard_normal()
            level = (0.8 if name == "dense" else 0.812) + 0.01 * float(noise)
            new += [
                confirm(method=name, repeat=repeat, config=config, seed=i, test_acc=level)
                for i in range(1, seeds + 1)
                if f"{config}-seed{i}" not in done
            ]
        if not new:
            break
        rows += new
    assert not new
    assert planned(rows, what).spent > 0
    board = leaderboard(rows, Rules.of(what))
    matched = next(pair for pair in board.matched if pair.method == "skipnet")
    assert matched.base.n == board.searches("dense")


@pytest.mark.parametrize("races", [100, pytest.param(300, marks=pytest.mark.full)])
def test_a_race_of_searches_claims_no_more_than_it_may(races: int) -> None:
    what = study("dense", "skipnet", budget=10)
    claims, held, spent = 0, 0, 0
    for seed in range(100, 100 + races):
        rows = raced_searches(what, {"dense": 0.8, "skipnet": 0.8}, seed=seed)
        gain = leaderboard(rows, Rules.of(what)).gain("skipnet", 1)
        assert gain is not None
        assert gain.p_holm is not None
        assert gain.result.lo is not None
        assert gain.result.hi is not None
        claims += gain.p_holm < 0.05
        held += gain.result.lo <= 0 <= gain.result.hi
        spent += planned(rows, what).spent
    assert claims <= 0.05 * races
    assert held >= 0.95 * races
    assert spent > races, "most races add something"


def test_a_board_says_which_methods_got_further_searches() -> None:
    what = study("dense", "skipnet", "resrep", budget=2)
    rows = raced_searches(what, {"dense": 0.8, "skipnet": 0.806, "resrep": 0.5}, seed=3)
    board = leaderboard(rows, Rules.of(what))
    assert (board.rules.looks, board.rules.units) == (LOOKS, 5)
    told = " ".join(notes(board))
    assert "5 to 6 searches per method, of 1 trial each: claims are about methods" in told
    assert (
        "Race: 2 of 2 further searches spent on the order at 1 MMACs. Searches were added" in told
    )
    assert f"corrected for {LOOKS} looks" in told
    assert "Not separated at 1 MMACs, with the searches that would do it: skipnet and dense" in told
    assert "The race gave methods 5 to 6 searches: effort is equal per search" in told
    assert "Effort is uneven" not in told
    assert "other cells have up to" not in told
    more = [searched("dense", 6, point=name) for name in ("", "x")]
    more += [row(method="dense", repeat=r, trial=f"dense-r{r}-00001") for r in range(1, 7)]
    uneven = " ".join(notes(leaderboard([*rows, *more], Rules.of(what))))
    assert "Effort is uneven: 1 to 2 search trials per search" in uneven
    console = Console(width=100)
    with console.capture() as capture:
        console.print(terminal(board))
    assert "searches" in capture.get()
    assert facts(board)["searches"] == {"dense": 6, "resrep": 5, "skipnet": 6}
