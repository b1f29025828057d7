"""SkipNets whose gates treat different images differently, as trained ones do."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from methods.api import Task
from methods.skipnet.gates import RecurrentGates
from methods.skipnet.method import SkipNet
from methods.skipnet.network import SkipResNet

TASK = Task("small", 3, 16, 16, 5)
Net = TypeVar("Net", bound=nn.Module)


def images(count: int = 12, seed: int = 0) -> Tensor:
    """Smooth coloured blobs of varying contrast."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 4, 4, generator=generator)
    contrast = torch.logspace(-1, 1, count)[:, None, None, None]
    return nn.functional.interpolate(coarse * contrast, size=16, mode="bilinear")


def fitted(net: Net, batch: Tensor) -> Net:
    """The network in evaluation, with this batch's statistics in its norms."""
    norms = [part for part in net.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        net.train()(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return net.eval()


def varied(method: SkipNet) -> SkipResNet:
    """The first seed's network whose samples take at least three different prices."""
    batch = images()
    for seed in range(200):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = fitted(method.build(TASK), batch)
        odds = net.run(batch, lambda _, logit: (logit > 0).float()).odds
        if len(net(batch).macs.unique()) >= 3 and odds.abs().min() > 1e-4:
            return net
    raise AssertionError("no seed gave varied decisions")


def forced(net: SkipResNet, run: bool) -> SkipResNet:
    """The same network with every gate decided beforehand."""
    gates = net.gates
    heads = [gates.head] if isinstance(gates, RecurrentGates) else list(gates.heads)
    with torch.no_grad():
        for head in heads:
            head.weight.zero_()
            head.bias.fill_(5.0)
            head.bias[:-1].fill_(-5.0)
            if not run:
                head.bias.neg_()
    return net
