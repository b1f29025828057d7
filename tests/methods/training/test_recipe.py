"""The recipe: its settings, the learning rate, and the optimiser that follows it."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F
from toy import Toy, ToyNet

from methods.api import Group, Phase
from methods.data.load import Data, load
from methods.errors import MethodError
from methods.training.loop import Epoch, Recipe, train
from methods.training.recipe import learning_rate

EPOCHS = 6
RECIPE = Recipe(epochs=EPOCHS, batch_size=200, label_smoothing=0.1, warmup=0.2)


@pytest.fixture(scope="module")
def data() -> Data:
    return load("digits")


def run(data: Data, recipe: Recipe) -> list[Epoch]:
    return list(train(Toy(), data, recipe, seed=1))


def phase(share: float, name: str = "one", **more: Any) -> Phase[Any]:
    return Phase(name=name, share=share, loss=lambda net, images, labels: images.sum(), **more)


def weights(epoch: Epoch) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in epoch.net.state_dict().items()}


# Learning rate and optimiser


def test_the_rate_is_peak_times_warmup_times_schedule() -> None:
    recipe = Recipe(lr=0.4, warmup=0.25, schedule="step")
    rates = [learning_rate(recipe, phase(1.0), p) for p in (0.0, 0.125, 0.25, 0.6, 0.8)]
    assert rates == pytest.approx([0.04, 0.22, 0.4, 0.04, 0.004])
    override = phase(1.0, lr=0.02, schedule="constant")
    assert learning_rate(recipe, override, 0.9) == 0.02


def test_groups_take_the_recipe_where_they_say_nothing(data: Data) -> None:
    epochs = train(Toy(), data, RECIPE, seed=1)
    early, late = [e.state()["optimiser"]["param_groups"] for e in list_states(epochs, (3, 6))]
    assert len(early) == 1
    assert early[0]["weight_decay"] == RECIPE.weight_decay
    head, norm = late
    assert (head["momentum"], head["nesterov"], head["weight_decay"]) == (0.9, True, 1e-4)
    assert (norm["momentum"], norm["nesterov"], norm["weight_decay"]) == (0.0, False, 0.0)
    assert norm["lr"] == pytest.approx(0.1 * head["lr"])
    assert head["lr"] == pytest.approx(0.02)


def list_states(epochs: Any, wanted: tuple[int, ...]) -> Any:
    return (epoch for epoch in epochs if epoch.index in wanted)


def test_a_phase_trains_its_own_parameters_only(data: Data) -> None:
    before: dict[str, torch.Tensor] = {}
    for epoch in train(Toy(), data, RECIPE, seed=1):
        if epoch.index == 3:
            before = weights(epoch)
    after = weights(epoch)
    assert torch.equal(after["conv.weight"], before["conv.weight"])
    assert not torch.equal(after["head.weight"], before["head.weight"])
    assert not torch.equal(after["norm.weight"], before["norm.weight"])


@pytest.mark.parametrize("decay_norm", [True, False])
def test_normalisation_decays_as_published_unless_told(data: Data, decay_norm: bool) -> None:
    recipe = RECIPE.model_copy(update={"decay_norm": decay_norm})
    state = next(train(Toy(), data, recipe, seed=1)).state()
    decays = [group["weight_decay"] for group in state["optimiser"]["param_groups"]]
    assert decays == ([1e-4] if decay_norm else [1e-4, 0.0])


def test_it_steps_like_the_textbook(data: Data) -> None:
    """Nesterov's momentum with decay, by hand on one weight."""
    recipe = Recipe(epochs=1, batch_size=1259, lr=0.1, schedule="constant", augment=False)
    taken: list[torch.Tensor] = []
    starts: list[torch.Tensor] = []

    class Alone(Toy):
        def phases(self, smoothing: float = 0.0) -> list[Phase[Any]]:
            def loss(net: ToyNet, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
                starts.append(net.head.bias.detach().clone())
                value = F.cross_entropy(net(images).logits, labels)
                taken.append(torch.autograd.grad(value, net.head.bias, retain_graph=True)[0])
                return value

            return [Phase(name="only", share=1.0, loss=loss, parameters=only_bias)]

    epoch = next(train(Alone(), data, recipe, seed=0))
    gradient = taken[0] + 1e-4 * starts[0]
    expected = starts[0] - 0.1 * (gradient + 0.9 * gradient)
    assert torch.allclose(epoch.net.get_parameter("head.bias"), expected, atol=1e-7)


def only_bias(net: ToyNet) -> list[Group]:
    return [Group([net.head.bias])]


def test_smoothing_reaches_the_methods_loss(data: Data) -> None:
    plain = RECIPE.model_copy(update={"label_smoothing": 0.0})
    assert run(data, plain)[-1].loss < run(data, RECIPE)[-1].loss


def test_a_phase_that_trains_nothing_is_refused(data: Data) -> None:
    class Idle(Toy):
        def phases(self, smoothing: float = 0.0) -> list[Phase[Any]]:
            return [phase(1.0, name="idle", parameters=lambda net: [])]

    with pytest.raises(MethodError, match="'idle' must train some parameters"):
        next(train(Idle(), data, RECIPE, seed=0))


# The recipe


def test_a_misspelt_setting_gets_the_nearest() -> None:
    with pytest.raises(MethodError, match="no field 'momentun'; did you mean 'momentum'"):
        Recipe.of({"momentun": 0.9})


@pytest.mark.parametrize(
    "setting",
    [
        {"epochs": 0}, {"batch_size": 1}, {"lr": 0.0}, {"lr": float("inf")}, {"momentum": 1.0},
        {"weight_decay": -1e-4}, {"label_smoothing": 1.0}, {"warmup": 1.0},
        {"schedule": "linear"}, {"precision": "fp16"},
    ],
)  # fmt: skip
def test_a_setting_outside_its_bounds_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(MethodError, match=rf"Recipe\.{next(iter(setting))}"):
        Recipe.of(setting)


def test_every_setting_has_a_line_of_its_own() -> None:
    assert all(field.description for field in Recipe.model_fields.values())


def test_momentum_0_needs_no_nesterov(data: Data) -> None:
    recipe = RECIPE.model_copy(update={"momentum": 0.0})
    assert len(run(data, recipe)) == EPOCHS


def test_bf16_trains_on_request(data: Data) -> None:
    recipe = RECIPE.model_copy(update={"precision": "bf16"})
    (first, *_), (plain, *_) = run(data, recipe), run(data, RECIPE)
    assert first.loss == pytest.approx(plain.loss, rel=0.05)
    assert first.loss != plain.loss
