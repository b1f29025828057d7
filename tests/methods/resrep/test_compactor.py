"""The compactor: what pulls on its rows, how they end at zero, and how it merges."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.errors import MethodError
from methods.resrep.compactor import Compactor, merge, narrowed, pull_for, reset_gradient


def test_layers_that_do_not_fit_are_refused() -> None:
    conv = nn.Conv2d(3, 4, 3)
    with pytest.raises(MethodError, match=r"behind 5 compacted channels .* reads 3"):
        narrowed(conv, torch.ones(5, dtype=torch.bool))
    with pytest.raises(MethodError, match="reads 5 of 4"):
        merge(conv, None, torch.eye(5)[:, :, None, None])


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
    remaining = compactor.norms() > 0
    follower = nn.Conv2d(8, 6, 3, padding=1, bias=biased).double()
    batch = torch.randn(4, 5, 9, 9, dtype=torch.float64)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        parts = [part.to(dtype) for part in (conv, norm, compactor, follower) if part is not None]
        merged = merge(parts[0], parts[1] if normed else None, compactor.weight[remaining])  # type: ignore[arg-type]
        slim = nn.Sequential(merged, nn.ReLU(), narrowed(follower, remaining))
        whole = nn.Sequential(*parts[:-1], nn.ReLU(), parts[-1])
        with torch.no_grad():
            wanted, output = whole(batch.to(dtype)), slim(batch.to(dtype))
        assert merged.weight.shape == (5, 5, 3, 3)
        assert output.dtype == dtype
        assert (output - wanted).abs().max() < tolerance * wanted.abs().max().clamp(min=1)


def rows(count: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    weight = torch.randn(count, count, 1, 1, dtype=torch.float64, requires_grad=True)
    mask = torch.arange(count) % 2 == 0
    return weight, mask, torch.full((count,), 0.3, dtype=torch.float64)


def test_gradients_are_reset_on_masked_rows_and_pulled_on_all() -> None:
    weight, mask, pull = rows()
    features = torch.randn(3, 6, 5, 5, dtype=torch.float64)

    def task(kernel: Tensor) -> Tensor:
        return (F.conv2d(features, kernel) ** 3).mean()

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
    pull = pull_for(strength, step=1 / steps, lr=0.01, momentum=0.99)
    assert pull == pytest.approx(1e-4, rel=1e-3)


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
    compactor.mask[0] = False
    compactor.shrink(0.1)
    assert compactor.norms().tolist() == pytest.approx([1.4, 9.0]), "no limit of old stands"
