"""SkipNets whose gates treat different images differently, as trained ones do."""

import torch
from torch import Tensor

from methods.api import Task
from methods.skipnet.gates import RecurrentGates
from methods.skipnet.method import SkipNet
from methods.skipnet.network import SkipResNet

TASK = Task("small", 3, 16, 16, 5)


def images(count: int = 12, seed: int = 0) -> Tensor:
    """Smooth coloured blobs of varying contrast."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 4, 4, generator=generator)
    contrast = torch.logspace(-1, 1, count)[:, None, None, None]
    return torch.nn.functional.interpolate(coarse * contrast, size=16, mode="bilinear")


def varied(method: SkipNet) -> SkipResNet:
    """The first seed's network whose samples take at least three different prices."""
    batch = images()
    for seed in range(200):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = method.build(TASK)
            with torch.no_grad():
                for _ in range(20):
                    net(batch)  # norms get statistics
        net.eval()
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
