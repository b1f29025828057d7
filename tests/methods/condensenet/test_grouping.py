"""Groups that are not learned: fixed, random, or none, as the paper compares them."""

import pytest
import torch

from methods.api import Task
from methods.condensenet.densenet import costs, densenet
from methods.condensenet.layers import Grouping, learned
from methods.condensenet.method import CondenseNet
from methods.errors import MethodError
from methods.macs import executed_macs

TASK = Task("small", 3, 8, 8, 5)
CIFAR = Task("cifar10", 3, 32, 32, 10)


@pytest.mark.parametrize("grouping", ["fixed", "random", "none"])
@pytest.mark.parametrize(
    ("factor", "groups", "spatial", "bottleneck"), [(4, 4, 1, 4), (2, 4, 2, 2)]
)
def test_groups_that_are_not_learned_stay_as_they_began(
    grouping: Grouping, factor: int, groups: int, spatial: int, bottleneck: int
) -> None:
    torch.manual_seed(0)
    method = CondenseNet(
        grouping=grouping,
        condense_factor=factor,
        groups=groups,
        spatial_groups=spatial,
        bottleneck=bottleneck,
        stages="2-2",
        growth=8,
    )
    net = method.build(TASK)
    before = [conv.mask.clone() for conv in learned(net.backbone)]
    (phase,) = method.phases()
    for progress in (0.0, 0.5, 1.0):
        phase.advance(net, progress)
    phase.finish(net, [])
    images = torch.randn(4, TASK.channels, TASK.height, TASK.width)
    net.eval()
    kept = 1 if grouping == "none" else factor
    for conv, mask in zip(learned(net.backbone), before, strict=True):
        assert torch.equal(conv.mask, mask)
        assert (conv.mask.sum(1) == conv.mask.shape[1] // kept).all()
        if grouping == "fixed":
            assert conv.mask.sum(0).unique().tolist() == [groups // factor], (
                "each input serves alike"
            )
    shipped = method.deploy(net)
    torch.testing.assert_close(shipped(images), net(images).logits, rtol=1e-4, atol=1e-5)
    assert executed_macs(shipped, images[:1]) == net(images).macs[0] == method.floor(TASK)
    assert method.alarm(net, images) is None


def test_an_uncondensed_network_of_one_group_is_a_plain_densenet() -> None:
    method = CondenseNet(grouping="none", spatial_groups=1, stages="2-2", growth=8)
    assert method.floor(TASK) == costs(TASK, (2, 2), 8, groups=1).total
    torch.manual_seed(1)
    net, plain = method.build(TASK).eval(), densenet(TASK, (2, 2), 8, groups=1).eval()
    plain.load_state_dict(
        {
            name: value.reshape(plain.state_dict()[name].shape)
            for name, value in net.backbone.state_dict().items()
            if not name.endswith("mask")
        }
    )
    images = torch.randn(3, TASK.channels, TASK.height, TASK.width)
    torch.testing.assert_close(plain(images), net(images).logits)
    with pytest.raises(MethodError, match="halved where groups are learned"):
        CondenseNet.of({"grouping": "random", "halve_classifier": True})


@pytest.mark.parametrize(
    ("stages", "macs", "digits", "parameters"),
    [("14-14-14", 173.858624, 6, 1_451_594), ("8-8-8", 64.93, 2, 522_938)],
)
def test_golden_numbers_before_condensing_are_those_of_no_groups(
    stages: str, macs: float, digits: int, parameters: int
) -> None:
    """The authors' networks as they train on CIFAR-10 (G = 4): each 1x1 reads all inputs."""
    method = CondenseNet(grouping="none", stages=stages)
    assert round(method.floor(CIFAR) / 1e6, digits) == macs
    assert sum(p.numel() for p in method.build(CIFAR).parameters()) == parameters


@pytest.mark.parametrize("grouping", ["fixed", "random"])
@pytest.mark.parametrize(
    ("groups", "macs"), [(4, 62_377_888), (8, 31_412_128)], ids=["C10-86 (4)", "C10-86 (8)"]
)
def test_golden_numbers_of_given_groups_are_those_of_learned_ones(
    grouping: Grouping, groups: int, macs: int
) -> None:
    """The authors' converted networks, whose classifier is halved, which ours is not here."""
    method = CondenseNet(grouping=grouping, groups=groups, condense_factor=groups)
    whole = costs(CIFAR, (14, 14, 14), 8, groups=groups).head
    assert method.floor(CIFAR) - whole // 2 == macs
