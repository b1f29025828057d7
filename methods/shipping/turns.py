"""Milliseconds of deployed networks, each in turns with one and the same reference network.

What a clock says depends on what else the machine does at that moment. A network is therefore timed
in turns with a reference, and its time is a multiple of the reference's. Where one thread computes,
its processor time counts: trials that run beside it take none of that.
"""

from dataclasses import dataclass

import torch
from torch import nn

from methods.api import Images, Task
from methods.dense import Dense
from methods.shipping.choices import Choices
from methods.shipping.clock import latencies, steady
from methods.shipping.forms import fastest

SINGLE = 16
"""Images that are timed, at least: dynamic networks do not take the same time for each."""
ROUNDS = 15
"""Rounds of such calls."""


@dataclass(frozen=True)
class Turns:
    """What the clock said of a network and of the reference beside it, in milliseconds a call."""

    ms: float
    spread_ms: float
    """Distance between the quartiles of the rounds."""
    reference_ms: float

    def calibrated(self, reference_ms: float) -> tuple[float, float]:
        """Milliseconds and their spread, where the reference takes `reference_ms` by the record."""
        return (
            self.ms / self.reference_ms * reference_ms,
            self.spread_ms / self.reference_ms * reference_ms,
        )


def reference(task: Task) -> nn.Module:
    """The deployed network that all others are compared with: dense by default, untrained.

    Raises:
        MethodError: it has no network for such images.
    """
    method = Dense()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return method.deploy(method.build(task))


def in_turns(
    deployed: nn.Module,
    beside: nn.Module,
    images: Images,
    batch: int,
    choices: Choices | None = None,
) -> Turns:
    """A deployed network and the reference, both in their fastest exact forms for such calls.

    The images lie on the device of the networks; where they are fewer than a call takes, they come
    again.
    """
    calls = max(1, SINGLE // batch)
    few = images[torch.arange(batch * calls, device=images.device) % len(images)]
    batches = list(torch.split(few, batch))
    choices = Choices() if choices is None else choices
    shipped = [fastest(module, batches[0], choices) for module in (deployed, beside)]
    timing, of_reference = latencies(shipped, batches, rounds=ROUNDS, clock=steady(images.device))
    return Turns(1e3 * timing.median, 1e3 * timing.spread, 1e3 * of_reference.median)
