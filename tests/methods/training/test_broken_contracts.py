"""Each part of the contract refuses a method that breaks it, in a sentence."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from isoflop.testing import CHECKS, check
from methods.api import Images, Method, Output, Phase, Search, StaticNet, Task, cross_entropy
from methods.dense import Dense
from methods.errors import MethodError
from methods.training.contract import digits, prove

TINY = {"depth": 8, "width": 0.25}


class Untrained(Dense):
    """Stands still."""

    def phases(self, smoothing: float = 0.0) -> Sequence[Phase[StaticNet]]:
        return [dataclasses.replace(super().phases(smoothing)[0], lr=1e-9)]


class Cheap(Dense):
    """Promises a MAC less than it takes."""

    def build(self, task: Task) -> StaticNet:
        net = super().build(task)
        net.cost -= 1
        return net

    def floor(self, task: Task) -> int:
        return super().floor(task) - 1


class Dear(Dense):
    """Cannot cost as little as it does."""

    def floor(self, task: Task) -> int:
        return super().floor(task) + 1

    def build(self, task: Task) -> StaticNet:
        net = super().build(task)
        net.cost -= 1
        return net


class Other(Dense):
    """Ships another network."""

    def deploy(self, net: StaticNet) -> nn.Module:
        shipped = super().deploy(net)
        nn.init.zeros_(shipped.head.weight)
        return shipped


class InPlace(Dense):
    """Prunes what it was given."""

    def deploy(self, net: StaticNet) -> nn.Module:
        with torch.no_grad():
            net.backbone.head.weight.mul_(0.5)
        return super().deploy(net)


class Batched(nn.Module):
    """Logits relative to the batch's mean."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Images) -> Tensor:
        logits = self.inner(images)
        return logits - logits[:1]


class Neighbours(Dense):
    """Lets images influence each other."""

    def build(self, task: Task) -> StaticNet:
        return StaticNet(Batched(super().build(task).backbone), super().floor(task))


class Halves(Dense):
    """Trains for half of its epochs."""

    def phases(self, smoothing: float = 0.0) -> Sequence[Phase[StaticNet]]:
        return [dataclasses.replace(super().phases(smoothing)[0], share=0.5)]


class Idle(Dense):
    """Has a parameter that nothing uses."""

    def build(self, task: Task) -> StaticNet:
        net = super().build(task)
        net.idle = nn.Parameter(torch.zeros(1))
        return net


STATE = {"steps": 0}


def remembered(net: Any, images: Images, labels: Tensor) -> Tensor:
    STATE["steps"] += 1
    return cross_entropy(net, images, labels) * (1 + STATE["steps"] % 11)


class Global(Dense):
    """Counts its steps in a global."""

    def phases(self, smoothing: float = 0.0) -> Sequence[Phase[StaticNet]]:
        return [Phase(name="train", share=1.0, loss=remembered)]


class Wordless(Dense):
    __doc__ = None
    groups: int = 1


class Grey(Dense):
    """Takes one channel."""

    def build(self, task: Task) -> StaticNet:
        return super().build(dataclasses.replace(task, channels=1))


class Grows(Dense):
    """Is reduced from something smaller."""

    def unreduced(self) -> dict[str, Any]:
        return {"width": 0.1}


class Repeats(Dense):
    """Publishes a default."""

    PUBLISHED: ClassVar[dict[str, Any]] = {"norm": "batch"}


class Unbounded(Dense):
    """Is searched where it takes nothing."""

    share: Annotated[float, Field(ge=0, le=1), Search(low=0.5, high=2.0)] = 0.5
    """A fraction."""


