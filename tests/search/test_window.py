"""What a proposal sees: what ended a fixed distance before it, and the later trials as running."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from executor import execute
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial
from scipy.spatial.distance import pdist
from test_kills import TASK, worker
from test_kills import study as killed

from methods.values import Params
from orchestrator.record.events import Begun, decode, encode
from orchestrator.record.history import History
from orchestrator.record.ledger import Ledger
from orchestrator.record.provenance import provenance
from orchestrator.record.result import Ending, Result
from orchestrator.record.trials import OVER, Ticket, running
from orchestrator.search.agenda import WAIT, Agenda
from orchestrator.search.replay.simulate import searched_only
from orchestrator.search.samplers import propose, spread_over
from orchestrator.search.window import FEW, Window, sight, warning
from orchestrator.study.file import Study
from orchestrator.study.space import Space, searches, spaces

FORMER = Path(__file__).parents[1] / "data" / "former"
LR = {"epochs": 2, "lr": {"low": 0.001, "high": 1, "log": True}}


def study(sampler: str, trials: int = 12, methods: int = 2, **search: Any) -> Study:
    """Methods that cost little: nothing is refused."""
    names = ["dense", "skipnet", "resrep", "condconv"][:methods]
    whole = Study.model_validate(
        {
            "name": "window",
            "data": "digits",
            "budgets": [9],
            "recipe": LR,
            "methods": {name: {"depth": 8} for name in names},
            "search": {"trials": trials, "sampler": sampler, **search},
        }
    )
    return searched_only(whole, names, trials, seed=3)


def unspread(what: Study) -> Study:
    """The same with a sampler that learns from the first trial on, as one of others may."""
    search = what.search.model_copy(update={"sampler": "watched"})
    return what.model_copy(update={"search": search})


class Watched:
    """A sampler that draws at random, and notes what it is shown: search, number, trials."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, list[FrozenTrial]]] = []

    def __call__(
        self, space: Space, history: Sequence[FrozenTrial], study: Study, number: int
    ) -> Params:
        self.seen.append((space.search, number, list(history)))
        return space.at(np.random.default_rng(number).random(len(space.free)).tolist())


def ends(what: Study, ticket: Ticket) -> Any:
    """One that ends at once, by its learning rate."""
    *_, last = worker(what, ticket)
    yield Result(2, 2, last.metrics, last.ending)


@pytest.mark.parametrize(
    ("slots", "searches_", "lag"),
    [(1, 1, 1), (8, 1, 8), (2, 6, 1), (8, 6, 3), (32, 6, 11), (32, 2, 32), (1, 30, 1)],
)
def test_a_search_looks_back_by_twice_its_share_of_the_slots(
    slots: int, searches_: int, lag: int
) -> None:
    assert Window.of(slots, searches_) == Window(lag, running=True)


@pytest.mark.parametrize("seed", range(3))
def test_it_sees_the_ends_up_to_there_and_all_later_trials_as_running(seed: int) -> None:
    what, watched = unspread(study("tpe", trials=14)), Watched()
    agenda = Agenda(History(what, spaces(what)), TASK, lag=5, sample=watched)
    execute(agenda, lambda ticket: ends(what, ticket), at_once=5, seed=seed)
    lag = Window.of(5, 2).lag
    assert len(watched.seen) == 2 * 13 - 1, "all but the defaults, and what skipnet's paper sets"
    for search, number, shown in watched.seen:
        opened = bool(agenda.history.space(search).opening)
        ended = [t for t in shown if t.state != TrialState.RUNNING]
        assert [t.number for t in shown] == list(range(opened, number + opened))
        assert len(ended) == max(0, number - lag)
        assert all(t.values is None for t in shown[len(ended) :])


def test_a_refusal_is_seen_at_once() -> None:
    """Wide networks of `dense` are over the budget, which takes no worker to know."""
    what, watched = unspread(killed("tpe", trials=9)), Watched()
    agenda = Agenda(History(what, spaces(what)), TASK, lag=20, sample=watched)
    execute(agenda, lambda ticket: worker(what, ticket), at_once=20)
    over = [t for _, _, shown in watched.seen for t in shown if OVER in t.user_attrs]
    assert over
    assert all(t.state != TrialState.RUNNING for t in over)


@pytest.mark.parametrize("sampler", ["ehvi", "tpe"])
def test_workers_race_and_the_trials_are_the_same(sampler: str) -> None:
    found = []
    for seed, at_once in enumerate((6, 6, 3)):
        what = killed(sampler, trials=12, epochs=2)
        agenda = Agenda(History(what, spaces(what)), TASK, lag=6)
        execute(agenda, lambda ticket: worker(what, ticket), at_once=at_once, seed=seed)  # noqa: B023
        records = agenda.history.records
        found.append({name: records[name].start.params for name in sorted(records)})
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("sampler", ["ehvi", "tpe", "random"])
def test_one_trial_that_never_ends_holds_up_its_own_search_alone(sampler: str) -> None:
    what = study(sampler, trials=30)
    agenda = Agenda(History(what, spaces(what)), TASK, lag=4)
    slow, served = "dense-00012", []
    while isinstance(ticket := agenda.next(), Ticket):
        served.append(ticket.trial)
        if ticket.trial != slow:
            (last,) = ends(what, ticket)
            agenda.heard(ticket.trial, last)
    assert ticket is WAIT
    by_search = {name: sum(t.startswith(name) for t in served) for name in what.methods}
    learns = sampler != "random"
    assert by_search["skipnet"] == 30
    assert by_search["dense"] == (12 + 1 + Window.of(4, 2).lag if learns else 30)
    agenda.heard(slow, Result(0, 0, None, Ending("FAIL", "at last")))
    assert isinstance(agenda.next(), Ticket)


