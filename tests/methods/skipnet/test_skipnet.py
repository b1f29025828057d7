"""Every property that SkipNet's sheet asks for, against golden numbers and independent formulas."""

import itertools

import pytest
import torch
from samples import TASK, forced, images, varied
from torch import Tensor, nn

from methods.api import Task
from methods.errors import MethodError
from methods.macs import executed_macs, macs
from methods.resnet import costs, resnet
from methods.skipnet.gates import Kind, RecurrentGates, make_gates
from methods.skipnet.method import SkipNet
from methods.skipnet.network import SkippingNet, SkipResNet
from methods.skipnet.policy import collapse, policy_loss, returns, sample, straight_through

CIFAR = Task("cifar10", 3, 32, 32, 10)
KINDS: tuple[Kind, ...] = ("ffgate-1", "ffgate-2", "rnn")
PUBLISHED = {key: value for key, value in SkipNet.PUBLISHED.items() if "." not in key}


@pytest.mark.parametrize(
    ("depth", "gate", "params"),
    [
        (38, "ffgate-1", 1_148_798),
        (38, "rnn", 571_913),
        (74, "rnn", 1_162_109),
        (110, "ffgate-2", 2_609_798),
        (110, "rnn", 1_752_305),
    ],
)
def test_golden_parameters(depth: int, gate: Kind, params: int) -> None:
    net = SkipNet(depth=depth, gate=gate).build(CIFAR)
    assert sum(p.numel() for p in net.parameters()) == params


def test_golden_shared_part_of_the_recurrent_gate() -> None:
    gates = make_gates("rnn", [16])
    parameters = sum(p.numel() for p in gates.parameters())
    assert parameters - sum(p.numel() for p in gates.embeddings.parameters()) == 891  # type: ignore[union-attr, operator]


@pytest.mark.parametrize(
    ("depth", "gate", "paid"),
    [(38, "ffgate-1", 12_534_976), (110, "ffgate-2", 31_264_576), (110, "rnn", 62_450)],
)
def test_golden_macs_of_all_gates(depth: int, gate: Kind, paid: int) -> None:
    net = SkipNet(depth=depth, gate=gate).build(CIFAR)
    fully_open = net.floor + int(net.savings.sum())
    assert fully_open - costs(CIFAR, depth).total == paid


@pytest.mark.parametrize(("depth", "floor"), [(38, 5_443_594), (110, 5_486_194)])
def test_golden_floor(depth: int, floor: int) -> None:
    assert SkipNet(depth=depth, gate="rnn").floor(CIFAR) == floor


@pytest.mark.parametrize(
    ("gate", "width", "size", "expected"),
    [
        ("rnn", 16, 32, 970),
        ("rnn", 32, 16, 1_130),
        ("rnn", 64, 8, 1_450),
        ("ffgate-1", 16, 32, 737_312),
        ("ffgate-1", 64, 8, 737_408),
        ("ffgate-2", 16, 32, 589_856),
        ("ffgate-2", 64, 8, 589_952),
    ],
)
def test_golden_macs_of_one_gate(gate: Kind, width: int, size: int, expected: int) -> None:
    gates = make_gates(gate, [width]).eval()

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gates = gates

        def forward(self, features: Tensor) -> Tensor:
            return self.gates(0, features, None)[0]

    assert macs(One(), torch.zeros(1, width, size, size)) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_masked_equals_gathered_and_its_price_is_what_runs(kind: Kind) -> None:
    net, batch = varied(SkipNet(depth=14, gate=kind)), images()
    shipped = SkippingNet(net)
    with torch.no_grad():
        said = net(batch)
        logits = shipped(batch)
        singles = torch.cat([shipped(image[None]) for image in batch])
    torch.testing.assert_close(logits, said.logits, rtol=1e-4, atol=1e-4)  # norms are folded
    torch.testing.assert_close(singles, said.logits, rtol=1e-4, atol=1e-4)
    assert said.macs.sum() == executed_macs(shipped, batch)
    for image, price in zip(batch, said.macs, strict=True):
        assert executed_macs(shipped, image[None]) == price


