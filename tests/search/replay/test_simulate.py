"""Simulated searches: time, workers, epochs and order as in a real sweep."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial
from tables import EPOCHS, synthetic

from methods.api import Task
from methods.errors import StorageError, StudyError
from orchestrator.search.agenda import Agenda
from orchestrator.search.model.ehvi import condensed, gain
from orchestrator.search.model.gaussian import Cube
from orchestrator.search.replay import tournament
from orchestrator.search.replay.searchers import SEARCHERS, Strategy, in_memory, named
from orchestrator.search.replay.simulate import Trace, by_epochs, shares, simulate
from orchestrator.study.file import Study
from orchestrator.study.space import Space

TRACK = tournament.Track.of(synthetic())
PROMOTING = Strategy("promoting", "random", promotes=True)


def searched(
    searcher: Any = PROMOTING, *, workers: int = 3, trials: int = 12, seed: int = 0
) -> Trace:
    return simulate(
        TRACK.table, TRACK.surrogates, searcher, workers=workers, trials=trials, seed=seed
    )


def facts(trace: Trace) -> Any:
    records = trace.history.records
    return trace.runs, {name: (r.start.params, r.end, r.curve) for name, r in records.items()}


def test_a_seed_decides_all() -> None:
    assert facts(searched()) == facts(searched())
    assert facts(searched()) != facts(searched(seed=1))


@settings(max_examples=4, deadline=None)
@given(st.integers(1, 30), st.integers(1, 20), st.integers(0, 99))
def test_workers_epochs_and_time_keep_their_bounds(workers: int, trials: int, seed: int) -> None:
    trace = searched(workers=workers, trials=trials, seed=seed)
    assert trace.peak <= workers
    assert trace.worked <= workers * trace.seconds * (1 + 1e-9)
    for run in trace.runs.values():
        assert trials * EPOCHS <= run.spent < trials * EPOCHS + EPOCHS
        times = [point[0] for point in run.points]
        assert times == sorted(times)
        assert [point[1] for point in run.points] == sorted(point[1] for point in run.points)
    assert all(record.end is not None for record in trace.history.records.values())


def test_one_worker_takes_the_sum_of_all_epochs() -> None:
    trace = searched(workers=1)
    assert trace.seconds == pytest.approx(trace.worked)


def test_promotion_leaves_more_trials() -> None:
    plain = searched(Strategy("plain", "random"))
    promoted = searched()
    for method, run in plain.runs.items():
        assert promoted.runs[method].started > run.started == 12


class Watching:
    """A search that notes what it is shown."""

    name = "watching"

    def __init__(self) -> None:
        self.shown_to: list[tuple[int, list[int]]] = []

    def agenda(self, study: Study, spaces: Mapping[str, Space], task: Task, lag: int) -> Agenda:
        self.history = in_memory(study, spaces, "watching")  # it learns from the first trial on
        return Agenda(self.history, task, lag=lag, sample=self.sample)

    def sample(
        self, space: Space, history: Sequence[FrozenTrial], study: Study, number: int
    ) -> Mapping[str, Any]:
        ended = [trial for trial in history if trial.state != TrialState.RUNNING]
        self.shown_to.append((number, [trial.number for trial in ended]))
        random = np.random.default_rng(number)
        return space.at(random.random(len(space.free)).tolist())


def test_a_proposal_sees_the_trials_that_are_numbered_a_lag_before() -> None:
    watching = Watching()
    one = {"dense": TRACK.surrogates["dense"]}
    simulate(TRACK.table, one, watching, workers=4, trials=9, seed=0)
    assert len(watching.shown_to) == 8
    assert all(shown == list(range(max(0, n - 4))) for n, shown in watching.shown_to)


@pytest.mark.parametrize("searcher", list(SEARCHERS))
def test_every_searcher_starts_from_the_published_values(searcher: str) -> None:
    trace = searched(SEARCHERS[searcher], trials=3)
    for method in trace.runs:
        space = TRACK.table.space(method)
        params = trace.history.records[f"{method}-00000"].start.params
        assert params == space.params(space.defaults())


def test_recorded_configurations_replay_and_others_are_made_up() -> None:
    dense = TRACK.surrogates["dense"]
    space = TRACK.table.space("dense")
    rows = TRACK.table.rows
    first = rows[rows["trial"] == "dense-00000"]
    assert dense.cube == Cube(space.free)
    own = json.loads(first["params"].iloc[0])
    course, known = dense.course(own, np.random.default_rng(0))
    assert known
    np.testing.assert_allclose(course.errors, 1 - first["val_acc"])
    assert course.seconds.sum() == pytest.approx(first["trial_seconds"].iloc[0])
    other, known = dense.course({**own, "recipe.lr": 0.123}, np.random.default_rng(0))
    assert not known
    assert len(other.errors) == EPOCHS
    assert other.cost == pytest.approx(course.cost, rel=0.05)


def test_the_surrogate_ranks_trials_that_it_has_not_seen() -> None:
    for surrogate in TRACK.surrogates.values():
        assert surrogate.quality.order > 0.7
        assert surrogate.quality.macs < 0.05


def test_hypervolume_grows_with_trials_as_observed() -> None:
    trace = searched()
    for method, run in trace.runs.items():
        ends = by_epochs(run, (0.25, 0.5, 1.0), 12)
        observed, confirmed = shares(run, TRACK.goals[method], ends)
        assert observed == sorted(observed)
        assert 0 < confirmed[-1] < 1.1


def test_places_snap_as_the_space_makes_them() -> None:
    for method in TRACK.surrogates:
        space = TRACK.table.space(method)
        cube = Cube(space.free)
        units = np.random.default_rng(0).random((50, len(space.free)))
        made = [space.at(u.tolist()) for u in units]
        np.testing.assert_allclose(cube.snap(units), cube.places(made))
        back = [space.at(space.cube(params)) for params in made]
        np.testing.assert_allclose(cube.places(back), cube.places(made), atol=1e-9)


def test_the_expected_gain_is_that_of_many_draws() -> None:
    front = np.array([[1.0, 0.3], [2.0, 0.2], [3.0, 0.1]])
    corner = (4.0, 0.5)
    draws = np.exp(np.random.default_rng(0).normal(np.log(0.15), 0.4, 40_000))
    grid = np.linspace(0.5, 4.0, 3501)[:-1] + 0.0005
    best = np.select([grid < 1, grid < 2, grid < 3], [0.5, 0.3, 0.2], 0.1)
    from_1 = np.where(grid >= 1.5, 1.0, 0.0) * 0.001
    gains = [float((np.maximum(best - e, 0) * from_1).sum()) for e in draws[:2000]]
    found = gain(
        np.array([1.5]), np.array([np.log(0.15)]), np.array([0.4]), front=front, corner=corner
    )
    assert found[0] == pytest.approx(np.mean(gains), rel=0.05)


def test_a_condensed_history_keeps_the_front_and_the_latest() -> None:
    space = TRACK.table.space("dense")
    trials = []
    for number in range(40):
        trial = create_trial(
            state=TrialState.COMPLETE,
            params=space.at([0.5] * len(space.free)),
            distributions=dict(space.free),
            values=[0.01 if number == 3 else 0.1 + number / 100, 1e6],
        )
        trials.append(trial)
    kept = condensed(trials, 10)
    assert kept == [trials[3], *trials[31:]]
    assert condensed(trials[:10], 10) == trials[:10]


def test_the_figure_and_the_tables(tmp_path: Path) -> None:
    found = [
        tournament.race(TRACK, searcher, workers=2, trials=5, seeds=range(3))
        for searcher in named("random,sobol")
    ]
    assert tournament.standings(found).row_count == 2
    for kind in ("png", "svg", "html"):
        tournament.write_figure(found, tmp_path / f"figure.{kind}")
        assert (tmp_path / f"figure.{kind}").stat().st_size > 1000
    with pytest.raises(StorageError, match="must end in"):
        tournament.write_figure(found, tmp_path / "figure.txt")


def test_an_unknown_searcher_is_refused_with_the_known_ones() -> None:
    with pytest.raises(StudyError, match="did you mean 'random'"):
        named("randm")
