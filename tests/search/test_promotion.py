"""Promotion: trials pause at a rung, and results by number alone decide which resume."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from executor import execute
from hypothesis import given, settings
from hypothesis import strategies as st
from test_kills import TASK, worker
from test_kills import study as killed

from orchestrator.record.history import History
from orchestrator.record.result import Ending, Result
from orchestrator.record.trials import Ticket
from orchestrator.search.agenda import WAIT, Agenda
from orchestrator.search.promotion.brackets import SIZE
from orchestrator.search.replay.simulate import searched_only
from orchestrator.study.file import Study
from orchestrator.study.identity import number_of
from orchestrator.study.space import searches

EPOCHS = 8
FIRST = 2


def study(sampler: str = "random", trials: int = 8, **search: Any) -> Study:
    """Two methods of which nothing is refused."""
    whole = killed(sampler, "promote", trials, EPOCHS, **search)
    wide = whole.model_copy(update={"budgets": [0.3, 9]})
    return searched_only(wide, list(wide.methods), trials, seed=3)


def agenda_of(what: Study, slots: int = 2) -> Agenda:
    return Agenda(History(what, searches(what)), TASK, lag=slots)


def run(what: Study, *, slots: int = 2, at_once: int | None = None, seed: int = 0) -> Agenda:
    agenda = agenda_of(what, slots)
    execute(agenda, lambda ticket: worker(what, ticket), at_once=at_once or slots, seed=seed)
    return agenda


def told(agenda: Agenda) -> dict[str, Any]:
    """Every trial: what it was and what became of it."""
    return {
        name: (record.start.params, record.end.state, record.end.reason, record.step)
        for name, record in sorted(agenda.history.records.items())
        if record.end is not None
    }


def test_the_better_half_of_each_bracket_resumes_and_the_others_end_at_their_rung() -> None:
    agenda = run(study(trials=12))
    history = agenda.history
    brackets = list(history.brackets.values())
    assert len(brackets) >= 4
    members = [trial for bracket in brackets for trial in bracket.trials]
    assert sorted(members) == sorted(history.records), "each trial is in one bracket"
    for bracket in brackets:
        failed = [t for t in bracket.trials if history.records[t].step > FIRST] == []
        assert len(bracket.promoted) == math.ceil(len(bracket.trials) / 2) or failed
        for trial in bracket.trials:
            record = history.records[trial]
            assert record.end is not None
            if trial in bracket.promoted:
                assert record.end.state in ("COMPLETE", "FAIL")
            else:
                assert (record.end.state, record.step) == ("PRUNED", FIRST)
                assert record.end.reason is not None
                assert record.end.reason.startswith(f"at epoch {FIRST} of {EPOCHS}")


def test_a_bracket_holds_trials_in_a_row_and_is_full_unless_its_search_had_no_more() -> None:
    agenda = run(study(trials=12))
    for method in agenda.history.study.methods:
        mine = [b for b in agenda.history.brackets.values() if b.trials[0].startswith(method)]
        mine.sort(key=lambda bracket: number_of(bracket.trials[0]))
        numbers = [[number_of(trial) for trial in bracket.trials] for bracket in mine]
        assert [n for each in numbers for n in each] == list(range(sum(map(len, numbers))))
        assert all(len(each) <= SIZE for each in numbers)
        assert len(numbers[0]) == SIZE
        assert all(before[-1] + 1 == after[0] for before, after in pairwise(numbers))


@pytest.mark.parametrize("trials", [1, 2, 5, 13])
def test_a_paused_trial_leaves_its_epochs_to_others_of_its_method(trials: int) -> None:
    agenda = run(study(trials=trials))
    for method in agenda.history.study.methods:
        effort = agenda.history.effort(method)
        assert trials * EPOCHS <= effort < (trials + 1) * EPOCHS
        mine = [r for n, r in agenda.history.records.items() if n.startswith(method)]
        if method == "dense":  # a trial of the other one fails, and counts for more
            assert sum(record.step for record in mine) == effort
        assert len(mine) > trials or trials == 1


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from(["random", "tpe"]),
    st.integers(1, 12),
    st.integers(1, 9),
    st.integers(0, 99),
    st.integers(1, 9),
)
def test_the_order_of_arrival_and_the_number_of_workers_decide_nothing(
    sampler: str, trials: int, slots: int, seed: int, at_once: int
) -> None:
    what = study(sampler, trials)
    assert told(run(what, slots=slots)) == told(run(what, slots=slots, at_once=at_once, seed=seed))


def test_what_resumes_is_served_before_what_is_new() -> None:
    what = study(trials=12)
    agenda = agenda_of(what, slots=1)
    running: list[tuple[Ticket, Iterator[Result]]] = []
    order: list[tuple[str, int | None]] = []
    while isinstance(ticket := agenda.next(), Ticket):
        order.append((ticket.trial, ticket.until))
        running = [(ticket, worker(what, ticket))]
        for ticket, results in running:
            while agenda.heard(ticket.trial, next(results)):
                pass
    first = next(place for place, (_, until) in enumerate(order) if until is None)
    method = order[first][0].partition("-")[0]
    begun = [trial for trial, _ in order[:first] if trial.startswith(method)]
    assert len(begun) == SIZE
    promoted = agenda.history.brackets[f"{method}-{SIZE - 1:05d}"].promoted
    assert [trial for trial, _ in order[first : first + 2]] == list(promoted)


def test_a_bracket_waits_for_its_slowest_trial_and_its_workers_do_not() -> None:
    what = study(trials=12)
    agenda = agenda_of(what, slots=2)
    slow, served = "dense-00001", []
    while isinstance(ticket := agenda.next(), Ticket):
        served.append(ticket.trial)
        if ticket.trial == slow:
            continue
        results = worker(what, ticket)
        while agenda.heard(ticket.trial, next(results)):
            pass
    assert ticket is WAIT
    assert sum(trial.startswith("skipnet") for trial in set(served)) > 12
    paused = [n for n, record in agenda.history.records.items() if record.waits]
    assert {"dense-00000", "dense-00002", "dense-00003"} <= set(paused)
    agenda.heard(slow, Result(0, 0, None, Ending("FAIL", "at last")))
    resumed = agenda.next()
    assert isinstance(resumed, Ticket)
    assert resumed.trial in paused
    assert resumed.until is None


def test_a_trial_of_one_epoch_trains_whole() -> None:
    what = killed("random", "promote", 6, 1)
    agenda = run(searched_only(what, ["dense"], 6, seed=3))
    ended = [record for record in agenda.history.records.values() if record.took_a_worker]
    assert {record.step for record in ended} == {1}
    assert {record.end.state for record in ended if record.end} == {"COMPLETE"}
