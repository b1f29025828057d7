"""Every property that ResRep's sheet asks for, against golden numbers and independent formulas."""

import copy
import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from samples import TASK, images
from torch import Tensor, nn
from torch.nn import functional as F

from methods.api import Task
from methods.compactor import Compactor, merge, narrowed, pull_for, reset_gradient
from methods.data import load
from methods.errors import MethodError
from methods.evaluate import evaluate
from methods.macs import executed_macs, macs
from methods.resnet import resnet
from methods.resrep import CompactedResNet, ResRep
from methods.sites import Plan, plan, select
from methods.train import Recipe, train

CIFAR = Task("cifar10", 3, 32, 32, 10)
IMAGENET = Task("imagenet", 3, 224, 224, 1000)
FIFTY = ResRep(depth=50, family="imagenet", target=0.455)
NARROW = ResRep(depth=50, family="imagenet", width=0.1)
LARGE = Task("large", 3, 64, 64, 5)


def shape(task: Task) -> Tensor:
    return torch.zeros(1, task.channels, task.height, task.width)


def on_meta(method: ResRep, task: Task) -> CompactedResNet:
    with torch.device("meta"):
        return method.build(task)


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
    own = sum(compactor.weight.numel() for compactor in net.compactors)
    assert sum(p.numel() for p in net.parameters()) == train_params
    assert train_params - own == params
    with torch.device("meta"):
        assert executed_macs(net, shape(task)) == train_macs


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
    found = on_meta(method, task).plan
    assert (found.dense, found.least) == cost
    assert (len(found.sites), sum(found.widths)) == prunable


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
    found = plan(Toy(), images)
    assert found.sites == (("first", "norm", "second", 4),)
    assert found.macs([3]) == 3 * 3 * 9 * 36 + 3 * 4 * 9 * 16
    with pytest.raises(MethodError, match="only one other reads"):
        plan(Toy(twice=True), images)
    with pytest.raises(MethodError, match=r"second must read each channel of first.*groups=2"):
        plan(Toy(groups=2), images)


def test_layers_that_do_not_fit_are_refused() -> None:
    conv = nn.Conv2d(3, 4, 3)
    with pytest.raises(MethodError, match=r"behind 5 compacted channels .* reads 3"):
        narrowed(conv, torch.ones(5, dtype=torch.bool))
    with pytest.raises(MethodError, match="reads 5 of 4"):
        merge(conv, None, torch.eye(5)[:, :, None, None])


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
    ("normed", "biased"), list(itertools.product((True, False), (True, False)))
)
def test_merging_is_exact(normed: bool, biased: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 8, 3, stride=2, padding=1, bias=biased).double()
    norm = nn.BatchNorm2d(8).double().eval() if normed else None
    if norm is not None:
        with torch.no_grad():
            for tensor in (norm.weight, norm.bias, norm.running_mean):
                assert tensor is not None
                tensor.normal_()
            assert norm.running_var is not None
            norm.running_var.uniform_(0.1, 3)
    compactor = Compactor(8).double()
    with torch.no_grad():
        compactor.weight.normal_()
        compactor.weight[2:5] = 0
    kept = compactor.norms() > 0
    follower = nn.Conv2d(8, 6, 3, padding=1, bias=biased).double()
    batch = torch.randn(4, 5, 9, 9, dtype=torch.float64)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        parts = [part.to(dtype) for part in (conv, norm, compactor, follower) if part is not None]
        merged = merge(parts[0], parts[1] if normed else None, compactor.weight[kept])  # type: ignore[arg-type]
        slim = nn.Sequential(merged, nn.ReLU(), narrowed(follower, kept))
        whole = nn.Sequential(*parts[:-1], nn.ReLU(), parts[-1])
        with torch.no_grad():
            wanted, found = whole(batch.to(dtype)), slim(batch.to(dtype))
        assert merged.weight.shape == (5, 5, 3, 3)
        assert found.dtype == dtype
        assert (found - wanted).abs().max() < tolerance * wanted.abs().max().clamp(min=1)


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


