"""Golden numbers of facts: parameters and MACs of CIFAR and ImageNet ResNets, to the integer."""

from functools import partial

import pytest
import torch
from torch import nn

from methods.api import Method, Task
from methods.condconv.method import CondConv
from methods.dense import Dense
from methods.errors import MethodError
from methods.fold import fold
from methods.macs import executed_macs, macs
from methods.resnet import Block, costs, normalise, resnet, scaled

CIFAR = Task("cifar10", 3, 32, 32, 10)
IMAGENET = Task("imagenet", 3, 224, 224, 1000)
DIGITS = Task("digits", 1, 8, 8, 10)

GOLDEN_CIFAR = {
    20: (272_474, 40_813_184),
    32: (466_906, 69_124_736),
    38: (564_122, 83_280_512),
    56: (855_770, 125_747_840),
    110: (1_730_714, 253_149_824),
}
GOLDEN_IMAGENET = {
    34: (21_797_672, 3_663_761_408),
    50: (25_557_032, 4_089_184_256),
    101: (44_549_160, 7_801_405_440),
}


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("depth", GOLDEN_CIFAR)
def test_cifar_golden_numbers(depth: int) -> None:
    with torch.device("meta"):
        net = resnet(CIFAR, depth)
        executed = executed_macs(net, torch.zeros(1, 3, 32, 32))
    assert (parameters(net), costs(CIFAR, depth).total) == GOLDEN_CIFAR[depth]
    assert executed == GOLDEN_CIFAR[depth][1]


@pytest.mark.parametrize("depth", GOLDEN_IMAGENET)
def test_imagenet_golden_numbers(depth: int) -> None:
    with torch.device("meta"):
        net = resnet(IMAGENET, depth, family="imagenet")
        executed = executed_macs(net, torch.zeros(1, 3, 224, 224))
    assert (parameters(net), costs(IMAGENET, depth, family="imagenet").total) == GOLDEN_IMAGENET[
        depth
    ]
    assert executed == GOLDEN_IMAGENET[depth][1]


def test_parameters_at_a_hundred_classes() -> None:
    with torch.device("meta"):
        assert parameters(resnet(Task("cifar100", 3, 32, 32, 100), 110)) == 1_736_564


def test_block_costs() -> None:
    parts = costs(CIFAR, 38)
    assert parts.blocks[1] == parts.blocks[7] == parts.blocks[-1] == 4_718_592
    assert parts.blocks[6] == parts.blocks[12] == 3_670_016
    assert parts.shortcuts[6] == parts.shortcuts[12] == 131_072
    assert parts.shortcuts[0] == 0
    assert parts.outputs[-1] == (64, 8, 8)


def test_parts_add_up_to_the_whole_network() -> None:
    net = resnet(CIFAR, 14, 0.5)
    assert macs(net, torch.zeros(1, 3, 32, 32)) == costs(CIFAR, 14, 0.5).total


@pytest.mark.parametrize("size", [8, 9, 16, 64, 65, 96])
def test_any_image_size_of_at_least_eight(size: int) -> None:
    task = Task("some", 1, size, size, 3)
    net = resnet(task, 8, 0.25).eval()
    image = torch.randn(1, 1, size, size)
    assert net(image).shape == (1, 3)
    assert executed_macs(net, image) == costs(task, 8, 0.25).total


def test_digits_shrink_to_two_pixels() -> None:
    assert [shape[1] for shape in costs(DIGITS, 8).outputs] == [8, 4, 2]


@pytest.mark.parametrize(
    ("width", "channels"), [(1.0, 16), (0.25, 4), (0.1, 4), (0.4, 8), (0.625, 12), (2.0, 32)]
)
def test_width_rounds_to_multiples_of_four(width: float, channels: int) -> None:
    assert scaled(16, width) == channels


@pytest.mark.parametrize(("depth", "says"), [(21, "20 or 26"), (7, "try 8"), (2, "try 8")])
def test_a_depth_that_is_none_names_its_neighbours(depth: int, says: str) -> None:
    with pytest.raises(MethodError, match=says):
        resnet(CIFAR, depth)


def test_imagenet_depths_and_sizes_are_checked() -> None:
    with pytest.raises(MethodError, match="34, 50"):
        resnet(IMAGENET, 20, family="imagenet")
    with pytest.raises(MethodError, match="at least 64 px"):
        resnet(CIFAR, 34, family="imagenet")
    with pytest.raises(MethodError, match="at least 8 px"):
        resnet(Task("tiny", 1, 4, 8, 2), 8)


def test_initialisation_has_he_variance() -> None:
    block = next(b for b in resnet(CIFAR, 8).units if b.outputs == 64)
    assert block.conv2.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)


def test_pricing_draws_nothing() -> None:
    before = torch.random.get_rng_state()
    costs(Task("fresh", 3, 40, 40, 7), 14, 0.75)
    assert torch.equal(before, torch.random.get_rng_state())


def test_backbone_takes_another_convolution() -> None:
    made: list[nn.Module] = []

    def conv(*args: int, note: str, **options: object) -> nn.Module:
        assert note == "mine"
        made.append(nn.Conv2d(*args, **options))  # type: ignore[arg-type]
        return made[-1]

    net = resnet(CIFAR, 8, conv=partial(conv, note="mine"))
    assert [m for m in net.modules() if isinstance(m, nn.Conv2d)] == made


def test_folding_changes_no_output_and_not_the_source() -> None:
    torch.manual_seed(0)
    net = resnet(DIGITS, 14)
    images = torch.randn(16, 1, 8, 8)
    net(images)  # norms get statistics
    net.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    folded = fold(net)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    torch.testing.assert_close(folded(images), net(images), rtol=1e-4, atol=1e-4)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert any(isinstance(part, nn.BatchNorm2d) for part in net.modules())


def test_a_projection_has_no_relu() -> None:
    torch.manual_seed(0)
    shortcut = Block(4, 8, 2).shortcut(torch.randn(2, 4, 8, 8))
    assert (shortcut < 0).float().mean() > 0.2


# Group norms


@pytest.mark.parametrize(
    ("channels", "groups"), [(4, 1), (8, 2), (20, 5), (64, 16), (128, 32), (176, 22), (184, 23)]
)
def test_a_group_has_at_least_four_channels_and_there_are_at_most_32(
    channels: int, groups: int
) -> None:
    net = nn.Sequential(nn.BatchNorm2d(channels))
    normalise(net, "group")
    assert isinstance(net[0], nn.GroupNorm)
    assert (net[0].num_groups, net[0].num_channels) == (groups, channels)


@pytest.mark.parametrize(
    "method",
    [
        Dense(depth=8, width=0.5, norm="group"),
        CondConv(depth=8, width=0.5, experts=2, norm="group"),
    ],
    ids=["dense", "condconv"],
)
def test_group_norms_look_at_one_image_and_ship_as_they_train(method: Method) -> None:
    torch.manual_seed(0)
    net, images = method.build(DIGITS), torch.randn(6, 1, 8, 8)
    assert not [part for part in net.modules() if isinstance(part, nn.BatchNorm2d)]
    together = net.train()(images).logits
    apart = torch.cat([net(image[None]).logits for image in images])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-5)
    shipped = method.deploy(net)
    torch.testing.assert_close(shipped(images), together, rtol=0, atol=1e-5)
    plain = type(method).of({**method.model_dump(), "norm": "batch"})
    assert executed_macs(shipped, images[:1]) == method.floor(DIGITS) == plain.floor(DIGITS)
    assert parameters(net) == parameters(plain.build(DIGITS)), "a scale and a shift per channel"
