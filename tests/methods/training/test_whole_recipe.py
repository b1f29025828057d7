"""Everything that a recipe can have, at once and with every method: kills, labels, records."""

import dataclasses
import os
import signal
import time
from pathlib import Path
from typing import Any

import pairs
import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor

from methods import METHODS
from methods.api import Method
from methods.data.augment import Mixed
from methods.data.load import Data, load
from methods.resrep.method import ResRep
from methods.training.loop import Recipe, train
from orchestrator.study.file import Study
from orchestrator.study.params import flat, parts
from orchestrator.study.space import spaces

NAMES = tuple(pairs.RECIPES)


def same(left: Any, right: Any) -> bool:
    """Whether two states are equal to the bit."""
    if isinstance(left, Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def test_a_trial_that_is_killed_ends_as_one_that_is_not(tmp_path: Path) -> None:
    """A process with a trial of each method dies in its second epoch, by SIGKILL."""
    child = mp.get_context("spawn").Process(
        target=pairs.until_killed, args=(NAMES, str(tmp_path)), daemon=True
    )
    child.start()
    while not (tmp_path / "1.pt").exists():
        assert child.is_alive()
        time.sleep(0.01)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    states = torch.load(tmp_path / "1.pt")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pairs.exact() as data:
            for name in NAMES:
                method, recipe = pairs.TRIALS[name], pairs.RECIPES[name]
                whole = [epoch.state() for epoch in train(method, data, recipe, seed=3)]
                rest = train(method, data, recipe, seed=3, state=states[name])
                assert same(states[name], whole[0]), name
                assert same([epoch.state() for epoch in rest], whole[1:]), name
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data() -> Data:
    whole = load("digits")
    return dataclasses.replace(whole, train=whole.train.between(0, 300))


@pytest.mark.parametrize("name", METHODS.own)
def test_smoothed_and_mixed_labels_reach_a_loss_of_every_method(name: str, data: Data) -> None:
    method: Method = next(m for m in pairs.TRIALS.values() if isinstance(m, METHODS[name]))
    images, labels = data.train.head(32)
    mixed = Mixed.of(labels, labels.flip(0), torch.full((32,), 0.6))
    felt = []
    for number, (plain, smooth) in enumerate(zip(method.phases(), method.phases(0.3), strict=True)):
        losses = []
        for phase, known in ((plain, labels), (smooth, labels), (plain, mixed)):
            torch.manual_seed(0)
            net = method.build(data.task).train()
            phase.parameters(net)
            phase.advance(net, 0.0)
            losses.append(float(phase.loss(net, images, known).detach()))
        assert losses[0] != losses[2], f"phase {number} knows nothing of mixtures"
        felt.append(losses[0] != losses[1])
    assert felt[0]


def test_an_averaged_resrep_costs_what_is_left_of_the_weights_that_it_trains(data: Data) -> None:
    """After every epoch: rows that were forgotten do not live on in the average."""
    whole = {"depth": 8, "width": 0.5, "target": 0.6, "strength": 20, "prune_lr": 0.1}
    method = ResRep.of({**whole, "base_share": 0, "start": 0.0, "interval": 0.02, "ramp": 0.2})
    images = data.validation.head(2)[0]
    costs = []
    for average in (0.0, 0.99):
        recipe = Recipe(epochs=6, batch_size=25, lr=0.05, average=average)
        epochs = train(method, data, recipe, seed=0)
        costs.append([float(epoch.net.eval()(images).macs[0]) for epoch in epochs])
    assert costs[0] == costs[1]
    assert len(set(costs[0])) > 1


# Records


def test_a_field_at_its_default_stays_out_of_a_trials_parameters() -> None:
    params = flat("dense", {"depth": 8})
    assert "recipe.lr" in params
    assert not {"recipe.mixup", "recipe.average", "recipe.optimiser"} & params.keys()
    given = flat("dense", {"depth": 8, "recipe.mixup": 0.2, "recipe.average": 0.0})
    assert (given["recipe.mixup"], given["recipe.average"]) == (0.2, 0.0)
    assert parts("dense", given)[1].mixup == 0.2


def test_every_field_can_be_fixed_or_searched() -> None:
    ranges = {
        "clip": {"low": 0.5, "high": 2.0},
        "mixup": {"low": 0.0, "high": 0.4},
        "average": {"choices": [0.0, 0.99]},
        "second_moment": {"low": 0.9, "high": 0.999},
        "epsilon": {"low": 1e-8, "high": 1e-2, "log": True},
        "optimiser": {"choices": ["sgd", "adamw", "rmsprop"]},
        "accumulate": {"low": 1, "high": 4},
        "crop": {"choices": ["shift", "resized"]},
        "crop_area": 0.25,
        "colour": 0.4,
    }
    fields = {"name": "mine", "data": "digits", "budgets": [1.0], "methods": {"dense": {}}}
    space = spaces(Study.model_validate({**fields, "recipe": ranges}))["dense"]
    defaults = space.defaults()
    assert (defaults["recipe.optimiser"], defaults["recipe.accumulate"]) == ("sgd", 1)
    assert 0.5 < float(defaults["recipe.clip"]) < 2.0
    assert set(space.free) <= space.params(defaults).keys()
    assert space.params(defaults)["recipe.crop_area"] == 0.25
