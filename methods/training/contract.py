"""What every method must keep, whatever it does: checks that raise an AssertionError in a sentence.

They train small networks on digits, so the method that is checked should be a small configuration.
"""

import copy
import dataclasses
import traceback
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from methods import METHODS
from methods.api import Method, Network, RoutedNetwork, Task
from methods.data.load import Data, load
from methods.errors import IsoflopError, MethodError
from methods.macs import executed_macs
from methods.training.evaluate import evaluate
from methods.training.loop import train
from methods.training.recipe import Recipe

RECIPE = Recipe(epochs=3, batch_size=48, lr=0.07)
FEW = Recipe(
    epochs=3, batch_size=16, lr=0.05, accumulate=2, clip=1, average=0.9, crop="resized", mixup=0.2
)
"""For trainings that are compared bit by bit, on a twelfth of the images, with all that has a state
or draws random numbers."""
LEARNT = 0.3
"""Validation accuracy after `RECIPE`, at least; chance is 0.1."""
TOLERANCE = 1e-4
"""Tolerance of logits: the deployed form folds its norms, and so rounds in another order."""
TASKS = (Task("grey", 1, 28, 28, 10), Task("colour", 3, 32, 40, 7))
PROVEN = 2
"""Images on which a method is proved before a study runs."""


@lru_cache(maxsize=1)
def digits() -> Data:
    """The data set of the checks."""
    return load("digits")


@lru_cache(maxsize=1)
def few() -> Data:
    """The same with fewer images to train on."""
    data = digits()
    return dataclasses.replace(data, train=data.train.part(0.0, 0.08))


@lru_cache(maxsize=16)
def trained(method: Method) -> Network:
    """A network of the method after a short training, in evaluation mode."""
    *_, last = train(method, digits(), RECIPE, seed=0)
    return last.net.eval()


@lru_cache(maxsize=16)
def undisturbed(method: Method) -> tuple[list[float], list[dict[str, Any]]]:
    """Losses and states after each epoch of a trial that runs alone and is never paused."""
    epochs = train(method, few(), FEW, seed=0)
    losses, states = zip(*((epoch.loss, epoch.state()) for epoch in epochs), strict=True)
    return list(losses), list(states)


def unreduced(method: Method) -> Method | None:
    """What a method is reduced from."""
    if (changes := method.unreduced()) is None:
        return None
    if "method" not in changes:
        return type(method).of({**method.model_dump(), **changes})
    fields = dict(changes)
    return METHODS[str(fields.pop("method"))].of(fields)


def it_learns(method: Method) -> None:
    """The method trains a network that is well above chance."""
    accuracy = evaluate(trained(method), digits().validation).accuracy
    _must(accuracy > LEARNT, f"it must learn digits to {LEARNT}, but got to {accuracy:.3f}")


def its_price_is_what_the_deployed_network_executes(method: Method) -> None:
    """No MACs are promised that are not saved, in a batch and image by image."""
    net, (images, _) = trained(method), digits().validation.head(50)
    deployed = method.deploy(net)
    with torch.no_grad():
        prices = net(images).macs
    _must(prices.dtype == torch.float64, f"prices must be float64, but are {prices.dtype}")
    executed, price = executed_macs(deployed, images), prices.sum().item()
    _must(
        executed == price,
        f"50 images must cost what the deployed network executes, {executed:,} MACs, but their "
        f"price is {price:,.0f}",
    )
    for index, price in enumerate(prices[:8].tolist()):
        executed = executed_macs(deployed, images[index, None])
        _must(
            executed == price,
            f"image {index} must cost what the deployed network executes for it, {executed:,} "
            f"MACs, but its price is {price:,.0f}",
        )


