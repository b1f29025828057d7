"""Supernets in slices: golden numbers, masked and sliced forms, and what a forward touches."""

import pytest
import torch
from slims import IMAGENET, TASK, images, supernet
from torch import nn
from torch.nn import functional as F

from methods.api import Task
from methods.dsnet.layers import SlimNorm2d
from methods.dsnet.method import DSNet
from methods.dsnet.networks import SlicedNet, UniformNet
from methods.dsnet.supernet import Path, SlimMobileNet, path_macs, published, small
from methods.errors import MethodError
from methods.macs import executed_macs, macs

PUBLISHED = published(1.0, 0.35, 14)
METHOD = DSNet(depth=14, width=0.5, choices=4)
RESIDUAL = METHOD.model_copy(update={"residual": True})


@pytest.fixture(scope="module")
def released() -> SlimMobileNet:
    return supernet(DSNet.published(family="mobilenet", depth=28), IMAGENET)


def test_the_published_widths() -> None:
    assert [stage.widths for stage in PUBLISHED.shared] == [(32, 88), (48, 168), (96, 264)]
    first, second = PUBLISHED.dynamic
    assert first.widths[:-1] == tuple(range(224, 641, 32))
    assert second.widths[:-1] == tuple(range(736, 1153, 32))
    assert PUBLISHED.choices == 14
    assert PUBLISHED.gate_inputs == 66


def test_golden_parameters(released: SlimMobileNet) -> None:
    gate = 66 * 4
    assert sum(p.numel() for p in released.parameters()) + gate == 7_676_204


@pytest.mark.parametrize(
    ("choice", "expected", "millions"),
    [
        (0, 132_004_224, 2.660),
        (2, 174_193_920, 3.224),
        (3, 198_600_384, 3.528),
        (4, 225_214_592, 3.846),
        (7, 318_303_680, 4.885),
        (13, 564_090_944, 7.351),
        (None, 817_617_376, 7.676),
    ],
)
def test_golden_macs_and_used_parameters(
    released: SlimMobileNet, choice: int | None, expected: int, millions: float
) -> None:
    """The sheet's MAdds of each choice, and of the largest network; gate excluded."""
    path = PUBLISHED.largest if choice is None else PUBLISHED.uniform(choice)
    assert path_macs(IMAGENET, PUBLISHED, path) == expected
    parts = released.front_at(path), released.back_at(path)
    used = sum(p.numel() for part in parts for p in part.parameters())
    assert used / 1e6 == pytest.approx(millions, abs=6e-4)


@pytest.mark.parametrize(("choice", "expected"), [(0, 132_890_144), (3, 199_594_496)])
def test_golden_readme_is_macs_and_pooling(choice: int, expected: int) -> None:
    path = PUBLISHED.uniform(choice)
    size, inputs, pooled = 112, PUBLISHED.stem.widths[0], 0
    for stage, place in zip(PUBLISHED.stages, path[1:], strict=True):
        for block in range(stage.blocks):
            size //= stage.stride if block == 0 else 1
            pooled += inputs * size * size
            inputs = stage.widths[place]
    pooled += inputs * size * size
    assert path_macs(IMAGENET, PUBLISHED, path) + pooled == expected


@pytest.mark.parametrize("path", [PUBLISHED.uniform(0), PUBLISHED.uniform(3), PUBLISHED.largest])
def test_the_closed_form_is_what_fvcore_sees_of_the_sliced_path(
    released: SlimMobileNet, path: Path
) -> None:
    shipped = SlicedNet(UniformNet(released, path))
    assert macs(shipped, torch.zeros(1, 3, 224, 224)) == released.cost(path)


@pytest.mark.parametrize(
    "task",
    [
        Task("digits", 1, 8, 8, 10),
        Task("grey", 1, 28, 28, 10),
        Task("wide", 3, 32, 40, 7),
        Task("odd", 3, 9, 13, 7),
        Task("large", 3, 96, 65, 7),
    ],
)
def test_the_closed_form_holds_for_images_of_any_size(task: Task) -> None:
    method = DSNet(depth=8, width=0.25, choices=4)
    net = method.build(task).supernet
    batch = torch.randn(2, task.channels, task.height, task.width)
    for path in (net.layout.uniform(0), net.layout.uniform(2), net.layout.largest):
        shipped = SlicedNet(UniformNet(net, path))
        assert macs(shipped, batch[:1]) == net.cost(path)
        assert executed_macs(shipped, batch) == 2 * net.cost(path)


def test_a_training_forward_moves_one_set_of_statistics_of_every_norm() -> None:
    """54 in the released network: mean and variance of 27 norms."""
    net = SlimMobileNet(Task("small", 3, 64, 64, 10), PUBLISHED).train()
    norms = [part for part in net.modules() if isinstance(part, SlimNorm2d)]
    for path in (PUBLISHED.uniform(5), PUBLISHED.largest):
        before = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
        with torch.no_grad():
            net(torch.randn(2, 3, 64, 64), path)
        after = [(norm.running_mean, norm.running_var) for norm in norms]
        moved = [
            int((old != new).any(1).sum())
            for olds, news in zip(before, after, strict=True)
            for old, new in zip(olds, news, strict=True)
        ]
        assert moved == [1] * 54


