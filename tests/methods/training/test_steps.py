"""From gradients to weights: optimisers, clipping, pieces of a batch, the average of weights."""

from collections.abc import Callable, Sequence
from typing import Any

import pairs
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from toy import Toy, ToyNet

from methods.api import Group, Phase
from methods.data.load import Data, load
from methods.dense import Dense
from methods.errors import MethodError, StudyError
from methods.parallel.group import pieces
from methods.resrep.method import ResRep
from methods.training.loop import Recipe, train
from methods.training.recipe import learning_rate
from methods.values import Params
from orchestrator.study.file import Study
from orchestrator.study.space import spaces

STEPS = 3
ONE = Recipe(epochs=STEPS, batch_size=1259, lr=0.1, schedule="constant", augment=False)
"""One step an epoch."""
OTHER = {"second_moment": 0.5, "epsilon": 0.1}


@pytest.fixture(scope="module")
def data() -> Data:
    return load("digits")


class Alone(Toy):
    """Trains the classifier's biases alone, and notes them and their gradients."""

    def phases(self, smoothing: float = 0.0) -> Sequence[Phase[Any]]:
        def loss(net: ToyNet, images: Tensor, labels: Tensor) -> Tensor:
            value = 50 * F.cross_entropy(net(images).logits, labels)
            gradient = torch.autograd.grad(value, net.head.bias, retain_graph=True)[0]
            SEEN.append((net.head.bias.detach().clone(), gradient))
            return value

        return [Phase(name="only", share=1.0, loss=loss, parameters=_bias)]


SEEN: list[tuple[Tensor, Tensor]] = []


def _bias(net: ToyNet) -> list[Group]:
    return [Group([net.head.bias])]


