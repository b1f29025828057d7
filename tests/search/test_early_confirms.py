"""Confirm runs of a finished search fill workers that other searches leave idle."""

from collections.abc import Iterator

import pytest
from executor import execute
from hypothesis import given, settings
from hypothesis import strategies as st
from small import METHODS, TASK, study, worker

from orchestrator.record.history import History
from orchestrator.record.result import Result
from orchestrator.record.trials import Ticket
from orchestrator.search.agenda import Agenda
from orchestrator.search.confirming import confirm_plan
from orchestrator.study.file import Study
from orchestrator.study.space import searches

SLOW = 40
"""Signs of life that the slow method's trials give where others give one result."""


class Watched:
    """An agenda's confirm tickets, and which of them began while a search trial ran."""

    def __init__(self, what: Study, slow: str, seed: int, at_once: int) -> None:
        self.history = History(what, searches(what))
        self.tickets: dict[str, Ticket] = {}
        self.early: set[str] = set()
        agenda = Agenda(self.history, TASK, lag=at_once)

        def work(ticket: Ticket) -> Iterator[Result]:
            if ticket.role == "confirm":
                self.tickets[ticket.trial] = ticket
                records = self.history.records.values()
                if any(r.start.role == "search" and r.end is None for r in records):
                    self.early.add(ticket.method)
            told = list(worker(what, ticket))
            if ticket.method == slow:
                yield from told[:1] * SLOW
            yield from told

        execute(agenda, work, at_once=at_once, seed=seed)


@settings(max_examples=12)
@given(
    seed=st.integers(0, 10**6),
    slow=st.sampled_from(list(METHODS)),
    at_once=st.integers(2, 5),
    matched=st.booleans(),
    repeats=st.sampled_from([1, 2]),
)
def test_what_begins_early_is_what_is_planned_at_the_end(
    seed: int, slow: str, at_once: int, matched: bool, repeats: int
) -> None:
    search = {"trials": 4, "sampler": "random", "repeats": repeats}
    what = study(search=search, confirm={"matched": matched})
    seen = Watched(what, slow, seed, at_once)
    assert seen.tickets == {ticket.trial: ticket for ticket in confirm_plan(seen.history)}


def test_a_slow_search_leaves_no_worker_idle() -> None:
    early = Watched(study(), "resrep", 1, 3).early
    assert {"dense", "condensenet"} <= early


@pytest.mark.parametrize("changes", [{"matched": True}, {"race": True, "seeds": 3, "budget": 4}])
def test_what_others_decide_waits_for_them(changes: dict[str, object]) -> None:
    early = Watched(study(confirm=changes), "resrep", 1, 3).early
    assert "dense" not in early
    assert early == (set() if "race" in changes else {"condensenet"})
