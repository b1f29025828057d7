"""One convention, two counters, and a test for every known way to count wrongly."""

import warnings

import pytest
import torch
from samples import TASK, forced, images, varied
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from methods.api import Task
from methods.macs import FlopCountAnalysis, executed_macs, macs
from methods.resnet import resnet
from methods.skipnet.gates import Kind
from methods.skipnet.method import SkipNet
from methods.skipnet.network import SkippingNet

KINDS: list[Kind] = ["ffgate-1", "ffgate-2", "rnn"]


class Call(nn.Module):
    """Any function as a module, for the tracer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


class Traced(nn.Module):
    """A skipping network that also returns what its gates said."""

    def __init__(self, net: SkippingNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        return self.net.run(batch)


def raw_fvcore(module: nn.Module, *inputs: Tensor) -> FlopCountAnalysis:
    return FlopCountAnalysis(module.eval(), inputs).unsupported_ops_warnings(False)


def raw_torch(module: nn.Module, *inputs: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        module(*inputs)
    return int(counter.get_total_flops())


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (torch.mm, [(3, 5), (5, 7)], 3 * 5 * 7),
        (torch.mv, [(3, 5), (5,)], 3 * 5),
        (torch.bmm, [(2, 3, 5), (2, 5, 7)], 2 * 3 * 5 * 7),
        (torch.baddbmm, [(2, 3, 7), (2, 3, 5), (2, 5, 7)], 2 * 3 * 5 * 7),
        (torch.addmm, [(3, 7), (3, 5), (5, 7)], 3 * 5 * 7),
        (torch.matmul, [(2, 3, 5), (2, 5, 7)], 2 * 3 * 5 * 7),
        (torch.matmul, [(2, 3, 5), (5,)], 2 * 3 * 5),
        (F.linear, [(3, 5), (7, 5)], 3 * 5 * 7),
        (lambda a, b: torch.einsum("be, eo -> bo", a, b), [(3, 5), (5, 7)], 3 * 5 * 7),
        (lambda a, b: torch.einsum("nc,mc->nm", a, b), [(49, 96), (96, 96)], 451_584),
        (lambda a, b: torch.tensordot(a, b, 1), [(3, 2, 5), (5, 7)], 3 * 2 * 5 * 7),
        (lambda x, w: F.conv2d(x, w, groups=2), [(2, 4, 6, 6), (6, 2, 3, 3)], 2 * 16 * 6 * 2 * 9),
    ],
)
def test_products_count_once_in_both_counters(function, shapes, expected: int) -> None:
    module, inputs = Call(function), [torch.randn(shape) for shape in shapes]
    assert macs(module, *inputs) == expected
    if function is not torch.mv and len(shapes[-1]) > 1:  # torch's counter has no rule for mv
        assert executed_macs(module, *inputs) == expected


@pytest.mark.parametrize(
    "module",
    [
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.MaxPool2d(2),
        Call(lambda x: x + x * x.mean((2, 3), keepdim=True)),
    ],
)
def test_the_rest_is_free(module: nn.Module) -> None:
    batch = torch.randn(2, 4, 8, 8)
    assert macs(module, batch) == executed_macs(module, batch) == 0


def test_counting_leaves_the_module_alone() -> None:
    net = resnet(Task("t", 3, 8, 8, 2), 8, 0.25).train()
    net.blocks[1].eval()
    modes = [part.training for part in net.modules()]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    batch = torch.randn(2, 3, 8, 8)
    assert macs(net, batch) == executed_macs(net, batch)
    assert modes == [part.training for part in net.modules()]
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_einsum_of_three_is_refused() -> None:
    product = Call(lambda a, b: torch.einsum("ab,bc,cd->ad", a, b, a))
    with pytest.raises(NotImplementedError, match="products of two"):
        macs(product, torch.randn(3, 3), torch.randn(3, 3))


@pytest.mark.parametrize("module", [nn.GRU(4, 4), nn.RNN(4, 4), nn.RNN(4, 4, nonlinearity="relu")])
def test_recurrent_modules_without_a_rule_are_refused(module: nn.Module) -> None:
    with pytest.raises(NotImplementedError, match="linear maps"):
        macs(module, torch.randn(3, 2, 4))


def test_an_lstm_cell_counts_like_one_step() -> None:
    cell, batch = nn.LSTMCell(10, 10), torch.randn(12, 10)
    assert macs(cell, batch) == executed_macs(cell, batch) == 12 * 800


# Traps: what a naive count reports, beside the truth.


def test_trap_fvcore_total_adds_norms() -> None:
    net, image = resnet(Task("cifar10", 3, 32, 32, 10), 20), torch.randn(1, 3, 32, 32)
    assert macs(net, image) == 40_813_184
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert raw_fvcore(net, image).total() == 40_813_184 + 401_408


def test_trap_torch_counts_two_per_mac() -> None:
    linear, batch = nn.Linear(5, 7), torch.randn(3, 5)
    assert raw_torch(linear, batch) == 2 * macs(linear, batch) == 2 * executed_macs(linear, batch)


@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        (nn.LSTM(10, 10), (torch.randn(4, 3, 10),)),
        (nn.LSTM(10, 10, batch_first=True, bidirectional=True), (torch.randn(3, 2, 10),)),
    ],
)
def test_trap_the_lstm_is_silent(module: nn.Module, inputs: tuple[Tensor]) -> None:
    assert macs(module, *inputs) == executed_macs(module, *inputs) == 12 * 800
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert raw_fvcore(module, *inputs).total() == 0


def test_trap_the_lstm_is_silent_for_torch_too() -> None:
    lstm, sequence = nn.LSTM(10, 10).eval(), torch.randn(4, 3, 10)
    with torch.no_grad():
        assert raw_torch(lstm, sequence) == 0
    assert executed_macs(lstm, sequence) == 12 * 800


def test_trap_fvcore_rounds_einsum_and_misses_products() -> None:
    einsum = Call(lambda a, b: torch.einsum("nc,mc->nm", a, b))
    inputs = torch.randn(49, 96), torch.randn(96, 96)
    baddbmm = Call(torch.baddbmm)
    batch = torch.randn(2, 3, 7), torch.randn(2, 3, 5), torch.randn(2, 5, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert raw_fvcore(einsum, *inputs).total() != 451_584
        assert raw_fvcore(baddbmm, *batch).total() == 0
    assert macs(einsum, *inputs) == 451_584
    assert macs(baddbmm, *batch) == 210


@pytest.mark.parametrize("kind", KINDS)
def test_price_trace_and_execution_agree(kind: Kind) -> None:
    net, batch = varied(SkipNet(depth=14, gate=kind)), images()
    shipped = SkippingNet(net)
    price = net(batch).macs.sum().item()
    assert price == macs(Traced(shipped), batch) == executed_macs(shipped, batch)


@pytest.mark.parametrize("kind", KINDS)
def test_trap_masked_execution_counts_as_full(kind: Kind) -> None:
    net, batch = varied(SkipNet(depth=14, gate=kind)), images()
    full = len(batch) * (net.floor + int(net.savings.sum()))
    assert executed_macs(net, batch) == full > net(batch).macs.sum()


@pytest.mark.parametrize("kind", KINDS)
def test_trap_ones_say_nothing_about_images(kind: Kind) -> None:
    net, batch = varied(SkipNet(depth=14, gate=kind)), images()
    shipped = SkippingNet(net)
    ones = executed_macs(shipped, torch.ones_like(batch[:1]))
    assert ones != net(batch).macs.mean() == executed_macs(shipped, batch) / len(batch)


@pytest.mark.parametrize("kind", KINDS)
def test_trap_a_trace_drops_gates_that_only_steer_branches(kind: Kind) -> None:
    net = forced(SkipNet(depth=14, gate=kind).build(TASK).eval(), run=True)
    batch, shipped = images(), SkippingNet(net)
    with torch.no_grad():
        assert bool(net.route(batch)[1].all())
    truth = executed_macs(shipped, batch)
    dropped = truth - macs(shipped, batch)
    plain = sum(macs(part, batch) for part in [net.backbone])
    assert 0 < dropped <= truth - plain, "all of them, but for the cells of a recurrent gate"
    assert kind == "rnn" or dropped == truth - plain
    assert macs(Traced(shipped), batch) == truth == net(batch).macs.sum()
