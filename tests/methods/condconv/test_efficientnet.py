"""EfficientNet-B0 against its published size, and its parts against what they must be."""

from functools import partial
from typing import get_args

import pytest
import torch
from torch import nn

from methods.api import Task
from methods.condconv.efficientnet import (
    EfficientNet,
    Halving,
    InvertedBottleneck,
    Padding,
    cost,
    counts,
    efficientnet,
)
from methods.errors import MethodError
from methods.fold import fold
from methods.macs import executed_macs, macs

IMAGENET = Task("imagenet", 3, 224, 224, 1000)
SMALL = Task("small", 3, 32, 32, 5)


def settled(net: EfficientNet) -> EfficientNet:
    """The network in evaluation mode, its norms with statistics of their own."""
    with torch.no_grad():
        for norm in (part for part in net.modules() if isinstance(part, nn.BatchNorm2d)):
            norm.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
            norm.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return net.eval()


def test_golden_numbers() -> None:
    with torch.device("meta"):
        net = efficientnet(IMAGENET)
        executed = executed_macs(net, torch.zeros(1, 3, 224, 224))
    assert sum(p.numel() for p in net.parameters()) == 5_288_548
    assert cost(IMAGENET) == executed == 385_814_752


def test_maps_shrink_to_a_32nd_and_have_the_published_channels() -> None:
    shapes: list[tuple[int, int]] = []
    with torch.device("meta"):
        net = efficientnet(IMAGENET)
        for block in net.blocks:
            block.register_forward_hook(lambda *a: shapes.append((a[2].shape[1], a[2].shape[2])))
        net(torch.zeros(1, 3, 224, 224))
    groups = {(16, 112): 1, (24, 56): 2, (40, 28): 2, (80, 14): 3, (112, 14): 3, (192, 7): 4}
    assert shapes == [shape for shape, count in groups.items() for _ in range(count)] + [(320, 7)]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47)])
def test_any_image_of_at_least_32_px(height: int, width: int) -> None:
    task = Task("some", 1, height, width, 3)
    net = efficientnet(task, 0.25).eval()
    image = torch.randn(1, 1, height, width)
    assert net(image).shape == (1, 3)
    assert executed_macs(net, image) == macs(net, image) == cost(task, 0.25)


def test_smaller_images_are_refused() -> None:
    with pytest.raises(MethodError, match=r"at least 32 px.*use family cifar"):
        efficientnet(Task("digits", 1, 8, 8, 10))


def test_every_convolution_starts_with_the_variance_of_its_fan_out() -> None:
    torch.manual_seed(0)
    for conv in (m for m in efficientnet(SMALL).modules() if isinstance(m, nn.Conv2d)):
        size, outputs = conv.kernel_size[0], conv.out_channels
        if conv.weight.numel() > 2000:
            wanted = (2 * conv.groups / (size * size * outputs)) ** 0.5
            assert conv.weight.std().item() == pytest.approx(wanted, rel=0.1)


def test_a_block_adds_its_input_where_shapes_allow() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        for stride, outputs in ((1, 8), (1, 12), (2, 8)):
            block = InvertedBottleneck(8, outputs, 3, stride).eval()
            block.project[1].weight.zero_()  # type: ignore[operator, union-attr]
            expected = (
                features if (stride, outputs) == (1, 8) else torch.zeros_like(block(features))
            )
            assert torch.equal(block(features), expected)


def test_excitation_weighs_channels_by_their_means() -> None:
    """Against the block written out."""
    torch.manual_seed(0)
    block = InvertedBottleneck(8, 12, 5, 2).eval()
    features = torch.randn(3, 8, 7, 7)
    conv = nn.functional.conv2d
    expand, filters, project = (
        part[0].weight / (1 + 1e-3) ** 0.5  # type: ignore[index, operator, union-attr]
        for part in (block.expand, block.filter, block.project)
    )
    inner = nn.functional.silu(conv(features, expand))
    inner = nn.functional.silu(conv(inner, filters, stride=2, padding=2, groups=48))
    weights = block.excite(nn.functional.silu(block.squeeze(inner.mean((2, 3))))).sigmoid()
    assert block.squeeze.out_features == 2, "a quarter of the block's inputs"
    torch.testing.assert_close(block(features), conv(inner * weights[..., None, None], project))