def deployed_it_answers_alike(method: Method) -> None:
    """What ships is the network that was measured."""
    net, split = trained(method), digits().validation
    images, labels = split.head(len(split))
    deployed = method.deploy(net)
    with torch.no_grad():
        logits, expected = deployed(images), net(images).logits
    _close(logits, expected, "the deployed network must give the logits of the trained one")
    accuracy, other = (logits.argmax(1) == labels).double().mean(), evaluate(net, split).accuracy
    _must(
        abs(accuracy.item() - other) < 1e-12,
        f"the deployed network must be as accurate, {other}, but is {accuracy}",
    )


def deploying_changes_nothing(method: Method) -> None:
    """`deploy` copies: the trained network is measured, and trains on, after it."""
    net = trained(method)
    before = copy.deepcopy(net.state_dict())
    deployed = method.deploy(net)
    deployed(digits().validation.head(4)[0])
    _must(not deployed.training, "`deploy` must return a network in evaluation mode")
    changed = [
        key for key, value in net.state_dict().items() if not torch.equal(value, before[key])
    ]
    _must(
        not changed, f"`deploy` must change nothing in the trained network, but {changed} changed"
    )


def a_permuted_batch_permutes_outputs_and_prices(method: Method) -> None:
    """Images of a batch do not influence each other."""
    net, images = trained(method), digits().validation.head(32)[0]
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain, permuted = net(images), net(images[order])
    what = "an image must get the same, whatever stands beside it in the batch"
    _close(permuted.logits, plain.logits[order], f"{what}: its logits", within=1e-5)
    _must(torch.equal(permuted.macs, plain.macs[order]), f"{what}, but its price differs")


def a_network_that_decides_follows_decisions(method: Method) -> None:
    """What deciding per image is worth can be measured."""
    net, images = trained(method), digits().validation.head(32)[0]
    if not isinstance(net, RoutedNetwork):
        return
    with torch.no_grad():
        plain = net(images)
        own, decisions = net.route(images)
        again = net.route(images, decisions)
        swapped, kept = net.route(images, decisions.flip(0))
        alone = [net.route(images[i, None], decisions[31 - i, None])[0] for i in range(32)]
    _must(len(decisions) == 32, f"decisions must have a row per image, but have {len(decisions)}")
    _must(torch.equal(own.macs, plain.macs), "`route` must give the prices of `forward`")
    _must(torch.equal(again[1], decisions), "decisions that are given must come back")
    _close(own.logits, plain.logits, "`route` must give the logits of `forward`")
    _close(again[0].logits, own.logits, "a network's own decisions must give its own logits")
    _must(torch.equal(kept, decisions.flip(0)), "others' decisions must come back as given")
    _must(torch.equal(swapped.macs, own.macs.flip(0)), "the price must be that of the decisions")
    logits = torch.cat([output.logits for output in alone])
    _close(swapped.logits, logits, "an image's logits must depend on its own decisions alone")
    if (most := net.everything()) is not None:
        with torch.no_grad():
            whole = net.route(images, most.expand(32, -1))[0]
        _must(bool((whole.macs >= own.macs).all()), "with `everything()` run, no image costs less")


def nothing_costs_less_than_the_floor(method: Method) -> None:
    """No configuration is refused at a budget that it meets."""
    net, images = trained(method), digits().validation.head(64)[0]
    least, floor = net(images).macs.min().item(), method.floor(digits().task)
    _must(
        least >= floor, f"no image may cost less than `floor`, {floor:,}, but one costs {least:,}"
    )


def shares_sum_to_one(method: Method) -> None:
    """The phases take all epochs, and no more."""
    total = sum(phase.share for phase in method.phases())
    _must(abs(total - 1) < 1e-6, f"the shares of the phases must sum to 1, but sum to {total}")


