"""CondConv: one mixed convolution beside a plain one, and beside a loop over images (8 and 9)."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.condconv.layers import CondConv2d
from methods.shipping.choices import Choices
from methods.shipping.forms import tuned
from tests.bench.speed.clock import Clock, Ratio, same
from tests.bench.speed.goals import Finding, found

EXPERTS = 4


class Shape(NamedTuple):
    """A layer as wide behind as before, and what it is to reach over a plain one."""

    goal: str
    channels: int
    size: int
    side: int
    batch: int
    most: float | None = None
    stretch: float | None = None

    def __str__(self) -> str:
        square = f"{self.size}x{self.size}"
        return f"{square}, {self.channels} channels, {self.side} px, batch {self.batch}"


SHAPES = (
    Shape("8", 16, 3, 32, 1, 1.5, 1.3),
    Shape("8", 16, 3, 32, 128, 1.5, 1.3),
    Shape("8", 32, 3, 16, 64, 1.5, 1.3),
    Shape("8", 64, 3, 16, 64, 1.5, 1.3),
    Shape("8", 64, 3, 8, 128, 2.2, 1.8),
    Shape("8", 256, 3, 4, 128, 5.0, 3.0),
    Shape("9", 16, 1, 32, 128, 1.9, 1.4),
    Shape("9", 64, 1, 8, 16, 1.9, 1.4),
)
LOOPED = 64
"""Images from which the loop is to be beaten."""


def findings(clock: Clock) -> Iterator[Finding]:
    """Time over a plain convolution's in its better layout, forward and with gradients."""
    for shape in SHAPES:
        for trains in (False, True):
            yield from _layer(clock, shape, trains)


def _layer(clock: Clock, shape: Shape, trains: bool) -> Iterator[Finding]:
    torch.manual_seed(0)
    device, padding = clock.device, shape.size // 2
    mixed = CondConv2d(
        shape.channels, shape.channels, shape.size, 1, padding, bias=False, experts=EXPERTS
    )
    mixed = mixed.to(device).train(trains)
    plain = nn.Conv2d(shape.channels, shape.channels, shape.size, padding=padding, bias=False)
    nchw, nhwc = plain.to(device), _packed(plain)
    images = torch.randn(shape.batch, shape.channels, shape.side, shape.side, device=device)
    packed = images.to(memory_format=torch.channels_last)
    routing = torch.rand(shape.batch, EXPERTS, device=device)
    with torch.no_grad():
        same(mixed(packed, routing), looped(mixed, images, routing))

    def once(module: nn.Module, *inputs: Tensor) -> None:
        if not trains:
            with torch.no_grad():
                module(*inputs)
            return
        inputs[0].requires_grad_()
        module(*inputs).sum().backward()

    class Loop(nn.Module):
        def forward(self, features: Tensor, routing: Tensor) -> Tensor:
            return looped(mixed, features, routing)

    loop = Loop()
    ours_in = packed if trains else images
    form = mixed
    if not trains:  # as `fastest` does, layer by layer, in both layouts
        with torch.no_grad():
            form, ours_in = _tuned(clock, mixed, images, packed, routing)
            same(form(ours_in, routing), looped(mixed, images, routing))
    taken = clock.seconds(
        lambda: once(form, ours_in, routing),
        lambda: once(nchw, images),
        lambda: once(nhwc, packed),
        lambda: once(loop, images, routing),
        rounds=5,
    )
    ours, first, second, theirs = taken
    mode = "with gradients" if trains else "forward"
    over = Ratio.of(a / min(b, c) for a, b, c in zip(ours, first, second, strict=True))
    limits = {} if shape.most is None else {"most": shape.most, "stretch": shape.stretch}
    yield found(shape.goal, f"CondConv {shape}, {mode}, over plain", over, **limits)
    if shape.batch >= LOOPED and shape.goal == "8":
        gain = Ratio.of(b / a for a, b in zip(ours, theirs, strict=True))
        name = f"loop over CondConv {shape}, {mode}"
        yield found(shape.goal, name, gain, least=1.3, stretch=2.0)


def _tuned(
    clock: Clock, layer: CondConv2d, images: Tensor, packed: Tensor, routing: Tensor
) -> tuple[nn.Module, Tensor]:
    """The layer's fastest form and the layout in which it is that."""
    with tempfile.TemporaryDirectory() as folder:  # what was measured before is not read
        choices = Choices(Path(folder))
        ways = [(tuned(layer, some, routing, choices=choices), some) for some in (images, packed)]
    taken = clock.seconds(*(partial(form, some, routing) for form, some in ways), rounds=5)
    medians = [Ratio.of(own).median for own in taken]
    return ways[medians.index(min(medians))]


def looped(layer: CondConv2d, features: Tensor, routing: Tensor) -> Tensor:
    """Image by image: mix the experts, convolve, and stack."""
    outs = []
    for image, weights in zip(features, routing, strict=True):
        kernel = (weights[:, None] * layer.weight).sum(0).reshape(layer.outputs, *layer.kernel)
        outs.append(F.conv2d(image[None], kernel, None, layer.stride, layer.padding))
    return torch.cat(outs)


def _packed(plain: nn.Conv2d) -> nn.Conv2d:
    twin = nn.Conv2d(
        plain.in_channels,
        plain.out_channels,
        plain.kernel_size,
        padding=plain.padding,
        bias=False,
    )
    return twin.to(plain.weight.device, memory_format=torch.channels_last)
