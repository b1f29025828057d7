"""Every form gives the same values; the choice follows the clock, once for each shape."""

import copy
import itertools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods import METHODS
from methods.api import Task
from methods.condconv.layers import CondConv2d
from methods.condensenet.layers import Condensed, LearnedGroupConv, condensed
from methods.macs import executed_macs
from methods.shipping.choices import Choices
from methods.shipping.clock import race
from methods.shipping.convolutions import convolution_forms
from methods.shipping.forms import PORTION, Fastest, Formed, fastest, tuned

TASK = Task("tiny", 1, 8, 8, 5)
SMALL: dict[str, dict[str, Any]] = {
    "dense": {"depth": 8, "width": 0.25},
    "skipnet": {"depth": 8, "width": 0.25},
    "condensenet": {"stages": "1-1", "growth": 4},
    "condconv": {"depth": 8, "width": 0.25, "experts": 2},
    "dsnet": {"depth": 8, "width": 0.25, "choices": 2, "routing_size": 2},
    "resrep": {"depth": 8, "width": 0.25},
}


def lived(net: nn.Module) -> nn.Module:
    """In double precision, with norms that have seen something."""
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.5, 0.5)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
    return net.double().eval()


def shipped(name: str) -> nn.Module:
    torch.manual_seed(0)
    method = METHODS[name].of(SMALL[name])
    net = lived(method.build(TASK))
    if name == "condensenet":
        net.condense(net.last)  # type: ignore[operator]
    return method.deploy(net)


def images(batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, 1, 8, 8, dtype=torch.float64, generator=generator)