@pytest.mark.parametrize("sampler", ["ehvi", "tpe"])
def test_proposals_that_see_each_other_run_lie_further_apart(sampler: str) -> None:
    what = killed(sampler, trials=40)
    space = spaces(what)["dense"]
    known = []
    for params in spread_over(space, what, 0, 16):
        off, width = abs(np.log10(params["recipe.lr"]) + 1), float(params["width"])
        values = [0.05 + 0.3 * off + 0.1 * (1 - width), 5e5 * width]
        known.append(create_trial(params=params, distributions=dict(space.free), values=values))

    def places(*, shown: bool) -> list[list[float]]:
        history, found = list(known), []
        for number in range(30, 36):
            chosen = propose(space, history, what, number)
            found.append(space.cube(chosen))
            history += [running(chosen, space.free, {})] if shown else []
        return found

    blind, seeing = places(shown=False), places(shown=True)
    assert blind[0] == seeing[0]
    assert pdist(seeing).mean() > pdist(blind).mean()


def test_a_study_that_an_earlier_version_began_proposes_as_it_did(tmp_path: Path) -> None:
    """Recorded with four slots at commit 5c10e34: half a study, and the trials of the whole."""
    folder = tmp_path / "tpe"
    shutil.copytree(FORMER / "tpe", folder)
    what = Study.model_validate(
        {k: v for k, v in json.loads((folder / "study.json").read_text()).items() if k != "hash"}
    )
    ledger = Ledger(folder, what)
    lag = ledger.history.begin(provenance(what, TASK, 269), lag=32, device="cpu")
    assert lag == 4
    agenda = Agenda(ledger.history, TASK, lag=lag)
    execute(agenda, lambda ticket: worker(what, ticket), at_once=4, seed=5)
    found = {
        name: [record.start.params["recipe.lr"], record.start.params["width"]]
        for name, record in ledger.history.records.items()
        if record.start.role == "search"
    }
    ledger.close()
    assert found == json.loads((FORMER / "tpe" / "trials.json").read_text())
    events = [json.loads(line) for line in (folder / "wal.jsonl").read_text().splitlines()]
    begun = [event for event in events if event["event"] == "study"]
    assert len(begun) == 2
    assert not any("window" in event for event in begun)


def test_a_beginning_says_by_which_rule(tmp_path: Path) -> None:
    what = study("ehvi")
    history = History(what, spaces(what))
    history.begin(provenance(what, TASK, 269), lag=8, device="cpu")
    assert history.begun is not None
    assert Window.begun(history, 8) == Window.of(8, 2)
    written = encode(history.begun)
    assert decode(written) == history.begun
    former = decode({key: value for key, value in written.items() if key != "window"})
    assert isinstance(former, Begun)
    assert former.window == 1
    assert "window" not in encode(former)
    history.begun = former
    assert Window.begun(history, 8) == Window(8, running=False)


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(["tpe", "ehvi", "sobol"]),
    st.integers(1, 18),
    st.integers(1, 40),
    st.integers(1, 2),
)
def test_a_plan_foresees_what_the_search_sees(
    sampler: str, trials: int, slots: int, repeats: int
) -> None:
    trials = max(trials, 4)
    what, watched = study(sampler, trials, repeats=repeats), Watched()
    agenda = Agenda(History(what, searches(what)), TASK, lag=slots, sample=watched)
    execute(agenda, lambda ticket: ends(what, ticket), at_once=slots)
    for search, space in agenda.history.spaces.items():
        foreseen = sight(what, space, trials, slots)
        opened = bool(space.opening)
        ended = {
            number + opened: sum(t.state != TrialState.RUNNING for t in shown)
            for name, number, shown in watched.seen
            if name == search
        }
        seeing = {number: count for number, count in ended.items() if count}
        assert trials - foreseen.unseeing == len(seeing)
        assert foreseen.last == seeing.get(trials - 1, 0)
        assert foreseen.blind >= sum(count < FEW for count in ended.values())
        assert foreseen.learners - foreseen.blind == sum(c >= FEW for c in ended.values())


def test_a_blind_search_is_warned_of_with_what_would_do() -> None:
    what = study("tpe", trials=30, methods=1)
    space = spaces(what)["dense"]

    def said(slots: int, **changes: Any) -> str | None:
        changed = study("tpe", **{"trials": 30, "methods": 1} | changes)
        return warning(changed, {"dense": sight(changed, space, changed.search.trials, slots)})

    assert said(8) is None
    words = said(32)
    assert words is not None
    assert words.startswith("The search is blind with 32 trials at once: 19 of the 19 trials of")
    assert all(name in words for name in ("search.trials", "resources.concurrency", "sobol"))
    assert said(32, trials=200) is None
    assert warning(study("sobol"), {"dense": sight(study("sobol"), space, 12, 99)}) is None
