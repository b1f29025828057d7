"""Every property that ResRep's sheet asks for, against golden numbers and independent formulas."""

import copy
import itertools

import pytest
import torch
from pruned import CIFAR, FIFTY, IMAGENET, LARGE, NARROW, masked, on_meta
from samples import TASK, images
from torch import Tensor, nn
from torch.nn import functional as F

from methods.api import Task
from methods.data.load import load
from methods.errors import MethodError
from methods.macs import executed_macs, macs
from methods.resnet import resnet
from methods.resrep.compactor import Compactor
from methods.resrep.method import CompactedResNet, ResRep
from methods.training.evaluate import evaluate
from methods.training.loop import Recipe, train


def shape(task: Task) -> Tensor:
    return torch.zeros(1, task.channels, task.height, task.width)


def lived_in(method: ResRep, task: Task, batch: Tensor) -> CompactedResNet:
    """A network whose norms have statistics, scales and shifts, and whose compactors mix."""
    torch.manual_seed(0)
    net = method.build(task)
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight.uniform_(0.5, 1.5)
                part.bias.normal_(0, 0.3)
        for compactor in net.compactors:
            compactor.weight.add_(torch.randn_like(compactor.weight) * 0.1)
        for _ in range(10):
            net(batch)
    return net.eval()


def forget(net: CompactedResNet, norm: float = 0.0, seed: int = 0) -> list[int]:
    """Mask a random part of every site at random, leave rows of this norm; returns the widths."""
    generator = torch.Generator().manual_seed(seed)
    for compactor in net.compactors:
        share = float(torch.rand((), generator=generator))
        masked = torch.rand(len(compactor.mask), generator=generator) < share
        masked[0] = False
        compactor.mask.copy_(~masked)
        with torch.no_grad():
            short = F.normalize(compactor.weight[masked].flatten(1)) * norm
            compactor.weight[masked] = short[:, :, None, None]
    return [int(compactor.mask.sum()) for compactor in net.compactors]


@pytest.mark.parametrize(
    ("method", "task", "params", "train_params", "train_macs"),
    [
        (ResRep(), CIFAR, 855_770, 904_154, 132_825_728),
        (FIFTY, IMAGENET, 25_557_032, 28_071_976, 4_615_831_552),
    ],
)
def test_golden_numbers_of_the_network_in_training(
    method: ResRep, task: Task, params: int, train_params: int, train_macs: int
) -> None:
    net = on_meta(method, task)
    compactor_weights = sum(compactor.weight.numel() for compactor in net.compactors)
    assert sum(p.numel() for p in net.parameters()) == train_params
    assert train_params - compactor_weights == params
    with torch.device("meta"):
        assert executed_macs(net, shape(task)) == train_macs


@pytest.mark.parametrize("width", [0.5, 1.0])
def test_identity_compactors_change_no_bit(width: float) -> None:
    method = ResRep(depth=14, width=width)
    torch.manual_seed(0)
    net = method.build(TASK).eval()
    torch.manual_seed(0)
    plain = resnet(TASK, 14, width).eval()
    with torch.no_grad():
        assert torch.equal(net(images()).logits, plain(images()))


@pytest.mark.parametrize(
    ("method", "task", "batch"),
    [
        (ResRep(depth=20, width=0.5), TASK, images()),
        (NARROW, LARGE, F.interpolate(images(), size=64)),
    ],
)
def test_the_deployed_network_is_exact_and_costs_its_price(
    method: ResRep, task: Task, batch: Tensor
) -> None:
    net = lived_in(method, task, batch)
    widths = forget(net)
    deployed = method.deploy(net)
    convs = {name: part for name, part in deployed.named_modules() if isinstance(part, nn.Conv2d)}
    assert [convs[site.conv].out_channels for site in net.plan.sites] == widths
    assert [convs[site.follower].in_channels for site in net.plan.sites] == widths
    assert all(convs[site.conv].bias is not None for site in net.plan.sites)
    assert not any(isinstance(part, nn.BatchNorm2d | Compactor) for part in deployed.modules())
    with torch.no_grad():
        said = net(batch)
        off = (deployed(batch) - said.logits).abs().max() / said.logits.abs().max()
        twin = copy.deepcopy(net).double()
        exact = (method.deploy(twin)(batch.double()) - twin(batch.double()).logits).abs().max()
    assert off < 1e-4
    assert exact < 1e-10
    assert said.macs.tolist() == [net.plan.macs(widths)] * len(batch)
    assert executed_macs(deployed, batch) == said.macs.sum()
    assert macs(deployed, batch[:1]) == said.macs[0]
    assert net.plan.macs(widths) < 0.9 * net.plan.dense


