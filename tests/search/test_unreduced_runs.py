"""What the choices at the primary budget are reduced from is run on fresh seeds, and counted."""

import random

import pytest
from executor import execute
from rich.console import Console
from small import METHODS, TASK, study, worker

from methods.dense import Dense
from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.rules import Rules
from orchestrator.cli.plan_table import terminal
from orchestrator.live.tally import Tally
from orchestrator.record.history import History
from orchestrator.record.trials import Ticket
from orchestrator.search.agenda import Agenda
from orchestrator.search.confirming import confirm_plan
from orchestrator.search.plan import plan
from orchestrator.study.file import Study
from orchestrator.study.identity import is_unreduced, unreduced_name
from orchestrator.study.params import parts
from orchestrator.study.space import searches


def ran(what: Study, *, seed: int = 0) -> History:
    history = History(what, searches(what))
    execute(Agenda(history, TASK, lag=2), lambda t: worker(what, t), at_once=2, seed=seed)
    return history


@pytest.mark.parametrize("repeats", [1, 2])
def test_each_choice_at_the_primary_budget_has_its_base_beside_it(repeats: int) -> None:
    what = study(search={"trials": 4, "sampler": "random", "repeats": repeats})
    history = ran(what)
    tickets = confirm_plan(history)
    assert {t.trial for t in tickets} == {
        name for name, r in history.records.items() if r.start.role == "confirm"
    }
    wholes = [ticket for ticket in tickets if is_unreduced(ticket.config)]
    chosen = {t.config: t for t in tickets if what.primary_budget in t.budgets}
    assert {t.config for t in wholes} == {
        unreduced_name(config) for config, t in chosen.items() if t.method != "dense"
    }
    assert len(wholes) == 2 * repeats * 2
    for whole in wholes:
        own = chosen[whole.config.removesuffix("-unreduced")]
        assert (whole.method, whole.repeat, whole.budgets) == (own.method, own.repeat, ())
        method, recipe = parts(whole.method, whole.params)
        assert recipe == parts(own.method, own.params)[1]
        if whole.method == "resrep":
            assert method == Dense(depth=own.params["depth"], width=own.params["width"])
    seeds = [record.start.torch_seed for record in history.records.values()]
    assert len(set(seeds)) == len(seeds), "fresh ones"
    order = [ticket.seed for ticket in tickets]
    assert order == sorted(order), "seeds go round"


def test_without_it_the_same_trials_are_run_in_the_same_order() -> None:
    asked, plain = study(), study(confirm={"unreduced": False})
    with_them = [t for t in confirm_plan(ran(asked)) if not is_unreduced(t.config)]
    assert with_them == confirm_plan(ran(plain))


def test_however_workers_race_the_same_runs_are_made() -> None:
    what = study()
    tickets = [sorted(ran(what, seed=s).records) for s in (0, 1, 2)]
    assert tickets[0] == tickets[1] == tickets[2]


def test_a_killed_driver_runs_what_is_left() -> None:
    """From any prefix of the events the rest follows."""
    what = study()
    whole = ran(what)
    tickets = confirm_plan(whole)
    draw = random.Random(2)
    for _ in range(4):
        history = History(what, searches(what))
        agenda = Agenda(history, TASK, lag=2)
        for _ in range(draw.randrange(1, 12 + len(tickets))):
            ticket = agenda.next()
            assert isinstance(ticket, Ticket)
            for result in worker(what, ticket):
                agenda.heard(ticket.trial, result)
        again = Agenda(history, TASK, lag=2)
        execute(again, lambda t: worker(what, t), at_once=2)
        assert sorted(history.records) == sorted(whole.records)
        assert confirm_plan(history) == tickets


def test_a_control_has_no_base_of_its_own() -> None:
    what = study({**METHODS, "resrep-again": {"method": "resrep"}})
    wholes = {t.method for t in confirm_plan(ran(what)) if is_unreduced(t.config)}
    assert wholes == {"resrep", "condensenet"}
    assert {m.method: m.unreduced for m in plan(what, steps=0).methods}["resrep-again"] == 0


def test_a_race_gives_no_seed_to_what_is_unreduced() -> None:
    confirm = {"seeds": 3, "race": True, "budget": 6}
    history = ran(study(budgets=[0.9], confirm=confirm))
    given = {(t.method, is_unreduced(t.config)): 0 for t in confirm_plan(history)}
    for ticket in confirm_plan(history):
        given[ticket.method, is_unreduced(ticket.config)] += 1
    assert given["resrep", True] == given["condensenet", True] == 3
    board = leaderboard(history.rows(), Rules.of(history.study))
    assert board.race is not None
    raced = sum(count for (_, whole), count in given.items() if not whole)
    assert board.race.spent == raced - 3 * 3
    assert {pair.method: pair.base.n for pair in board.unreduced} == {"resrep": 3, "condensenet": 3}


@pytest.mark.parametrize("repeats", [1, 3])
def test_a_plan_counts_them(repeats: int) -> None:
    what = study(search={"trials": 4, "sampler": "random", "repeats": repeats})
    found = plan(what, steps=0)
    counts = {m.method: (m.confirm, m.unreduced) for m in found.methods}
    assert counts == {
        "dense": (4 * repeats, 0),
        "resrep": (4 * repeats, 2 * repeats),
        "condensenet": (4 * repeats, 2 * repeats),
    }
    assert all(m.most_epochs == (m.trials + m.confirm + m.unreduced) * 2 for m in found.methods)
    runs = sum(m.trials + m.confirm + m.unreduced for m in found.methods)
    assert runs == Tally(what).planned
    assert len(ran(what).records) <= runs
    console = Console(width=80)
    with console.capture() as capture:
        console.print(terminal(found))
    text = " ".join(capture.get().split())
    assert f"and {4 * repeats} runs of unreduced networks, and" in text


def test_a_plan_times_them() -> None:
    methods = {"dense": METHODS["dense"], "resrep": {"depth": 8, "width": 0.25, "target": 0.5}}
    asked = plan(study(methods), steps=1).methods[1]
    plain = plan(study(methods, confirm={"unreduced": False}), steps=1).methods[1]
    assert asked.confirm_seconds is not None
    assert plain.confirm_seconds is not None
    assert asked.steps > plain.steps


def test_progress_counts_dense_at_matched_cost_too() -> None:
    what = study(confirm={"matched": True})
    runs = sum(m.trials + m.confirm + m.unreduced for m in plan(what, steps=0).methods)
    assert runs == Tally(what).planned
