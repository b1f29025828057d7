"""Every property that DS-Net's sheet asks for, against its golden numbers and what really runs."""

import math
from typing import Any

import pytest
import torch
from slims import IMAGENET, TASK, images, supernet, varied
from torch import Tensor

from methods.api import Task
from methods.dsnet.layers import SlimNorm2d
from methods.dsnet.losses import monotony, sparsification
from methods.dsnet.method import DSNet
from methods.dsnet.networks import (
    BucketedNet,
    GatedSupernet,
    SlicedNet,
    UniformNet,
    uniform_points,
)
from methods.errors import MethodError
from methods.macs import executed_macs, macs

CIFAR = Task("cifar10", 3, 32, 32, 10)
METHOD = DSNet(depth=14, width=0.5, choices=5, routing_size=3)
LATER = DSNet(depth=14, width=0.5, choices=5, routing_start=2, routing_size=3)
RESIDUAL = DSNet(depth=14, width=0.5, choices=5, routing_size=3, residual=True)
STATISTICS = METHOD.model_copy(update={"gate_input": "statistics"})
PLAIN = METHOD.model_copy(update={"gate_norm": False, "target": 0.0})
LABELS = torch.arange(12) % 5


def norms(net: torch.nn.Module) -> list[SlimNorm2d]:
    return [part for part in net.modules() if isinstance(part, SlimNorm2d)]


