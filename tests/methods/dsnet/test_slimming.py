"""Layers that run on slices of their weights, against torch's own layers on copied slices."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.dsnet.layers import (
    MOMENTUM,
    SlimConv2d,
    SlimDepthwise2d,
    SlimLinear,
    SlimNorm2d,
    SlimSqueeze,
    recalibrating,
)

WIDTHS = (3, 5, 8, 8)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def maps(channels: int, batch: int = 4) -> Tensor:
    return torch.randn(batch, channels, 6, 5) * 2 + 1


def lived_in() -> SlimNorm2d:
    norm = SlimNorm2d(WIDTHS).eval()
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
    return norm


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("inputs", "outputs"), [(3, 4), (6, 8), (6, 2)])
def test_a_convolution_takes_its_first_filters_and_channels(
    stride: int, inputs: int, outputs: int
) -> None:
    conv, features = SlimConv2d(6, 8, 3, stride), maps(inputs)
    output = conv(features, outputs)
    kernels = conv.weight[:outputs, :inputs]
    torch.testing.assert_close(output, F.conv2d(features, kernels, stride=stride, padding=1))
    torch.testing.assert_close(conv.at(inputs, outputs)(features), output)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("width", [3, 8])
def test_a_depthwise_convolution_has_as_many_groups_as_it_runs_channels(
    stride: int, width: int
) -> None:
    conv, features = SlimDepthwise2d(8, stride), maps(width)
    plain = conv.at(width)
    assert plain.groups == width
    output = conv(features)
    torch.testing.assert_close(plain(features), output)
    for channel in range(width):
        alone = F.conv2d(
            features[:, channel : channel + 1],
            conv.weight[channel : channel + 1],
            stride=stride,
            padding=1,
        )
        torch.testing.assert_close(output[:, channel : channel + 1], alone)


def test_a_linear_map_takes_its_first_inputs_and_outputs() -> None:
    linear, inputs = SlimLinear(8, 6), torch.randn(3, 5)
    output = linear(inputs, 4)
    torch.testing.assert_close(output, inputs @ linear.weight[:4, :5].T + linear.bias[:4])
    torch.testing.assert_close(linear.at(5, 4)(inputs), output)


@pytest.mark.parametrize("width", [3, 8])
def test_squeezing_gives_as_many_entries_at_every_width(width: int) -> None:
    part, features = SlimSqueeze(8, 5), maps(width)
    reduced = part.squeeze(features)
    assert reduced.shape == (4, 5)
    assert (part.squeeze(maps(width) * 0) > 0).all(), "units start alive"
    torch.testing.assert_close(part.at(width)(features), part.excite(features, reduced))


@pytest.mark.parametrize("entry", range(4))
def test_a_norm_is_torchs_with_the_statistics_of_its_entry(entry: int) -> None:
    norm, features = lived_in(), maps(WIDTHS[entry])
    width = WIDTHS[entry]
    plain = nn.BatchNorm2d(width)
    for target, source in (
        (plain.weight, norm.weight),
        (plain.bias, norm.bias),
        (plain.running_mean, norm.running_mean[entry]),
        (plain.running_var, norm.running_var[entry]),
    ):
        assert target is not None
        target.data.copy_(source[:width].detach())
    for mode in (False, True):
        norm.train(mode)
        plain.train(mode)
        torch.testing.assert_close(norm(features, entry), plain(features))
    assert plain.running_mean is not None
    torch.testing.assert_close(norm.running_mean[entry, :width], plain.running_mean)
    torch.testing.assert_close(norm.at(entry).eval()(features), norm.eval()(features, entry))


def test_training_moves_the_statistics_of_one_entry_and_of_its_channels_only() -> None:
    norm = lived_in().train()
    before = norm.running_mean.clone(), norm.running_var.clone()
    norm(maps(5), 1)
    for old, new in zip(before, (norm.running_mean, norm.running_var), strict=True):
        moved = old != new
        assert moved[1, :5].all()
        moved[1, :5] = False
        assert not moved.any()


def test_mixed_is_each_image_at_its_own_entry_and_zero_beyond() -> None:
    norm, features = lived_in(), maps(8)
    entries = (0, 1, 3)
    shares = F.one_hot(torch.tensor([0, 1, 2, 1]), 3).float()
    mixed = norm.mixed(features, shares, entries)
    for image, choice in enumerate((0, 1, 2, 1)):
        entry = entries[choice]
        width = WIDTHS[entry]
        alone = norm(features[image : image + 1, :width], entry)
        torch.testing.assert_close(mixed[image : image + 1, :width], alone)
        assert (mixed[image, width:] == 0).all()


def test_mixed_may_be_narrower_than_the_widest() -> None:
    norm, features = lived_in(), maps(5)
    shares = F.one_hot(torch.tensor([0, 1, 1, 0]), 2).float()
    alone = norm(features[1:3], 1)
    torch.testing.assert_close(norm.mixed(features, shares, (0, 1))[1:3], alone)


def test_slices_that_do_not_run_get_no_gradient() -> None:
    conv, depthwise = SlimConv2d(8, 8, 1), SlimDepthwise2d(8)
    linear, norm = SlimLinear(8, 8), lived_in().train()
    output = norm(conv(depthwise(maps(3)), 5), 1)
    linear(output.mean((2, 3)), 4).square().sum().backward()
    ran = {
        conv.weight: (slice(5), slice(3)),
        depthwise.weight: (slice(3),),
        linear.weight: (slice(4), slice(5)),
        linear.bias: (slice(4),),
        norm.weight: (slice(5),),
        norm.bias: (slice(5),),
    }
    for parameter, where in ran.items():
        assert parameter.grad is not None
        assert (parameter.grad[where] != 0).any()
        parameter.grad[where] = 0
        assert (parameter.grad == 0).all()


def test_recalibrated_statistics_are_plain_means_over_the_batches() -> None:
    norm = lived_in().train()
    batches = [maps(5) * scale for scale in (1, 3, 10)]
    with torch.no_grad(), recalibrating(norm) as means:
        for batch in batches:
            means.next_batch()
            norm(batch, 1)
    mean = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    var = torch.stack([batch.var((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(norm.running_mean[1, :5], mean)
    torch.testing.assert_close(norm.running_var[1, :5], var)
    assert (norm.running_mean[0] == 0).all(), "an entry that did not run has none"
    assert norm.momentum == MOMENTUM


def test_an_error_in_a_recalibration_leaves_the_momentum_as_it_was() -> None:
    norm = lived_in()
    with pytest.raises(RuntimeError), recalibrating(norm) as means:  # noqa: PT012
        means.next_batch()
        raise RuntimeError
    assert norm.momentum == MOMENTUM


def test_copying_slices_draws_nothing_and_keeps_precision() -> None:
    before = torch.get_rng_state()
    for plain in (
        SlimConv2d(8, 8, 3).double().at(3, 5),
        SlimDepthwise2d(8).double().at(3),
        SlimLinear(8, 8).double().at(3, 5),
        lived_in().double().at(1),
    ):
        assert all(p.dtype == torch.float64 and p.is_contiguous() for p in plain.parameters())
    torch.set_rng_state(before)
    conv = SlimConv2d(8, 8, 3)
    after = torch.get_rng_state()
    conv.at(3, 5)
    assert torch.equal(torch.get_rng_state(), after)
