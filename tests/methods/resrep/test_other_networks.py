"""ResRep prunes networks of others: a VGG, a MobileNetV2; where it cannot, it says why."""

from typing import Annotated

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from methods.api import Task
from methods.errors import MethodError
from methods.macs import executed_macs
from methods.resrep.method import CompactedResNet, ResRep
from methods.resrep.sites import plan_of
from methods.shipping.load import _put
from methods.training.contract import CHECKS

GREY = Task("grey", 1, 28, 28, 10)


def layer(inputs: int, outputs: int, size: int = 3, **more: int) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False, **more)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True)]


class Inverted(nn.Module):
    """An inverted residual of a MobileNetV2 (Sandler et al., arXiv 1801.04381)."""

    def __init__(self, inputs: int, outputs: int, expansion: int = 4) -> None:
        super().__init__()
        inner = expansion * inputs
        self.layers = nn.Sequential(
            *layer(inputs, inner, 1),
            *layer(inner, inner, groups=inner),
            *layer(inner, outputs, 1)[:2],
        )
        self.shorted = inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features) + features if self.shorted else self.layers(features)


class Head(nn.Sequential):
    def forward(self, images: Tensor) -> Tensor:
        *body, head = self
        for part in body:
            images = part(images)
        return head(images.mean((2, 3)))


class PrunedVGG(ResRep):
    """A pruned VGG."""

    depth: Annotated[int, Field(ge=1, le=4)] = 2
    """Stages."""

    def check_backbone(self) -> None:
        """Every depth exists."""

    def backbone(self, task: Task) -> nn.Module:
        parts, channels = layer(task.channels, 16), 16
        for stage in range(self.depth):
            parts += [*layer(channels, 16 * 2**stage), *layer(16 * 2**stage, 16 * 2**stage)]
            parts += [nn.MaxPool2d(2)]
            channels = 16 * 2**stage
        return Head(*parts, nn.Linear(channels, task.classes))


class PrunedMobileNet(PrunedVGG):
    """A pruned MobileNetV2."""

    def backbone(self, task: Task) -> nn.Module:
        blocks = [Inverted(16, 16) for _ in range(self.depth)]
        return Head(*layer(task.channels, 16), *blocks, nn.Linear(16, task.classes))


METHODS = [PrunedVGG(target=0.6, prune_lr=0.1), PrunedMobileNet(target=0.6, prune_lr=0.1)]


def lived_in(method: ResRep, task: Task) -> CompactedResNet:
    """A network whose norms are no identity, and half of whose channels are forgotten."""
    torch.manual_seed(0)
    net = method.build(task)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            for values in (part.weight.data, part.running_var):
                values.uniform_(0.5, 1.5)
            for values in (part.bias.data, part.running_mean):
                values.normal_(0.3)
    for compactor in net.compactors:
        compactor.weight.data += 0.1 * torch.randn_like(compactor.weight)
        compactor.mask[::2] = False
        compactor.weight.data[::2] = 0
    return net.eval()


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_forgotten_channels_leave_no_trace(method: ResRep) -> None:
    net, images = lived_in(method, GREY), torch.randn(3, 1, 28, 28)
    deployed = method.deploy(net)
    with torch.no_grad():
        out = net(images)
        torch.testing.assert_close(deployed(images), out.logits, rtol=1e-4, atol=1e-4)
    assert executed_macs(deployed, images) == out.macs.sum()
    assert out.macs[0] < 0.7 * net.plan.dense
    fresh = method.deploy(method.build(GREY).eval())
    weights = deployed.state_dict()
    assert fresh.state_dict().keys() == weights.keys()
    for name, weight in weights.items():  # as an export is loaded
        owner, _, attribute = name.rpartition(".")
        _put(fresh.get_submodule(owner), attribute, weight)
    torch.testing.assert_close(fresh(images), deployed(images))


def test_the_sites_are_those_of_the_architecture() -> None:
    vgg, mobile = (plan_of(method.backbone(GREY), torch.zeros(1, 1, 28, 28)) for method in METHODS)
    assert [site[:3] for site in vgg.sites] == [
        ("0", "1", "3"),
        ("3", "4", "6"),
        ("6", "7", "10"),  # a pooling stands between
        ("10", "11", "13"),
    ]
    assert [(s.conv, s.between.conv, s.follower) for s in mobile.sites if s.between] == [
        (f"{block}.layers.0", f"{block}.layers.3", f"{block}.layers.6") for block in ("3", "4")
    ]


@pytest.mark.parametrize("check", [name for name in CHECKS if "reduced" not in name])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_they_keep_the_contract(method: ResRep, check: str) -> None:
    CHECKS[check](method)


def test_what_cannot_be_pruned_is_said() -> None:
    wide = Inverted(8, 8)
    wide.layers[6] = nn.Conv2d(32, 8, 3, padding=1)
    with pytest.raises(MethodError, match=r"there is none; layers\.6, behind the depthwise"):
        plan_of(wide, torch.zeros(1, 8, 8, 8))
    with pytest.raises(MethodError, match=r"there is none$"):
        plan_of(nn.Conv2d(8, 8, 1), torch.zeros(1, 8, 8, 8))