def rows(count: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    weight = torch.randn(count, count, 1, 1, dtype=torch.float64, requires_grad=True)
    mask = torch.arange(count) % 2 == 0
    return weight, mask, torch.full((count,), 0.3, dtype=torch.float64)


def test_gradients_are_reset_on_masked_rows_and_pulled_on_all() -> None:
    weight, mask, pull = rows()
    features = torch.randn(3, 6, 5, 5, dtype=torch.float64)

    def task(own: Tensor) -> Tensor:
        return (F.conv2d(features, own) ** 3).mean()

    task(reset_gradient(weight, mask, pull)).backward()
    objective = torch.autograd.grad(task(weight), weight)[0]
    lasso = torch.autograd.grad(0.3 * weight.flatten(1).norm(dim=1).sum(), weight)[0]
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad[mask], objective[mask] + lasso[mask])
    torch.testing.assert_close(weight.grad[~mask], lasso[~mask])
    radial = (weight.grad * weight).sum((1, 2, 3)) / weight.flatten(1).norm(dim=1)
    torch.testing.assert_close(radial[~mask], pull[~mask], msg="a pull on directions alone is none")


def test_at_the_identity_the_lasso_pulls_on_the_diagonal_alone() -> None:
    compactor = Compactor(4)
    compactor.pull.fill_(0.5)
    (compactor(torch.randn(2, 4, 3, 3)) * 0).sum().backward()
    assert compactor.weight.grad is not None
    assert torch.equal(compactor.weight.grad[:, :, 0, 0], 0.5 * torch.eye(4))


def test_a_row_of_zeros_stays_finite_and_can_return() -> None:
    compactor = Compactor(4)
    compactor.pull.fill_(0.1)
    with torch.no_grad():
        compactor.weight[1:3] = 0
    compactor.mask[1] = False
    sgd = torch.optim.SGD(compactor.parameters(), lr=0.1, momentum=0.99)
    for _ in range(5):
        sgd.zero_grad()
        (compactor(torch.ones(2, 4, 3, 3)) - 1).square().sum().backward()
        sgd.step()
        compactor.shrink(0.01)
    assert compactor.weight.isfinite().all()
    assert (compactor.norms() > 0).tolist() == [True, False, True, True]


def test_a_mask_changes_no_output() -> None:
    net = lived_in(ResRep(depth=8), TASK, images())
    with torch.no_grad():
        before = net(images()).logits
        for compactor in net.compactors:
            compactor.mask[1:] = False
        assert torch.equal(net(images()).logits, before)


def spent(strength: float, steps: int, momentum: float, lr: float, *, nesterov: bool) -> float:
    """Norm of a masked row after a phase under the lasso's gradient alone."""
    compactor = Compactor(3)
    compactor.mask.fill_(False)
    sgd = torch.optim.SGD(compactor.parameters(), lr=lr, momentum=momentum, nesterov=nesterov)
    compactor.pull.fill_(pull_for(strength, step=1 / steps, lr=lr, momentum=momentum))
    for step in range(steps):
        for group in sgd.param_groups:
            group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
        sgd.zero_grad()
        compactor(torch.ones(1, 3, 1, 1)).sum().backward()
        sgd.step()
    return float(compactor.norms()[0])


@pytest.mark.parametrize(
    ("steps", "momentum", "lr", "nesterov"),
    [(1500, 0.9, 0.01, False), (1500, 0.9, 0.2, True), (500, 0.0, 0.01, False)],
)
def test_a_row_loses_its_strength_whatever_the_length_momentum_and_rate(
    steps: int, momentum: float, lr: float, nesterov: bool
) -> None:
    left = spent(0.6, steps, momentum, lr, nesterov=nesterov)
    assert left == pytest.approx(0.4, abs=0.01)


