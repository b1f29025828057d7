"""Every way to run a conditional layer, against the definition; and what a layer costs."""

import itertools
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.api import Task
from methods.condconv.layers import WAYS, CondConv2d, CondLinear, Path, Router, fuse
from methods.macs import executed_macs, macs

DIGITS = Task("digits", 1, 8, 8, 10)
CIFAR = Task("cifar10", 3, 32, 32, 10)
IMAGENET = Task("imagenet", 3, 224, 224, 1000)
EXPERTS = 3
BATCH = 5


class Shape(NamedTuple):
    inputs: int
    outputs: int
    size: int | tuple[int, int] = 3
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] = 1
    groups: int = 1
    bias: bool = False


SHAPES = {
    "3x3": Shape(8, 12),
    "3x3 with bias": Shape(8, 12, bias=True),
    "3x3 stride 2": Shape(8, 12, stride=2),
    "3x3 without padding": Shape(8, 12, padding=0),
    "grouped": Shape(8, 12, groups=4, bias=True),
    "1x1": Shape(8, 12, 1, padding=0, bias=True),
    "1x1 stride 2": Shape(8, 12, 1, stride=2, padding=0),
    "depthwise 5x5": Shape(8, 8, 5, padding=2, groups=8, bias=True),
    "depthwise stride 2": Shape(8, 8, stride=2, groups=8),
    "oblong": Shape(8, 12, (1, 3), stride=(2, 1), padding=(0, 2)),
}


def layer(shape: Shape, **options: Any) -> CondConv2d:
    """A conditional convolution in double precision with a bias that is not zero."""
    made = CondConv2d(*shape, experts=EXPERTS, **options).double()
    if made.bias is not None:
        nn.init.normal_(made.bias)
    return made


