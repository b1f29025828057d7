"""Bases: plain backbones that a study trains first, once, and that every method using one pays."""

from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from executor import execute
from rich.console import Console

from methods.api import Task
from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.rules import Rules
from orchestrator.cli.plan_table import terminal as plan_table
from orchestrator.live.tally import Tally
from orchestrator.record.events import Figures, Metrics, Point, decode, encode
from orchestrator.record.history import History
from orchestrator.record.result import Ending, Result
from orchestrator.record.trials import Ticket
from orchestrator.report.terminal import terminal
from orchestrator.search.agenda import WAIT, Agenda
from orchestrator.search.bases import effort, planned
from orchestrator.search.confirming import awaited
from orchestrator.search.plan import plan
from orchestrator.store import tags
from orchestrator.study.file import Study
from orchestrator.study.params import parts
from orchestrator.study.space import searches

TASK = Task("digits", 1, 8, 8, 10)
METHODS: dict[str, Any] = {
    "dense": {"depth": 8, "width": 0.25},
    "resrep": {"depth": 8, "width": 0.5, "strength": {"low": 3, "high": 9}},
    "skipnet": {"depth": 8, "width": 0.5},
    "skipnet-again": {"method": "skipnet"},
}


def study(**changes: Any) -> Study:
    plain = {
        "name": "s",
        "data": "digits",
        "budgets": [0.9],
        "recipe": {"epochs": 4},
        "methods": METHODS,
        "start": {"resrep": "base", "skipnet": "base"},
        "search": {"trials": 6, "sampler": "random"},
        "confirm": {"seeds": 2},
    }
    return Study.model_validate(plain | changes)


def worker(ticket: Ticket, *, fails: bool = False) -> Iterator[Result]:
    """A trial that is always as good."""
    figures = Figures(0.8, 2e5, macs_p95=2e5, macs_max=2e5)
    point = Point("", figures, figures if ticket.role == "confirm" else None)
    epochs = int(ticket.params["recipe.epochs"])
    for step in range(1, epochs + 1):
        ending = None
        if fails and ticket.role == "base" and step == 2:
            ending = Ending("FAIL", "diverged: loss is nan", 2.0)
        elif step == epochs:
            ending = Ending("COMPLETE", None, 2.0 * epochs, (point,), "cpu")
        yield Result(step, step, Metrics(0.1, 0.8, 0.1, 0.2, 0.1, 2.0), ending)
        if ending:
            return


def ran(what: Study, *, fails: bool = False, at_once: int = 2) -> History:
    history = History(what, searches(what))
    agenda = Agenda(history, TASK, lag=at_once)
    execute(agenda, lambda ticket: worker(ticket, fails=fails), at_once=at_once)
    return history


def trials(history: History, method: str) -> list[str]:
    return [
        name
        for name, record in history.records.items()
        if record.start.method == method and record.start.role == "search"
    ]


def test_methods_with_the_same_backbone_share_one_base() -> None:
    what = study()
    (base,) = planned(what, searches(what))
    assert base.trial == base.config == "base-00000"
    assert base.serves == ("resrep", "skipnet", "skipnet-again")
    method, recipe = parts("base", base.params)
    assert method.model_dump() | {"width": 0.5, "depth": 8} == method.model_dump()
    assert type(method).__name__ == "Dense"
    assert recipe.epochs == 4
    wide = {**METHODS, "skipnet": {"depth": 8, "width": 1.0}}
    what = study(methods=wide, base={"epochs": 7, "lr": 0.05})
    bases = planned(what, searches(what))
    assert [base.trial for base in bases] == ["base-00000", "base-00001"]
    assert [base.serves for base in bases] == [("resrep",), ("skipnet", "skipnet-again")]
    assert [parts("base", base.params)[1].epochs for base in bases] == [7, 7]
    assert parts("base", bases[0].params)[1].lr == 0.05


def test_resrep_leaves_its_own_base_phase_out_unless_the_study_sets_it() -> None:
    assert searches(study())["resrep"].fixed["base_share"] == 0
    again = {**METHODS, "resrep": {**METHODS["resrep"], "base_share": 0.25}}
    assert searches(study(methods=again))["resrep"].fixed["base_share"] == 0.25
    assert "base_share" not in searches(study(start={}, base={}))["resrep"].fixed


