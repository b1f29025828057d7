"""Supernets whose widths differ in their statistics, and gates that take every choice."""

import torch
from torch import Tensor

from methods.api import Task
from methods.dsnet.layers import SlimNorm2d
from methods.dsnet.method import DSNet
from methods.dsnet.networks import GatedSupernet
from methods.dsnet.supernet import SlimMobileNet

TASK = Task("small", 3, 16, 16, 5)
RTOL = 1e-3
"""Directions of what gates read that vary less are left out: rounding would decide along them."""
IMAGENET = Task("imagenet", 3, 224, 224, 1000)


def images(count: int = 12, size: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(count, 3, 4, 4, generator=generator)
    contrast = torch.logspace(-1, 0.5, count)[:, None, None, None]
    return torch.nn.functional.interpolate(coarse * contrast, size=size, mode="bilinear")


def lived_in(net: torch.nn.Module) -> None:
    """Random statistics and affine maps, so that no two widths are alike."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for norm in net.modules():
            if isinstance(norm, SlimNorm2d):
                norm.running_mean.normal_(0, 0.3, generator=generator)
                norm.running_var.uniform_(0.5, 2, generator=generator)
                norm.weight.uniform_(0.5, 2, generator=generator)
                norm.bias.normal_(0, 0.3, generator=generator)


def varied(method: DSNet, task: Task = TASK) -> GatedSupernet:
    """A network in evaluation mode whose gate takes every choice on `images()`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = method.build(task).eval()
        lived_in(net.supernet)
        batch = images(size=task.height)
        inputs = net.supernet.front(batch, net.paths[0])[1].detach()
        if net.gate.norm is not None:
            inputs = net.gate.norm.train()(inputs)
            net.eval()
        wanted = torch.eye(len(net.routing)).repeat(12, 1)[:12]
        solved = torch.linalg.pinv(inputs.double(), rtol=RTOL) @ wanted.double()
        with torch.no_grad():
            net.gate.weight.copy_(solved.T)
            if net.gate.bias is not None:
                net.gate.bias.zero_()
        best = net.weigh(batch)[1].topk(2, dim=1).values
    assert len(net(batch).macs.unique()) == len(net.routing), "the gate must take every choice"
    assert best.diff().abs().min() > 1e-3, "and be sure of it"
    return net


def supernet(method: DSNet, task: Task = TASK) -> SlimMobileNet:
    """A supernet in evaluation mode whose widths differ."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = method.build(task).supernet.eval()
    lived_in(net)
    return net
