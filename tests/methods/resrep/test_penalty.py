"""ResRep's penalty on masked rows: the proximal step, the paper's lambda, and what they spend."""

import pytest
import torch
from samples import TASK

from methods.resrep.method import ResRep


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


@pytest.mark.parametrize("steps", [10, 1000])
def test_the_papers_lambda_pulls_alike_in_every_step(steps: int) -> None:
    method = ResRep(depth=8, lasso=1e-4, proximal=False)
    net = method.build(TASK)
    for done in (0, 1):
        method.phases()[1].advance(net, done / steps)
    pulls = [float(compactor.pull.max()) for compactor in net.compactors]
    assert pulls == pytest.approx([1e-4] * len(pulls))


@pytest.mark.parametrize("proximal", [False, True])
def test_a_lambda_is_the_strength_of_its_length(proximal: bool) -> None:
    """1e-4 over 480 epochs of 782 steps is 18.768, as in test_compactor."""
    steps = 480 * 782
    nets = []
    for fields in ({"lasso": 1e-4}, {"strength": 18.768}):
        method = ResRep.of({"depth": 8, "proximal": proximal, **fields})
        nets.append(method.build(TASK))
        with torch.no_grad():
            for compactor in nets[-1].compactors:
                compactor.mask[0] = False
        for done in (0, 1):
            method.phases()[1].advance(nets[-1], done / steps)
    for one, other in zip(nets[0].compactors, nets[1].compactors, strict=True):
        torch.testing.assert_close(one.weight, other.weight, rtol=0, atol=1e-9)
        torch.testing.assert_close(one.pull, other.pull, rtol=1e-4, atol=0)
    if proximal:
        assert float(nets[0].compactors[0].norms()[0]) < 1


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
