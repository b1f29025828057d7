"""Every property that CondConv's sheet asks for, against plain convolutions and golden numbers."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods.api import StaticNet, Task
from methods.condconv.layers import CondConv2d, Router
from methods.condconv.method import CondConv, Routed
from methods.dense import Dense
from methods.errors import MethodError
from methods.macs import executed_macs, macs
from methods.resnet import resnet

DIGITS = Task("digits", 1, 8, 8, 10)
CIFAR = Task("cifar10", 3, 32, 32, 10)
IMAGENET = Task("imagenet", 3, 224, 224, 1000)
EXPERTS = 3
BATCH = 5


class TestCost:
    @pytest.mark.parametrize(
        ("experts", "params", "cost", "mixing"),
        [(4, 13_314_116, 396_513_888, 10_694_400), (8, 24_013_284, 407_213_024, 21_388_800)],
    )
    def test_golden_efficientnets(self, experts: int, params: int, cost: int, mixing: int) -> None:
        method = CondConv(family="efficientnet-b0", experts=experts)
        assert method.floor(IMAGENET) == cost
        with torch.device("meta"):
            net = method.build(IMAGENET).eval()
            deployed = method.deploy(net)
            executed = [executed_macs(deployed, torch.zeros(n, 3, 224, 224)) for n in (1, 8)]
        layers = [part for part in net.modules() if isinstance(part, CondConv2d)]
        assert (len(layers), len(method.conditional())) == (24, 8)
        assert sum(p.numel() for p in net.parameters()) == params
        assert sum(part.extra for part in layers) == mixing
        assert executed == [cost, 8 * cost]
        if experts == 4:  # fvcore cannot count without computing
            assert macs(deployed.to_empty(device="cpu"), torch.zeros(1, 3, 224, 224)) == cost

    def test_a_cifar_resnet_grows_as_published(self) -> None:
        """41.01 to 42.09, 43.16 and 49.61 million for 4, 8 and 32 experts in every block."""
        plain = Dense().floor(CIFAR)
        for experts, more in ((4, 1.08), (8, 2.15), (32, 8.60)):
            extra = CondConv(experts=experts, placement="all").floor(CIFAR) - plain
            assert extra / 1e6 == pytest.approx(more, abs=0.09)

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"placement": "1", "head": True},
            {"placement": "all", "experts": 2},
            {"experts": 1},
            {"path": "experts"},
        ],
    )
    def test_the_price_is_what_the_deployed_network_executes(self, fields: dict[str, Any]) -> None:
        torch.manual_seed(0)
        method = CondConv.of({"depth": 14, "width": 0.5, "experts": 4} | fields)
        net, images = method.build(DIGITS), torch.randn(3, 1, 8, 8)
        deployed, floor = method.deploy(net), method.floor(DIGITS)
        assert net(images).macs.tolist() == [floor] * 3
        assert executed_macs(deployed, images) == macs(deployed, images) == 3 * floor
        assert executed_macs(deployed, images[:1]) == floor

    def test_an_imagenet_resnet_too(self) -> None:
        method = CondConv(family="imagenet", depth=50)
        floor = method.floor(IMAGENET)
        with torch.device("meta"):
            deployed = method.deploy(method.build(IMAGENET))
            executed = executed_macs(deployed, torch.zeros(1, 3, 224, 224))
        assert method.conditional() == [13, 14, 15], "the last three blocks"
        assert executed == floor

    def test_pricing_draws_nothing(self) -> None:
        before = torch.random.get_rng_state()
        CondConv(depth=8, width=0.75).floor(Task("fresh", 3, 40, 40, 7))
        assert torch.equal(before, torch.random.get_rng_state())


class TestStart:
    @pytest.mark.parametrize(("start", "bound"), [("glorot", 6**0.5 / 8), ("timm", 1 / 8)])
    def test_routing(self, start: Any, bound: float) -> None:
        torch.manual_seed(0)
        router = Router(56, 8, start)
        weight = router.linear.weight
        assert weight.abs().max().item() == pytest.approx(bound, rel=0.05)
        assert weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
        assert torch.equal(router(torch.zeros(2, 56)), torch.full((2, 8), 0.5))

    def test_routing_is_a_sigmoid_of_each_image_alone(self) -> None:
        torch.manual_seed(0)
        router = Router(6, 3)
        pooled = torch.randn(4, 6)
        weights = router(pooled)
        torch.testing.assert_close(weights, torch.sigmoid(router.linear(pooled)))
        torch.testing.assert_close(router(pooled[1:2]), weights[1:2])
        assert not torch.allclose(weights.sum(1), torch.ones(4)), "no softmax"

    def test_the_field_reaches_the_routers(self) -> None:
        def spread(**fields: Any) -> float:
            torch.manual_seed(0)
            net = CondConv(depth=8, **fields).build(DIGITS)
            routers = [part for part in net.modules() if isinstance(part, Router)]
            return max(part.linear.weight.abs().max().item() for part in routers)

        assert spread() > 2 * spread(routing_init="timm")


def settled(net: StaticNet) -> StaticNet:
    """The network in evaluation mode, its norms with statistics and scales of their own."""
    with torch.no_grad():
        for norm in (part for part in net.modules() if isinstance(part, nn.BatchNorm2d)):
            for value in (norm.running_mean, norm.bias):
                value.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
            for value in (norm.running_var, norm.weight):
                value.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return net.eval()


class TestNetwork:
    @pytest.mark.parametrize(
        ("method", "task"),
        [
            (CondConv(depth=14, width=0.5, placement="23", head=True), DIGITS),
            (CondConv(family="imagenet", depth=50, width=0.1), Task("i", 3, 64, 64, 5)),
            (CondConv(family="efficientnet-b0", width=0.25), Task("e", 3, 32, 32, 5)),
            (CondConv(family="mobilenet-v1", width=0.25, head=True), Task("m", 3, 32, 32, 5)),
            (CondConv(family="mobilenet-v2", width=0.25), Task("m", 3, 33, 40, 5)),
        ],
    )
    def test_a_block_has_one_routing_for_all_its_convolutions(
        self, method: CondConv, task: Task
    ) -> None:
        net = settled(method.build(task))
        blocks = [part for part in net.modules() if isinstance(part, Routed)]
        assert len(blocks) == len(method.conditional())
        images = torch.randn(3, task.channels, task.height, task.width)
        routings: dict[nn.Module, list[Tensor]] = {}
        entered: dict[nn.Module, Tensor] = {}
        for block in blocks:
            block.register_forward_pre_hook(lambda part, args: entered.update({part: args[0]}))
            for conv in (part for part in block.modules() if isinstance(part, CondConv2d)):
                conv.register_forward_pre_hook(
                    lambda _, args, block=block: routings.setdefault(block, []).append(args[1])
                )
        net(images)
        for block in blocks:
            plain = [part for part in block.modules() if type(part) is nn.Conv2d]
            used = routings[block]
            assert not plain
            assert len(used) >= 2
            assert all(routing is used[0] for routing in used)
            wanted = torch.sigmoid(block.router.linear(entered[block].mean((2, 3))))
            torch.testing.assert_close(used[0], wanted)

    def test_with_one_expert_at_weight_one_it_is_the_plain_network(self) -> None:
        torch.manual_seed(0)
        plain = resnet(DIGITS, 14, 0.5)
        net = CondConv(depth=14, width=0.5, experts=1, placement="all").build(DIGITS)
        with torch.no_grad():
            kernels = [p for name, p in net.named_parameters() if "router" not in name]
            for value, source in zip(kernels, plain.parameters(), strict=True):
                value.copy_(source.reshape(value.shape))
            for router in (part for part in net.modules() if isinstance(part, Router)):
                router.linear.weight.zero_()
                router.linear.bias.fill_(50.0)
        images = torch.randn(4, 1, 8, 8)
        torch.testing.assert_close(net(images).logits, plain(images), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        ("method", "task"),
        [
            (CondConv(depth=14, width=0.5, placement="all", head=True), DIGITS),
            (CondConv(family="efficientnet-b0", width=0.25), Task("e", 3, 32, 32, 5)),
            (CondConv(family="mobilenet-v1", width=0.25, head=True), Task("m", 3, 32, 32, 5)),
        ],
    )
    def test_deployed_it_has_no_norm_and_answers_alike(self, method: CondConv, task: Task) -> None:
        torch.manual_seed(0)
        net = settled(method.build(task))
        images = torch.randn(6, task.channels, task.height, task.width)
        deployed = method.deploy(net)
        assert not any(isinstance(part, nn.BatchNorm2d) for part in deployed.modules())
        logits = net(images).logits
        torch.testing.assert_close(deployed(images), logits, rtol=1e-4, atol=1e-4)
        twin = method.deploy(net.double())
        torch.testing.assert_close(twin(images.double()).float(), logits, rtol=1e-4, atol=1e-4)

    def test_deployed_a_mobilenet_v2_answers_alike_to_the_precision(self) -> None:
        """Without activations behind its blocks an untrained one amplifies rounding a thousandfold,
        so in single precision the folded norms show."""
        torch.manual_seed(0)
        method = CondConv(family="mobilenet-v2", width=0.25)
        net = settled(method.build(Task("m", 3, 33, 40, 5))).double()
        images = torch.randn(6, 3, 33, 40, dtype=torch.float64)
        torch.testing.assert_close(method.deploy(net)(images), net(images).logits)

    def test_which_blocks_are_conditional(self) -> None:
        def chosen(**fields: Any) -> list[int]:
            return CondConv.of(fields).conditional()

        assert chosen() == [6, 7, 8]
        assert chosen(placement="1") == chosen(placement=1) == [0, 1, 2]
        assert chosen(placement="13") == [0, 1, 2, 6, 7, 8]
        assert chosen(placement="all") == list(range(9))
        assert chosen(family="imagenet", depth=18) == [6, 7]
        assert chosen(family="efficientnet-b0") == list(range(8, 16))
        assert chosen(family="efficientnet-b0", placement="17") == [0, 15]
        assert chosen(family="efficientnet-b1")[0] == 12
        assert chosen(family="mobilenet-v1") == list(range(5, 13)), (
            "from the sixth on, as published"
        )
        assert chosen(family="mobilenet-v2") == list(range(10, 17))

    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"placement": "4"}, "cifar's stages 123 in order, got '4'; try 3"),
            ({"placement": "21"}, "in order, got '21'"),
            ({"placement": "11"}, "got '11'"),
            ({"placement": ""}, "got ''"),
            ({"experts": 0}, "experts.*got 0"),
            ({"depth": 21}, "try 20 or 26"),
            ({"family": "efficientnet-b0", "depth": 26}, "leave depth at 20, got 26"),
            ({"family": "efficientnet-b0", "placement": "8"}, "1234567.*try 567"),
            ({"path": "bmm"}, "'auto', 'grouped', 'loop' or 'experts'"),
        ],
    )
    def test_bad_fields_are_refused(self, fields: dict[str, Any], says: str) -> None:
        with pytest.raises(MethodError, match=says):
            CondConv.of(fields)

    def test_layers_refuse_what_cannot_be(self) -> None:
        with pytest.raises(MethodError, match="at least one expert, got 0"):
            CondConv2d(8, 8, 3, experts=0)
        with pytest.raises(MethodError, match="groups must divide channels"):
            CondConv2d(8, 8, 3, groups=3, experts=2)

    def test_dropout_hides_features_in_training_alone(self) -> None:
        torch.manual_seed(0)
        net, images = (
            CondConv(depth=8, width=0.5, dropout=0.5).build(DIGITS),
            torch.randn(4, 1, 8, 8),
        )
        net(images)
        net.eval()
        assert torch.equal(net(images).logits, net(images).logits)
        net.train()
        assert not torch.equal(net(images).logits, net(images).logits)

    @pytest.mark.parametrize("path", ["grouped", "loop", "experts"])
    def test_the_way_that_training_takes_changes_no_gradient(self, path: Any) -> None:
        def gradients(**fields: Any) -> list[Tensor]:
            torch.manual_seed(0)
            method = CondConv(depth=8, width=0.5, experts=4, placement="all", **fields)
            net = method.build(DIGITS).double()
            images, labels = torch.randn(6, 1, 8, 8).double(), torch.arange(6)
            method.phases()[0].loss(net, images, labels).backward()
            assert all(p.grad is not None for p in net.parameters())
            return [p.grad for p in net.parameters() if p.grad is not None]

        for one, other in zip(gradients(), gradients(path=path), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-10)


class TestAlarm:
    def test_dear_mixing_is_told(self) -> None:
        torch.manual_seed(0)
        images = torch.rand(16, 1, 8, 8) * torch.linspace(0, 9, 16)[:, None, None, None]
        for fields, says in (
            ({"placement": "1", "experts": 8}, None),
            ({"placement": "2", "experts": 8}, None),
            ({"placement": "late", "experts": 2}, None),
            ({"placement": "late", "experts": 4}, "4 experts costs 1 times .* on maps of 4 px"),
            ({"placement": "all", "experts": 8}, "8 experts costs 2 times .* on maps of 4 px"),
        ):
            method = CondConv.of({"depth": 8} | fields)
            net = method.build(DIGITS).train()
            alarm = method.alarm(net, images)
            assert net.training
            assert alarm is None if says is None else re.search(says, alarm or "")

    def test_a_routing_that_sees_no_image_is_told(self) -> None:
        torch.manual_seed(0)
        method = CondConv(depth=8, experts=2)
        net = method.build(DIGITS)
        for router in (part for part in net.modules() if isinstance(part, Router)):
            nn.init.zeros_(router.linear.weight)
        assert "alike for every image" in (method.alarm(net, torch.rand(8, 1, 8, 8)) or "")
        assert method.alarm(net, torch.rand(1, 1, 8, 8)) is None, "one image says nothing"
