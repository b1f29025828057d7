"""Every property that a CondenseNet must keep, against golden numbers and independent formulas."""

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods.api import Search, Task
from methods.condensenet.densenet import costs
from methods.condensenet.layers import Affine, learned
from methods.condensenet.method import CondenseNet, CondensingNet, stage_at
from methods.data.load import load
from methods.errors import MethodError
from methods.macs import executed_macs, macs
from methods.training.loop import Recipe, train

CIFAR = Task("cifar10", 3, 32, 32, 10)
IMAGENET = Task("imagenet", 3, 224, 224, 1000)
TASK = Task("small", 3, 8, 8, 5)
SMALL = {"stages": "2-2", "growth": 8}
PAIRS = [(4, 4), (8, 2), (2, 8), (1, 4)]
"""Groups and factors: equal, C < G, C > G, and one group."""
SEARCHED = list(itertools.product((2, 4, 8), (2, 4, 8)))
"""All pairs that the default ranges hold."""


def small(**fields: Any) -> CondenseNet:
    return CondenseNet.of({**SMALL, **fields})


def lived(method: CondenseNet, task: Task = TASK) -> CondensingNet:
    """A network in double precision whose norms have seen images and whose affines are not 1, 0."""
    torch.manual_seed(0)
    net: CondensingNet = method.build(task)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
    net.double()
    with torch.no_grad():
        for _ in range(5):
            net(images())
    return net.eval()


def images(count: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 8, 8, generator=generator, dtype=torch.float64)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def inputs_per_group(net: CondensingNet) -> list[list[int]]:
    """Inputs that each group of each layer keeps."""
    return [conv.mask.sum(1).tolist() for conv in learned(net.backbone.blocks)]


def masks(net: CondensingNet) -> list[Tensor]:
    return [conv.mask for conv in learned(net)]


GOLDEN = {
    "C10-50": (CIFAR, {"stages": "8-8-8"}, 522_938, 64.93, 214_186, 27.18),
    "C10-74": (CIFAR, {"stages": "12-12-12"}, 1_090_906, 131.78, 402_026, 49.20),
    "C10-86": (CIFAR, {}, 1_451_594, 173.858624, 516_202, 62.377888),
    "C10-86 of 8": (
        CIFAR,
        {"groups": 8, "condense_factor": 8},
        1_366_922,
        161.47,
        276_298,
        31.412128,
    ),
    "C10-182": (
        CIFAR,
        {"stages": "30-30-30", "growth": 12},
        13_792_906,
        1615.3,
        4_209_226,
        493.916592,
    ),
    "ImageNet-74": (
        IMAGENET,
        {"stages": "4-6-8-10-8", "family": "imagenet"},
        11_922_680,
        1267.9,
        4_773_944,
        516.640576,
    ),
}
"""Parameters and million MACs, of training and converted with half a classifier, by the authors'
code; MACs to as many digits as are known."""


