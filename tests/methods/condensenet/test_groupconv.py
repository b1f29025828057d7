"""Learned group convolution, alone: against loops over outputs and inputs."""

import itertools

import pytest
import torch
from torch import nn

from methods.condensenet.layers import LearnedGroupConv, condensed

PAIRS = [(4, 4), (8, 2), (2, 8), (1, 4)]
"""Groups and factors: equal, C < G, C > G, and one group."""


@pytest.mark.parametrize(("groups", "factor"), PAIRS)
def test_a_shipped_convolution_is_the_masked_one_and_its_norm(groups: int, factor: int) -> None:
    """Against loops over outputs and inputs; the features, which a classifier might hide."""
    torch.manual_seed(0)
    conv = LearnedGroupConv(16, 24 if groups != 1 else 5, groups=groups, factor=factor)
    for _ in range(factor - 1):
        conv.condense()
    norm = nn.BatchNorm2d(len(conv.weight)).eval()
    for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
        nn.init.uniform_(values, 0.5, 1.5)
    weight = conv.weight.detach().clone()
    for output, given in itertools.product(range(len(weight)), range(16)):
        if not conv.mask[output % groups, given]:
            weight[output, given] = 0
    features = torch.randn(2, 16, 3, 5)
    expected = norm(nn.functional.conv2d(features, weight))
    shipped = condensed(nn.Sequential(conv, norm))
    torch.testing.assert_close(shipped(features), expected)
    torch.testing.assert_close(norm(conv(features)), expected)
    standard = shipped[0][1]
    assert standard.groups == groups
    assert standard.in_channels == 16 * groups // factor
    assert standard.weight.count_nonzero() == standard.weight.numel()


@pytest.mark.parametrize(("groups", "factor"), PAIRS)
def test_each_stage_takes_from_each_group_the_inputs_that_matter_least(
    groups: int, factor: int
) -> None:
    torch.manual_seed(0)
    conv = LearnedGroupConv(16, 8, groups=groups, factor=factor)
    left = [set(range(16)) for _ in range(groups)]
    for _ in range(factor - 1):
        nn.init.normal_(conv.weight)  # training goes on between the stages
        for group, inputs in enumerate(left):
            outputs = [output for output in range(8) if output % groups == group]
            weight = {i: sum(abs(conv.weight[o, i].item()) for o in outputs) for i in inputs}
            inputs -= set(sorted(inputs, key=weight.__getitem__)[: 16 // factor])
        conv.condense()
        assert [set(row.nonzero().flatten().tolist()) for row in conv.mask] == left


def test_a_pruned_weight_gets_no_gradient_and_has_no_effect() -> None:
    conv = LearnedGroupConv(8, 8, groups=2, factor=4)
    conv.condense()
    features = torch.randn(2, 8, 3, 3)
    before = conv(features)
    before.square().sum().backward()
    pruned = ~conv.mask.repeat(4, 1)  # output o is of group o mod 2
    gradient = conv.weight.grad
    assert gradient is not None
    assert (gradient[pruned] == 0).all()
    assert (gradient[~pruned] != 0).all()
    with torch.no_grad():
        conv.weight[pruned] += 100
    assert torch.equal(conv(features), before)


def test_the_lasso_has_a_gradient_where_all_weights_are_zero() -> None:
    conv = LearnedGroupConv(8, 8, groups=2, factor=4)
    nn.init.zeros_(conv.weight)
    conv.lasso().backward()
    assert conv.weight.grad is not None
    assert (conv.weight.grad == 0).all()


@pytest.mark.parametrize("place", ["before", "after"])
def test_dropout_acts_where_it_is_told_and_in_training_only(place: str) -> None:
    torch.manual_seed(0)
    conv = LearnedGroupConv(32, 64, groups=4, factor=4, dropout=0.3, dropout_at=place)
    plain = LearnedGroupConv(32, 64, groups=4, factor=4)
    plain.load_state_dict(conv.state_dict())
    features = torch.rand(8, 32, 4, 4) + 0.5
    silent = (conv(features) == 0).float().mean().item()
    assert silent == pytest.approx(0.3 if place == "after" else 0.0, abs=0.02)
    assert not torch.equal(conv(features), plain(features))
    assert torch.equal(conv.eval()(features), plain(features))