def test_the_largest_network_and_the_last_choice_share_no_statistics() -> None:
    layout = METHOD.build(TASK).supernet.layout
    for last, largest in zip(layout.uniform(3), layout.largest, strict=True):
        assert last != largest
    for stage in layout.dynamic:
        assert stage.widths[-1] == stage.widths[-2]


@pytest.mark.parametrize("method", [METHOD, RESIDUAL])
def test_every_path_is_the_plain_network_of_its_slices(method: DSNet) -> None:
    net, batch = supernet(method), images()
    layout = net.layout
    with torch.no_grad():
        for path in (*map(layout.uniform, range(layout.choices)), layout.largest):
            output = net(batch, path)
            for shipped in (
                lambda x, p=path: net.back_at(p).eval()(net.front_at(p).eval()(x)[0]),
                SlicedNet(UniformNet(net, path)),
            ):
                torch.testing.assert_close(shipped(batch), output, rtol=1e-4, atol=1e-4)


def test_residuals_add_the_input_behind_the_first_block_of_a_stage() -> None:
    blocks = list(supernet(RESIDUAL).blocks)
    assert [block.residual for block in blocks] == [False, True] * 3  # type: ignore[union-attr]
    block = blocks[1]
    features = torch.randn(2, 16, 5, 5)
    with torch.no_grad():
        changed = block(features, 0, 0)
        block.residual = False  # type: ignore[assignment]
        torch.testing.assert_close(changed, features + block(features, 0, 0))


@pytest.mark.parametrize("method", [METHOD, RESIDUAL])
def test_masked_equals_sliced_for_each_width_and_for_a_mixed_batch(method: DSNet) -> None:
    net, batch = supernet(method).double(), images().double()
    paths = [net.layout.uniform(choice) for choice in (1, 2, 3)]
    with torch.no_grad():
        features, _ = net.front(batch, paths[0])
        sliced = torch.stack([net.back(features, path) for path in paths])
        uniform = [torch.full((12,), choice) for choice in range(3)]
        for chosen in (*uniform, torch.arange(12) % 3):
            shares = F.one_hot(chosen, 3).double()
            masked = net.masked(features, shares, paths)
            torch.testing.assert_close(
                masked, sliced[chosen, torch.arange(12)], rtol=1e-9, atol=1e-9
            )
    assert (sliced[0] - sliced[1]).abs().max() > 0.01, "widths differ"


def test_masked_execution_is_counted_as_full_execution() -> None:
    """Why prices come from the sliced form: the mask saves nothing."""
    net, batch = supernet(METHOD), images(1)
    paths = [net.layout.uniform(choice) for choice in range(4)]

    class Masked(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            narrow = torch.tensor([[1.0, 0, 0, 0]])
            return net.masked(net.front(x, paths[0])[0], narrow, paths)

    assert executed_macs(Masked(), batch) == net.cost(paths[3]) > net.cost(paths[0])


def test_a_forward_does_not_change_the_width_of_the_next() -> None:
    net, batch = supernet(METHOD), images()
    layout = net.layout
    with torch.no_grad():
        first = net(batch, layout.uniform(0))
        net(batch, layout.largest)
        net.masked(net.front(batch, layout.uniform(0))[0], torch.ones(12, 1), [layout.uniform(2)])
        assert torch.equal(net(batch, layout.uniform(0)), first)


def test_slices_outside_the_running_width_get_no_gradient() -> None:
    net = supernet(METHOD).train()
    path = net.layout.uniform(1)
    net(images(), path).square().sum().backward()
    sources = [path[0], *net.layout.along(path)]
    for block, source, target in zip(net.blocks, sources, sources[1:], strict=False):
        inputs, outputs = block.inputs[source], block.outputs[target]  # type: ignore[index]
        ran = {
            block.depthwise.weight: (slice(inputs),),  # type: ignore[union-attr]
            block.pointwise.weight: (slice(outputs), slice(inputs)),  # type: ignore[union-attr]
            block.norm2.weight: (slice(outputs),),  # type: ignore[union-attr]
            block.squeeze.reduce.weight: (slice(None), slice(inputs)),  # type: ignore[union-attr]
            block.squeeze.expand.weight: (slice(inputs),),  # type: ignore[union-attr]
        }
        for parameter, where in ran.items():
            grad = parameter.grad.clone()  # type: ignore[union-attr, operator]
            assert (grad[where] != 0).any()
            grad[where] = 0
            assert (grad == 0).all()


def test_dropout_is_the_callers_and_acts_in_training_only() -> None:
    net, batch = supernet(METHOD), images()
    path = net.layout.largest
    with torch.no_grad():
        assert torch.equal(net(batch, path, 0.5), net(batch, path))
        net.train()
        torch.manual_seed(0)
        assert not torch.equal(net(batch, path, 0.5), net(batch, path, 0.5))
        assert torch.equal(net(batch, path), net(batch, path))


def test_widths_are_evenly_spaced_and_leave_out_as_many_channels_in_both_stages() -> None:
    for layout in (published(0.5, 0.25, 7), small(14, 0.5, 0.25, 7), small(14, 0.25, 0.5, 14)):
        first, second = (torch.tensor(stage.widths[:-1]) for stage in layout.dynamic)
        assert len(first.diff().unique()) == 1
        assert torch.equal(first.diff(), second.diff())
        assert first[0] > 0


def test_more_choices_than_channels_are_refused() -> None:
    with pytest.raises(MethodError, match="14 choices for 12 channels"):
        small(8, 0.1, 0.35, 14)
