"""What the gate reads, how it is normed and shifted, and the loss that keeps a target."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from slims import TASK, images, lived_in, varied

from methods.dsnet.gate import Gate, Standard, TaskLoss, reading, shift
from methods.dsnet.losses import frozen
from methods.dsnet.method import TOLERANCE, DSNet
from methods.macs import quiet

METHOD = DSNet(depth=14, width=0.5)
LABELS = torch.arange(12) % 5


def test_statistics_are_mean_maximum_and_deviation_of_each_channel() -> None:
    features = torch.randn(4, 3, 5, 5, requires_grad=True)
    read = reading("statistics", features, torch.zeros(4, 2))
    mean, maximum, deviation = read.split(3, 1)
    torch.testing.assert_close(mean, features.mean((2, 3)).detach())
    torch.testing.assert_close(maximum, features.amax((2, 3)).detach())
    torch.testing.assert_close(deviation, features.std((2, 3), correction=0).detach())
    assert not read.requires_grad, "no gradient of the gate reaches the supernet"


def test_the_norm_has_mean_and_deviation_of_all_that_it_read_in_training() -> None:
    norm = Standard(4).train()
    batches = [torch.randn(8, 4) * (1 + step) + 3 for step in range(5)]
    for batch in batches:
        norm(batch)
    everything = torch.cat(batches)
    expected = (everything - everything.mean(0)) / everything.std(0, correction=0)
    torch.testing.assert_close(norm.eval()(everything), expected, rtol=1e-4, atol=1e-4)
    before = norm.mean.clone()
    norm(batches[0])
    assert torch.equal(norm.mean, before), "evaluation changes nothing"


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_shipped_gate_is_one_linear_map(normed: bool, bias: bool) -> None:
    gate = Gate(6, 3, normed=normed, bias=bias).train()
    gate(torch.randn(20, 6) * 2 + 1)
    inputs = torch.randn(5, 6)
    torch.testing.assert_close(gate.at()(inputs), gate.eval()(inputs), rtol=1e-5, atol=1e-5)


@given(seed=st.integers(0, 1000), target=st.floats(0.45, 0.95))
def test_a_shift_brings_the_decisions_to_their_target(seed: int, target: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    odds = torch.randn(2000, 4, generator=generator) + torch.tensor([3.0, 0, 0, -1])
    costs = torch.tensor([0.4, 0.55, 0.75, 1.0], dtype=torch.float64)
    shifted = odds + shift(odds, costs, target)
    assert float(costs[shifted.argmax(1)].mean()) == pytest.approx(target, abs=0.002)


@pytest.mark.parametrize("task_loss", ["miss", "cross_entropy"])
def test_the_target_loss_is_what_the_shares_expect(task_loss: TaskLoss) -> None:
    method = METHOD.model_copy(update={"task_loss": task_loss})
    net, batch = varied(method).train(), images()
    loss = method.phases(smoothing=0.1)[1].loss(net, batch, LABELS)
    task = 0.0
    with frozen(net.supernet), torch.no_grad():
        shares = net.weigh(batch)[1].softmax(1)
        for path, column in zip(net.paths, shares.T, strict=True):
            logs = net.supernet(batch, path).log_softmax(1)
            truth = logs[torch.arange(12), LABELS]
            nats = -0.9 * truth - 0.1 * logs.mean(1)
            task += float((column * (1 - truth.exp() if task_loss == "miss" else nats)).mean())
        spent = float((shares.double() @ net.prices).mean() / net.prices[-1])
    least = float(net.prices[0] / net.prices[-1])
    wanted = 3 * task + 2 * (spent / (least + method.target * (1 - least)) - 1) ** 2
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("gate_input", ["statistics", "squeezed"])
@pytest.mark.parametrize("target", [0.25, 0.7])
def test_the_gate_phase_ends_at_its_target(gate_input: str, target: float) -> None:
    method = DSNet.of({"depth": 8, "width": 0.5, "target": target, "gate_input": gate_input})
    net, batch = varied(method), images(60)
    method.phases()[1].finish(net.train(), iter([batch[:30], batch[30:]]))
    with quiet(net):
        spent = float(net(batch).macs.mean() / net.prices[-1])
    least = float(net.costs[0])
    assert spent == pytest.approx(least + target * (1 - least), abs=TOLERANCE)


def test_a_gate_near_its_target_and_one_without_a_target_stay_as_they_are() -> None:
    for method in (METHOD, DSNet.published(depth=14, width=0.5, choices=5)):
        net, batch = varied(method).train(), images()
        if method.target:
            method.phases()[1].finish(net, iter([batch]))
        before = {name: value.clone() for name, value in net.gate.state_dict().items()}
        method.phases()[1].finish(net, iter([batch]))
        assert all(
            torch.equal(value, before[name]) for name, value in net.gate.state_dict().items()
        )


@pytest.mark.parametrize("teacher", ["largest", "labels"])
def test_without_an_average_the_teacher_is_left_alone(teacher: str) -> None:
    method = DSNet.of({"depth": 8, "width": 0.25, "teacher": teacher})
    net = method.build(TASK).train()
    lived_in(net.supernet)
    before = net.teacher.stem.weight.clone()
    with torch.no_grad():
        net.supernet.stem.weight.add_(1)
    phase = method.phases()[0]
    phase.advance(net, 0.5)
    phase.loss(net, images(), LABELS).backward()
    assert torch.equal(net.teacher.stem.weight, before)


def test_the_published_average_has_no_warm_up() -> None:
    net = (method := DSNet.published(depth=8, width=0.25, choices=5, teacher_decay=0.9)).build(TASK)
    before = net.teacher.stem.weight.clone()
    with torch.no_grad():
        net.supernet.stem.weight.add_(1)
    method.phases()[0].advance(net, 0.01)
    torch.testing.assert_close(net.teacher.stem.weight, before + 0.1)


def test_squeezing_starts_where_it_is_told() -> None:
    for bias in (0.0, 0.5):
        block: Any = DSNet(depth=8, width=0.25, squeeze_bias=bias).build(TASK).supernet.blocks[0]
        assert (block.squeeze.reduce.bias == bias).all()