class TestLayers:
    @pytest.mark.parametrize("groups", [1, 2, 4])
    @pytest.mark.parametrize("outputs", [4, 8])
    @pytest.mark.parametrize("bias", [False, True])
    @pytest.mark.parametrize("size", [1, 3, (3, 5)])
    def test_a_convolution_is_a_sum_over_its_window(
        self, groups: int, outputs: int, bias: bool, size: int | tuple[int, int]
    ) -> None:
        torch.manual_seed(0)
        tall, wide = size if isinstance(size, tuple) else (size, size)
        edge = tall // 2, wide // 2
        conv = nn.Conv2d(8, outputs, size, padding=edge, groups=groups, bias=bias)
        conv = conv.double().requires_grad_(False)
        features = torch.randn(2, 8, 5, 4, dtype=torch.float64)
        padded = torch.zeros(2, 8, 5 + tall - 1, 4 + wide - 1, dtype=torch.float64)
        padded[:, :, tall // 2 : tall // 2 + 5, wide // 2 : wide // 2 + 4] = features
        wanted = torch.zeros(2, outputs, 5, 4, dtype=torch.float64)
        if bias:
            wanted += conv.bias[:, None, None]  # type: ignore[index]
        inputs = 8 // groups
        for o, i, j in itertools.product(range(outputs), range(tall), range(wide)):
            first = o // (outputs // groups) * inputs
            window = padded[:, first : first + inputs, i : i + 5, j : j + 4]
            wanted[:, o] += torch.einsum("c,bchw->bhw", conv.weight[o, :, i, j], window)
        for layout in (torch.contiguous_format, torch.channels_last):
            laid = copy.deepcopy(conv).to(memory_format=layout)
            forms = convolution_forms(laid, features)
            assert "dense" in forms or groups == 1
            assert ("spread/4" in forms, "spread/2" in forms) == (outputs == 4, True)
            for form in forms.values():
                torch.testing.assert_close(form(features.contiguous(memory_format=layout)), wanted)

    def test_a_dilated_convolution_by_groups_is_dense_with_its_dilation(self) -> None:
        torch.manual_seed(0)
        conv = nn.Conv2d(8, 4, 3, padding=2, dilation=2, groups=2).double().requires_grad_(False)
        features = torch.randn(2, 8, 6, 5, dtype=torch.float64)
        forms = convolution_forms(conv, features)
        assert list(forms) == ["plain", "dense"]
        torch.testing.assert_close(forms["dense"](features), conv(features))

    def test_what_cannot_be_spread_is_not(self) -> None:
        even, odd = torch.zeros(1, 4, 6, 6), torch.zeros(1, 4, 6, 5)
        plain = nn.Conv2d(4, 4, 3, padding=1)
        assert len(convolution_forms(plain, even)) == 2, "six is no multiple of four"
        for conv, features in [
            (plain, odd),
            (nn.Conv2d(4, 4, 3, padding=1, stride=2), even),
            (nn.Conv2d(4, 4, 3, padding=1, dilation=2), even),
            (nn.Conv2d(4, 4, 3), even),
            (nn.Conv2d(4, 4, 2, padding=1), even),
            (nn.Conv2d(4, 16, 3, padding=1), even),
            (nn.Conv2d(4, 4, 3, padding=1, groups=4), even),
        ]:
            assert list(convolution_forms(conv, features)) == ["plain"]

    @pytest.mark.parametrize(("groups", "factor"), [(4, 4), (8, 2), (2, 8)])
    def test_a_condensed_convolution_is_the_masked_one(self, groups: int, factor: int) -> None:
        torch.manual_seed(0)
        conv = LearnedGroupConv(16, 24, groups=groups, factor=factor).double()
        for _ in range(factor - 1):
            conv.condense()
        norm = lived(nn.Sequential(nn.BatchNorm2d(24)))[0]
        features = torch.randn(2, 16, 3, 5, dtype=torch.float64)
        keeps = conv.mask.repeat(24 // groups, 1)  # output o is of group o mod groups
        kernel = (conv.weight.flatten(1) * keeps).detach()
        wanted = norm(torch.einsum("oi,bihw->bohw", kernel, features))
        layer = condensed(nn.Sequential(conv, norm))[0]
        assert isinstance(layer, Condensed)
        forms = layer.forms(features)
        assert list(forms) == ["grouped", "dense"]
        for form in forms.values():
            torch.testing.assert_close(form(features), wanted)

    @pytest.mark.parametrize("size", [1, 3])
    def test_a_conditional_convolution_mixes_its_kernels(self, size: int) -> None:
        torch.manual_seed(0)
        layer = CondConv2d(6, 4, size, padding=size // 2, experts=3).double().eval()
        features = torch.randn(5, 6, 4, 4, dtype=torch.float64)
        routing = torch.rand(5, 3, dtype=torch.float64)
        kernels = torch.einsum("be,ek->bk", routing, layer.weight).reshape(5, 4, 6, size, size)
        wanted = torch.stack(
            [
                nn.functional.conv2d(image, kernel, padding=size // 2)
                for image, kernel in zip(features, kernels, strict=True)
            ]
        )
        forms = layer.forms(features, routing)
        ways = {"rule", "grouped/1", "grouped/4", "grouped/5", "experts"}
        assert set(forms) == ways | ({"bmm/1", "bmm/4", "bmm/5"} if size == 1 else set())
        for form in forms.values():
            torch.testing.assert_close(form(features, routing), wanted)


class Steps:
    """A clock that moves only when something says that it took time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow(nn.Module):
    """Doubles, in so many seconds."""

    def __init__(self, clock: Steps, seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds, self.calls = clock, seconds, 0

    def forward(self, features: Tensor) -> Tensor:
        self.calls += 1
        self.clock.now += self.seconds
        return 2 * features


class Doubling(nn.Module):
    """A layer with a quick form and a slow one; which is which depends on the test."""

    def __init__(self, forms: dict[str, nn.Module]) -> None:
        super().__init__()
        self.kinds = nn.ModuleDict(forms)

    def forward(self, features: Tensor) -> Tensor:
        return self.kinds["usual"](features)  # type: ignore[no-any-return]

    def forms(self, features: Tensor) -> dict[str, nn.Module]:
        return {"usual": self, "other": self.kinds["other"]}

    def __deepcopy__(self, memo: Any) -> "Doubling":
        return Doubling(dict(self.kinds))  # the forms that are counted


@pytest.fixture
def doubling() -> Callable[..., tuple[nn.Module, Steps]]:
    """A network of one layer whose forms take so many seconds."""

    def make(usual: float, other: float) -> tuple[nn.Module, Steps]:
        clock = Steps()
        forms: dict[str, nn.Module] = {"usual": Slow(clock, usual), "other": Slow(clock, other)}
        return nn.Sequential(Doubling(forms), nn.Flatten()), clock

    return make


class TestChoice:
    @pytest.mark.parametrize(("usual", "other"), [(0.02, 0.01), (0.01, 0.02), (5.0, 0.1)])
    def test_it_follows_the_clock(self, tmp_path: Path, doubling, usual, other) -> None:
        net, clock = doubling(usual, other)
        network = fastest(net, images(2), Choices(tmp_path), clock=clock)
        quick = other < usual
        assert ("1 x other" in network.forms) == quick
        layer = network.net[0]  # type: ignore[index]
        assert isinstance(layer, Formed) or not quick
        spent = clock.now
        assert torch.equal(network(images(2)), 2 * images(2).flatten(1))
        assert clock.now - spent == pytest.approx(min(usual, other)), "nothing is measured"

    def test_the_default_stays_where_another_is_hardly_faster(
        self, tmp_path: Path, doubling
    ) -> None:
        for other, words in ((0.96, "usual"), (0.94, "other")):
            net, clock = doubling(1.0, other)
            fastest(net, images(2), Choices(tmp_path / words), clock=clock)
            answers = [json.loads(path.read_text()) for path in (tmp_path / words).iterdir()]
            chosen = {answer["choice"] for answer in answers if "layer" in answer["question"]}
            assert chosen == {words}

    def test_a_layer_alone_is_tuned_as_in_a_network(self, tmp_path: Path, doubling) -> None:
        net, clock = doubling(0.02, 0.01)
        layer = tuned(net[0], images(2), choices=Choices(tmp_path), clock=clock)
        assert (layer.name, layer.shape) == ("other", images(2).shape[1:])
        assert torch.equal(layer(images(2)), 2 * images(2))

    def test_what_was_measured_is_measured_no_more(self, tmp_path: Path, doubling) -> None:
        net, clock = doubling(0.02, 0.01)
        first = fastest(net, images(2), Choices(tmp_path), clock=clock)
        net, clock = doubling(0.02, 0.01)
        again = fastest(net, images(2), Choices(tmp_path), clock=clock)
        assert again.forms == first.forms
        assert clock.now == 0.02, "one dry run, in the default form"
        fastest(net, images(3), Choices(tmp_path), clock=clock)
        assert clock.now > 0.1, "another shape is another question"

    def test_maps_of_another_shape_take_the_default(self, tmp_path: Path, doubling) -> None:
        net, clock = doubling(2.0, 1.0)
        network = fastest(net, images(2), Choices(tmp_path), clock=clock)
        before = clock.now
        network(torch.zeros(2, 1, 4, 4))
        assert clock.now - before == 2.0

    def test_a_race_drops_what_is_behind_and_ends(self) -> None:
        clock = Steps()
        forms = {str(seconds): Slow(clock, seconds) for seconds in (1.0, 1.2, 9.0)}
        calls = {name: lambda own=own: own(torch.zeros(1)) for name, own in forms.items()}
        taken = race(calls, clock)
        assert taken == pytest.approx({"1.0": 1.0, "1.2": 1.2, "9.0": 9.0})
        assert [form.calls for form in forms.values()] == [4, 4, 2]


class TestNetworks:
    @pytest.mark.parametrize("name", sorted(SMALL))
    @pytest.mark.parametrize("batch", [1, PORTION + 5])
    def test_the_fastest_form_gives_the_same_logits(
        self, tmp_path: Path, name: str, batch: int
    ) -> None:
        net, some = shipped(name), images(batch)
        with torch.no_grad():
            wanted = net(some)
            before = executed_macs(net, some)
            network = fastest(net, some, Choices(tmp_path))
            torch.testing.assert_close(network(some), wanted, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(network(some[:1]), wanted[:1], rtol=1e-9, atol=1e-12)
        assert executed_macs(net, some) == before, "the network itself is as it was"
        assert not any(isinstance(part, Fastest | Formed) for part in net.modules())
        assert network.forms.startswith(("channels last", "contiguous"))

    @pytest.mark.parametrize("portion", [PORTION, None])
    def test_every_form_of_every_layer_in_the_network(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, portion: int | None
    ) -> None:
        """Forced by a race that the form of a name wins."""
        some = images(PORTION + 5)
        for net in (shipped("condensenet"), shipped("condconv")):
            with torch.no_grad():
                wanted = net(some)
            for form in ("grouped", "dense", "spread/2", "experts", "grouped/1"):
                size = portion or len(some)

                def won(calls: Any, clock: Any, form: str = form, size: int = size) -> Any:
                    wins = (form, f"contiguous/{size}/tuned")
                    return {name: 0.0 if name in wins else 1.0 for name in calls}

                monkeypatch.setattr("methods.shipping.forms.race", won)
                network = fastest(net, some, Choices(tmp_path / form / str(portion)))
                assert (network.portion, network.batch) == (size, len(some))
                with torch.no_grad():
                    torch.testing.assert_close(network(some), wanted, rtol=1e-9, atol=1e-12)

    def test_what_costs_more_than_its_price_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def won(calls: Any, clock: Any) -> Any:
            return {n: 0.0 if n in ("dense", "channels_last/2/tuned") else 1.0 for n in calls}

        monkeypatch.setattr("methods.shipping.forms.race", won)
        net = shipped("condensenet")
        network = fastest(net, images(2), Choices(tmp_path))
        assert "4 x dense (more MACs than priced)" in network.forms
        assert executed_macs(network, images(2)) > executed_macs(net, images(2))

    def test_a_second_call_logs_and_measures_nothing(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        net = shipped("condensenet")
        first = fastest(net, images(2), Choices(tmp_path))

        def refused(*_: Any) -> Any:
            raise AssertionError("this was measured before")

        monkeypatch.setattr("methods.shipping.forms.race", refused)
        with caplog.at_level(logging.WARNING):
            again = fastest(net, images(2), Choices(tmp_path))
        assert (again.forms, caplog.text) == (first.forms, "")


def test_every_kind_has_its_default_first() -> None:
    conv = nn.Conv2d(8, 8, 3, padding=1, groups=2)
    features = torch.zeros(1, 8, 4, 4)
    assert next(iter(convolution_forms(conv, features).values())) is conv
    layer = CondConv2d(8, 8, 3, experts=2)
    assert next(iter(layer.forms(features, torch.zeros(1, 2)).values())) is layer