def every_trained_parameter_gets_a_gradient_in_its_phase(method: Method) -> None:
    """Nothing is trained in vain."""
    torch.manual_seed(0)
    images, labels = digits().train.head(64)
    for phase in method.phases():
        net = method.build(digits().task).train()
        groups = phase.parameters(net)
        phase.advance(net, 0.0)
        torch.autograd.backward(phase.loss(net, images, labels))
        names = {id(parameter): name for name, parameter in net.named_parameters()}
        parameters = [p for group in groups for p in group.parameters]
        _must(bool(parameters), f"phase {phase.name!r} must train parameters, but has none")
        lacking = [
            names.get(id(p), "one outside of the network") for p in parameters if p.grad is None
        ]
        _must(
            not lacking,
            f"every parameter of phase {phase.name!r} must get a gradient, but {lacking} got none",
        )


def a_second_instance_changes_nothing(method: Method) -> None:
    """No state is kept in classes, modules or globals."""
    first, second = (train(method, few(), FEW, seed=seed) for seed in (0, 1))
    losses = []
    for epoch in first:
        losses.append(epoch.loss)
        next(second, None)
    expected = undisturbed(method)[0]
    _must(
        losses == expected,
        f"a second network in the process must change nothing, but losses are {losses} beside one, "
        f"and {expected} alone",
    )


def a_resumed_trial_equals_one_without_a_pause(method: Method) -> None:
    """The state of an epoch is all that the next one needs."""
    losses, states = undisturbed(method)
    for pause in (1, 2):
        rest = train(method, few(), FEW, seed=0, state=states[pause - 1])
        resumed = [epoch.loss for epoch in rest]
        _must(
            resumed == losses[pause:],
            f"a trial that resumes after epoch {pause} must have the losses of one without a "
            f"pause, {losses[pause:]}, but has {resumed}",
        )


def every_field_has_a_line_and_the_method_a_source(method: Method) -> None:
    """A reader of `isoflop methods` understands it."""
    _must(bool(type(method).__doc__), "the class must have a docstring: it is the method's card")
    fields = type(method).model_fields
    lacking = [name for name, field in fields.items() if not field.description]
    _must(not lacking, f"every field must have a line of meaning under it, but {lacking} have none")


def colour_and_grey_images_of_any_size(method: Method) -> None:
    """It works on more than one data set."""
    for task in TASKS:
        net = method.build(task).eval()
        images = torch.randn(2, task.channels, task.height, task.width)
        with torch.no_grad():
            out = net(images)
        shape = tuple(out.logits.shape)
        _must(
            shape == (2, task.classes),
            f"logits must be {(2, task.classes)} for 2 images of {task}, but are {shape}",
        )
        executed, price = executed_macs(method.deploy(net), images), out.macs.sum().item()
        _must(
            executed == price,
            f"2 images of {task} must cost what the deployed network executes, {executed:,} MACs, "
            f"but their price is {price:,.0f}",
        )


def what_it_is_reduced_from_is_a_static_network_that_costs_no_less(method: Method) -> None:
    """`unreduced` is what the method saves from."""
    images = digits().validation.head(32)[0]
    whole = unreduced(method)
    if whole is None:
        return
    _must(len(whole.phases()) == 1, "what a network is reduced from must train in one phase")
    for task in (digits().task, Task("large", 3, 96, 80, 7)):
        _must(whole.floor(task) >= method.floor(task), f"`unreduced` must cost no less on {task}")
    *_, last = train(whole, few(), RECIPE, seed=0)
    points = last.points()
    _must(list(points) == [""], "`unreduced` must have one operating point, without a name")
    net = points[""].eval()
    _must(not isinstance(net, RoutedNetwork), "`unreduced` must treat all images alike")
    with torch.no_grad():
        prices, own = net(images).macs, trained(method)(images).macs
    floor = float(whole.floor(digits().task))
    _must(set(prices.tolist()) == {floor}, "`unreduced` must cost its floor on every image")
    _must(bool(prices.min() >= own.max()), "`unreduced` must cost no less on any image")
    executed = executed_macs(whole.deploy(net), images)
    _must(
        executed == prices.sum().item(),
        "the price of `unreduced` must be what its deployed form runs",
    )
    _must(unreduced(whole) in (None, whole), "nothing may be left to reduce in `unreduced`")


