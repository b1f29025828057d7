import time

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from toy import Toy, ToyNet

from methods.api import Network, Output
from methods.data.load import Data, load
from methods.shipping.clock import LEAST, latencies
from methods.training.evaluate import evaluate


@pytest.fixture(scope="module")
def data() -> Data:
    return load("digits")


@pytest.fixture
def net(data: Data) -> ToyNet:
    torch.manual_seed(0)
    return Toy().build(data.task)


class Priced(Network):
    """Says class 3, and costs 1, 2, 3, ... MACs over the samples that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, images: torch.Tensor) -> Output:
        costs = torch.arange(self.count + 1, self.count + len(images) + 1).double()
        self.count += len(images)
        return Output(F.one_hot(torch.full((len(images),), 3), 10).float(), costs)


def test_numbers_are_those_of_one_big_batch(net: ToyNet, data: Data) -> None:
    split = data.validation
    images, labels = split.head(10**6)
    with torch.no_grad():
        output = net.eval()(images)
    got = evaluate(net, split, batch_size=50)
    assert got.accuracy == float((output.logits.argmax(1) == labels).double().mean())
    assert got.loss == pytest.approx(float(F.cross_entropy(output.logits.double(), labels)))
    assert np.array_equal(got.macs, output.macs.numpy())
    assert np.array_equal(got.predictions, output.logits.argmax(1).numpy())
    assert np.array_equal(got.labels, labels.numpy())
    assert got.macs_mean == float(output.macs.mean())
    assert got.macs_std == pytest.approx(float(output.macs.std(correction=0)))


def test_cost_statistics_are_observed_values(data: Data) -> None:
    got = evaluate(Priced(), data.validation, batch_size=64)
    count = len(data.validation)
    assert got.macs.tolist() == list(range(1, count + 1))
    assert got.macs_mean == (count + 1) / 2
    assert got.macs_max == count
    assert got.macs_p95 in got.macs
    assert np.mean(got.macs <= got.macs_p95) >= 0.95
    assert np.mean(got.macs <= got.macs_p95 - 1) < 0.95
    assert got.accuracy == float((data.validation.labels == 3).double().mean())


class Ranking(Network):
    """Random logits for 30 classes, which come in ties."""

    def forward(self, images: torch.Tensor) -> Output:
        draw = torch.Generator().manual_seed(len(images))
        logits = torch.randint(0, 12, (len(images), 30), generator=draw)
        return Output(logits.float(), torch.ones(len(images)).double())


def test_five_guesses_count_where_there_are_many_classes(data: Data) -> None:
    split = data.validation
    got = evaluate(Ranking(), split, batch_size=len(split))
    logits = Ranking()(split.head(10**6)[0]).logits.numpy()
    least = np.sort(logits, axis=1)[:, -5]
    expected = logits[np.arange(len(split)), split.labels.numpy()] >= least
    assert got.among_five is not None
    assert np.array_equal(got.among_five, expected)
    assert 0 < expected.mean() < 1
    assert evaluate(Priced(), split).among_five is None, "ten classes are few"


def test_costs_above_the_reach_of_float32_stay_exact(data: Data) -> None:
    class Dear(Priced):
        def forward(self, images: torch.Tensor) -> Output:
            logits, costs = super().forward(images)
            return Output(logits, costs + 2.0**40)

    assert evaluate(Dear(), data.validation).macs_max == 2.0**40 + len(data.validation)


def test_nothing_is_left_behind(net: ToyNet, data: Data) -> None:
    net.train()
    net.norm.eval()
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    generator = torch.get_rng_state()
    evaluate(net, data.validation)
    latencies([net], [data.validation.head(2)[0]], rounds=2, warmup=1)
    assert net.training
    assert not net.norm.training
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


def test_modes_come_back_after_an_error(net: ToyNet, data: Data) -> None:
    net.train()
    with pytest.raises(RuntimeError):
        latencies([net], [torch.zeros(1, 5, 8, 8)])
    assert net.training


class Slow(torch.nn.Module):
    """Sleeps, and counts its calls."""

    def __init__(self, seconds: float, calls: list[str]) -> None:
        super().__init__()
        self.seconds = seconds
        self.calls = calls

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls.append(str(self.seconds))
        time.sleep(self.seconds)
        return images


def test_latencies_are_taken_in_turns_and_per_call(data: Data) -> None:
    calls: list[str] = []
    batches = data.test.head(4)[0].split(2)
    slow, fast = latencies([Slow(0.02, calls), Slow(0.0, calls)], batches, rounds=6, warmup=2)
    assert slow.median >= 0.02
    assert slow.median > fast.median > 0
    assert slow.spread >= 0
    assert slow.p95 >= slow.median
    assert slow.calls == 6 * 2
    assert len(calls) == 8 * 2 * 2
    rounds = [calls[first : first + 4] for first in range(0, len(calls), 4)]
    assert all(sorted(calls) == ["0.0", "0.0", "0.02", "0.02"] for calls in rounds)
    assert len({calls[0] for calls in rounds}) == 2, "each goes first as often as the other"


def test_slow_networks_are_not_timed_for_ever(data: Data) -> None:
    calls: list[str] = []
    latencies([Slow(0.01, calls)], [data.test.head(1)[0]], rounds=1000, warmup=0, seconds=0.02)
    assert LEAST <= len(calls) < 50


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_counts_the_same(data: Data) -> None:
    net = Toy().build(data.task)
    here = evaluate(net, data.test)
    there = evaluate(net.cuda(), load("digits", device="cuda").test, device="cuda")
    assert there.macs_mean == here.macs_mean
    assert there.loss == pytest.approx(here.loss, rel=1e-3)