def test_a_strength_above_one_forgets_and_one_below_does_not() -> None:
    assert spent(1.5, 400, 0.9, 0.01, nesterov=True) < 1e-5
    assert spent(0.9, 400, 0.9, 0.01, nesterov=True) > 0.05


@pytest.mark.parametrize(
    ("strength", "steps"), [(18.768, 480 * 782), (45.036, 180 * 5004), (2.132, 109.333 * 390)]
)
def test_published_lambda(strength: float, steps: float) -> None:
    found = pull_for(strength, step=1 / steps, lr=0.01, momentum=0.99)
    assert found == pytest.approx(1e-4, rel=1e-3)


def test_the_proximal_step_spends_its_strength_and_ends_at_exact_zeros() -> None:
    method = ResRep(depth=8, strength=0.6)
    net, steps = method.build(TASK), 50
    prune = method.phases()[1]
    for compactor in net.compactors:
        compactor.mask[::2] = False
    for step in range(steps):
        prune.advance(net, 0.01 * step / steps)  # before any selection
    lost = [float(1 - compactor.norms()[0]) for compactor in net.compactors]
    assert lost == pytest.approx([0.6 * 2 * 0.0098] * 3, rel=1e-3)
    assert all(float(compactor.norms()[1]) == 1 for compactor in net.compactors)
    net.compactors[0].shrink(2.0)
    assert net.compactors[0].norms()[::2].tolist() == [0.0] * 8
    assert all(
        not c.pull[~c.mask].any() and bool((c.pull[c.mask] > 0).all()) for c in net.compactors
    )


def test_over_a_whole_phase_the_proximal_step_spends_its_strength() -> None:
    method = ResRep(depth=8, strength=0.5, target=1.0)
    net, prune = method.build(TASK), method.phases()[1]
    compactor = net.compactors[0]
    for step in range(200):
        compactor.mask[0] = False
        prune.advance(net, step / 200)
        compactor.mask[0] = False
    prune.finish(net, [])
    assert float(compactor.norms()[0]) == pytest.approx(0.5, abs=0.01)


def test_momentum_moves_no_masked_row_back_and_an_unmasked_row_is_free() -> None:
    compactor = Compactor(2)
    compactor.mask[0] = False
    compactor.shrink(0.4)
    with torch.no_grad():
        compactor.weight.mul_(3)
    compactor.shrink(0.1)
    assert compactor.norms().tolist() == pytest.approx([0.5, 3.0])
    compactor.mask[0] = True
    with torch.no_grad():
        compactor.weight.mul_(3)
    compactor.shrink(0.1)
    assert compactor.norms().tolist() == pytest.approx([1.5, 9.0])


def by_brute_force(found: Plan, norms: Sequence[Tensor], limit: float) -> list[list[bool]]:
    """The selection that counts the whole network anew for every channel."""
    masks = [[True] * width for width in found.widths]
    ranked = sorted(
        (float(norm), site, row) for site, own in enumerate(norms) for row, norm in enumerate(own)
    )
    for _, site, row in ranked:
        if found.macs([sum(mask) for mask in masks]) <= limit:
            break
        masks[site][row] = sum(masks[site]) == 1
    return masks


@pytest.mark.parametrize("target", [0.9, 0.471, 0.12])
@pytest.mark.parametrize(("method", "task"), [(ResRep(depth=14), CIFAR), (NARROW, LARGE)])
def test_selection_meets_the_target_and_not_a_channel_too_late(
    method: ResRep, task: Task, target: float
) -> None:
    found = on_meta(method, task).plan
    limit = max(target * found.dense, float(found.least))
    generator = torch.Generator().manual_seed(0)
    norms = [torch.rand(width, generator=generator) for width in found.widths]
    masks = select(found, norms, limit)
    assert [mask.tolist() for mask in masks] == by_brute_force(found, norms, limit)
    widths = [int(mask.sum()) for mask in masks]
    assert found.macs(widths) <= limit
    assert min(widths) >= 1
    last = max(
        (float(n), s)
        for s, own in enumerate(norms)
        for n, on in zip(own, masks[s], strict=True)
        if not on
    )[1]
    widths[last] += 1
    assert found.macs(widths) > limit


