"""ResRep: the merged network beside the one that was trained, and round channel counts (11)."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from methods.api import Task
from methods.resrep.method import CompactedResNet, ResRep
from tests.bench.speed.clock import Clock, Work, same
from tests.bench.speed.goals import Finding, found

TASK = Task("images", 3, 32, 32, 10)
METHOD = ResRep(depth=20)
LARGE = 128
"""Batch size that the goals speak of."""


@torch.no_grad()
def findings(clock: Clock) -> Iterator[Finding]:
    """Inner widths halved: half of each compactor's rows are forgotten, or all but one more."""
    torch.manual_seed(0)
    net = forgotten(METHOD.build(TASK)).to(clock.device).eval()
    merged = METHOD.deploy(net)
    promised = net.plan.dense / float(net.cost())
    for batch, limits in ((1, {}), (LARGE, {"least": 1.6, "stretch": 2.2})):
        images = torch.randn(batch, 3, 32, 32, device=clock.device)
        packed = images.to(memory_format=torch.channels_last)
        same(merged(packed), net(images).logits)
        ratio = clock.faster(_call(net, images), _call(merged, packed))[0]
        what = f"ResRep merged, batch {batch}, over the trained form (MACs: {promised:.2f})"
        yield found("11", what, ratio, **limits)
    images = torch.randn(LARGE, 3, 32, 32, device=clock.device)
    packed = images.to(memory_format=torch.channels_last)
    odd = METHOD.deploy(forgotten(METHOD.build(TASK), more=1).to(clock.device).eval())
    ratio = clock.faster(_call(odd, packed), _call(merged, packed))[0]
    what = f"ResRep at half the channels over one more each, batch {LARGE}"
    yield found("11", what, ratio, least=1.1)


def forgotten(net: CompactedResNet, *, more: int = 0) -> CompactedResNet:
    """The network with the second half of all rows forgotten but for so many."""
    for compactor in net.compactors:
        kept = len(compactor.mask) // 2 + more
        compactor.mask[kept:] = False
        compactor.weight[kept:] = 0
    return net


def _call(module: nn.Module, images: Tensor) -> Work:
    return lambda: module(images)
