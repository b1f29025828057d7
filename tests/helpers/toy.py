"""The smallest method with everything that a loop can get wrong: noise, two phases, groups."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.api import Group, Method, Network, Output, Phase, Task

CLOCK: list[tuple[str, float]] = []
"""What `advance` was called with, for tests that look at it."""


class ToyNet(Network):
    def __init__(self, task: Task) -> None:
        super().__init__()
        self.conv = nn.Conv2d(task.channels, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6 * 4, task.classes)

    def forward(self, images: Tensor) -> Output:
        features = F.adaptive_avg_pool2d(F.relu(self.norm(self.conv(images))), 2).flatten(1)
        features = F.dropout(features, 0.2, self.training)  # draws from the global generator
        dear = images.mean((1, 2, 3)) > 0
        return Output(self.head(features), torch.where(dear, 300.0, 100.0).double())


class Toy(Method):
    blow_up: bool = False

    def build(self, task: Task) -> ToyNet:
        return ToyNet(task)

    def phases(self, smoothing: float = 0.0) -> Sequence[Phase[Any]]:
        def loss(net: ToyNet, images: Tensor, labels: Tensor) -> Tensor:
            value = F.cross_entropy(net(images).logits, labels, label_smoothing=smoothing)
            return value * float("inf") if self.blow_up else value

        return [
            Phase(name="early", share=0.5, loss=loss, advance=clock("early")),
            Phase(
                name="late",
                share=0.5,
                loss=loss,
                advance=clock("late"),
                parameters=late_groups,
                lr=0.02,
                schedule="constant",
            ),
        ]

    def deploy(self, net: ToyNet) -> nn.Module:
        return Logits(net)

    def floor(self, task: Task) -> int:
        return 100


class Logits(nn.Module):
    def __init__(self, net: ToyNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images).logits


def late_groups(net: ToyNet) -> Sequence[Group]:
    return [
        Group(list(net.head.parameters())),
        Group(list(net.norm.parameters()), lr_scale=0.1, weight_decay=0.0, momentum=0.0),
    ]


def clock(name: str) -> Callable[[ToyNet, float], None]:
    return lambda net, progress: CLOCK.append((name, progress))