def test_golden_macs_of_the_dense_network_deployed() -> None:
    method = ResRep()
    net = method.build(CIFAR).eval()
    with torch.no_grad():
        assert net(shape(CIFAR)).macs == 125_747_840
    assert macs(method.deploy(net), shape(CIFAR)) == 125_747_840


def test_a_row_is_gone_when_it_is_masked_and_forgotten_and_not_before() -> None:
    method = ResRep(depth=8)
    dense = on_meta(method, TASK).plan.dense
    for norm, forgotten in ((1.0, False), (1.1e-5, False), (9e-6, True), (0.0, True)):
        net = method.build(TASK).eval()
        widths = forget(net, norm)
        expected = net.plan.macs(widths) if forgotten else dense
        assert float(net.cost()) == expected
        assert executed_macs(method.deploy(net), images()[:1]) == expected
    net = method.build(TASK).eval()
    with torch.no_grad():
        net.compactors[0].weight[3] = 0
    assert float(net.cost()) == dense


def test_a_mask_changes_no_output() -> None:
    net = lived_in(ResRep(depth=8), TASK, images())
    with torch.no_grad():
        before = net(images()).logits
        for compactor in net.compactors:
            compactor.mask[1:] = False
        assert torch.equal(net(images()).logits, before)


def test_the_finish_takes_back_what_the_last_step_moved() -> None:
    method = ResRep(depth=8)
    net, prune = method.build(TASK), method.phases()[1]
    widths = forget(net)
    prune.advance(net, 0.0)
    with torch.no_grad():
        for compactor in net.compactors:
            compactor.weight.add_(0.1)
    prune.finish(net, [])
    assert float(net.cost()) == net.plan.macs(widths)


def test_four_rows_are_masked_in_two_hundred_iterations_after_five_epochs() -> None:
    """As published, where a phase has as many steps; more where a step is longer."""
    net, steps = ResRep().build(CIFAR), 480 * 782
    advance = ResRep().phases()[1].advance
    with torch.no_grad():
        for compactor in net.compactors:
            compactor.weight.mul_(1 - 0.5 * torch.rand(len(compactor.mask), 1, 1, 1))
    counts = []
    for step in (0, 3909, 3910, 3911, 4109, 4110, 4310, 6310):
        advance(net, step / steps)
        counts.append(masked(net))
    assert counts == [0, 0, 4, 4, 4, 8, 12, 52]
    assert float(net.cost()) == net.plan.dense, "masked is not yet forgotten"
    advance(net, 5 / 480 + 0.134)
    assert net.cost_to_come() <= 0.471 * net.plan.dense


def test_once_the_target_is_met_rows_are_unmasked_and_learn_again() -> None:
    method = ResRep(depth=14, proximal=False)
    net, prune = method.build(TASK), method.phases()[1]
    with torch.no_grad():
        for compactor in net.compactors:
            compactor.weight.mul_(torch.linspace(0.5, 1, len(compactor.mask))[:, None, None, None])
    for progress in (0.0, 0.1, 0.2):
        prune.advance(net, progress)
    before, out = [c.mask.clone() for c in net.compactors], masked(net)
    assert net.cost_to_come() <= 0.471 * net.plan.dense
    rate = sum(net.plan.widths) * 1e-3 / method.ramp
    with torch.no_grad():
        for compactor in net.compactors:
            compactor.weight.copy_(compactor.weight.flip(0, 1))
    prune.advance(net, 0.201)
    after = [c.mask for c in net.compactors]
    again = sum(int((~old & new).sum()) for old, new in zip(before, after, strict=True))
    assert again > rate, "the cap is lifted"
    assert abs(masked(net) - out) < 0.2 * out
    assert net.cost_to_come() <= 0.471 * net.plan.dense
    method.phases()[1].loss(net, images(), torch.arange(12) % 5).backward()
    for old, compactor in zip(before, net.compactors, strict=True):
        assert compactor.weight.grad is not None
        pull = compactor.pull[:, None] * F.normalize(compactor.weight.detach().flatten(1))
        felt = (compactor.weight.grad.flatten(1) - pull).norm(dim=1)
        assert bool((felt[~old & compactor.mask] > 1e-6).all())
        assert bool((felt[~compactor.mask] < 1e-9).all()), "a masked row feels its pull alone"


