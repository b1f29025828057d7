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
