"""What runs next: equal effort, and samplers that know the budget and what came before."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from methods.api import Task
from methods.errors import StudyError
from orchestrator.record.ledger import Ledger
from orchestrator.record.result import decode_result
from orchestrator.record.trials import Ticket
from orchestrator.search.agenda import Agenda
from orchestrator.search.samplers import SAMPLERS, propose
from orchestrator.study.file import Study
from orchestrator.study.space import Space, spaces

TASK = Task("digits", 1, 8, 8, 10)
EPOCHS = 4
PACE = {"dense": 1.0, "skipnet": 2.5, "resrep": 0.7}
"""Seconds that an epoch of a method takes here."""
Outcome = Callable[[Ticket], tuple[int, str]]
"""A trial -> the epochs that it takes, and the state in which it ends."""


def study(**changes: Any) -> Study:
    plain = {
        "name": "s",
        "data": "digits",
        "budgets": [1, 4],
        "recipe": {"epochs": EPOCHS},
        "methods": {"dense": {}, "skipnet": {}, "resrep": {}},
        "search": {"trials": 6, "sampler": "random"},
    }
    return Study.model_validate(plain | changes)


def searched(folder: Path, found: Study, outcome: Outcome, *, seed: int = 0) -> Ledger:
    """The ledger after a search whose trials end in any order, three at once."""
    ledger, order = Ledger(folder, found), random.Random(seed)
    agenda = Agenda(ledger.history, TASK, lag=3)
    running: dict[str, Ticket] = {}
    for number in range(1000):
        ticket = agenda.next() if len(running) < 3 else None
        if isinstance(ticket, Ticket) and ticket.role == "search":
            running[f"start-{number}"] = ticket
            continue
        if not running:
            return ledger
        ticket = running.pop(order.choice(sorted(running)))
        epochs, state = outcome(ticket)
        for step in range(1, epochs + 1):
            metrics = {"curve/val_acc": 0.5, "curve/seconds": PACE[ticket.method]}
            told = {"step": step, "time": step, "metrics": metrics, "end": None}
            agenda.heard(ticket.trial, decode_result(told))
        point = {"point": "", "val_acc": 0.5, "val_macs_mean": 5e5}
        end = {"state": state, "reason": "x" if state == "FAIL" else None}
        end |= {"points": [point]} if state == "COMPLETE" else {}
        agenda.heard(ticket.trial, decode_result({"metrics": {}, "end": end}))
    raise AssertionError("the search does not end")


def efforts(ledger: Ledger) -> dict[str, float]:
    return {method: ledger.history.effort(method) for method in ledger.study.methods}


def test_methods_of_any_fate_get_equal_epochs(tmp_path: Path) -> None:
    def outcome(ticket: Ticket) -> tuple[int, str]:
        if ticket.method == "skipnet" and int(ticket.trial[-1]) % 3 == 1:
            return 1, "FAIL"
        if ticket.method == "resrep" and int(ticket.trial[-1]) % 2:
            return 2, "PRUNED"
        return EPOCHS, "COMPLETE"

    found = [searched(tmp_path / str(seed), study(), outcome, seed=seed) for seed in range(2)]
    for ledger in found:
        planned = 6 * EPOCHS
        for method, effort in efforts(ledger).items():
            assert planned <= effort < planned + EPOCHS, method
        ledger.close()
    first, second = (
        {n: r.start.params for n, r in one.history.records.items() if r.start.role == "search"}
        for one in found
    )
    assert first == second, "the same trials, in whatever order they ended"


def test_effort_stays_equal_at_every_moment(tmp_path: Path) -> None:
    ledger = searched(tmp_path, study(), lambda _: (EPOCHS, "COMPLETE"))
    begun: Counter[str] = Counter()
    for record in ledger.history.records.values():
        begun[record.start.method] += EPOCHS if record.took_a_worker else 0
        spread = [begun[method] for method in ledger.study.methods]
        assert max(spread) - min(spread) <= EPOCHS
    ledger.close()


def test_methods_of_any_speed_and_fate_get_equal_device_seconds_where_a_study_says_so(
    tmp_path: Path,
) -> None:
    def outcome(ticket: Ticket) -> tuple[int, str]:
        fails = ticket.method == "dense" and int(ticket.trial[-1]) % 3 == 1
        return (1, "FAIL") if fails else (EPOCHS, "COMPLETE")

    asked = 60.0
    plan = study(search={"trials": 6, "sampler": "random", "seconds": asked})
    ledger = searched(tmp_path, plan, outcome)
    for method, pace in PACE.items():
        records = [r for r in ledger.history.records.values() if r.start.method == method]
        spent = sum(r.end.seconds for r in records if r.end is not None)
        assert asked <= spent < asked + EPOCHS * pace, method
        assert ledger.history.effort(method) == pytest.approx(spent)
    trials = Counter(r.start.method for r in ledger.history.records.values() if r.took_a_worker)
    assert trials["resrep"] > trials["dense"] > trials["skipnet"]
    ledger.close()


def test_running_trials_count_at_their_methods_pace(tmp_path: Path) -> None:
    plan = study(search={"trials": 6, "sampler": "random", "seconds": 60})
    ledger = searched(tmp_path, plan, lambda _: (EPOCHS, "COMPLETE"))
    begun = dict.fromkeys(PACE, 0.0)
    for place, record in enumerate(r for r in ledger.history.records.values() if r.took_a_worker):
        begun[record.start.method] += EPOCHS * PACE[record.start.method]
        if place >= 2 * len(PACE):  # until then a method's pace is not known
            assert max(begun.values()) - min(begun.values()) <= EPOCHS * max(PACE.values())
    ledger.close()


def test_equal_time_leaves_the_hash_of_every_other_study_as_it_was() -> None:
    assert "seconds" not in study().search.model_dump()
    timed = study(search={"trials": 6, "sampler": "random", "seconds": 60})
    assert timed.hash != study().hash


def test_a_method_that_always_fails_ends_its_search(tmp_path: Path) -> None:
    ledger = searched(
        tmp_path,
        study(),
        lambda ticket: (0, "FAIL") if ticket.method == "dense" else (EPOCHS, "COMPLETE"),
    )
    started = [r for r in ledger.history.records.values() if r.start.method == "dense"]
    assert sum(record.took_a_worker for record in started) == 4 * 6
    assert efforts(ledger) == dict.fromkeys(ledger.study.methods, 6 * EPOCHS)
    ledger.close()


def line(name: str, **plan: Any) -> tuple[Space, Study]:
    """A space of one number, the learning rate, at a given plan."""
    found = study(
        recipe={"epochs": EPOCHS, "lr": {"low": 1e-9, "high": 1}},
        methods={"dense": {"depth": 8, "width": 0.25}},
        search={"trials": 40, "sampler": name, **plan},
    )
    return spaces(found)["dense"], found


def ended(space: Space, lr: float, error: float, macs: float) -> FrozenTrial:
    return create_trial(
        params={"recipe.lr": lr}, distributions=dict(space.free), values=[error, macs]
    )


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_what_breaks_the_largest_budget_draws_no_sampler(name: str) -> None:
    """Low rates win by far, and cost more than any budget allows."""
    found = study(
        recipe={
            "epochs": EPOCHS,
            "lr": {"low": 1e-9, "high": 1},
            "momentum": {"low": 0, "high": 0.9},
            "weight_decay": {"low": 0, "high": 1},
            "warmup": {"low": 0, "high": 0.9},
        },
        methods={"dense": {"depth": 8, "width": 0.25}},
        search={"trials": 40, "sampler": name},
    )
    space = spaces(found)["dense"]
    draw = random.Random(1)
    history = [
        create_trial(
            params={field: 0.9 * draw.random() for field in space.free},
            distributions=dict(space.free),
            values=[0, 0],
        )
        for _ in range(60)
    ]
    for trial in history:
        lr = trial.params["recipe.lr"]
        trial.values = [0.5 * lr, 1e6 * (9 if lr < 0.6 else 1)]
    count = 20
    proposed = [propose(space, history, found, 60 + n)["recipe.lr"] for n in range(count)]
    within = sum(lr > 0.55 for lr in proposed)
    if name == "random":
        assert within < 0.65 * count, proposed
    else:
        assert within >= 0.75 * count, proposed


def test_a_learning_sampler_begins_where_sobol_does() -> None:
    space, found = line("tpe")
    _, even = line("sobol")
    begun = [propose(space, [], found, number)["recipe.lr"] for number in range(1, 9)]
    assert begun == [propose(space, [], even, number)["recipe.lr"] for number in range(1, 9)]
    assert sorted(int(8 * lr) for lr in begun) == list(range(8)), "one in each eighth"


def test_the_studys_own_points_follow_the_defaults() -> None:
    space, found = line("random", points={"dense": [{"recipe.lr": 0.7}, {}]})
    tried = [propose(space, [], found, number)["recipe.lr"] for number in range(4)]
    assert tried[:3] == [space.defaults()["recipe.lr"], 0.7, space.defaults()["recipe.lr"]]
    assert tried[3] not in tried[:3]


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ({"dense": [{"recipe.lr": 2}]}, "must lie in the searched range"),
        ({"dense": [{"recipe.lr": "high"}]}, "must lie in the searched range"),
        ({"dense": [{"depth": 8}]}, "'depth' is not searched; valid: recipe.lr"),
        ({"dens": [{}]}, "'dens' is no method of this study; did you mean 'dense'?"),
    ],
)
def test_points_outside_the_space_are_refused(points: dict[str, Any], said: str) -> None:
    with pytest.raises(StudyError, match=said):
        line("random", points=points)


def test_failed_trials_teach_a_sampler_nothing_and_harm_nothing() -> None:
    space, found = line("tpe")
    history = [ended(space, lr / 20, lr / 20, 1e5) for lr in range(1, 20)]
    failed = create_trial(
        state=TrialState.FAIL, params={"recipe.lr": 0.5}, distributions=dict(space.free)
    )
    assert propose(space, [*history, failed], found, 21) == propose(space, history, found, 21)


@pytest.mark.parametrize("name", ["ehvi", "tpe"])
def test_refusals_teach_a_sampler(tmp_path: Path, name: str) -> None:
    """Wide networks are best and over the budget: they are refused a few times, not for ever."""
    found = study(
        budgets=[1],
        methods={
            "dense": {"depth": {"low": 8, "high": 56, "step": 6}, "width": {"low": 0.25, "high": 1}}
        },
        search={"trials": 20, "sampler": name},
    )

    def outcome(_: Ticket) -> tuple[int, str]:
        return EPOCHS, "COMPLETE"

    ledger = searched(tmp_path, found, outcome)
    refused = sum(not r.took_a_worker for r in ledger.history.records.values())
    assert ledger.history.effort("dense") == 20 * EPOCHS
    assert 1 <= refused <= 30
    ledger.close()
