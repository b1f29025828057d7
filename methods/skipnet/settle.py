"""The end of a phase: norms that fit the decisions, and decisions that fit the target."""

import itertools
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from methods.api import Images
from methods.macs import quiet
from methods.parallel import everyone, size
from methods.skipnet.network import SkipResNet, run_all
from methods.skipnet.policy import threshold

SAMPLE = 2048
"""Images on which the decided share is measured while it is brought to the target."""
FARTHEST = 16.0
"""Largest shift of the log odds of running."""
CLOSE = 0.002
"""How far from the target the decided share may stay."""
STEPS = 16
"""Shifts that are tried at most."""
ROUNDS = 2
"""Searches for the shift, each after norms that fit the decisions so far."""
FAR = 0.05
"""How far from the target the share may be with norms that fit; beyond, every shift that is tried
gets norms of its own."""


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
    images = torch.cat(sample)
    for _ in range(ROUNDS if regather else 1):
        hold(net, images, target)
        if regather:
            gather(net, sample)
    if regather and abs(_excess(net, images, target)) > FAR:
        hold(net, images, target, sample)


def hold(
    net: SkipResNet, images: Images, target: float, batches: Iterable[Tensor] | None = None
) -> None:
    """Shift all log odds, until the gates decide to run the target's share of the gated MACs.

    With `batches` the norms' statistics are gathered on them at every shift: in a narrow network
    statistics and decisions may drive each other away, if each is brought to the other in turns.

    The share grows with the shift. Steps that double find one shift below the target and one above;
    then the line between them says where to look, and every other time their middle. The closest
    shift stays, where none is close: gates that are sure decide in jumps.
    """
    at, step = 0.0, 0.5
    closest = (math.inf, at)
    below: tuple[float, float] | None = None
    above: tuple[float, float] | None = None
    for turn in range(STEPS):
        if batches is not None:
            gather(net, batches)
        excess = _excess(net, images, target)
        closest = min(closest, (abs(excess), at))
        if abs(excess) <= CLOSE:
            break
        if excess > 0:
            above = (at, excess)
        else:
            below = (at, excess)
        if below and above:
            following = _between(below, above, middle=turn % 2 == 0)
        else:
            following = min(max(at - math.copysign(step, excess), -FARTHEST), FARTHEST)
            step *= 2
        net.gates.favour(following - at)
        at = following
    if at != closest[1]:
        net.gates.favour(closest[1] - at)
        if batches is not None:
            gather(net, batches)


def _excess(net: SkipResNet, images: Images, target: float) -> float:
    """By how much the decided share of the gated MACs is above the target."""
    with quiet(net):
        shares = everyone(net.share(net.run(images, threshold).actions))
    return float(shares.mean()) - target


def _between(below: tuple[float, float], above: tuple[float, float], *, middle: bool) -> float:
    """The middle of two shifts, or where the line through their excesses is zero."""
    (low, short), (high, long) = below, above
    return low + (high - low) * (0.5 if middle else short / (short - long))


def _first(batches: Iterable[Tensor], count: int) -> list[Tensor]:
    """The first batches that hold so many images together, on all workers."""
    first: list[Tensor] = []
    taken = 0
    for images in batches:
        first.append(images)
        taken += size(len(images))
        if taken >= count:
            break
    return first
