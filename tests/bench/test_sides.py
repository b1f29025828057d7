"""The figures of sweeps under two rules, from sweeps that are made by hand."""

import numpy as np
import pytest

from orchestrator.record.events import End, Epoch, Event, Metrics, Start
from tests.bench.sides import (
    METHODS,
    SWEEPS,
    Searched,
    Sweep,
    gap,
    goals,
    markdown,
    method_rows,
    sweep_rows,
    times,
    volumes,
)

WEAK = [(250_000.0, 0.4), (200_000.0, 0.5)]
STRONG = [(100_000.0, 0.2), (400_000.0, 0.1)]
"""The second is over the budget."""


def searched(ends: list[tuple[float, float]], test: float | None, epochs: int = 80) -> Searched:
    return Searched(begun=2 * len(ends), whole=len(ends), epochs=epochs, ends=ends, test=test)


def pair(seed: int, gain: float) -> list[Sweep]:
    """Promotion finds the better front of `dense`, the same one of `resrep`."""
    without = {"dense": searched(WEAK, 0.5), "resrep": searched(WEAK, None)}
    beside = {"dense": searched(STRONG, 0.5 + gain, 86), "resrep": searched(WEAK, 0.6)}
    return [
        Sweep("none", seed, without, seconds=100.0, trained=150.0),
        Sweep("promote", seed, beside, seconds=120.0, trained=160.0),
    ]


SWEPT = [*pair(0, 0.01), *pair(1, 0.02), *pair(2, 0.03)]


def test_hypervolume_is_a_share_of_the_best_of_all_sweeps_under_the_budget() -> None:
    known = goals(SWEPT)["dense"]
    assert known.reference == (pytest.approx(np.log(0.3e6)), pytest.approx(0.425))
    shares = volumes(SWEPT)
    assert shares[1, 0] == pytest.approx(1), "it dominates the rest"
    weak = np.log(0.3 / 0.25) * (0.425 - 0.4)
    best = np.log(0.3 / 0.1) * (0.425 - 0.2)
    assert shares[0, 0] == pytest.approx(weak / best)
    assert shares[0, 1] == shares[1, 1] == pytest.approx(1)


def test_a_sweep_without_a_whole_trial_has_no_volume() -> None:
    empty = Sweep("none", 0, {"dense": searched([], None)}, seconds=1.0, trained=1.0)
    ends = [*STRONG, WEAK[1]]
    full = Sweep("promote", 0, {"dense": searched(ends, 0.5)}, seconds=1.0, trained=1.0)
    assert volumes([empty, full])[:, 0].tolist() == [0, 1]


def test_differences_are_paired_by_seed_and_times_are_a_ratio() -> None:
    *sweeps, last = sweep_rows(SWEPT[::-1])
    assert [row[0] for row in sweeps[:3]] == ["0, `none`", "0, `promote`", "1, `none`"]
    assert sweeps[0][1:4] == ["8", "4", "160"]
    assert sweeps[1][5:] == ["51.0", "120", "67 %"], "of `dense` alone: both confirmed it"
    assert last[5].startswith("+2.0 ± ")
    assert last[6] == "x 1.20 (1.20 to 1.20)"
    assert all(len(row) == len(SWEEPS) for row in [*sweeps, last])


def test_each_method_has_a_line_with_both_rules() -> None:
    dense, resrep = method_rows(SWEPT)
    assert dense[:3] == ["dense", "4.0, 4.0", "2.0, 2.0"]
    assert dense[5] == "50.0, 52.0"
    assert resrep[5:] == ["", ""], "one side confirmed nothing"
    assert len(dense) == len(METHODS)
    assert gap(SWEPT) == 6
    assert markdown(METHODS, [dense]).splitlines()[2].startswith("| dense | 4.0, 4.0 |")


def test_a_seed_that_ran_under_one_rule_is_left_out() -> None:
    assert sweep_rows([*SWEPT, pair(3, 0.5)[1]]) == sweep_rows(SWEPT)


def test_the_search_lasts_until_its_last_trial_ends_and_counts_what_ran_meanwhile() -> None:
    def start(trial: str, role: str, time: int) -> Event:
        names = {"config": trial, "config_hash": "", "attempt": 1, "seed": 0}
        return Start(trial=trial, role=role, method="dense", params={}, time=time, **names)

    def epoch(trial: str, step: int, time: int) -> Event:
        return Epoch(trial, step, Metrics(seconds=2.0), time)

    events = [
        start("dense-00000", "search", 1_000),
        epoch("dense-00000", 1, 3_000),
        start("dense-00001-seed1", "confirm", 3_000),
        epoch("dense-00001-seed1", 1, 5_000),
        epoch("dense-00000", 2, 6_000),
        End("dense-00000", "COMPLETE", None, 2, 4.0, time=7_000),
        epoch("dense-00001-seed1", 2, 8_000),
        End("dense-00001-seed1", "COMPLETE", None, 2, 4.0, time=9_000),
    ]
    assert times(events) == (6.0, 6.0)
