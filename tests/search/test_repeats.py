"""Repeated searches are independent, and one search is what it was before there were several."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from executor import execute

from methods.api import Task
from orchestrator.board.choose import best, choose, clean
from orchestrator.record.events import Figures, Point, decode_metrics
from orchestrator.record.history import History
from orchestrator.record.result import Ending, Result
from orchestrator.record.trials import Ticket
from orchestrator.search.agenda import Agenda
from orchestrator.search.confirming import confirm_plan
from orchestrator.search.window import Window
from orchestrator.study.file import Study
from orchestrator.study.identity import number_of, search_of
from orchestrator.study.params import derive
from orchestrator.study.space import searches

TASK = Task("digits", 1, 8, 8, 10)
LAG = 2
RECORDED = Path(__file__).parents[1] / "data" / "one-search.json"
"""Searches as they ran before there were repeats: hash, and per trial its seed and free values."""
STUDIES: dict[str, dict[str, Any]] = {
    "random": {"sampler": "random", "trials": 4},
    "sobol": {"sampler": "sobol", "trials": 4},
    "tpe": {"sampler": "tpe", "trials": 6},
    "ehvi": {"sampler": "ehvi", "trials": 6},
    "tpe, promoted": {"sampler": "tpe", "trials": 9, "stop": "promote"},
}


def study(
    methods: dict[str, Any] | None = None, confirm: dict[str, Any] | None = None, **search: Any
) -> Study:
    """Wide networks of `dense` are over the budget, and are refused."""
    epochs = 6 if search.get("stop") else 4
    plain = {
        "dense": {"depth": 8, "width": {"low": 0.25, "high": 1.0}},
        "skipnet": {"depth": 8, "width": {"low": 0.25, "high": 0.5}},
    }
    return Study.model_validate(
        {
            "name": "killed",
            "data": "digits",
            "budgets": [0.3, 0.6],
            "recipe": {"epochs": epochs, "lr": {"low": 0.001, "high": 1, "log": True}},
            "methods": methods or plain,
            "search": {"stop": "none", **search},
            "confirm": confirm or {"seeds": 2},
        }
    )


def worker(what: Study, ticket: Ticket, spoilt: str = "") -> Iterator[Result]:
    """A trial whose figures follow from its seed; those of the search `spoilt` are poor."""
    draw = np.random.default_rng(derive(what, ticket.config, ticket.seed))
    level = 0.02 + 0.3 * abs(np.log10(ticket.params["recipe.lr"]) + 1) + draw.uniform(0, 0.01)
    level += 0.3 * (search_of(ticket.config) == spoilt)
    macs, epochs = 2e5 * ticket.params["width"], ticket.params["recipe.epochs"]
    for step in range(1, epochs + 1):
        accuracy = float(1.0 - min(level + 0.6 * np.exp(-step), 0.95))
        metrics = {"curve/val_acc": accuracy, "curve/macs_mean_m": macs / 1e6}
        ending = None
        if ticket.trial == "skipnet-00001" and step == 3:
            ending = Ending("FAIL", "diverged: loss is nan at epoch 3", 3.0)
        elif step == epochs:
            figures = Figures(accuracy, macs, macs_p95=macs, macs_max=macs)
            test = figures if ticket.role == "confirm" else None
            ending = Ending("COMPLETE", None, 6.0, (Point("", figures, test),), "cpu")
        yield Result(step, step, decode_metrics({**metrics, "curve/seconds": 1.0}), ending)


def ran(what: Study, *, seed: int = 0, spoilt: str = "", window: Window | None = None) -> History:
    """The history of a study that ran to its end; its workers race by `seed`."""
    history = History(what, searches(what))
    agenda = Agenda(history, TASK, lag=LAG, window=window)
    execute(agenda, lambda ticket: worker(what, ticket, spoilt), at_once=LAG, seed=seed)
    return history


def proposals(history: History, *of: str) -> dict[str, Any]:
    """Seed and parameters of every trial of these searches, and how and when it ended."""
    return {
        trial: (record.start.torch_seed, record.start.params, record.end and record.end.state)
        for trial, record in sorted(history.records.items())
        if record.start.role == "search" and search_of(trial) in of
    }


@pytest.mark.parametrize("name", json.loads(RECORDED.read_text()))
def test_one_search_is_as_it_was_before_there_were_several(name: str) -> None:
    what, recorded = study(**STUDIES[name], repeats=1), json.loads(RECORDED.read_text())[name]
    assert what.hash == recorded["hash"]
    history = ran(what, window=Window(LAG, running=False))  # of that time
    starts = {
        trial: [
            record.start.torch_seed,
            {name: record.start.params[name] for name in history.spaces[record.start.method].free},
        ]
        for trial, record in history.records.items()
    }
    searched = [trial for trial in recorded["starts"] if "-seed" not in trial]
    assert [trial for trial in starts if "-seed" not in trial] == searched, "in this order"
    assert starts.keys() == recorded["starts"].keys(), "confirm runs begin as workers are free"
    for trial, (seed, params) in recorded["starts"].items():
        assert starts[trial][0] == seed
        assert starts[trial][1].keys() == params.keys()
        for field, value in params.items():
            near = pytest.approx(value, rel=1e-9) if isinstance(value, float) else value
            assert starts[trial][1][field] == near, (trial, field)  # processors round apart
    assert {record.start.repeat for record in history.records.values()} == {1}


@pytest.mark.parametrize("name", ["random", "sobol", "tpe", "tpe, promoted"])
def test_a_search_knows_nothing_of_the_other_repeats(name: str) -> None:
    two = ran(study(**STUDIES[name], repeats=2))
    mine = ("dense-r2", "skipnet-r2")
    assert proposals(two, *mine) == proposals(ran(study(**STUDIES[name], repeats=3), seed=7), *mine)
    assert ("PRUNED" in {end for _, _, end in proposals(two, *mine).values()}) == (
        "promoted" in name
    )
    spoilt = ran(study(**STUDIES[name], repeats=2), spoilt="dense-r1")
    assert proposals(two, *mine) == proposals(spoilt, *mine)


@pytest.mark.parametrize("name", ["random", "tpe", "tpe, promoted"])
def test_a_search_that_a_race_adds_is_the_one_of_a_study_with_more_repeats(name: str) -> None:
    race = {"seeds": 2, "race": True, "budget": 4}
    raced = ran(study(**STUDIES[name], repeats=3, confirm=race), seed=5)
    first = ran(study(**STUDIES[name], repeats=3))
    counts = Counter(row.method for row in {(r.method, r.repeat): r for r in raced.rows()}.values())
    assert 6 < counts.total() <= 6 + 4
    more = ran(study(**STUDIES[name], repeats=max(counts.values())))
    for method, count in counts.items():
        names = [f"{method}-r{repeat}" for repeat in range(1, count + 1)]
        assert proposals(raced, *names) == proposals(more, *names)
        assert proposals(raced, *names[:3]) == proposals(first, *names[:3])
        effort = {search: raced.effort(search) for search in names}
        assert len(set(effort.values())) == 1 or STUDIES[name].get("stop"), effort
    confirmed = {row.trial: row.test_acc for row in more.rows() if row.role == "confirm"}
    for row in raced.rows():
        if row.role == "confirm":
            assert confirmed[row.trial] == row.test_acc
    chosen = {choice.config for choice in choose(clean(raced.rows())[0], raced.study.budgets)}
    assert chosen == {row.config for row in raced.rows() if row.role == "confirm"}


@pytest.mark.parametrize("name", STUDIES)
def test_repeats_propose_other_configurations_and_draw_other_seeds(name: str) -> None:
    history = ran(study(**STUDIES[name], repeats=3))
    for method in ("dense", "skipnet"):
        spaces = [history.spaces[f"{method}-r{repeat}"] for repeat in (1, 2, 3)]
        named = len(spaces[0].first) + bool(spaces[0].opening)
        by_number = defaultdict(list)
        for trial, (_, params, _) in proposals(history, *(s.search for s in spaces)).items():
            by_number[number_of(trial)].append(params)
        same = []
        for number, params in by_number.items():
            different = {json.dumps(values, sort_keys=True) for values in params}
            if number < named:
                assert len(different) == 1, number
            elif len(different) < min(2, len(params)):
                same.append(number)
        assert len(same) <= 1  # they may have learned the same corner of the space
    seeds = [record.start.torch_seed for record in history.records.values()]
    assert len(set(seeds)) == len(seeds)


def test_effort_is_shared_over_all_searches_at_every_moment() -> None:
    history = ran(study(sampler="random", trials=4, repeats=3))
    begun: Counter[str] = Counter(dict.fromkeys(history.spaces, 0))
    for trial, record in history.records.items():
        if record.start.role == "search":
            begun[search_of(trial)] += record.took_a_worker
            assert max(begun.values()) - min(begun.values()) <= 1, begun
    assert dict(begun) == dict.fromkeys(history.spaces, 4)


def test_searches_of_equal_time_get_their_seconds_each() -> None:
    history = ran(study(sampler="random", trials=4, repeats=2, seconds=60))
    for search in history.spaces:
        assert 60 <= history.effort(search) < 60 + 6.0, "a trial takes 6 s"


def test_each_search_chooses_per_budget_and_its_seeds_are_nested_in_it() -> None:
    what = study(sampler="random", trials=4, repeats=3)
    history = ran(what)
    choices = choose(clean(history.rows())[0], what.budgets)
    cells = Counter((choice.method, choice.repeat, choice.budget) for choice in choices)
    assert len(cells) == 2 * 3 * 2
    assert set(cells.values()) == {1}
    for choice in choices:
        assert search_of(choice.config) == f"{choice.method}-r{choice.repeat}"
        rivals = [
            row.val_acc or 0.0
            for row in history.rows()
            if row.state == "COMPLETE"
            and (row.role, row.method, row.repeat) == ("search", choice.method, choice.repeat)
            and (row.val_macs_mean or 0.0) <= 1e6 * choice.budget
        ]
        assert choice.val_acc == max(rivals)
    tickets = confirm_plan(history)
    assert {ticket.trial for ticket in tickets} == {
        f"{choice.config}-seed{seed}" for choice in choices for seed in (1, 2)
    }
    for ticket in tickets:
        assert search_of(ticket.config) == f"{ticket.method}-r{ticket.repeat}"
    for row in history.rows():
        assert row.config.startswith(f"{row.method}-r{row.repeat}-")
    top = best(choices)
    assert top.keys() == {(method, budget) for method in what.methods for budget in what.budgets}
    for (method, budget), choice in top.items():
        alike = [c.val_acc for c in choices if (c.method, c.budget) == (method, budget)]
        assert choice.val_acc == max(alike)


def test_a_control_is_repeated_as_its_method_with_searches_of_its_own() -> None:
    methods = {
        "dense": {"depth": 8, "width": {"low": 0.25, "high": 1.0}},
        "dense-again": {"method": "dense"},
    }
    history = ran(study(methods, sampler="random", trials=4, repeats=2))
    assert list(history.spaces) == ["dense-r1", "dense-again-r1", "dense-r2", "dense-again-r2"]
    assert {r.start.params.get("method") for r in history.records.values()} == {None, "dense"}
    by_search = [proposals(history, search).values() for search in history.spaces]
    rates = [[params["recipe.lr"] for _, params, _ in trials][2:] for trials in by_search]
    assert len({tuple(rate) for rate in rates}) == 4