def agrees(macs: int, known: float) -> bool:
    digits = len(repr(known).split(".")[1])
    return round(macs / 1e6, digits) == known


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_numbers(name: str) -> None:
    task, fields, trained, trained_macs, shipped, shipped_macs = GOLDEN[name]
    method = CondenseNet.of({**fields, "halve_classifier": True})
    net = method.build(task)
    image = torch.zeros(1, task.channels, task.height, task.width)
    assert parameters(net) == trained
    assert agrees(int(net.prices[0]), trained_macs)
    net.condense(net.last)
    assert agrees(method.floor(task), shipped_macs)
    assert macs(method.deploy(net), image) == method.floor(task)
    pruned = sum(int((~conv.mask).sum()) * len(conv.weight) // conv.groups for conv in learned(net))
    assert parameters(net) - pruned == shipped


def test_the_whole_classifier_is_the_default_and_costs_what_halving_spares() -> None:
    halved = CondenseNet(halve_classifier=True).floor(CIFAR)
    assert CondenseNet().floor(CIFAR) - halved == costs(CIFAR, (14, 14, 14), 8, groups=4).head // 2


@pytest.mark.parametrize("halve", [False, True])
@pytest.mark.parametrize(("groups", "factor"), PAIRS)
def test_in_every_stage_it_ships_what_it_computes_and_costs(
    groups: int, factor: int, halve: bool
) -> None:
    method = small(groups=groups, condense_factor=factor, halve_classifier=halve)
    net, batch = lived(method), images()
    for stage in range(factor):
        net.condense(stage)
        shipped = method.deploy(net)
        with torch.no_grad():
            said = net(batch)
            torch.testing.assert_close(shipped(batch), said.logits, rtol=1e-9, atol=1e-9)
        assert executed_macs(shipped, batch) == said.macs.sum()
        assert macs(shipped, batch[:1]) == said.macs[0] == net.prices[stage]
    assert said.macs[0] == method.floor(TASK)


@pytest.mark.parametrize(("groups", "factor"), SEARCHED)
def test_at_the_end_each_group_keeps_exactly_its_share(groups: int, factor: int) -> None:
    method = small(groups=groups, condense_factor=factor)
    net = method.build(TASK)
    method.phases()[0].advance(net, 0.5)
    assert inputs_per_group(net) == [[inputs // factor] * groups for inputs in (16, 24, 32, 48)]


@pytest.mark.parametrize("factor", [2, 3, 4, 8, 23, 64])
def test_stages_begin_at_even_fractions_of_the_first_half(factor: int) -> None:
    starts = [stage / (2 * (factor - 1)) for stage in range(1, factor)]
    assert [stage_at(start, factor) for start in starts] == list(range(1, factor))
    assert [stage_at(start - 1e-9, factor) for start in starts] == list(range(factor - 1))
    assert stage_at(0.0, factor) == 0
    assert stage_at(0.999, factor) == factor - 1


def test_a_factor_of_four_condenses_at_one_sixth_one_third_and_one_half() -> None:
    epochs = [stage_at(epoch / 300, 4) for epoch in range(300)]
    assert [epochs.index(stage) for stage in (1, 2, 3)] == [50, 100, 150]


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 50])
def test_the_schedule_does_not_depend_on_the_number_of_steps(steps: int) -> None:
    """With weights that stand still, any way to one half ends in the same masks."""
    torch.manual_seed(0)
    method = small(condense_factor=8, groups=8)
    fine = method.build(TASK)
    coarse = copy.deepcopy(fine)
    advance = method.phases()[0].advance
    for step in range(1000):
        advance(fine, step / 1000)
    for step in range(steps):
        advance(coarse, (step + 1) / steps * 0.6)
    assert int(coarse.stage) == int(fine.stage) == 7
    assert all(torch.equal(a, b) for a, b in zip(masks(coarse), masks(fine), strict=True))


def test_condensing_never_goes_back_nor_twice() -> None:
    method = small()
    net = method.build(TASK)
    advance = method.phases()[0].advance
    for progress in (0.4, 0.4, 0.1, 0.0):
        advance(net, progress)
        assert (int(net.stage), inputs_per_group(net)[0]) == (2, [8] * 4)


def test_a_checkpoint_holds_masks_and_stage() -> None:
    torch.manual_seed(0)
    method = small(halve_classifier=True)
    advance = method.phases()[0].advance
    first = method.build(TASK)
    advance(first, 0.2)
    resumed = method.build(TASK)
    resumed.load_state_dict(first.state_dict())
    for net in (first, resumed):
        advance(net, 0.3)
        assert int(net.stage) == 1, "0.3 of the way is still the first stage"
        advance(net, 0.9)
    assert int(resumed.stage) == 3
    assert all(torch.equal(a, b) for a, b in zip(masks(first), masks(resumed), strict=True))
    assert torch.equal(first(images(2).float()).macs, resumed(images(2).float()).macs)


def test_networks_in_one_process_do_not_know_of_each_other() -> None:
    method = small()
    first, second = method.build(TASK), method.build(TASK)
    method.phases()[0].advance(first, 0.9)
    third = method.build(TASK)
    for net in (second, third):
        net.train()(images(2).float())
        assert int(net.stage) == 0
        assert all(mask.all() for mask in masks(net))
        assert net(images(1).float()).macs == net.prices[0]


def test_one_that_stopped_early_is_priced_as_it_is_and_says_so() -> None:
    method = small()
    net = method.build(TASK).eval()
    method.phases()[0].advance(net, 0.3)
    batch = images(2).float()
    assert inputs_per_group(net)[0] == [12] * 4
    parts = costs(TASK, (2, 2), 8, groups=4)
    rest = parts.stem + parts.grouped + parts.head
    assert net(batch).macs.tolist() == [rest + parts.pointwise * 3 // 4] * 2
    assert executed_macs(method.deploy(net), batch) == net(batch).macs.sum()
    assert method.floor(TASK) == rest + parts.pointwise // 4
    assert "stage 1 of 3 each group keeps 75%" in (method.alarm(net, batch) or "")
    method.phases()[0].finish(net, [])
    assert net(batch).macs.tolist() == [method.floor(TASK)] * 2
    assert method.alarm(net, batch) is None


def test_training_of_one_step_ends_condensed() -> None:
    data = load("digits")
    recipe = Recipe(epochs=1, batch_size=1024)
    *_, last = train(small(stages="1-1"), data, recipe, seed=0)
    assert isinstance(last.net, CondensingNet)
    assert int(last.net.stage) == last.net.last


def test_with_every_option_on_a_resumed_trial_equals_one_without_a_pause() -> None:
    method = small(stages="1-1", lasso=1e-4, dropout=0.1, halve_classifier=True)
    data, recipe = load("digits"), Recipe(epochs=3, batch_size=128)
    whole = [epoch.loss for epoch in train(method, data, recipe, seed=0)]
    state = next(train(method, data, recipe, seed=0)).state()
    assert [epoch.loss for epoch in train(method, data, recipe, seed=0, state=state)] == whole[1:]


def test_the_classifier_is_halved_with_the_last_stage_and_not_before() -> None:
    method = small(halve_classifier=True)
    net = lived(method)
    inputs = net.backbone.norm.num_features
    head = learned(net.backbone.head)[0]
    for stage in range(4):
        net.condense(stage)
        assert head.mask.sum() == (inputs // 2 if stage == 3 else inputs)
    assert net.prices[2] - net.prices[3] > inputs * TASK.classes // 2


def test_a_classifier_to_be_halved_begins_as_a_linear_one() -> None:
    torch.manual_seed(0)
    halving, whole = (
        small(growth=64, halve_classifier=halve).build(TASK).backbone.head
        for halve in (True, False)
    )
    assert halving.conv.weight.std().item() == pytest.approx(whole.weight.std().item(), rel=0.05)


@pytest.mark.parametrize(("groups", "factor"), SEARCHED)
def test_the_lasso_works_up_to_the_last_stage_and_is_nothing_there(
    groups: int, factor: int
) -> None:
    net = small(groups=groups, condense_factor=factor).build(TASK)
    for stage in range(factor - 1):
        net.condense(stage)
        assert net.lasso() > 0
    net.condense(factor - 1)
    assert net.lasso() == 0


def test_the_lasso_is_the_sum_of_norms_over_groups_and_inputs() -> None:
    torch.manual_seed(0)
    net = small(condense_factor=2, groups=2, lasso=0.25).build(TASK).eval()
    expected = 0.0
    for conv in learned(net.backbone.blocks):
        for group, given in itertools.product(range(2), range(conv.weight.shape[1])):
            expected += conv.weight[group::2, given].norm().item()
    assert net.lasso().item() == pytest.approx(expected, rel=1e-5)
    batch, labels = images().float(), torch.arange(6) % 5
    with_lasso, without = (
        small(condense_factor=2, groups=2, lasso=weight).phases()[0].loss(net, batch, labels)
        for weight in (0.25, 0.0)
    )
    assert (with_lasso - without).item() == pytest.approx(0.25 * expected, rel=1e-5)


def test_the_lasso_leaves_the_classifier_alone() -> None:
    torch.manual_seed(0)
    net = small(halve_classifier=True).build(TASK)
    net.lasso().backward()
    grads = {name: p.grad is not None for name, p in net.named_parameters()}
    assert {name for name, there in grads.items() if there} == {
        name for name in grads if name.endswith("conv1.weight")
    }


@pytest.mark.parametrize("place", ["before", "after"])
def test_every_layer_has_the_dropout(place: str) -> None:
    net = small(dropout=0.3, dropout_at=place).build(TASK)
    assert {(c.before, c.after) for c in learned(net)} == {
        (0.3, 0.0) if place == "before" else (0.0, 0.3)
    }


@pytest.mark.parametrize("training", [False, True])
def test_shipping_leaves_the_source_as_it_was_and_ships_for_evaluation(training: bool) -> None:
    method = small()
    net = lived(method).train(training)
    net.condense(2)
    before = copy.deepcopy(net.state_dict())
    shipped = method.deploy(net)
    shipped(images())
    assert not any(part.training for part in shipped.modules())
    assert all(part.training == training for part in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    norms = [part for part in shipped.modules() if isinstance(part, Affine)]
    assert len(norms) == 4 + 1, "one for each layer, and the last"
    assert not any(p.requires_grad for p in shipped.parameters())


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"growth": 12, "groups": 8}, "growth=12, groups=8, condense_factor=4.*growth 8 or 16"),
        ({"growth": 8, "groups": 16}, "multiple of groups.*try growth 16"),
        ({"growth": 12, "condense_factor": 8}, "multiple of .* condense_factor.*growth 8 or 16"),
        ({"growth": 3, "groups": 3, "condense_factor": 3, "halve_classifier": True}, "even"),
        ({"stages": "14-0-14"}, "joined by dashes, got '14-0-14'; try '14-14-14'"),
        ({"stages": "14,14"}, "joined by dashes"),
        ({"condense_factor": 1}, "condense_factor.*at least 2"),
        ({"lasso": -1.0}, "lasso"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_when_it_is_made(
    fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(MethodError, match=says):
        CondenseNet.of(fields)


def test_every_combination_of_the_default_ranges_is_valid() -> None:
    ranges = {name: list(searched(name)) for name in CondenseNet.model_fields}
    ranges = {name: values for name, values in ranges.items() if values}
    assert set(ranges) == {"condense_factor", "groups", "stages", "growth", "lasso"}
    floors = [
        CondenseNet.of(dict(zip(ranges, values, strict=True))).floor(CIFAR)
        for values in itertools.product(*ranges.values())
    ]
    assert min(floors) > 0


def searched(name: str) -> Iterator[Any]:
    for mark in CondenseNet.model_fields[name].metadata:
        if isinstance(mark, Search):
            if mark.choices is not None:
                yield from mark.choices
            elif mark.step is not None:
                yield from range(int(mark.low or 0), int(mark.high or 0) + 1, int(mark.step))
            else:
                yield from (mark.low, mark.high)


def test_images_too_small_are_refused_by_floor_and_build() -> None:
    method = CondenseNet(stages="4-6-8-10-8")
    for refuse in (method.build, method.floor):
        with pytest.raises(MethodError, match="5 blocks needs images of at least 16 px"):
            refuse(Task("digits", 1, 8, 8, 10))