def test_once_the_target_is_met_no_cap_holds_the_selection_above_it() -> None:
    method = ResRep(depth=14, proximal=False)
    net, prune = method.build(TASK), method.phases()[1]

    def shorten(first: int, last: int) -> None:
        with torch.no_grad():
            for index, compactor in enumerate(net.compactors):
                short = 0.5 if first <= index < last else 1.0
                compactor.weight.copy_(torch.eye(len(compactor.mask))[:, :, None, None] * short)

    shorten(0, 2)  # few rows, each of them dear
    for progress in (0.0, 0.1, 0.2):
        prune.advance(net, progress)
    few = masked(net)
    assert net.cost_to_come() <= 0.471 * net.plan.dense
    shorten(4, 6)  # many rows, each of them cheap
    prune.advance(net, 0.201)
    assert net.cost_to_come() <= 0.471 * net.plan.dense
    assert masked(net) > few + sum(net.plan.widths) * 1e-3 / method.ramp


def test_every_parameter_has_one_group_and_the_published_settings() -> None:
    method = ResRep(depth=8)
    net = method.build(TASK)
    base, prune = method.phases()
    groups = base.parameters(net)
    compactors = {id(compactor.weight) for compactor in net.compactors}
    trained = [id(p) for group in groups for p in group.parameters]
    assert not compactors & set(trained)
    assert len(trained) == len(list(net.parameters())) - 3
    weights, scales, biases, rows = prune.parameters(net)
    every = [id(p) for group in (weights, scales, biases, rows) for p in group.parameters]
    assert sorted(every) == sorted(id(p) for p in net.parameters())
    assert {id(p) for p in rows.parameters} == compactors
    assert all(p.requires_grad for p in rows.parameters)
    assert (rows.momentum, rows.weight_decay, rows.lr_scale) == (0.99, 0.0, 1.0)
    assert (biases.weight_decay, biases.lr_scale) == (0.0, 2.0)
    assert (weights.weight_decay, scales.weight_decay) == (None, 0.0)
    assert id(net.backbone.head.bias) in {id(p) for p in biases.parameters}
    assert (prune.lr, prune.schedule) == (0.01, "cosine")


@pytest.mark.parametrize(
    ("target", "strength"), [(0.3, 3.0), pytest.param(0.471, 20.0, marks=pytest.mark.full)]
)
def test_three_epochs_reach_the_target_in_the_deployed_network(
    target: float, strength: float
) -> None:
    method, data = ResRep(depth=14, width=0.5, target=target, strength=strength), load("digits")
    *_, last = train(method, data, Recipe(epochs=3, batch_size=32, lr=0.05), seed=0)
    net, image = last.net, data.validation.head(1)[0]
    assert isinstance(net, CompactedResNet)
    cost = executed_macs(method.deploy(net), image)
    assert cost == float(net.cost()) == net.cost_to_come()
    assert 0.98 * target <= cost / net.plan.dense <= target
    assert method.floor(data.task) <= cost
    assert method.alarm(net, image) is None


def test_snapped_sites_ship_multiples_and_cost_what_is_said() -> None:
    snap = 8
    method, data = ResRep(depth=14, width=0.5, target=0.7, snap=snap), load("digits")
    *_, last = train(method, data, Recipe(epochs=3, batch_size=32, lr=0.05), seed=0)
    net, image = last.net, data.validation.head(1)[0]
    assert isinstance(net, CompactedResNet)
    shipped = method.deploy(net)
    widths = [shipped.get_submodule(site.conv).out_channels for site in net.plan.sites]
    assert sum(widths) < sum(net.plan.widths)
    for width, before in zip(widths, net.plan.widths, strict=True):
        assert width == before or (width % snap == 0 and width >= snap)
    cost = executed_macs(shipped, image)
    assert cost == float(net.cost()) == net.cost_to_come() == net.plan.macs(widths)
    assert method.floor(data.task) <= cost <= 0.7 * net.plan.dense


