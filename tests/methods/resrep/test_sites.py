"""Where compactors stand, read off the network, and which rows the selection masks."""

from collections.abc import Sequence

import pytest
import torch
from pruned import CIFAR, FIFTY, IMAGENET, LARGE, NARROW, on_meta
from torch import Tensor, nn
from torch.nn import functional as F

from methods.api import Task
from methods.errors import MethodError
from methods.resrep.method import ResRep
from methods.resrep.sites import Plan, plan_of, select


@pytest.mark.parametrize(
    ("method", "task", "cost", "prunable"),
    [
        (ResRep(), CIFAR, (125_747_840, 5_294_720), (27, 1_008)),
        (ResRep(depth=110), CIFAR, (253_149_824, 9_939_584), (54, 2_016)),
        (FIFTY, IMAGENET, (4_089_184_256, 490_987_395), (32, 7_552)),
    ],
)
def test_golden_numbers_of_the_plan(
    method: ResRep, task: Task, cost: tuple[int, int], prunable: tuple[int, int]
) -> None:
    plan = on_meta(method, task).plan
    assert (plan.dense, plan.least) == cost
    assert (len(plan.sites), sum(plan.widths)) == prunable


def test_sites_are_inner_layers_and_their_followers_the_next() -> None:
    block = on_meta(ResRep(depth=8), CIFAR).plan.sites
    assert [site[:3] for site in block] == [
        (f"blocks.{b}.conv1", f"blocks.{b}.norm1", f"blocks.{b}.conv2") for b in range(3)
    ]
    bottleneck = on_meta(FIFTY, IMAGENET).plan.sites
    assert [site[:3] for site in bottleneck] == [
        (f"blocks.{b}.conv{k}", f"blocks.{b}.norm{k}", f"blocks.{b}.conv{k + 1}")
        for b in range(16)
        for k in (1, 2)
    ]


class Toy(nn.Module):
    def __init__(self, groups: int = 1, twice: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, groups=groups)
        self.twice = twice

    def forward(self, features: Tensor) -> Tensor:
        inner = F.relu(self.norm(self.first(features)))
        out = self.second(inner)
        return out + inner[:, :, 1:-1, 1:-1] if self.twice else out


def test_another_network_is_read_too_and_what_cannot_be_pruned_is_refused() -> None:
    images = torch.zeros(1, 3, 8, 8)
    plan = plan_of(Toy(), images)
    assert plan.sites == (("first", "norm", "second", 4, None),)
    assert plan.macs([3]) == 3 * 3 * 9 * 36 + 3 * 4 * 9 * 16
    with pytest.raises(MethodError, match="only one other layer reads"):
        plan_of(Toy(twice=True), images)
    with pytest.raises(MethodError, match=r"second must read each channel of first.*groups=2"):
        plan_of(Toy(groups=2), images)
    grouped, again = Toy(), Toy()
    grouped.first = nn.Conv2d(3, 6, 3, groups=3)
    grouped.norm, grouped.second = nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3)
    with pytest.raises(MethodError, match="first must not be grouped, but has groups=3"):
        plan_of(grouped, images)
    again.first = nn.Conv2d(4, 4, 3, padding=1)
    with pytest.raises(MethodError, match="must run once"):
        plan_of(nn.Sequential(again, again), torch.zeros(1, 4, 8, 8))


def by_brute_force(plan: Plan, norms: Sequence[Tensor], limit: float) -> list[list[bool]]:
    """The selection that counts the whole network anew for every channel."""
    masks = [[True] * width for width in plan.widths]
    ranked = sorted(
        (float(norm), site, row)
        for site, lengths in enumerate(norms)
        for row, norm in enumerate(lengths)
    )
    for _, site, row in ranked:
        if plan.macs([sum(mask) for mask in masks]) <= limit:
            break
        masks[site][row] = sum(masks[site]) == 1
    return masks


