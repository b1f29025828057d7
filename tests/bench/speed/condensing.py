"""CondenseNet: what is shipped beside the masked network that was trained (goal 10)."""

from collections.abc import Iterator

import torch

from methods.api import Task
from methods.condensenet import CondenseNet
from tests.bench.speed.clock import Clock, same
from tests.bench.speed.goals import Finding, found

TASK = Task("images", 3, 32, 32, 10)
METHOD = CondenseNet(stages="6-6-6", growth=8, groups=4, condense_factor=4)
BATCHES = (1, 64)


@torch.no_grad()
def findings(clock: Clock) -> Iterator[Finding]:
    """Speed-up over the masked network: of the form that its MACs count, and of the fastest."""
    torch.manual_seed(0)
    net = METHOD.build(TASK)
    net.condense(net.last)
    net = net.to(clock.device).eval()
    counted = METHOD.deploy(net)
    for batch in BATCHES:
        images = torch.randn(batch, 3, 32, 32, device=clock.device)
        packed = images.to(memory_format=torch.channels_last)
        same(counted(packed), net(images).logits)
        ratio = clock.faster(lambda: net(images), lambda: counted(packed))[0]  # noqa: B023
        yield found("", f"CondenseNet as counted, batch {batch}, over masked", ratio)