def inputs(shape: Shape, batch: int = BATCH) -> tuple[Tensor, Tensor]:
    """Features of an odd size, and routing weights that are not alike."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(batch, shape.inputs, 7, 6, dtype=torch.float64, generator=generator)
    return features, torch.rand(batch, EXPERTS, dtype=torch.float64, generator=generator)


def plainly(made: CondConv2d, shape: Shape, features: Tensor, routing: Tensor) -> Tensor:
    """The definition: image by image, a plain convolution by the weighted sum of the experts."""
    results = []
    for image, weights in zip(features, routing, strict=True):
        kernel = sum(w * one for w, one in zip(weights, made.weight, strict=True))
        bias = None
        if made.bias is not None:
            bias = sum(w * one for w, one in zip(weights, made.bias, strict=True))
        plain = nn.Conv2d(*shape[:3], shape.stride, shape.padding, groups=shape.groups, bias=False)
        kernel = kernel.reshape(plain.weight.shape)  # type: ignore[union-attr]
        results.append(
            F.conv2d(image[None], kernel, bias, shape.stride, shape.padding, 1, shape.groups)  # type: ignore[arg-type]
        )
    return torch.cat(results)


def paths(shape: Shape) -> list[Path]:
    """The ways that can take this shape."""
    pointwise = shape.size == shape.stride == 1 and shape.groups == 1
    return ["grouped", "loop", "patches", "experts", *(["bmm"] if pointwise else [])]  # type: ignore[list-item]


def with_gradients(made: CondConv2d, features: Tensor, routing: Tensor, run: Any) -> list[Tensor]:
    """What comes out, and the gradients of everything that went in."""
    parts = [features.requires_grad_(), routing.requires_grad_(), *made.parameters()]
    out = run(features, routing)
    weights = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(2))
    return [out, *torch.autograd.grad((out * weights).sum(), parts)]


class TestWays:
    @pytest.mark.parametrize("name", SHAPES)
    @pytest.mark.parametrize("channels_last", [False, True])
    def test_all_equal_the_definition_with_their_gradients(
        self, name: str, channels_last: bool
    ) -> None:
        torch.manual_seed(0)
        shape = SHAPES[name]
        made, (features, routing) = layer(shape), inputs(shape)
        if channels_last:
            features = features.to(memory_format=torch.channels_last)
        wanted = with_gradients(made, features, routing, lambda f, r: plainly(made, shape, f, r))
        for path in paths(shape):
            made.path = path
            assert made.picks(features) == path
            values = with_gradients(made, features, routing, made)
            for one, other in zip(values, wanted, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("name", SHAPES)
    def test_single_precision_is_as_close_as_measured(self, name: str) -> None:
        torch.manual_seed(0)
        shape = SHAPES[name]
        made = layer(shape).float()
        features, routing = (part.float() for part in inputs(shape))
        outs = []
        for path in paths(shape):
            made.path = path
            outs.append(made(features, routing))
        scale = outs[0].abs().max()
        for one, other in itertools.pairwise(outs):
            assert (one - other).abs().max() <= 1.5e-6 * scale

    def test_a_batch_in_chunks_equals_a_batch_at_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        torch.manual_seed(0)
        for name in ("3x3 with bias", "1x1"):
            made, (features, routing) = layer(SHAPES[name]), inputs(SHAPES[name], 7)
            whole = made(features, routing)
            kernel = 8 * made.weight.shape[1]
            monkeypatch.setattr("methods.condconv.layers.CACHE", 3 * kernel)
            assert made._chunk(made.picks(features), features) == 4, "7 images in 2 even chunks"
            torch.testing.assert_close(made(features, routing), whole)
            monkeypatch.undo()

    @pytest.mark.parametrize("name", SHAPES)
    def test_a_batch_equals_its_images_one_by_one_in_any_order(self, name: str) -> None:
        torch.manual_seed(0)
        shape = SHAPES[name]
        made, (features, routing) = layer(shape).eval(), inputs(shape)
        whole = made(features, routing)
        singles = [
            made(features[index, None], routing[index, None]) for index in range(len(features))
        ]
        order = torch.tensor([3, 0, 4, 1, 2])
        torch.testing.assert_close(torch.cat(singles), whole)
        torch.testing.assert_close(made(features[order], routing[order]), whole[order])

    @pytest.mark.parametrize("name", SHAPES)
    def test_one_expert_at_weight_one_is_the_plain_convolution(self, name: str) -> None:
        torch.manual_seed(0)
        shape = SHAPES[name]
        plain = nn.Conv2d(*shape[:5], groups=shape.groups, bias=shape.bias).double()
        made = CondConv2d.like(plain, 1).double()
        features, _ = inputs(shape)
        with torch.no_grad():
            made.weight.copy_(plain.weight.reshape(1, -1))
            if made.bias is not None:
                made.bias.copy_(plain.bias[None])  # type: ignore[index]
        ones = torch.ones(BATCH, 1, dtype=torch.float64)
        torch.testing.assert_close(made(features, ones), plain(features))

    def test_the_rule_takes_the_fastest_measured(self) -> None:
        def picked(shape: Shape, pixels: int, experts: int, *, training: bool = True) -> Path:
            made = CondConv2d(*shape, experts=experts).train(training)
            return made.picks(torch.zeros(32, shape.inputs, pixels, pixels))

        assert picked(Shape(112, 672, 1, padding=0), 14, 4) == "bmm"
        assert picked(Shape(64, 64, 1, stride=2, padding=0), 14, 4) == "grouped"
        assert picked(Shape(64, 64), 16, 4) == "grouped"
        assert picked(Shape(64, 64), 4, 4) == "experts", "tiny maps, large kernels, in training"
        assert picked(Shape(64, 64, stride=2), 8, 4) == "experts"
        assert picked(Shape(64, 64), 4, 8) == "grouped"
        assert picked(Shape(16, 16), 4, 4) == "grouped"
        assert picked(Shape(672, 672, 5, padding=2, groups=672), 2, 4) == "grouped"
        assert picked(Shape(64, 64), 4, 4, training=False) == "grouped", "the price"

    def test_evaluation_never_runs_every_expert(self) -> None:
        made = layer(SHAPES["3x3"], path="experts").eval()
        assert made.picks(inputs(SHAPES["3x3"])[0]) == "grouped"
        assert made.train().picks(inputs(SHAPES["3x3"])[0]) == "experts"
        assert set(WAYS) == {"grouped", "bmm", "loop", "patches", "experts"}


class _Whole(nn.Module):
    """A layer behind its own routing, as a counter sees it."""

    def __init__(self, layer: nn.Module, channels: int) -> None:
        super().__init__()
        self.layer = layer
        self.router = Router(channels, EXPERTS)

    def forward(self, features: Tensor) -> Tensor:
        pooled = features.mean((2, 3))
        inputs = features if isinstance(self.layer, CondConv2d) else pooled
        return self.layer(inputs, self.router(pooled))  # type: ignore[no-any-return]


class TestCost:
    @pytest.mark.parametrize("name", SHAPES)
    @pytest.mark.parametrize("path", ["grouped", "loop", None])
    def test_a_layer_costs_one_convolution_mixing_and_routing(
        self, name: str, path: Path | None
    ) -> None:
        shape, image = SHAPES[name], torch.randn(1, SHAPES[name].inputs, 7, 6)
        plain = nn.Conv2d(*shape[:5], groups=shape.groups, bias=shape.bias)
        made = CondConv2d.like(plain, EXPERTS, path)
        whole = _Whole(made, shape.inputs)
        weights = sum(p.numel() for p in plain.parameters())
        cost = macs(plain, image) + EXPERTS * weights + shape.inputs * EXPERTS
        assert macs(plain, image) + made.extra + whole.router.extra == cost
        assert macs(whole, image) == executed_macs(whole, image) == cost
        batch = image.expand(BATCH, -1, -1, -1)
        assert macs(whole, batch) == executed_macs(whole, batch) == BATCH * cost

    def test_every_expert_costs_a_convolution_if_all_run(self) -> None:
        """What must never be counted."""
        shape, image = SHAPES["3x3"], torch.randn(1, 8, 7, 6)
        made = CondConv2d(*shape, experts=EXPERTS, path="experts")

        class Training(nn.Module):
            def forward(self, features: Tensor) -> Tensor:
                return made.train()(features, torch.ones(1, EXPERTS))  # type: ignore[no-any-return]

        convolution = 8 * 12 * 9 * 7 * 6
        assert executed_macs(Training(), image) == EXPERTS * (convolution + 12 * 7 * 6)

    def test_a_linear_map_runs_its_experts_for_less_than_mixing_would_cost(self) -> None:
        torch.manual_seed(0)
        made = CondLinear(8, 12, experts=EXPERTS)
        whole, image = _Whole(made, 8), torch.randn(1, 8, 7, 6)
        plain, routing = 8 * 12, 8 * EXPERTS
        cost = EXPERTS * (plain + 12) + routing
        assert macs(whole, image) == executed_macs(whole, image) == cost
        assert cost == plain + made.extra + whole.router.extra
        assert cost == plain + EXPERTS * (plain + 12) + routing - plain, "mixing first costs more"
        assert executed_macs(whole, image.expand(BATCH, -1, -1, -1)) == BATCH * cost

    def test_a_linear_map_equals_the_definition(self) -> None:
        torch.manual_seed(0)
        made = CondLinear(8, 12, experts=EXPERTS).double()
        pooled = torch.randn(BATCH, 8, dtype=torch.float64)
        routing = torch.rand(BATCH, EXPERTS, dtype=torch.float64)
        kernels = (routing @ made.weight.reshape(EXPERTS, -1)).reshape(BATCH, 12, 8)
        bias = routing @ made.bias.reshape(EXPERTS, -1)
        wanted = (kernels @ pooled[:, :, None]).squeeze(2) + bias
        torch.testing.assert_close(made(pooled, routing), wanted)


class TestWeights:
    @pytest.mark.parametrize("name", ["3x3", "depthwise", "1x1"])
    def test_every_expert_has_its_own_deviation(self, name: str) -> None:
        torch.manual_seed(0)
        shape = {"3x3": Shape(32, 64), "depthwise": Shape(512, 512, groups=512)}.get(
            name, Shape(64, 128, 1)
        )
        made = CondConv2d(*shape, experts=4)
        size = 1 if name == "1x1" else 9
        wanted = (2 * shape.groups / (size * shape.outputs)) ** 0.5
        for expert in made.weight:
            assert expert.std().item() == pytest.approx(wanted, rel=0.05)
            assert abs(expert.mean().item()) < 0.05 * wanted
        for one, other in itertools.pairwise(made.weight):
            assert (one - other).std().item() == pytest.approx(2**0.5 * wanted, rel=0.05)

    def test_a_norm_goes_into_every_expert_and_its_shift_stays_unmixed(self) -> None:
        torch.manual_seed(0)
        for name in ("3x3 with bias", "depthwise stride 2", "1x1"):
            shape = SHAPES[name]
            made, (features, routing) = layer(shape), inputs(shape)
            norm = nn.BatchNorm2d(shape.outputs).double()
            norm(torch.randn(9, shape.outputs, 4, 4, dtype=torch.float64) * 3 + 1)
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
            norm.eval()
            fused = fuse(made, norm)
            assert (fused.extra, made.shift) == (made.extra, None)
            for path in paths(shape):
                fused.path = path
                torch.testing.assert_close(fused(features, routing), norm(made(features, routing)))