def state(net: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


@pytest.fixture(scope="module")
def released() -> GatedSupernet:
    return DSNet.published(family="mobilenet", depth=28).build(IMAGENET).eval()


def test_golden_parameters(released: GatedSupernet) -> None:
    parts = [*released.supernet.parameters(), *released.gate.parameters()]
    assert sum(p.numel() for p in parts) == 7_676_204


@pytest.mark.parametrize(
    ("name", "expected", "within"),
    [
        ("0", 132_004_224, 0),
        ("2", 174_190_000, 5_000),
        ("3", 198_600_384, 0),
        ("4", 225_210_000, 5_000),
        ("7", 318_300_000, 5_000),
        ("13", 564_090_944, 0),
        ("largest", 817_620_000, 5_000),
    ],
)
def test_golden_macs(released: GatedSupernet, name: str, expected: int, within: int) -> None:
    assert abs(uniform_points(released)[name].cost - expected) <= within


def test_golden_macs_are_those_of_the_shipped_network(released: GatedSupernet) -> None:
    shipped = SlicedNet(uniform_points(released)["0"])
    assert macs(shipped, torch.zeros(1, 3, 224, 224)) == 132_004_224


def test_golden_macs_of_the_gate(released: GatedSupernet) -> None:
    assert released.gate.weight.shape == (4, 66)
    assert float(released.prices[0]) - 132_004_224 == 264


def test_the_floor_is_the_narrowest_choice_without_the_gate() -> None:
    net = METHOD.build(CIFAR)
    assert METHOD.floor(CIFAR) == net.supernet.cost(net.supernet.layout.uniform(0))
    assert DSNet.published(family="mobilenet", depth=28).floor(IMAGENET) == 132_004_224


@pytest.mark.parametrize("method", [METHOD, RESIDUAL])
def test_the_closed_form_is_what_every_shipped_width_executes(method: DSNet) -> None:
    net = method.build(CIFAR).eval()
    points = uniform_points(net)
    assert list(points) == [*(str(choice) for choice in range(5)), "largest"]
    for view in points.values():
        shipped = method.deploy(view)
        assert executed_macs(shipped, torch.zeros(2, 3, 32, 32)) == 2 * view.cost


@pytest.mark.parametrize("method", [METHOD, RESIDUAL])
def test_a_shipped_width_answers_as_its_view(method: DSNet) -> None:
    net, batch = varied(method), images()
    with torch.no_grad():
        for view in uniform_points(net).values():
            said = view(batch)
            torch.testing.assert_close(SlicedNet(view)(batch), said.logits, rtol=1e-4, atol=1e-4)
            assert said.macs.tolist() == [view.cost] * len(batch)


@pytest.mark.parametrize("method", [METHOD, LATER, RESIDUAL])
def test_masked_equals_sliced_for_each_width_and_a_mixed_batch(method: DSNet) -> None:
    net, batch = varied(method), images()
    kinds = len(net.paths)
    with torch.no_grad():
        features, _ = net.supernet.front(batch, net.paths[0])
        sliced = torch.stack([net.supernet.back(features, path) for path in net.paths])
        mixed = torch.arange(len(batch)) % kinds
        for chosen in [*(torch.full_like(mixed, place) for place in range(kinds)), mixed]:
            shares = torch.nn.functional.one_hot(chosen, kinds).float()
            masked = net.supernet.masked(features, shares, net.paths)
            wanted = sliced[chosen, torch.arange(len(batch))]
            torch.testing.assert_close(masked, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", [METHOD, LATER, RESIDUAL, STATISTICS, PLAIN])
def test_a_bucketed_batch_equals_single_images_and_its_price_is_what_runs(method: DSNet) -> None:
    net, batch = varied(method), images()
    shipped = BucketedNet(net)
    with torch.no_grad():
        said = net(batch)
        singles = torch.cat([shipped(image[None]) for image in batch])
    torch.testing.assert_close(shipped(batch), said.logits, rtol=1e-4, atol=1e-4)  # folded
    torch.testing.assert_close(singles, said.logits, rtol=1e-4, atol=1e-4)
    assert said.macs.mean() * len(batch) == executed_macs(shipped, batch)
    for image, price in zip(batch, said.macs, strict=True):
        assert executed_macs(shipped, image[None]) == price


def test_two_forwards_in_evaluation_are_identical() -> None:
    net, batch = varied(METHOD), images()
    before = state(net)
    with torch.no_grad():
        first = net(batch)
        for view in uniform_points(net).values():
            view(batch)
        second = net(batch)
    assert torch.equal(first.logits, second.logits)
    assert torch.equal(first.macs, second.macs)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_routing_space_may_start_later() -> None:
    net = varied(LATER)
    assert net.routing == (2, 3, 4)
    layout = net.supernet.layout
    gate = net.gate.weight.numel()
    costs = [net.supernet.cost(layout.uniform(choice)) + gate for choice in (2, 3, 4)]
    assert net.prices.tolist() == costs
    assert sorted(net(images()).macs.unique().tolist()) == costs
    batch = images()
    with torch.no_grad():
        said, place = net(batch), net.decide(batch)[1]
        for image, logits, where in zip(batch, said.logits, place.tolist(), strict=True):
            alone = net.supernet(image[None], layout.uniform(2 + where))[0]
            torch.testing.assert_close(logits, alone, rtol=1e-4, atol=1e-5)


def test_the_supernet_does_not_depend_on_the_routing_space() -> None:
    built = []
    for method in (METHOD, LATER):
        torch.manual_seed(0)
        built.append(method.build(TASK).supernet.state_dict())
    assert all(torch.equal(value, built[1][name]) for name, value in built[0].items())


def test_a_training_forward_moves_one_set_of_statistics_per_norm() -> None:
    net = supernet(METHOD).train()
    before = [norm.running_mean.clone() for norm in norms(net)]
    net(images(), net.layout.uniform(1))
    for norm, old in zip(norms(net), before, strict=True):
        moved = (norm.running_mean != old).any(1)
        assert int(moved.sum()) == 1


def test_slices_outside_the_running_width_get_no_gradient() -> None:
    net = supernet(METHOD).train()
    path = net.layout.uniform(1)
    net(images(), path).square().sum().backward()
    running = SlicedNet(UniformNet(net, path))
    used = 0
    for parameter in net.parameters():
        assert parameter.grad is not None
        used += int((parameter.grad != 0).sum())
    width = net.layout.dynamic[1].widths[1]
    grad = net.head.weight.grad
    assert grad is not None
    assert (grad[:, width:] == 0).all()
    assert (grad[:, :width] != 0).any()
    last: Any = net.blocks[-1]
    assert (last.pointwise.weight.grad[width:] == 0).all()
    assert (last.pointwise.weight.grad[:, width:] == 0).all()
    assert (last.norm2.weight.grad[width:] == 0).all()
    assert used <= sum(p.numel() for p in running.parameters()) + sum(
        norm.weight.numel() for norm in norms(net)
    )


def test_a_recalibration_makes_every_statistic_anew() -> None:
    net = varied(METHOD).train()
    before = [norm.running_mean.clone() for norm in norms(net.supernet)]
    METHOD.phases()[0].finish(net, iter([images(), images(6)]))
    recalibrated = [norm.running_mean.clone() for norm in norms(net.supernet)]
    for norm, old, new in zip(norms(net.supernet), before, recalibrated, strict=True):
        for entry, width in enumerate(norm.widths):
            assert (new[entry, :width] != old[entry, :width]).all()
            assert (new[entry, :width] != 0).any()
    METHOD.phases()[0].finish(net, iter([images(), images(6)]))
    for norm, new in zip(norms(net.supernet), recalibrated, strict=True):
        torch.testing.assert_close(norm.running_mean, new)  # nothing of the past is left


@pytest.mark.parametrize("ensemble", [False, True])
def test_the_supernet_phase_trains_all_of_the_supernet_and_only_it(ensemble: bool) -> None:
    method = METHOD.model_copy(update={"ensemble": ensemble})
    torch.manual_seed(0)
    net = method.build(TASK).train()
    before = state(net.teacher)
    method.phases()[0].loss(net, images(), LABELS).backward()
    assert all(p.grad is not None for p in net.supernet.parameters())
    assert all(p.grad is None for p in [*net.gate.parameters(), *net.teacher.parameters()])
    assert all(torch.equal(value, before[name]) for name, value in net.teacher.state_dict().items())


def test_the_gate_phase_trains_the_gate_alone() -> None:
    net = varied(METHOD).train()
    phase = METHOD.phases()[1]
    before = state(net.supernet), state(net.teacher), state(net.gate)
    groups = phase.parameters(net)
    weights = [parameter for group in groups for parameter in group.parameters]
    assert [id(p) for p in weights] == [id(net.gate.weight), id(net.gate.bias)]
    optimiser = torch.optim.SGD(weights, lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        phase.loss(net, images(), LABELS).backward()
        optimiser.step()
    for part, old in ((net.supernet, before[0]), (net.teacher, before[1])):
        assert all(torch.equal(value, old[name]) for name, value in part.state_dict().items())
    after = state(net.gate)
    assert all(not torch.equal(after[name], before[2][name]) for name in ("weight", "bias"))
    assert all(p.grad is None and p.requires_grad for p in net.supernet.parameters())
    assert net.supernet.training


@pytest.mark.parametrize("target", [0.0, 0.4])
@pytest.mark.parametrize("alone", ["sgs_weight", "task_weight", "mac_weight"])
def test_every_loss_of_the_gate_phase_reaches_the_gate(alone: str, target: float) -> None:
    weights = {"sgs_weight": 0.0, "task_weight": 0.0, "mac_weight": 0.0, alone: 1.0}
    method = METHOD.model_copy(update=weights | {"target": target})
    net = varied(METHOD).train()
    method.phases()[1].loss(net, images(), LABELS).backward()
    assert net.gate.weight.grad is not None
    assert net.gate.weight.grad.abs().sum() > 0


def test_sparsification_asks_for_the_first_choice_where_it_is_right() -> None:
    odds = torch.tensor([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    right, wrong = (-odds[0].log_softmax(0)[place] for place in (0, 2))
    loss = sparsification(odds, torch.tensor([True, False]), None)
    torch.testing.assert_close(loss, (right + wrong) / 2)
    balanced = sparsification(odds, torch.tensor([True, False]), torch.tensor(0.8))
    torch.testing.assert_close(balanced, (right * 0.5 / 0.8 + wrong * 0.5 / 0.2) / 2)


def test_a_gate_without_evidence_loses_the_logarithm_of_its_choices() -> None:
    loss = sparsification(torch.zeros(5, 4), torch.tensor([True] * 5), None)
    assert loss.item() == pytest.approx(math.log(4))


def test_the_teacher_stays_in_evaluation_and_follows_the_supernet() -> None:
    net = METHOD.build(TASK).train()
    assert net.supernet.training
    assert not net.teacher.training
    with torch.no_grad():
        net.supernet.head.weight.add_(1)
    gap = (net.supernet.head.weight - net.teacher.head.weight).abs().max()
    METHOD.phases()[0].advance(net, 0.1)
    assert (net.supernet.head.weight - net.teacher.head.weight).abs().max() < gap


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ([1] * 8, "every image takes choice 3; do this"),
        ([0] * 99 + [1], "99.0% take choice 2; do this"),
        ([0, 1, 2] * 4, None),
    ],
)
def test_a_collapsed_gate_is_told(chosen: list[int], says: str | None) -> None:
    alarm = monotony(torch.tensor(chosen), (2, 3, 4), "do this")
    assert alarm is None if says is None else says in (alarm or "")


@pytest.mark.parametrize("count", [1, 5])
def test_small_batches_work_in_every_mode(count: int) -> None:
    net = METHOD.build(TASK)
    for mode in (True, False):
        net.train(mode)
        for phase in METHOD.phases():
            phase.loss(net, images(count), LABELS[:count]).backward()
    assert BucketedNet(net.eval())(images(count)).shape == (count, 5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"routing_start": 12, "choices": 14},
            r"routing_start \+ routing_size <= choices must hold",
        ),
        ({"choices": 3}, r"0 \+ 4 > 3"),
        ({"depth": 15}, "depth 6n\\+2, got 15; try 14 or 20"),
        ({"family": "mobilenet"}, "set depth=28"),
        ({"width": 0.1, "choices": 64}, "must keep a channel"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(options: dict[str, Any], says: str) -> None:
    with pytest.raises(MethodError, match=says):
        DSNet.of(options)


def test_small_images_are_refused_by_the_mobilenet_family() -> None:
    with pytest.raises(MethodError, match="use family cifar"):
        DSNet(family="mobilenet", depth=28).build(CIFAR)
    with pytest.raises(MethodError, match="use family cifar"):
        DSNet(family="mobilenet", depth=28).floor(CIFAR)  # known before a trial takes a worker