def stepped(data: Data, recipe: Recipe, step: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Compares every step of a training with one by hand."""
    SEEN.clear()
    *_, last = train(Alone(), data, recipe, seed=0)
    weights = [*(weight for weight, _ in SEEN[1:]), last.net.get_parameter("head.bias").detach()]
    for (before, gradient), after in zip(SEEN, weights, strict=True):
        torch.testing.assert_close(after, step(before, gradient), rtol=1e-5, atol=1e-6)


# Optimisers, by their papers


@pytest.mark.parametrize(("given", "decay", "epsilon"), [({}, 0.9, 1e-3), (OTHER, 0.5, 0.1)])
def test_rmsprop_steps_by_the_root_of_the_mean_square(
    data: Data, given: Params, decay: float, epsilon: float
) -> None:
    recipe = Recipe.of({**ONE.model_dump(), "optimiser": "rmsprop", "weight_decay": 0.1, **given})
    square, speed = torch.zeros(10), torch.zeros(10)

    def step(weight: Tensor, gradient: Tensor) -> Tensor:
        gradient = gradient + 0.1 * weight
        square.mul_(decay).add_((1 - decay) * gradient**2)
        speed.mul_(0.9).add_(gradient / (square.sqrt() + epsilon))
        return weight - 0.1 * speed

    stepped(data, recipe, step)


@pytest.mark.parametrize(("given", "decay", "epsilon"), [({}, 0.999, 1e-8), (OTHER, 0.5, 0.1)])
def test_adamw_decays_apart_from_the_gradient(
    data: Data, given: Params, decay: float, epsilon: float
) -> None:
    recipe = Recipe.of({**ONE.model_dump(), "optimiser": "adamw", "weight_decay": 0.1, **given})
    mean, square, count = torch.zeros(10), torch.zeros(10), [0]

    def step(weight: Tensor, gradient: Tensor) -> Tensor:
        count[0] += 1
        mean.mul_(0.9).add_(0.1 * gradient)
        square.mul_(decay).add_((1 - decay) * gradient**2)
        along, root = mean / (1 - 0.9 ** count[0]), (square / (1 - decay ** count[0])).sqrt()
        return weight * (1 - 0.1 * 0.1) - 0.1 * along / (root + epsilon)

    stepped(data, recipe, step)


@pytest.mark.parametrize("optimiser", ["rmsprop", "adamw"])
def test_settings_of_a_group_hold_for_every_optimiser(data: Data, optimiser: str) -> None:
    recipe = Recipe.of({"epochs": 2, "batch_size": 500, "optimiser": optimiser, "lr": 0.001})
    *_, last = train(Toy(), data, recipe, seed=1)
    head, norm = last.state()["optimiser"]["param_groups"]
    momenta = [
        group["betas"][0] if "betas" in group else group["momentum"] for group in (head, norm)
    ]
    assert momenta == [0.9, 0.0]
    assert (head["weight_decay"], norm["weight_decay"]) == (1e-4, 0.0)
    assert norm["lr"] == pytest.approx(0.1 * head["lr"])


def test_the_exponential_schedule_is_efficientnets() -> None:
    recipe = Recipe(lr=1.0, schedule="exponential")
    only = Alone().phases()[0]
    for epoch in (0.0, 2.3, 2.41, 4.81, 349.0):
        rate = learning_rate(recipe, only, epoch / 350)
        assert rate == pytest.approx(0.97 ** (epoch // 2.4))


def test_a_phase_that_is_derived_for_sgd_refuses_others(data: Data) -> None:
    recipe = Recipe(epochs=2, optimiser="adamw")
    with pytest.raises(MethodError, match=r"'prune' is derived for .* sgd, but .*adamw"):
        train(ResRep(depth=8), data, recipe, seed=0)
    study = Study(
        name="mixed",
        data="digits",
        budgets=[1.0],
        recipe={"optimiser": "rmsprop"},
        methods={"dense": {}, "resrep": {}},
    )
    with pytest.raises(StudyError, match=r"'resrep': phase 'prune' .* `optimiser: sgd`"):
        spaces(study)


# Clipping


def test_a_long_gradient_is_cut_to_its_norm(data: Data) -> None:
    recipe = ONE.model_copy(update={"clip": 0.25, "momentum": 0.0, "weight_decay": 0.0})

    def step(weight: Tensor, gradient: Tensor) -> Tensor:
        parameter = torch.nn.Parameter(weight.clone())
        parameter.grad = gradient.clone()
        assert torch.nn.utils.clip_grad_norm_([parameter], 0.25) > 0.25
        return weight - 0.1 * parameter.grad

    stepped(data, recipe, step)


def test_a_short_gradient_is_left_alone(data: Data) -> None:
    plain, wide = (
        [epoch.loss for epoch in train(Toy(), data, recipe, seed=1)]
        for recipe in (Recipe(epochs=2, batch_size=500), Recipe(epochs=2, batch_size=500, clip=1e6))
    )
    assert plain == wide


# Pieces of a batch


@pytest.mark.parametrize("accumulate", [2, 3, 11])
def test_pieces_sum_to_the_gradient_of_the_batch(accumulate: int) -> None:
    """Without norms over the batch, to 1e-9 in double precision."""
    ends = []
    for count in (1, accumulate):
        recipe = Recipe(
            epochs=2, batch_size=33, lr=0.02, label_smoothing=0.1, accumulate=count, clip=1.0
        )
        with pairs.exact() as few:
            *_, last = train(Dense(depth=8, width=0.25, norm="group"), few, recipe, seed=3)
        ends.append((last.loss, last.net.state_dict()))
    (loss, net), (other_loss, other) = ends
    assert other_loss == pytest.approx(loss, rel=1e-9)
    for name, weight in net.items():
        torch.testing.assert_close(other[name], weight, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("images", "most"), [(33, 4), (5, 4), (3, 4), (1, 4), (8, 1)])
def test_every_piece_has_two_images_or_is_the_batch(images: int, most: int) -> None:
    sizes = [piece.stop - piece.start for piece in pieces(images, most)]
    assert sum(sizes) == images
    assert len(sizes) <= most
    assert sizes == [images] or min(sizes) >= 2


def test_more_pieces_than_pairs_of_images_are_refused() -> None:
    with pytest.raises(MethodError, match="each of 5 pieces of a batch must have two images, but"):
        Recipe.of({"batch_size": 9, "accumulate": 5})


# The average


def copied(net: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def test_the_average_is_that_of_a_loop_by_hand(data: Data) -> None:
    """The weights that are evaluated after each epoch, with the decay that rises."""
    plain, averaged = (Recipe(epochs=4, batch_size=1259, average=d) for d in (0.0, 0.3))
    shown = [copied(epoch.net) for epoch in train(Toy(), data, averaged, seed=1)]
    weights: dict[str, Tensor] = {}
    raw = train(Toy(), data, plain, seed=1, start=lambda net: weights.update(copied(net)))
    for number, (epoch, expected) in enumerate(zip(raw, shown[:2], strict=False)):
        decay = min(0.3, (1 + number) / (10 + number))
        for name, value in epoch.net.state_dict().items():
            if value.is_floating_point():
                weights[name] = decay * weights[name] + (1 - decay) * value
                torch.testing.assert_close(expected[name], weights[name], rtol=1e-6, atol=1e-6)
            else:
                assert torch.equal(expected[name], value)


def test_an_average_starts_with_its_phase_and_is_what_the_phase_leaves(data: Data) -> None:
    recipe = Recipe(epochs=4, batch_size=1259, average=0.9)
    epochs = train(Toy(), data, recipe, seed=1)
    assert "average" in next(epochs).state()
    early = next(epochs)
    assert "average" not in early.state()
    left = copied(early.net)
    late = next(epochs)
    untouched = late.net.get_parameter("conv.weight")
    assert torch.equal(untouched, left["conv.weight"]), "the late phase trains other parameters"
    assert not torch.equal(late.net.get_parameter("head.weight"), left["head.weight"])
