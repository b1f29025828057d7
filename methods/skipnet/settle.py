"""The end of a phase: norms that fit the decisions, and decisions that fit the target."""

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from methods.api import Images
from methods.macs import quiet
from methods.skipnet.network import SkipResNet, run_all
from methods.skipnet.policy import threshold

SAMPLE = 2048
"""Images on which the decided share is measured while it is brought to the target."""
FARTHEST = 16.0
"""Largest shift of the log odds of running."""
HALVINGS = 12
"""Steps of the bisection; the last one moves the log odds by 0.004."""
ROUNDS = 2
"""Bisections, each after norms that fit the decisions so far."""


def gather(net: SkipResNet, batches: Iterable[Tensor]) -> None:
    """Gather the norms' statistics anew under what the network decides: means over the batches."""
    norms = [part for part in net.modules() if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    for images in batches:
        net.run(images, threshold if net.gated else run_all)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def settle(net: SkipResNet, batches: Iterable[Tensor], *, regather: bool, target: float) -> None:
    """Gather statistics if asked to, and shift the gates until the target's share is decided."""
    rest = iter(batches)
    sample = _first(rest, SAMPLE) if target else []
    if regather:
        gather(net, itertools.chain(sample, rest))
    if not target:
        return
    for _ in range(ROUNDS if regather else 1):
        hold(net, torch.cat(sample), target)
        if regather:
            gather(net, sample)


def hold(net: SkipResNet, images: Images, target: float) -> None:
    """Shift all log odds, until the gates decide to run the target's share of the gated MACs."""
    low, high = -FARTHEST, FARTHEST
    at = 0.0
    with quiet(net):
        for _ in range(HALVINGS):
            share = net.share(net.run(images, threshold).actions).mean()
            low, high = (low, at) if share > target else (at, high)
            middle = (low + high) / 2
            net.gates.favour(middle - at)
            at = middle


def _first(batches: Iterable[Tensor], count: int) -> list[Tensor]:
    """The first batches that hold so many images together."""
    first: list[Tensor] = []
    for images in batches:
        first.append(images)
        if sum(map(len, first)) >= count:
            break
    return first