def test_a_unit_too_large_for_the_target_is_refused() -> None:
    says = r"target must leave 16 channels at each site, which takes 0\.6128 of the MACs"
    with pytest.raises(MethodError, match=says):
        ResRep(depth=14, target=0.3, snap=16).build(CIFAR)
    assert (
        ResRep(depth=14, target=0.3, snap=16).floor(CIFAR)
        > 0.5 * ResRep(depth=14)._plan(CIFAR).dense
    )


@pytest.mark.full
def test_the_published_gradient_reaches_it_too_at_a_lower_momentum() -> None:
    method = ResRep(
        depth=8, width=0.25, proximal=False, compactor_momentum=0.9, prune_lr=0.1, strength=4
    )
    data = load("digits")
    *_, last = train(method, data, Recipe(epochs=8, batch_size=32, lr=0.1), seed=0)
    net = last.net
    assert isinstance(net, CompactedResNet)
    assert float(net.cost()) == net.cost_to_come() <= 0.471 * net.plan.dense
    assert evaluate(net, data.validation).accuracy > 0.7


def test_a_target_that_is_missed_is_said() -> None:
    method = ResRep(depth=14, target=0.5)
    net = method.build(CIFAR).eval()
    image = shape(CIFAR)
    assert method.alarm(net, image) is None, "the base network has no target"
    net.last_progress = 0.99
    assert "100.0% more than its target: the selection has not ended" in str(
        method.alarm(net, image)
    )
    widths = forget(net, norm=1.0)
    assert net.plan.macs(widths) < 0.5 * net.plan.dense
    assert "forgotten; raise strength" in str(method.alarm(net, image))
    published = method.model_copy(update={"proximal": False})
    assert "set proximal, lower compactor_momentum" in str(published.alarm(net, image))
    for compactor in net.compactors:
        compactor.shrink(2.0)
    assert "less than its target: one channel" in str(method.alarm(net, image))


def test_a_checkpoint_holds_the_progress_seen() -> None:
    method = ResRep(depth=8)
    net, other = method.build(TASK), method.build(TASK)
    method.phases()[1].advance(net, 0.25)
    other.load_state_dict(net.state_dict())
    assert other.last_progress == 0.25
    assert copy.deepcopy(net).last_progress == 0.25


@pytest.mark.parametrize("target", [0.1, 0.471, 1.0])
def test_the_floor_is_the_target_less_a_channel(target: float) -> None:
    method = ResRep(target=target)
    plan = on_meta(method, CIFAR).plan
    floor = method.floor(CIFAR)
    assert target * plan.dense - plan.largest <= floor <= target * plan.dense
    assert floor > (target - 0.005) * plan.dense


def test_a_target_that_no_network_can_meet_is_refused_and_its_floor_is_the_least() -> None:
    method = ResRep(target=0.04)
    assert method.floor(CIFAR) == 5_294_720
    with pytest.raises(MethodError, match=r"takes 0\.0422 of the MACs .* but got 0\.04; raise it"):
        method.build(CIFAR)
    assert ResRep(target=0.0422).build(CIFAR)


def test_every_corner_of_the_search_can_be_built() -> None:
    for width, target in itertools.product((0.25, 1.0), (0.3, 0.9)):
        method = ResRep(depth=8, width=width, target=target)  # deeper ones can be pruned further
        for task in (CIFAR, Task("digits", 1, 8, 8, 10), Task("tiny", 3, 64, 64, 200)):
            on_meta(method, task)


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"start": 0.5, "ramp": 0.6}, "start \\+ ramp <= 1.*start=0.5, ramp=0.6.*lower"),
        ({"depth": 21}, "6n\\+2 .* got 21"),
        ({"target": 0.0}, "target.*got 0.0"),
        ({"targt": 0.5}, "did you mean 'target'"),
    ],
)
def test_bad_fields_are_refused(params: dict[str, object], says: str) -> None:
    with pytest.raises(MethodError, match=says):
        ResRep.of(params)