def test_a_base_comes_first_and_only_those_that_need_it_wait() -> None:
    what = study()
    history = History(what, searches(what))
    agenda = Agenda(history, TASK, lag=8)
    first = agenda.next()
    assert isinstance(first, Ticket)
    assert first.role == "base"
    others = [ticket for ticket in iter(agenda.next, WAIT) if isinstance(ticket, Ticket)]
    assert {ticket.method for ticket in others} == {"dense"}
    assert awaited(history, "resrep") == "base-00000"
    assert awaited(history, "dense") is None
    agenda.lost("base-00000", "its worker died")
    again = agenda.next()
    assert isinstance(again, Ticket)
    assert again.trial == "base-00000"
    for result in worker(again):
        agenda.heard("base-00000", result)
    ticket = agenda.next()
    assert isinstance(ticket, Ticket)
    assert ticket.method != "dense"


@pytest.mark.parametrize("repeats", [1, 2])
def test_the_effort_of_a_base_counts_for_each_method_that_uses_it(repeats: int) -> None:
    what = study(search={"trials": 6, "sampler": "random", "repeats": repeats}, base={"epochs": 9})
    history = ran(what)
    assert [name for name in history.records if name.startswith("base")] == ["base-00000"]
    for search in history.spaces:
        assert 6 * 4 <= effort(history, search) < 7 * 4
    assert len(trials(history, "dense")) == 6 * repeats
    assert len(trials(history, "resrep")) == 4 * repeats  # 24 epochs are 9 and 4 times 4
    board = leaderboard(history.rows(), Rules.of(what))
    efforts = {each.method: each for each in board.effort}
    assert set(efforts) == set(METHODS)
    assert {name: each.base for name, each in efforts.items()} == {
        "dense": 0,
        "resrep": 9,
        "skipnet": 9,
        "skipnet-again": 9,
    }
    own = sum(
        e.end.epochs for e in history.records.values() if e.end and e.start.method == "resrep"
    )
    assert efforts["resrep"].epochs == own + 9
    assert efforts["resrep"].search == 4 * repeats
    assert not [each for each in board.excluded if each.row.role == "base"]
    console = Console(width=80, file=StringIO())
    console.print(terminal(board))
    assert " base " in console.file.getvalue()  # type: ignore[attr-defined]


def test_in_seconds_a_base_counts_too() -> None:
    search = {"trials": 6, "sampler": "random", "seconds": 48}
    history = ran(study(search=search, base={"epochs": 9}), at_once=1)
    assert len(trials(history, "dense")) == 6  # of 8 s
    assert len(trials(history, "resrep")) == 4  # after 18 s


def test_where_a_base_fails_its_methods_have_no_trials(caplog: pytest.LogCaptureFixture) -> None:
    history = ran(study(), fails=True)
    assert len(trials(history, "dense")) == 6
    assert not trials(history, "resrep") + trials(history, "skipnet")
    said = [record.getMessage() for record in caplog.records]
    assert any("base-00000 failed, so that resrep and skipnet" in text for text in said)
    assert any("diverged" in text for text in said)


def test_a_base_is_recorded_and_read_back() -> None:
    history = ran(study())
    start = history.records["base-00000"].start
    assert decode(encode(start)) == start
    end = history.records["base-00000"].end
    assert end is not None
    run = {**tags.start_tags(start), **tags.end_tags(end), "key": "base-00000"}
    assert tags.rows("s", run, "x")[0].serves == start.serves
    assert tags.rows("s", run, "x")[0].role == "base"
    plain = encode(history.records["dense-00000"].start)
    assert "serves" not in plain


def test_the_progress_counts_a_base() -> None:
    what = study()
    tally = Tally(what)
    history = ran(what)
    for record in history.records.values():
        tally.start(record.start, 1.0)
        assert record.end is not None
        tally.end(record.end)
    tally.confirm = 6
    assert tally.done == len(history.records)
    assert tally.planned is not None
    assert tally.left(10.0) == ""


def test_the_plan_counts_a_base() -> None:
    what = study(base={"epochs": 9})
    planned_ = {each.method: each for each in plan(what, steps=0).methods}
    assert {name: each.base for name, each in planned_.items()} == {
        "dense": 0,
        "resrep": 9,
        "skipnet": 9,
        "skipnet-again": 9,
    }
    assert planned_["dense"].trials == 6
    assert planned_["resrep"].trials == len(trials(ran(what), "resrep"))
    console = Console(width=100, file=StringIO())
    console.print(plan_table(plan(what, steps=0)))
    text = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "count in full: resrep 9, skipnet 9" in text