BROKEN = [
    (Untrained, "it_learns", "must learn digits"),
    (Cheap, "its_price_is_what_the_deployed_network_executes", "50 images must cost what"),
    (Dear, "nothing_costs_less_than_the_floor", "no image may cost less than `floor`"),
    (Other, "deployed_it_answers_alike", "the logits of the trained one, but they are up to"),
    (InPlace, "deploying_changes_nothing", "head.weight"),
    (Neighbours, "a_permuted_batch_permutes_outputs_and_prices", "whatever stands beside it"),
    (Halves, "shares_sum_to_one", "must sum to 1, but sum to 0.5"),
    (Idle, "every_trained_parameter_gets_a_gradient_in_its_phase", "idle"),
    (Global, "a_second_instance_changes_nothing", "must change nothing, but losses are"),
    (Global, "a_resumed_trial_equals_one_without_a_pause", "must have the losses of one without"),
    (Wordless, "every_field_has_a_line_and_the_method_a_source", "docstring"),
    (Grey, "colour_and_grey_images_of_any_size", "channels"),
    (
        Grows,
        "what_it_is_reduced_from_is_a_static_network_that_costs_no_less",
        "`unreduced` must cost no less",
    ),
    (Repeats, "its_published_profile_is_a_setting_of_it", "leave out norm"),
    (Unbounded, "its_ranges_can_be_searched", "share"),
]


@pytest.mark.parametrize(("method", "part", "sentence"), BROKEN, ids=lambda value: str(value)[:40])
def test_a_part_that_does_not_hold_is_told(method: type[Method], part: str, sentence: str) -> None:
    with pytest.raises((AssertionError, RuntimeError), match=sentence):
        check(method.of(TINY), part)


def test_every_part_but_that_of_networks_that_decide_is_broken_once() -> None:
    left = set(CHECKS) - {part for _, part, _ in BROKEN}
    assert left == {"a_network_that_decides_follows_decisions"}


def test_a_part_that_there_is_not_is_refused_and_a_class_stands_for_its_defaults() -> None:
    with pytest.raises(ValueError, match="no part 'it_learnt'; valid: it_learns"):
        check(Dense, "it_learnt")
    check(Dense, "shares_sum_to_one", "its_ranges_can_be_searched")


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise error

    return fail


def output(net: StaticNet, images: Images, *, classes: int, kind: torch.dtype) -> Output:
    price = torch.full((len(images),), net.cost, dtype=kind)
    return Output(net.backbone(images)[:, :classes], price)


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        (Cheap, r"Cheap must price what its deployed network executes, [\d,]+ MACs for 2 images"),
        (Halves, "shares of Halves's phases must sum to 1, but sum to 0.5"),
    ],
)
def test_a_wrong_method_is_refused_before_a_study_runs(method: type[Method], sentence: str) -> None:
    with pytest.raises(MethodError, match=sentence):
        prove(method.of(TINY), digits())


@pytest.mark.parametrize(
    ("part", "change", "sentence"),
    [
        ("build", raising(ValueError("no\nmoon")), r"py:\d+ raised ValueError: no moon; `isofl"),
        ("deploy", raising(KeyError("x")), "raised KeyError: 'x'"),
        ("floor", lambda *_: 10**9, "must cost `floor` at least, 1,000,000,000 MACs"),
        ("deploy", lambda *_: nn.Identity(), "must price what its deployed network executes, 0"),
    ],
)
def test_what_a_method_does_wrong_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, part: str, change: Callable[..., Any], sentence: str
) -> None:
    class Broken(Dense):
        pass

    method = Broken.of(TINY)
    built = Dense.of(TINY)
    monkeypatch.setattr(Broken, "build", lambda _, task: built.build(task))
    monkeypatch.setattr(Broken, part, change)
    with pytest.raises(MethodError, match=sentence):
        prove(method, digits())


@pytest.mark.parametrize(
    ("classes", "kind", "sentence"),
    [
        (9, torch.float64, r"logits of shape \(2, 10\), but gives \(2, 9\)"),
        (10, torch.float32, "price each image as float64"),
    ],
)
def test_outputs_of_another_kind_are_refused(
    monkeypatch: pytest.MonkeyPatch, classes: int, kind: torch.dtype, sentence: str
) -> None:
    monkeypatch.setattr(
        StaticNet, "forward", lambda net, images: output(net, images, classes=classes, kind=kind)
    )
    with pytest.raises(MethodError, match=sentence):
        prove(Dense.of(TINY), digits())
