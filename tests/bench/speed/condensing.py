"""CondenseNet: what is shipped beside the masked network that was trained (goal 10)."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from methods.api import Task
from methods.condensenet.method import CondenseNet
from methods.shipping.choices import Choices
from methods.shipping.forms import fastest
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
    choices = Choices(Path(tempfile.mkdtemp()))  # what was measured before is not read
    for batch in BATCHES:
        images = torch.randn(batch, 3, 32, 32, device=clock.device)
        packed = images.to(memory_format=torch.channels_last)
        same(counted(packed), net(images).logits)
        own = fastest(counted, packed, choices)
        same(own(packed), net(images).logits)
        plain, best = clock.faster(
            partial(net, images), partial(counted, packed), partial(own, packed)
        )
        yield found("", f"CondenseNet as counted, batch {batch}, over masked", plain)
        what = f"CondenseNet in its fastest form, batch {batch}, over masked"
        yield found("10", what, best, least=1.3, stretch=2.0)
