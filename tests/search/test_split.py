"""The split of an effort: its formulas against simulated searches, and what it proposes."""

import math

import numpy as np
import pytest

from orchestrator.board.model import TESTED_FROM
from orchestrator.search.split import (
    ACCURACY,
    CONFIG_SD,
    SEED_SD,
    Splits,
    _highest,
    _search,
    splits,
)

IMAGES = (5_000, 10_000)


def planned(repeats: int, trials: int, seeds: int, budgets: int = 1) -> Splits:
    return splits((repeats, trials, seeds), budgets=budgets, methods=6, images=IMAGES)


@pytest.mark.parametrize(("count", "variance"), [(1, 1.0), (4, 0.49), (8, 0.37), (16, 0.29)])
def test_the_highest_of_normal_numbers(count: int, variance: float) -> None:
    drawn = np.random.default_rng(1).normal(size=(100_000, count)).max(axis=1)
    assert _highest(count) == pytest.approx((drawn.mean(), drawn.var()), abs=0.015)
    assert _highest(count)[1] == pytest.approx(variance, abs=0.006)


@pytest.mark.parametrize("trials", [4, 16])
def test_a_searchs_choice_varies_as_simulated_ones_do(trials: int) -> None:
    draw, validation = np.random.default_rng(2), 300
    configs = draw.normal(0, CONFIG_SD, (200_000, trials))
    image_sd = 100 * math.sqrt(ACCURACY * (1 - ACCURACY) / validation)
    seen = configs + draw.normal(0, math.hypot(SEED_SD, image_sd), configs.shape)
    chosen = np.take_along_axis(configs, seen.argmax(axis=1, keepdims=True), axis=1)
    assert _search(trials, validation) == pytest.approx((chosen.std(), chosen.mean()), abs=0.01)


def test_every_split_takes_at_most_the_planned_runs_and_has_enough_repeats() -> None:
    for plan in ((1, 40, 5), (5, 8, 2), (30, 8, 5), (3, 100, 10)):
        for budgets in (1, 3):
            found = planned(*plan, budgets=budgets)
            assert found.runs == plan[0] * (plan[1] + plan[2] * budgets)
            for split in found.others:
                assert split.repeats >= TESTED_FROM
                assert split.repeats * (split.trials + split.seeds * budgets) <= found.runs
                assert split.found is not None
                assert split.found > found.floor


def test_more_and_shorter_searches_find_smaller_differences_and_cost_accuracy() -> None:
    found = planned(1, 400, 50)
    assert found.planned.found is None, "one search says nothing of a method"
    differences = [split.found or math.inf for split in found.others[:4]]
    assert differences == sorted(differences)
    gains = [split.accuracy for split in found.others]
    assert gains == sorted(gains)
    assert found.proposed is not None
    assert found.proposed.trials == 4


def test_where_the_images_hide_the_rest_longer_searches_are_proposed() -> None:
    few_images = splits((1, 2_000, 5), budgets=1, methods=6, images=(270, 269))
    assert few_images.floor == pytest.approx(2.7, abs=0.05)
    assert few_images.proposed is not None
    assert few_images.proposed.trials >= 16
    assert few_images.proposed.found == pytest.approx(few_images.floor, rel=0.1)


def test_an_effort_that_holds_no_five_searches_gets_no_proposal() -> None:
    found = planned(1, 20, 4)
    assert (found.others, found.proposed) == ((), None)


def test_a_good_split_is_left_as_it_is() -> None:
    proposed = planned(1, 400, 50).proposed
    assert proposed is not None
    again = planned(proposed.repeats, proposed.trials, proposed.seeds)
    assert again.proposed is None