@pytest.mark.parametrize("kind", KINDS)
def test_a_permuted_batch_permutes_outputs_and_prices(kind: Kind) -> None:
    net, batch = varied(SkipNet(depth=14, gate=kind)), images()
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain, permuted = net(batch), net(batch[order])
    torch.testing.assert_close(permuted.logits, plain.logits[order])
    assert torch.equal(permuted.macs, plain.macs[order])


@pytest.mark.parametrize("kind", KINDS)
def test_forced_open_is_the_plain_network(kind: Kind) -> None:
    net, batch = forced(SkipNet(depth=14, gate=kind).build(TASK).eval(), run=True), images()
    plain = resnet(TASK, 14).eval()
    plain.load_state_dict(net.backbone.state_dict())
    with torch.no_grad():
        assert torch.equal(net(batch).logits, plain(batch))
    assert torch.equal(net(batch).macs, torch.full((12,), net.floor + net.savings.sum()))


@pytest.mark.parametrize("kind", KINDS)
def test_forced_shut_costs_the_floor_and_skips_without_relu(kind: Kind) -> None:
    method = SkipNet(depth=14, gate=kind)
    net, batch = forced(method.build(TASK).eval(), run=False), images()
    assert torch.equal(net(batch).macs, torch.full((12,), float(method.floor(TASK))).double())
    assert executed_macs(SkippingNet(net), batch) == 12 * method.floor(TASK)
    units = net.backbone.units
    with torch.no_grad():
        features = units[0](net.backbone.stem(batch))
        for block in units[1:]:
            features = features if block.projection is None else block.projection(features)
        assert (features < 0).any(), "a skipped stage start is its projection without ReLU"
        torch.testing.assert_close(net(batch).logits, net.backbone.classify(features))


