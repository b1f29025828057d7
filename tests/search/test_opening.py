"""A search begins with what its paper sets, and goes on as if that trial had not been."""

from pathlib import Path
from typing import Any

import pytest

from methods import METHODS
from methods.api import Task
from methods.values import Params
from orchestrator.record.history import History
from orchestrator.record.ledger import Ledger
from orchestrator.record.result import decode_result
from orchestrator.record.trials import Ticket
from orchestrator.search.agenda import Agenda
from orchestrator.study.file import Study
from orchestrator.study.space import spaces

TASK = Task("digits", 1, 8, 8, 10)


def study(methods: dict[str, Any], *, recipe: dict[str, Any] | None = None, **search: Any) -> Study:
    plan = {"trials": 9, "sampler": "random", **search}
    recipe = {"epochs": 2, "lr": {"low": 0.01, "high": 1, "log": True}, **(recipe or {})}
    content = {"name": "s", "data": "digits", "budgets": [9], "recipe": recipe}
    return Study.model_validate({**content, "methods": methods, "search": plan})


SKIPNET = {"depth": 14, "alpha": {"low": 0.5, "high": 8, "log": True}, "policy_lr": 0.01}


def test_the_first_trial_is_the_papers_where_the_study_says_nothing() -> None:
    opened = spaces(study({"skipnet": SKIPNET, "dense": {}}, recipe={"nesterov": True}))
    paper, space = METHODS["skipnet"].PUBLISHED, opened["skipnet"]
    first = space.params(space.published(), opening=True)
    settled = {"alpha", "policy_lr", "recipe.nesterov"}
    assert {name: first[name] for name in paper.keys() - settled} == {
        name: paper[name] for name in paper.keys() - settled
    }
    assert (first["depth"], first["policy_lr"], first["recipe.nesterov"]) == (14, 0.01, True)
    assert first["alpha"] == 0.5, "searched: the end of the range next to the published 0.1"
    assert first["target"] == 0, "searched by default: the paper has no target"
    assert not opened["dense"].opening, "the paper's and isoflop's are the same"


def test_a_batch_that_may_exceed_the_data_stays_out() -> None:
    opened = spaces(study({"dsnet": {}, "resrep": {}}))
    assert METHODS["dsnet"].PUBLISHED["recipe.batch_size"] == 512
    assert "recipe.batch_size" not in opened["dsnet"].opening
    assert opened["dsnet"].opening["recipe.warmup"] == METHODS["dsnet"].PUBLISHED["recipe.warmup"]
    assert opened["resrep"].opening["recipe.batch_size"] == 64


@pytest.mark.parametrize(
    ("methods", "search"),
    [
        ({"skipnet": SKIPNET}, {"published": False}),
        ({"skipnet": {"profile": "published", **SKIPNET}}, {}),
        ({"condensenet": {"grouping": "none", "stages": "2-2"}}, {}),  # no halved classifier then
    ],
    ids=["not wanted", "the profile itself", "not beside what the study fixes"],
)
def test_there_is_none(methods: dict[str, Any], search: dict[str, Any]) -> None:
    (space,) = spaces(study(methods, **search)).values()
    assert not space.opening


def run(agenda: Agenda, trials: int) -> list[Params]:
    """The parameters of so many trials, one after the other; each ends by what they are."""
    tried = []
    for _ in range(trials):
        ticket = agenda.next()
        assert isinstance(ticket, Ticket)
        tried.append(ticket.params)
        agenda.heard(ticket.trial, decode_result(ending(ticket)))
    return tried


def ending(ticket: Ticket) -> dict[str, Any]:
    """What is published is worst by far."""
    lr = float(ticket.params["recipe.lr"])
    accuracy = 0.1 if ticket.params["target"] == 0 else 0.9 - abs(lr - 0.2) / 2
    point = {"point": "", "val_acc": accuracy, "val_macs_mean": 5e5 + 1e5 * lr}
    end = {"state": "COMPLETE", "points": [point], "device": "cpu"}
    return {"step": 2, "time": 2, "metrics": {"curve/seconds": 1.0}, "end": end}


@pytest.mark.parametrize("sampler", ["random", "sobol", "tpe", "ehvi"])
def test_the_rest_of_the_search_is_as_without_it(sampler: str) -> None:
    whole, without = (
        study({"skipnet": SKIPNET}, sampler=sampler, published=published, points=POINTS)
        for published in (True, False)
    )
    tried, former = (
        run(Agenda(History(one, spaces(one)), TASK), trials)
        for one, trials in ((whole, 9), (without, 8))
    )
    assert tried[0]["target"] == 0
    assert tried[1:] == former
    assert tried[2]["recipe.lr"] == POINTS["skipnet"][0]["recipe.lr"]


POINTS = {"skipnet": [{"recipe.lr": 0.5}]}


def test_it_is_the_same_after_a_kill(tmp_path: Path) -> None:
    what = study({"skipnet": SKIPNET})
    ledger = Ledger(tmp_path, what)
    began = Agenda(ledger.history, TASK).next()
    assert isinstance(began, Ticket)
    ledger.close()
    ledger = Ledger(tmp_path, what)
    first, second = run(Agenda(ledger.history, TASK), 2)
    assert first == began.params
    space = ledger.history.spaces["skipnet"]
    assert second == space.params(space.defaults())
    ledger.close()


def test_a_search_that_began_without_it_continues_without_it(tmp_path: Path) -> None:
    what = study({"skipnet": SKIPNET})
    former = run(
        Agenda(History(bare := study({"skipnet": SKIPNET}, published=False), spaces(bare)), TASK), 4
    )
    ledger = Ledger(tmp_path, what)
    space = ledger.history.spaces["skipnet"]
    ticket = ledger.history.add(space, space.defaults())
    ledger.history.start(ticket)
    agenda = Agenda(ledger.history, TASK)
    assert run(agenda, 4) == former
    ledger.close()
