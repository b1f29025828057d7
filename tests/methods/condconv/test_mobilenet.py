"""MobileNets against their published sizes, and their blocks against what they must be."""

import pytest
import torch
from torch import nn

from methods.api import Task
from methods.condconv.method import CondConv
from methods.condconv.mobilenet import Bottleneck, Separable, Version, cost, mobilenet
from methods.errors import MethodError
from methods.macs import executed_macs, macs

IMAGENET = Task("imagenet", 3, 224, 224, 1000)


@pytest.mark.parametrize(
    ("version", "params", "paid"), [(1, 4_231_976, 568_740_352), (2, 3_504_872, 300_774_272)]
)
def test_golden_numbers(version: Version, params: int, paid: int) -> None:
    with torch.device("meta"):
        net = mobilenet(IMAGENET, version)
        executed = executed_macs(net, torch.zeros(1, 3, 224, 224))
    assert sum(p.numel() for p in net.parameters()) == params
    assert cost(IMAGENET, version) == executed == paid


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47)])
def test_any_image_of_at_least_32_px(version: Version, height: int, width: int) -> None:
    task = Task("some", 1, height, width, 3)
    net = mobilenet(task, version, 0.25).eval()
    image = torch.randn(1, 1, height, width)
    assert net(image).shape == (1, 3)
    assert executed_macs(net, image) == macs(net, image) == cost(task, version, 0.25)


@pytest.mark.parametrize("version", [1, 2])
def test_smaller_images_are_refused(version: Version) -> None:
    with pytest.raises(MethodError, match=r"at least 32 px.*use family cifar"):
        mobilenet(Task("digits", 1, 8, 8, 10), version)


def test_a_separable_block_written_out() -> None:
    block = Separable(4, 6, 2).eval()
    features = torch.randn(2, 4, 9, 9)
    filters, mixing = (part[0].weight / (1 + 1e-3) ** 0.5 for part in (block.filter, block.mix))  # type: ignore[operator]
    inner = nn.functional.conv2d(features, filters, stride=2, padding=1, groups=4).clamp(0, 6)
    wanted = nn.functional.conv2d(inner, mixing).clamp(0, 6)
    torch.testing.assert_close(block(features), wanted)


def test_a_bottleneck_ends_without_an_activation_and_adds_its_input_where_shapes_allow() -> None:
    features = torch.randn(2, 4, 6, 6)
    for stride, outputs in ((1, 4), (1, 8), (2, 4)):
        block = Bottleneck(4, outputs, stride).eval()
        alone = block.project(
            nn.functional.relu6(block.filter(nn.functional.relu6(block.expand(features))))  # type: ignore[misc]
        )
        same = (stride, outputs) == (1, 4)
        torch.testing.assert_close(block(features), features + alone if same else alone)
        assert float(block(features).detach().min()) < 0


def test_experts_cost_their_mixing_and_routing_alone() -> None:
    """In V1 from the sixth block on: 3.14 million weights, mixed by eight, and eight routers."""
    method = CondConv(family="mobilenet-v1", experts=8)
    mixed = 9 * (256 + 5 * 512 + 512 + 1024) + 256 * 512 + 5 * 512**2 + 512 * 1024 + 1024**2
    routed = 256 + 5 * 512 + 512 + 1024
    assert method.floor(IMAGENET) - cost(IMAGENET, 1) == 8 * (mixed + routed)