def test_selection_stops_at_its_cap_and_at_one_channel_a_site() -> None:
    found = on_meta(ResRep(depth=8), CIFAR).plan
    norms = [torch.arange(1.0, 1 + width) for width in found.widths]
    masks = select(found, norms, 0.5 * found.dense, most=4)
    assert sum(int((~mask).sum()) for mask in masks) == 4
    assert [int(mask.sum()) for mask in select(found, norms, float(found.least))] == [1, 1, 1]


@pytest.mark.parametrize(
    ("method", "task", "masked"), [(ResRep(), CIFAR, 536), (FIFTY, IMAGENET, 3_682)]
)
def test_golden_number_of_channels_that_random_norms_mask(
    method: ResRep, task: Task, masked: int
) -> None:
    found = on_meta(method, task).plan
    generator = torch.Generator().manual_seed(0)
    norms = [torch.rand(width, generator=generator) for width in found.widths]
    masks = select(found, norms, method.target * found.dense)
    assert sum(int((~mask).sum()) for mask in masks) == pytest.approx(masked, rel=0.05)


def masked(net: CompactedResNet) -> int:
    return sum(int((~compactor.mask).sum()) for compactor in net.compactors)


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


def test_every_parameter_has_one_group_and_the_published_settings() -> None:
    method = ResRep(depth=8)
    net = method.build(TASK)
    base, prune = method.phases()
    groups = base.parameters(net)
    compactors = {id(compactor.weight) for compactor in net.compactors}
    trained = [id(p) for group in groups for p in group.parameters]
    assert not compactors & set(trained)
    assert len(trained) == len(list(net.parameters())) - 3
    weights, scales, biases, own = prune.parameters(net)
    every = [id(p) for group in (weights, scales, biases, own) for p in group.parameters]
    assert sorted(every) == sorted(id(p) for p in net.parameters())
    assert {id(p) for p in own.parameters} == compactors
    assert all(p.requires_grad for p in own.parameters)
    assert (own.momentum, own.weight_decay, own.lr_scale) == (0.99, 0.0, 1.0)
    assert (biases.weight_decay, biases.lr_scale) == (0.0, 2.0)
    assert (weights.weight_decay, scales.weight_decay) == (None, 0.0)
    assert id(net.backbone.head.bias) in {id(p) for p in biases.parameters}
    assert (prune.lr, prune.schedule) == (0.01, "cosine")


@pytest.mark.parametrize(("target", "strength"), [(0.3, 1.5), (0.471, 20.0)])
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
    net.seen = 0.99
    assert "100.0% more than its target: the selection has not ended" in str(
        method.alarm(net, image)
    )
    widths = forget(net, norm=1.0)
    assert net.plan.macs(widths) < 0.5 * net.plan.dense
    assert "not all masked rows are forgotten" in str(method.alarm(net, image))
    for compactor in net.compactors:
        compactor.shrink(2.0)
    assert "less than its target: one channel" in str(method.alarm(net, image))


def test_a_checkpoint_holds_the_progress_seen() -> None:
    method = ResRep(depth=8)
    net, other = method.build(TASK), method.build(TASK)
    method.phases()[1].advance(net, 0.25)
    other.load_state_dict(net.state_dict())
    assert other.seen == 0.25
    assert copy.deepcopy(net).seen == 0.25


@pytest.mark.parametrize("target", [0.1, 0.471, 1.0])
def test_the_floor_is_the_target_less_a_channel(target: float) -> None:
    method = ResRep(target=target)
    found = on_meta(method, CIFAR).plan
    floor = method.floor(CIFAR)
    assert target * found.dense - found.largest <= floor <= target * found.dense
    assert floor > (target - 0.005) * found.dense


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