def test_folding_takes_in_every_norm() -> None:
    torch.manual_seed(0)
    net, images = settled(efficientnet(SMALL, 0.25)), torch.randn(4, 3, 32, 32)
    folded = fold(net)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    torch.testing.assert_close(folded(images), net(images), rtol=1e-4, atol=1e-4)


def test_it_takes_another_convolution() -> None:
    made: list[nn.Module] = []

    def conv(*args: int, note: str, **options: object) -> nn.Module:
        assert note == "mine"
        made.append(nn.Conv2d(*args, **options))  # type: ignore[arg-type]
        return made[-1]

    net = efficientnet(SMALL, 0.25, conv=partial(conv, note="mine"))
    assert [m for m in net.modules() if isinstance(m, nn.Conv2d)] == made


def test_pricing_draws_nothing() -> None:
    before = torch.random.get_rng_state()
    cost(Task("fresh", 3, 40, 40, 7), 0.5)
    assert torch.equal(before, torch.random.get_rng_state())


def test_golden_size_of_b1() -> None:
    with torch.device("meta"):
        net = efficientnet(IMAGENET, depth=1.1)
    assert sum(p.numel() for p in net.parameters()) == 7_794_184
    assert len(net.blocks) == 23
    assert counts(1.1) == [2, 3, 3, 4, 4, 5, 2]


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 10), (9, 5)])
def test_tensorflows_padding_puts_the_odd_pixel_last(size: int, height: int, width: int) -> None:
    """As few zeros as give ceil(n / 2) outputs, half of them, rounded down, before the map."""
    features = torch.rand(1, 1, height, width) + 1
    padded = Halving(size)(features)
    totals = [(-(-length // 2) - 1) * 2 + size - length for length in (height, width)]
    assert padded.shape[2:] == (height + totals[0], width + totals[1])
    above, left = (total // 2 for total in totals)
    assert torch.equal(padded[..., above : above + height, left : left + width], features)
    assert float(padded.sum()) == pytest.approx(float(features.sum())), "zeros around it"


@pytest.mark.parametrize("size", [32, 47, 64])
def test_both_paddings_have_the_same_weights_and_costs(size: int) -> None:
    task, images = Task("some", 1, size, size, 3), torch.randn(2, 1, size, size)
    even, published = (
        efficientnet(task, 0.25, padding=padding).eval() for padding in get_args(Padding)
    )
    assert executed_macs(even, images) == executed_macs(published, images) == 2 * cost(task, 0.25)
    assert even.state_dict().keys() == published.state_dict().keys()


@pytest.mark.parametrize(("length", "same"), [(9, True), (10, False)])
def test_both_paddings_agree_on_odd_maps_only(length: int, same: bool) -> None:
    blocks = []
    for padding in get_args(Padding):
        torch.manual_seed(0)
        blocks.append(InvertedBottleneck(8, 12, 5, 2, padding=padding).eval())
    features = torch.randn(2, 8, length, length)
    assert torch.allclose(blocks[0](features), blocks[1](features), atol=1e-6) == same


def test_blocks_are_dropped_in_training_alone_and_ever_more_often() -> None:
    net = efficientnet(SMALL, 0.25, dropped=0.2)
    drops = [block.dropped for block in net.blocks]  # type: ignore[union-attr]
    assert drops == pytest.approx([0.2 * place / 16 for place in range(16)])
    block = InvertedBottleneck(8, 8, dropped=0.25)
    features = torch.randn(4000, 8, 1, 1)
    torch.manual_seed(0)
    with torch.no_grad():
        trained = block.train()(features) - features
        block.dropped = 0.0
        everything = block(features) - features
    dropped = (trained == 0).all(1).flatten()
    assert float(dropped.double().mean()) == pytest.approx(0.25, abs=0.03)
    torch.testing.assert_close(trained[~dropped], everything[~dropped] / 0.75, rtol=1e-3, atol=1e-4)
    assert torch.equal(block.eval()(features), block(features))
