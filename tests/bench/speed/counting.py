"""Pricing ten thousand images, and a network that was priced before (goal 14)."""

import time
from collections.abc import Iterator

import torch

from methods.api import Task
from methods.resnet import costs
from methods.skipnet.method import SkipNet
from methods.skipnet.network import SkipResNet
from tests.bench.speed.clock import Clock, Ratio, same
from tests.bench.speed.goals import Finding, found

TASK = Task("images", 3, 32, 32, 10)
SAMPLES = 10_000


def findings(clock: Clock) -> Iterator[Finding]:
    """One product of actions and prices over a loop of samples; a cached price over a new one."""
    net = SkipNet(depth=38).build(TASK).to(clock.device)
    actions = (torch.rand(SAMPLES, len(net.savings), device=clock.device) < 0.5).double()
    same(
        net.price(actions),
        torch.tensor(_looped(net, actions), dtype=torch.float64).to(clock.device),
        tolerance=0,
    )
    ratio = clock.faster(lambda: _looped(net, actions), lambda: net.price(actions))[0]
    yield found("14", f"exact MACs of {SAMPLES} images over a loop", ratio, least=50.0)
    ratios = []
    for _ in range(3):
        costs.cache_clear()
        began = time.perf_counter()
        costs(TASK, 56)
        first = time.perf_counter() - began
        began = time.perf_counter()
        costs(TASK, 56)
        ratios.append(first / (time.perf_counter() - began))
    yield found("14", "pricing a network again over pricing it first", Ratio.of(ratios))


def _looped(net: SkipResNet, actions: torch.Tensor) -> list[float]:
    savings = net.savings.tolist()
    return [
        net.floor + sum(saved for runs, saved in zip(row, savings, strict=True) if runs)
        for row in actions.tolist()
    ]
