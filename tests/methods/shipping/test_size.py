"""Sizes of deployed networks against sums by hand, and against the file that is shipped."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods import METHODS
from methods.api import Method, Task
from methods.shipping.size import Size, activation_bytes, size
from methods.shipping.write import write

IMAGE = 3 * 4 * 4 * 4
"""Bytes of one image: 3 x 4 x 4 values of 4 bytes."""
MAP = 8 * 4 * 4 * 4
"""Bytes of 8 maps of that size."""
TASK = Task("digits", 1, 8, 8, 10)
SMALL: dict[str, Any] = {
    "depth": 8,
    "width": 0.5,
    "stages": "1-1-1",
    "choices": 4,
    "routing_size": 2,
}


class Block(nn.Module):
    """A convolution, a block of two with its identity, and a head; ReLUs in place if asked for."""

    def __init__(self, *, inplace: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first = nn.Conv2d(8, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 8, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace)
        self.head = nn.Linear(8, 10)
        self.register_buffer("order", torch.arange(8))

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        features = features + self.second(self.relu(self.first(features)))
        return self.head(features.mean((2, 3)))  # type: ignore[no-any-return]


class Mixed(nn.Module):
    """A convolution whose kernel is mixed of two for the image."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = nn.Parameter(torch.randn(2, 8, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        kernel = self.kernels[0] + self.kernels[1]  # two views, one new tensor
        return torch.conv2d(images, kernel)


class Early(nn.Module):
    """Runs a wide layer on bright images only."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 64, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.wide(images).mean((2, 3)) if images.mean() > 0 else images.mean((2, 3))


def small(name: str) -> Method:
    fields = METHODS[name].model_fields
    return METHODS[name].of({key: value for key, value in SMALL.items() if key in fields})


@pytest.mark.parametrize(("inplace", "maps"), [(False, 1 + 2 + 2), (True, 1 + 2 + 1)])
def test_a_residual_block_takes_what_a_sum_by_hand_says(inplace: bool, maps: int) -> None:
    # The ReLU: identity, its input and its output, 16 maps each. In place, the second convolution
    # takes most: identity, 16 maps, and 8 maps that it makes.
    net = Block(inplace=inplace)
    parameters = (3 * 9 * 8 + 8) + (8 * 9 * 16 + 16) + 16 * 9 * 8 + (8 * 10 + 10)
    weights = 4 * parameters + 8 * 8  # and eight indices of eight bytes
    assert size(net, torch.randn(1, 3, 4, 4)) == Size(parameters, weights, maps * MAP)


def test_a_kernel_that_is_mixed_for_an_image_counts_and_a_weight_does_not() -> None:
    net = Mixed()
    kernel, outputs = 8 * 3 * 4, MAP
    assert activation_bytes(net, torch.randn(1, 3, 4, 4)) == IMAGE + kernel + outputs
    assert size(net, torch.randn(1, 3, 4, 4)).parameters == net.kernels.numel()


def test_the_peak_is_the_largest_over_the_images_and_each_counts_alone() -> None:
    net, dark, bright = Early(), -torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    assert activation_bytes(net, dark) == IMAGE + 3 * 4
    assert activation_bytes(net, bright) == 8 * MAP + 64 * 4, "all maps, and their means"
    images = torch.cat([dark, dark, bright])
    assert size(net, images).activation_bytes == 8 * MAP + 64 * 4, "all maps, and their means"
    assert activation_bytes(net, images[:1]) == IMAGE + 3 * 4, "a part of a batch is one image"


def test_a_residual_network_holds_three_maps() -> None:
    # ResNet-8 of width 8 at 8 x 8: each ReLU and sum of the first block beside its identity.
    net = small("dense").deploy(small("dense").build(TASK))
    maps, kernels = 8 * 8 * 8 * 4, 9 * (8 + 8 * 8 * 2 + 8 * 16 + 16 * 16 + 16 * 32 + 32 * 32)
    shortcuts, biases, head = 8 * 16 + 16 * 32, 3 * 8 + 3 * 16 + 3 * 32, 32 * 10 + 10
    parameters = kernels + shortcuts + biases + head
    assert size(net, torch.randn(1, 1, 8, 8)) == Size(parameters, 4 * parameters, 3 * maps)


@pytest.mark.parametrize("name", METHODS)
def test_the_shipped_file_of_every_method_holds_these_bytes(name: str, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    method = small(name)
    deployed = method.deploy(method.build(TASK).eval())
    measured = size(deployed, torch.randn(2, 1, 8, 8))
    file = write("torch", deployed, TASK, tmp_path).read_bytes()
    header = int.from_bytes(file[:8], "little")
    assert len(file) == 8 + header + measured.weight_bytes
    stored = json.loads(file[8 : 8 + header]).values()
    shapes = [part["shape"] for part in stored if part["dtype"] == "F32"]
    assert measured.parameters == sum(math.prod(shape) for shape in shapes)
    assert measured.activation_bytes >= 3 * 8 * 8 * 4
