"""The fully dense backbone: its layout by hand, its closed form against fvcore."""

import pytest
import torch
from torch import nn

from methods.api import Task
from methods.condensenet.densenet import costs, densenet, shapes
from methods.errors import MethodError
from methods.fold import fold
from methods.macs import executed_macs, macs

CIFAR = Task("cifar10", 3, 32, 32, 10)


def test_every_layer_sees_all_before_it_and_growth_doubles_from_block_to_block() -> None:
    first, second, third = shapes(CIFAR, (2, 3, 1), 8, "cifar")
    assert [at.inputs for at in first] == [16, 24]
    assert [at.inputs for at in second] == [32, 48, 64]
    assert [at.inputs for at in third] == [80]
    assert [block[0].growth for block in (first, second, third)] == [8, 16, 32]
    assert [block[0].height for block in (first, second, third)] == [32, 16, 8]


def test_features_are_handed_on_unchanged_across_blocks() -> None:
    net = densenet(CIFAR, (1, 1), 4, groups=2).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        stem = net.stem(images)
        first = net.blocks[0](stem)
        second = net.blocks[1](first)
    assert torch.equal(first[:, :8], stem)
    assert torch.equal(second[:, :12], nn.functional.avg_pool2d(first, 2))


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (28, 28), (32, 40), (9, 13), (65, 70)])
@pytest.mark.parametrize("family", ["cifar", "imagenet"])
def test_the_closed_form_is_what_fvcore_counts(size: tuple[int, int], family: str) -> None:
    task = Task("some", 2, *size, 7)
    stages = (2, 1, 2) if min(size) > 4 else (2, 2)
    net = densenet(task, stages, 4, groups=2, family=family)
    images = torch.zeros(1, 2, *size)
    total = costs(task, stages, 4, groups=2, family=family).total
    assert total == macs(net, images) == executed_macs(net, images)


@pytest.mark.parametrize(
    ("family", "blocks", "least"), [("cifar", 3, 4), ("cifar", 1, 1), ("imagenet", 3, 7)]
)
def test_images_too_small_for_the_blocks_are_refused(family: str, blocks: int, least: int) -> None:
    stages = (1,) * blocks
    fits = Task("fits", 1, least, least + 3, 2)
    net = densenet(fits, stages, 2, groups=1, family=family).eval()
    assert net(torch.zeros(1, 1, least, least + 3)).shape == (1, 2)
    small = Task("small", 1, least + 3, least - 1, 2)
    for refuse in (densenet, costs):
        with pytest.raises(MethodError, match=f"{blocks} blocks needs images of at least {least}"):
            refuse(small, stages, 2, groups=1, family=family)


def test_initialisation_has_he_variance_over_the_outputs() -> None:
    torch.manual_seed(0)
    net = densenet(CIFAR, (1, 1, 1), 32, groups=4)
    layer = net.blocks[2].layers[0]
    assert layer.conv1.weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.02)
    assert layer.conv2.weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)


def test_plain_it_folds_the_norm_between_its_convolutions() -> None:
    torch.manual_seed(0)
    net = densenet(CIFAR, (2, 2), 4, groups=2)
    images = torch.randn(8, 3, 32, 32)
    net(images)  # norms get statistics
    folded = fold(net)
    assert sum(isinstance(part, nn.BatchNorm2d) for part in folded.modules()) == 4 + 1
    torch.testing.assert_close(folded(images), net.eval()(images), rtol=1e-4, atol=1e-4)