def test_the_straight_through_gradient_is_the_softmax_gradient() -> None:
    pair = torch.randn(7, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(7, dtype=torch.float64)
    (straight_through(0, pair[:, 1] - pair[:, 0]) * weights).sum().backward()
    hard = pair.grad
    soft = torch.autograd.grad((pair.softmax(1)[:, 1] * weights).sum(), pair)[0]
    torch.testing.assert_close(hard, soft)


def test_decisions_are_strict() -> None:
    assert straight_through(0, torch.tensor([-0.1, 0.0, 0.1])).tolist() == [0, 0, 1]


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_the_policy_gradient_is_that_of_the_enumerated_expectation(beta: float) -> None:
    odds = torch.randn(1, 5, dtype=torch.float64, requires_grad=True)
    losses = torch.rand(2, 2, 2, 2, 2, dtype=torch.float64)
    alpha, gates = 0.7, 5
    expected_return = torch.zeros((), dtype=torch.float64)
    estimate = torch.zeros(1, 5, dtype=torch.float64)
    for actions in itertools.product((0, 1), repeat=gates):
        acted = torch.tensor([actions], dtype=torch.float64)
        run = torch.sigmoid(odds)
        probability = torch.where(acted > 0, run, 1 - run).prod()
        loss = losses[actions]
        expected_return = expected_return + probability * (
            (1 - acted).sum() * alpha / gates - beta * loss
        )
        gains = returns(acted, loss[None], alpha=alpha, beta=beta)
        surrogate = policy_loss(odds, acted, gains).sum()
        estimate += (
            probability.detach() * torch.autograd.grad(surrogate, odds, retain_graph=True)[0]
        )
    truth = torch.autograd.grad(-expected_return, odds)[0]
    torch.testing.assert_close(estimate, truth)


@pytest.mark.parametrize("kind", KINDS)
def test_the_policy_gradient_is_exact_through_a_network_of_two_gates(kind: Kind) -> None:
    """Later odds depend on earlier actions here, and the gradient reaches the backbone."""
    torch.manual_seed(0)
    net = SkipNet(depth=8, gate=kind).build(TASK).double().eval()
    batch, labels = images(3).double(), torch.tensor([0, 1, 2])
    weights = [p for p in net.parameters() if p.requires_grad]
    estimate = truth = torch.zeros((), dtype=torch.float64)
    for actions in itertools.product((0.0, 1.0), repeat=2):
        trace = net.run(batch, lambda gate, odds, a=actions: torch.full_like(odds, a[gate]))  # type: ignore[misc]
        loss = nn.functional.cross_entropy(trace.logits, labels, reduction="none").detach()
        run = torch.sigmoid(trace.odds)
        probability = torch.where(trace.actions > 0, run, 1 - run).prod(1)
        gains = returns(trace.actions, loss, alpha=2.0, beta=1.0)
        surrogate = policy_loss(trace.odds, trace.actions, gains)
        estimate = estimate + (probability.detach() * surrogate).sum()
        truth = truth - (probability * ((1 - trace.actions).sum(1) - loss)).sum()
    gradients = torch.autograd.grad(estimate, weights, allow_unused=True, retain_graph=True)
    wanted = torch.autograd.grad(truth, weights, allow_unused=True)
    reached = [(f, w) for f, w in zip(gradients, wanted, strict=True) if w is not None]
    assert len(reached) > 20
    for one, other in reached:
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_relative_cost_rewards_a_skip_by_what_it_saves() -> None:
    actions, loss = torch.zeros(1, 2), torch.zeros(1)
    gains = returns(actions, loss, alpha=1.0, beta=1.0, worth=torch.tensor([1.5, 0.5]))
    torch.testing.assert_close(gains, torch.tensor([[1.0, 0.25]]))
    savings = SkipNet(depth=14).build(CIFAR).savings
    regular, start = 4_718_592, 3_670_016 - 131_072
    assert savings.tolist() == [regular, start, regular, start, regular]


@pytest.mark.parametrize("kind", KINDS)
def test_gate_bias_shifts_the_log_odds(kind: Kind) -> None:
    odds = []
    for bias in (0.0, 3.0):
        torch.manual_seed(0)
        net = SkipNet(depth=8, gate=kind, gate_bias=bias).build(TASK).eval()
        odds.append(net.run(images(), straight_through).odds[:, 0])
    torch.testing.assert_close(odds[1], odds[0] + 3)


def test_a_low_temperature_samples_what_would_be_decided() -> None:
    odds = torch.randn(500)
    assert torch.equal(sample(1e-6, 0, odds), straight_through(0, odds))


def test_odds_that_are_no_number_end_in_a_loss_that_is_none() -> None:
    net = SkipNet(depth=8).build(TASK).train()
    nn.init.constant_(net.backbone.head.weight, float("nan"))
    nn.init.constant_(net.gates.head.bias, float("nan"))  # type: ignore[union-attr, arg-type]
    loss = SkipNet(depth=8).phases()[1].loss(net, images(), torch.arange(12) % 5)
    assert loss.isnan()


def test_returns_look_ahead_only() -> None:
    gains = returns(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([0.5]), alpha=0.3, beta=1.0)
    torch.testing.assert_close(gains, torch.tensor([[0.2, 0.2, 0.1]]) - 0.5)


def test_sampling_has_the_gates_probability() -> None:
    torch.manual_seed(0)
    odds = torch.full((20_000,), 1.0)
    assert sample(1.0, 0, odds).mean().item() == pytest.approx(0.7311, abs=0.01)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("phase", [0, 1])
def test_the_last_gate_is_not_trained_and_all_else_is(kind: Kind, phase: int) -> None:
    torch.manual_seed(0)
    method = SkipNet.of({**PUBLISHED, "depth": 14, "gate": kind, "gate_bias": 1.0})
    net = method.build(TASK).train()
    labels = torch.arange(12) % 5
    method.phases()[phase].loss(net, images(), labels).backward()
    without = {name for name, p in net.named_parameters() if p.grad is None}
    gates = net.gates
    last = len(net.backbone.units) - 1
    kinds = ["embeddings"] if isinstance(gates, RecurrentGates) else ["bodies", "heads"]
    unused = {
        name
        for name, _ in net.named_parameters()
        if any(name.startswith(f"gates.{part}.{last}.") for part in kinds)
    }
    assert without == unused
    assert unused
    assert all(not p.requires_grad for name, p in net.named_parameters() if name in unused)


def test_a_projections_statistics_move_once_a_step() -> None:
    method = SkipNet.of({**PUBLISHED, "depth": 8})
    net = method.build(TASK).train()
    method.phases()[0].loss(net, images(), torch.arange(12) % 5)
    counts = {
        int(part.num_batches_tracked) for part in net.modules() if isinstance(part, nn.BatchNorm2d)
    }
    assert counts == {1}


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_one_works_in_every_mode(kind: Kind) -> None:
    method, one = SkipNet(depth=8, gate=kind), images(1)
    net = method.build(TASK)
    for mode in (True, False):
        net.train(mode)
        assert net(one).logits.shape == (1, 5)
        for phase in method.phases():
            phase.loss(net, one, torch.tensor([1])).backward()
    assert SkippingNet(net)(one).shape == (1, 5)


def test_the_baseline_begins_with_the_first_return_and_follows_the_mean() -> None:
    torch.manual_seed(0)
    method = SkipNet.of({**PUBLISHED, "depth": 8, "baseline": True, "alpha": 1.0})
    net = method.build(TASK).train()
    labels = torch.arange(12) % 5
    method.phases()[1].loss(net, images(), labels)
    first = net.expected.clone()
    assert (first < -0.5).all(), "the mean return itself, not a tenth of it"
    method.phases()[1].loss(net, images(), labels)
    assert (net.expected != first).all()


def test_frozen_norms_stand_still_in_the_policy_phase() -> None:
    method = SkipNet.of({**PUBLISHED, "depth": 8, "frozen_norms": True})
    net = method.build(TASK).train()
    phase = method.phases()[1]
    phase.advance(net, 0.0)
    before = {name: b.clone() for name, b in net.named_buffers() if "running" in name}
    phase.loss(net, images(), torch.arange(12) % 5)
    assert all(torch.equal(b, before[name]) for name, b in net.named_buffers() if name in before)


def test_detached_gates_leave_the_backbone_to_the_task() -> None:
    def stem_gradient(method: SkipNet) -> Tensor:
        torch.manual_seed(0)
        net = method.build(TASK).train()
        torch.manual_seed(1)
        method.phases()[1].loss(net, images(), torch.arange(12) % 5).backward()
        grad = next(net.backbone.stem.parameters()).grad
        assert grad is not None
        return grad

    plain = SkipNet.of({**PUBLISHED, "depth": 8, "gate": "ffgate-2", "policy_weight": 1.0})
    cut = plain.model_copy(update={"detach_gates": True})
    none = plain.model_copy(update={"policy_weight": 0.0})
    assert torch.equal(stem_gradient(cut), stem_gradient(none))
    assert not torch.equal(stem_gradient(plain), stem_gradient(none))


@pytest.mark.parametrize(
    ("decisions", "says"),
    [
        (torch.zeros(8, 4, dtype=torch.bool), "0.0% of the gated blocks run; do this"),
        (torch.ones(8, 4, dtype=torch.bool), "100.0%"),
        (torch.tensor([[True, False]] * 8), "static; do this"),
        (torch.rand(64, 4, generator=torch.Generator().manual_seed(0)) > 0.5, None),
    ],
)
def test_collapse_is_told(decisions: Tensor, says: str | None) -> None:
    alarm = collapse(decisions, "do this")
    assert alarm is None if says is None else says in (alarm or "")


def test_alpha_below_zero_is_refused() -> None:
    with pytest.raises(MethodError, match="alpha"):
        SkipNet.of({"alpha": -1})


@pytest.mark.full
def test_more_alpha_skips_more() -> None:
    """The published direction, on a short training."""
    from methods.data.load import load
    from methods.training.evaluate import evaluate
    from methods.training.loop import Recipe, train

    data = load("digits")
    recipe = Recipe(epochs=2, batch_size=32, lr=0.1)
    cost = {}
    for alpha in (0.0, 4.0):
        short = {
            "depth": 14,
            "width": 0.5,
            "policy_lr": 0.02,
            "policy_share": 0.5,
            "policy_weight": 0.01,
        }
        method = SkipNet.of({**PUBLISHED, **short, "alpha": alpha})
        *_, last = train(method, data, recipe, seed=0)
        net = last.net
        assert isinstance(net, SkipResNet)
        cost[alpha] = evaluate(net, data.validation).macs_mean
    assert cost[4.0] < cost[0.0]