def its_published_profile_is_a_setting_of_it(method: Method) -> None:
    """`PUBLISHED` has fields of the method and of the recipe, and no defaults."""
    kind = type(method)
    profile = kind.published()
    recipe = {
        field.removeprefix("recipe."): value
        for field, value in kind.PUBLISHED.items()
        if field.startswith("recipe.")
    }
    taken = Recipe.of(recipe).model_dump().items() >= recipe.items()
    _must(taken, f"a recipe must take what is published, {recipe}, as it is")
    for field, value in kind.PUBLISHED.items():
        if not field.startswith("recipe."):
            _must(getattr(profile, field) == value, f"`PUBLISHED` must set {field} to {value}")
            other = value != kind.model_fields[field].default
            _must(other, f"`PUBLISHED` must leave out {field}, which is {value} by default")
    profile.phases()


CHECKS: Mapping[str, Callable[[Method], None]] = {
    check.__name__: check
    for check in (
        it_learns,
        its_price_is_what_the_deployed_network_executes,
        deployed_it_answers_alike,
        deploying_changes_nothing,
        a_permuted_batch_permutes_outputs_and_prices,
        a_network_that_decides_follows_decisions,
        nothing_costs_less_than_the_floor,
        shares_sum_to_one,
        every_trained_parameter_gets_a_gradient_in_its_phase,
        a_second_instance_changes_nothing,
        a_resumed_trial_equals_one_without_a_pause,
        every_field_has_a_line_and_the_method_a_source,
        colour_and_grey_images_of_any_size,
        what_it_is_reduced_from_is_a_static_network_that_costs_no_less,
        its_published_profile_is_a_setting_of_it,
    )
}
"""The contract of a method, by the names of its parts."""


def prove(method: Method, data: Data) -> None:
    """Builds, runs and deploys a fresh network of a method, and compares its price.

    It takes a moment, before a sweep takes workers for hours.

    Raises:
        MethodError: says what must hold.
    """
    name, task, images = type(method).__name__, data.task, data.train.head(PROVEN)[0]
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = method.build(task).eval()
        with torch.no_grad():
            out = net(images)
            prices = out.macs
        executed = executed_macs(method.deploy(net), images)
        logits, shares = tuple(out.logits.shape), sum(phase.share for phase in method.phases())
        price, least, floor = prices.sum().item(), prices.min().item(), method.floor(task)
    except IsoflopError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise MethodError(
            f"{name} must build, run and deploy a network of {task}, but "
            f"{Path(last.filename).name}:{last.lineno} raised {type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}; `isoflop.testing.check({name})` shows where"
        ) from error
    if logits != (len(images), task.classes):
        raise MethodError(
            f"{name} must give logits of shape {(len(images), task.classes)}, but gives {logits}"
        )
    if prices.dtype != torch.float64 or len(prices) != len(images):
        raise MethodError(
            f"{name} must price each image as float64, but gives {tuple(prices.shape)} prices of "
            f"{prices.dtype}"
        )
    if executed != price:
        raise MethodError(
            f"{name} must price what its deployed network executes, {executed:,} MACs for "
            f"{len(images)} images of {task.name}, but its price is {price:,.0f}"
        )
    if least < floor:
        raise MethodError(
            f"{name} must cost `floor` at least, {floor:,} MACs an image of {task.name}, but an "
            f"image costs {least:,.0f}"
        )
    if abs(shares - 1) > 1e-6:
        raise MethodError(f"the shares of {name}'s phases must sum to 1, but sum to {shares:g}")


def _must(holds: bool, sentence: str) -> None:
    if not holds:
        raise AssertionError(sentence)


def _close(given: Tensor, expected: Tensor, sentence: str, within: float = TOLERANCE) -> None:
    alike = torch.allclose(given, expected, rtol=TOLERANCE, atol=within)
    apart = (given - expected).abs().max().item()
    _must(alike, f"{sentence}, but they are up to {apart:.3g} apart")
