"""What every method must keep, whatever it does; a new one is covered by being in METHODS."""

import copy
import dataclasses
from functools import lru_cache
from typing import Any

import pytest
import torch

from methods import METHODS
from methods.api import Method, Network, RoutedNetwork, Task
from methods.data.load import Data, load
from methods.macs import executed_macs
from methods.training.evaluate import evaluate
from methods.training.loop import Recipe, train

SMALL = {
    "depth": 8,
    "width": 0.5,
    "stages": "1-1-1",
    "choices": 4,
    "routing_size": 2,
    "narrowest": 0.5,
}
"""Fields that make a method small, where it has them."""
RECIPE = Recipe(epochs=3, batch_size=48, lr=0.07)
FEW = Recipe(epochs=3, batch_size=16, lr=0.05)
"""For trainings that are compared bit by bit, on a twelfth of the images."""
TOLERANCE = 1e-4
"""Tolerance of logits: the deployed form folds its norms, and so rounds in another order."""


@lru_cache(maxsize=1)
def digits() -> Data:
    return load("digits")


def small(name: str) -> Method:
    fields = METHODS[name].model_fields
    return METHODS[name].of({key: value for key, value in SMALL.items() if key in fields})


def unreduced(name: str, method: Method) -> Method | None:
    """What a method is reduced from."""
    if (changes := method.unreduced()) is None:
        return None
    if "method" not in changes:
        return METHODS[name].of({**method.model_dump(), **changes})
    fields = dict(changes)
    return METHODS[str(fields.pop("method"))].of(fields)


@lru_cache
def trained(name: str) -> Network:
    *_, last = train(small(name), digits(), RECIPE, seed=0)
    return last.net.eval()


@lru_cache(maxsize=1)
def few() -> Data:
    data = digits()
    return dataclasses.replace(data, train=data.train.part(0.0, 0.08))


@lru_cache
def undisturbed(name: str) -> tuple[list[float], list[dict[str, Any]]]:
    """Losses and states after each epoch of a trial that runs alone and is never paused."""
    epochs = train(small(name), few(), FEW, seed=0)
    losses, states = zip(*((epoch.loss, epoch.state()) for epoch in epochs), strict=True)
    return list(losses), list(states)