@pytest.mark.parametrize("target", [0.9, 0.471, 0.12])
@pytest.mark.parametrize(("method", "task"), [(ResRep(depth=14), CIFAR), (NARROW, LARGE)])
def test_selection_meets_the_target_and_not_a_channel_too_late(
    method: ResRep, task: Task, target: float
) -> None:
    plan = on_meta(method, task).plan
    limit = max(target * plan.dense, float(plan.least))
    generator = torch.Generator().manual_seed(0)
    norms = [torch.rand(width, generator=generator) for width in plan.widths]
    masks = select(plan, norms, limit)
    assert [mask.tolist() for mask in masks] == by_brute_force(plan, norms, limit)
    widths = [int(mask.sum()) for mask in masks]
    assert plan.macs(widths) <= limit
    assert min(widths) >= 1
    last = max(
        (float(n), s)
        for s, lengths in enumerate(norms)
        for n, on in zip(lengths, masks[s], strict=True)
        if not on
    )[1]
    widths[last] += 1
    assert plan.macs(widths) > limit


def test_selection_stops_at_its_cap_and_at_one_channel_a_site() -> None:
    plan = on_meta(ResRep(depth=8), CIFAR).plan
    norms = [torch.arange(1.0, 1 + width) for width in plan.widths]
    masks = select(plan, norms, 0.5 * plan.dense, most=4)
    assert sum(int((~mask).sum()) for mask in masks) == 4
    assert [int(mask.sum()) for mask in select(plan, norms, float(plan.least))] == [1, 1, 1]


@pytest.mark.parametrize("unit", [2, 8, 16, 24])
@pytest.mark.parametrize("target", [0.9, 0.6])
def test_units_leave_whole_and_only_as_many_as_the_target_takes(unit: int, target: float) -> None:
    plan = on_meta(ResRep(depth=14), CIFAR).plan._replace(unit=unit)
    assert set(plan.widths) == {16, 32, 64}
    generator = torch.Generator().manual_seed(0)
    norms = [torch.rand(width, generator=generator) for width in plan.widths]
    limit = max(target * plan.dense, float(plan.least))
    masks = select(plan, norms, limit)
    widths = [int(mask.sum()) for mask in masks]
    assert plan.macs(widths) <= limit
    assert sum(widths) < sum(plan.widths)
    for before, left, mask, lengths in zip(plan.widths, widths, masks, norms, strict=True):
        assert left == before or (left % unit == 0 and left >= unit)
        assert mask.all() or lengths[mask].min() > lengths[~mask].max(), "the shortest go"
    ends = {  # when the longest of those that left last has its turn
        float(lengths[~mask].max()): site
        for site, (lengths, mask) in enumerate(zip(norms, masks, strict=True))
        if not mask.all()
    }
    last = ends[max(ends)]
    widths[last] = min(widths[last] + unit, plan.widths[last])
    assert plan.macs(widths) > limit, "without the last unit the target is missed"


def test_a_cap_lets_a_unit_through_and_none_leaves_a_site_that_is_one() -> None:
    plan = on_meta(ResRep(depth=8), CIFAR).plan._replace(unit=16)
    norms = [torch.arange(1.0, 1 + width) for width in plan.widths]
    masks = select(plan, norms, float(plan.least), most=4)
    assert [int(mask.sum()) for mask in masks] == [16, 16, 64], "the shortest of 32 have their turn"
    least = select(plan, norms, float(plan.least))
    assert [int(mask.sum()) for mask in least] == [16, 16, 16]
    assert plan.macs([16, 16, 16]) == plan.least
    assert plan._replace(unit=64).least == plan.dense
    assert plan._replace(unit=64).largest == 0, "nothing can leave"
    assert plan.largest == max(
        plan.dense - plan.macs([16, 16, 64]), plan.dense - plan.macs([16, 32, 48])
    )


@pytest.mark.parametrize(
    ("method", "task", "masked"), [(ResRep(), CIFAR, 536), (FIFTY, IMAGENET, 3_682)]
)
def test_golden_number_of_channels_that_random_norms_mask(
    method: ResRep, task: Task, masked: int
) -> None:
    plan = on_meta(method, task).plan
    generator = torch.Generator().manual_seed(0)
    norms = [torch.rand(width, generator=generator) for width in plan.widths]
    masks = select(plan, norms, method.target * plan.dense)
    assert sum(int((~mask).sum()) for mask in masks) == pytest.approx(masked, rel=0.05)
