"""The end of a phase: norms that fit the decisions, and decisions that fit the target."""

import itertools
import math
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
CLOSE = 0.002
"""How far from the target the decided share may stay."""
STEPS = 12
"""Shifts that are tried at most."""
ROUNDS = 2
"""Searches for the shift, each after norms that fit the decisions so far."""


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
    """Shift all log odds, until the gates decide to run the target's share of the gated MACs.

    The share grows with the shift: steps that double find one shift below the target and one above,
    and the line between them where to look next.
    """
    at, step = 0.0, 0.5
    lower, upper = (-FARTHEST, -target), (FARTHEST, 1 - target)
    with quiet(net):
        for _ in range(STEPS):
            excess = float(net.share(net.run(images, threshold).actions).mean()) - target
            if abs(excess) <= CLOSE:
                return
            lower, upper = (lower, (at, excess)) if excess > 0 else ((at, excess), upper)
            if lower[0] > -FARTHEST and upper[0] < FARTHEST:
                following = _between(lower, upper)
            else:
                following = min(max(at - math.copysign(step, excess), -FARTHEST), FARTHEST)
                step *= 2
            net.gates.favour(following - at)
            at = following


def _between(lower: tuple[float, float], upper: tuple[float, float]) -> float:
    """Where the line through two shifts and their excesses is zero, a fifth away from either."""
    (low, below), (high, above) = lower, upper
    share = -below / (above - below)
    return low + (high - low) * min(max(share, 0.2), 0.8)


def _first(batches: Iterable[Tensor], count: int) -> list[Tensor]:
    """The first batches that hold so many images together."""
    first: list[Tensor] = []
    for images in batches:
        first.append(images)
        if sum(map(len, first)) >= count:
            break
    return first
