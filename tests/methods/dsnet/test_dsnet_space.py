"""What DS-Net's fields span: parts of the data, budgets, search ranges; who sees its price."""

import copy
import itertools
from typing import Any

import torch
from slims import images, varied
from torch import Tensor

from methods.api import Task
from methods.dsnet.method import DSNet
from methods.dsnet.networks import BucketedNet, uniform_points
from methods.macs import executed_macs, macs

METHOD = DSNet(depth=14, width=0.5, choices=6, routing_start=1)


def test_the_gate_learns_from_images_that_the_supernet_never_saw() -> None:
    parts = [phase.part for phase in DSNet(held_out=0.25).phases()]
    assert parts == [(0.0, 0.75), (0.75, 1.0)]
    assert [phase.part for phase in DSNet(held_out=0.0).phases()] == [(0.0, 1.0)] * 2


def test_every_combination_in_the_default_search_ranges_is_valid() -> None:
    grid = itertools.product(
        (8, 26), (0.25, 0.5, 1.0), (0.125, 0.2, 0.28, 0.35, 0.43, 0.5), range(5, 9), (0, 1), (2, 4)
    )
    for depth, width, narrowest, choices, start, size in grid:
        DSNet(
            depth=depth,
            width=width,
            narrowest=narrowest,
            choices=choices,
            routing_start=start,
            routing_size=size,
        )


def test_the_cifar_supernet_covers_the_budgets() -> None:
    """0.25 to 2 million MACs on digits, 10 to 45 on CIFAR."""
    digits, cifar = Task("digits", 1, 8, 8, 10), Task("cifar10", 3, 32, 32, 10)
    assert DSNet(depth=14, width=0.5).floor(digits) < 250_000
    assert DSNet(depth=26, width=0.25).floor(cifar) < 10_000_000
    for depth, task, budget in ((20, digits, 2_000_000), (26, cifar, 45_000_000)):
        net = DSNet(depth=depth).build(task)
        assert uniform_points(net)["largest"].cost > budget


def test_uniform_widths_cost_more_and_more_and_the_last_is_not_the_largest() -> None:
    prices = [view.cost for view in uniform_points(varied(METHOD)).values()]
    assert len(set(prices)) == 7
    assert prices == sorted(prices)


def test_traced_with_the_gates_logits_returned_the_price_is_what_fvcore_sees() -> None:
    net, batch = varied(METHOD), images()

    class Traced(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shipped = BucketedNet(net)

        def forward(self, x: Tensor) -> Any:
            return self.shipped.run(x)

    for image, price in zip(batch, net(batch).macs, strict=True):
        assert macs(Traced(), image[None]) == price


def test_the_gate_draws_no_noise_to_decide() -> None:
    net, batch = varied(METHOD), images()
    before = torch.get_rng_state()
    net(batch)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_double_precision_copy_ships_and_costs_alike() -> None:
    net, batch = copy.deepcopy(varied(METHOD)).double(), images().double()
    shipped = METHOD.deploy(net)
    torch.testing.assert_close(shipped(batch), net(batch).logits, rtol=1e-9, atol=1e-9)
    assert executed_macs(shipped, batch) == net(batch).macs.sum()


def test_the_alarm_looks_at_the_gate_and_not_at_uniform_widths() -> None:
    net, batch = varied(METHOD), images()
    assert METHOD.alarm(net, batch) is None
    with torch.no_grad():
        net.gate.weight.zero_()
        net.gate.bias[2] = 1
    assert "choice 3" in (METHOD.alarm(net, batch) or "")
    assert all(METHOD.alarm(view, batch) is None for view in uniform_points(net).values())