@pytest.mark.parametrize("name", list(METHODS))
class TestContract:
    def test_it_learns(self, name: str) -> None:
        assert evaluate(trained(name), digits().validation).accuracy > 0.3, "chance is 0.1"

    def test_its_price_is_what_the_deployed_network_executes(self, name: str) -> None:
        net, (images, _) = trained(name), digits().validation.head(50)
        deployed = small(name).deploy(net)
        with torch.no_grad():
            prices = net(images).macs
        assert prices.dtype == torch.float64
        assert executed_macs(deployed, images) == prices.sum()
        for image, price in zip(images[:8], prices, strict=False):
            assert executed_macs(deployed, image[None]) == price

    def test_deployed_it_answers_alike(self, name: str) -> None:
        net, split = trained(name), digits().validation
        deployed = small(name).deploy(net)
        images, labels = split.head(len(split))
        with torch.no_grad():
            logits, expected = deployed(images), net(images).logits
        torch.testing.assert_close(logits, expected, rtol=TOLERANCE, atol=TOLERANCE)
        accuracy = (logits.argmax(1) == labels).double().mean()
        assert accuracy == pytest.approx(evaluate(net, split).accuracy, abs=1e-12)

    def test_deploying_changes_nothing(self, name: str) -> None:
        net = trained(name)
        before = copy.deepcopy(net.state_dict())
        deployed = small(name).deploy(net)
        deployed(digits().validation.head(4)[0])
        assert not deployed.training
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())

    def test_a_permuted_batch_permutes_outputs_and_prices(self, name: str) -> None:
        net, images = trained(name), digits().validation.head(32)[0]
        order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            plain, permuted = net(images), net(images[order])
        torch.testing.assert_close(permuted.logits, plain.logits[order], rtol=1e-4, atol=1e-5)
        assert torch.equal(permuted.macs, plain.macs[order])

    def test_a_network_that_decides_follows_decisions(self, name: str) -> None:
        net, images = trained(name), digits().validation.head(32)[0]
        if not isinstance(net, RoutedNetwork):
            assert name in ("dense", "condensenet", "resrep"), "these treat all images alike"
            return
        with torch.no_grad():
            plain = net(images)
            own, decisions = net.route(images)
            again = net.route(images, decisions)
            swapped, kept = net.route(images, decisions.flip(0))
            alone = [net.route(images[i, None], decisions[31 - i, None])[0] for i in range(32)]
        assert len(decisions) == 32
        assert torch.equal(own.macs, plain.macs)
        assert torch.equal(again[1], decisions)
        torch.testing.assert_close(own.logits, plain.logits, rtol=TOLERANCE, atol=TOLERANCE)
        torch.testing.assert_close(again[0].logits, own.logits, rtol=TOLERANCE, atol=TOLERANCE)
        assert torch.equal(kept, decisions.flip(0))
        assert torch.equal(swapped.macs, own.macs.flip(0)), "the price is that of the decisions"
        logits = torch.cat([output.logits for output in alone])
        torch.testing.assert_close(swapped.logits, logits, rtol=TOLERANCE, atol=TOLERANCE)
        if (most := net.everything()) is not None:
            with torch.no_grad():
                whole = net.route(images, most.expand(32, -1))[0]
            assert (whole.macs >= own.macs).all(), "all run costs most"

    def test_nothing_costs_less_than_the_floor(self, name: str) -> None:
        net, images = trained(name), digits().validation.head(64)[0]
        assert net(images).macs.min() >= small(name).floor(digits().task)

    def test_shares_sum_to_one(self, name: str) -> None:
        assert sum(phase.share for phase in small(name).phases()) == pytest.approx(1)

    def test_every_trained_parameter_gets_a_gradient_in_its_phase(self, name: str) -> None:
        torch.manual_seed(0)
        method = small(name)
        images, labels = digits().train.head(64)
        for phase in method.phases():
            net = method.build(digits().task).train()
            groups = phase.parameters(net)
            phase.advance(net, 0.0)
            phase.loss(net, images, labels).backward()
            parameters = [p for group in groups for p in group.parameters]
            assert parameters
            assert all(p.grad is not None for p in parameters)

    def test_a_second_instance_changes_nothing(self, name: str) -> None:
        first = train(small(name), few(), FEW, seed=0)
        second = train(small(name), few(), FEW, seed=1)
        losses = []
        for epoch in first:
            losses.append(epoch.loss)
            next(second, None)
        assert losses == undisturbed(name)[0]

    def test_a_resumed_trial_equals_one_without_a_pause(self, name: str) -> None:
        losses, states = undisturbed(name)
        for pause in (1, 2):
            rest = train(small(name), few(), FEW, seed=0, state=states[pause - 1])
            assert [epoch.loss for epoch in rest] == losses[pause:]

    def test_every_field_has_a_line_and_the_method_a_source(self, name: str) -> None:
        assert METHODS[name].__doc__
        assert all(field.description for field in METHODS[name].model_fields.values())

    def test_colour_and_grey_images_of_any_size(self, name: str) -> None:
        for task in (Task("a", 1, 28, 28, 10), Task("b", 3, 32, 40, 7)):
            net = small(name).build(task).eval()
            images = torch.randn(2, task.channels, task.height, task.width)
            with torch.no_grad():
                out = net(images)
            assert out.logits.shape == (2, task.classes)
            assert executed_macs(small(name).deploy(net), images) == out.macs.sum()

    def test_what_it_is_reduced_from_is_a_static_network_that_costs_no_less(
        self, name: str
    ) -> None:
        method, images = small(name), digits().validation.head(32)[0]
        whole = unreduced(name, method)
        if whole is None:
            return
        assert len(whole.phases()) == 1
        for task in (digits().task, Task("b", 3, 96, 80, 7)):
            assert whole.floor(task) >= method.floor(task)
        *_, last = train(whole, few(), RECIPE, seed=0)
        (point,) = last.points().items()
        assert point[0] == "", "the only one has no name"
        net = point[1].eval()
        assert not isinstance(net, RoutedNetwork)
        reduced = trained(name)
        with torch.no_grad():
            prices, own = net(images).macs, reduced(images).macs
        assert set(prices.tolist()) == {float(whole.floor(digits().task))}
        assert prices.min() >= own.max()
        assert executed_macs(whole.deploy(net), images) == prices.sum()
        assert unreduced(name, whole) in (None, whole), "nothing is left to save"

    def test_its_published_profile_is_a_setting_of_it(self, name: str) -> None:
        method = METHODS[name]
        profile = method.published()
        recipe = {
            field.removeprefix("recipe."): value
            for field, value in method.PUBLISHED.items()
            if field.startswith("recipe.")
        }
        assert Recipe.of(recipe).model_dump().items() >= recipe.items()
        for field, value in method.PUBLISHED.items():
            if not field.startswith("recipe."):
                assert getattr(profile, field) == value
                assert value != method.model_fields[field].default, "the default needs no word"
        profile.phases()
