"""What SkipNet has beyond the paper: a target, gates that see images apart, norms that fit."""

import copy

import pytest
import torch
from samples import TASK, fitted, images, varied
from torch import Tensor, nn

import methods.skipnet.settle as settling
from methods.errors import MethodError
from methods.macs import executed_macs, macs
from methods.skipnet.gates import Kind, PooledNorm, folded, make_gates
from methods.skipnet.method import SkipNet
from methods.skipnet.network import SkippingNet, SkipResNet, run_all
from methods.skipnet.policy import noisy, pressure, threshold
from methods.skipnet.settle import gather, hold, settle

KINDS: tuple[Kind, ...] = ("ffgate-1", "ffgate-2", "rnn")


def warmed(method: SkipNet, seed: int = 0) -> SkipResNet:
    """A network whose norms have statistics."""
    torch.manual_seed(seed)
    return fitted(method.build(TASK), images(256, seed=3))


@pytest.mark.parametrize("kind", KINDS)
def test_the_gates_norm_folds_away_and_costs_nothing(kind: Kind) -> None:
    normed, plain = (SkipNet(depth=14, gate=kind, gate_norm=norm) for norm in (True, False))
    assert normed.floor(TASK) == plain.floor(TASK)
    net, batch = warmed(normed), images(64, seed=1)
    assert any(isinstance(part, PooledNorm) for part in net.modules())
    shipped = SkippingNet(net)
    assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in shipped.modules())
    with torch.no_grad():
        said = net(batch)
        torch.testing.assert_close(shipped(batch), said.logits, rtol=1e-4, atol=1e-4)
    assert executed_macs(shipped, batch) == said.macs.sum()


def test_the_gates_norm_spreads_what_gates_say() -> None:
    """Features behind a ReLU share a mean that is large beside their differences."""
    spread = {}
    features = torch.rand(128, 8, 8, 8, generator=torch.Generator().manual_seed(0)) + 5
    for norm in (False, True):
        torch.manual_seed(0)
        gates = make_gates("rnn", [8, 8], norm=norm).train()
        spread[norm] = float(gates(0, features, None)[0].detach().std())
    assert spread[True] > 3 * spread[False]


def test_without_a_gates_norm_the_fold_changes_nothing() -> None:
    gates = make_gates("ffgate-2", [8, 8]).eval()
    features = torch.randn(4, 8, 8, 8)
    torch.testing.assert_close(folded(gates)(0, features, None)[0], gates(0, features, None)[0])


def test_statistics_are_means_over_batches_under_what_is_decided() -> None:
    net = warmed(SkipNet(depth=8)).train()
    batches = [images(32, seed=seed) for seed in range(3)]
    norm = net.backbone.units[1].norm1
    assert isinstance(norm, nn.BatchNorm2d)
    inputs: list[Tensor] = []
    hook = norm.register_forward_pre_hook(lambda _part, given: inputs.append(given[0]))
    with torch.no_grad():
        gather(net, batches)
    hook.remove()
    means = torch.stack([given.mean((0, 2, 3)) for given in inputs])
    torch.testing.assert_close(norm.running_mean, means.mean(0))
    assert norm.momentum == 0.1, "as before"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", [0.3, 0.5, 0.8])
def test_a_shift_of_the_gates_brings_the_decided_share_to_the_target(
    kind: Kind, target: float
) -> None:
    net = warmed(SkipNet(depth=14, width=0.25, gate=kind))
    batch = images(256, seed=3)
    with torch.no_grad():
        hold(net, batch, target)
        share = float(net.share(net.run(batch, threshold).actions).mean())
    assert share == pytest.approx(target, abs=0.01)


@pytest.mark.parametrize("target", [0.3, 0.6])
def test_sure_gates_end_as_close_to_the_target_as_their_jumps_allow(target: float) -> None:
    """Every image alike, so that shares of gates are all that can be had."""
    net = warmed(SkipNet(depth=14, width=0.25))
    batch = images(1).expand(32, -1, -1, -1)
    shares = set()
    with torch.no_grad():
        for shift in torch.linspace(-15, 15, 301).tolist():
            net.gates.favour(shift)
            shares.add(float(net.share(net.run(batch, threshold).actions).mean()))
            net.gates.favour(-shift)
        hold(net, batch, target)
        share = float(net.share(net.run(batch, threshold).actions).mean())
    assert abs(share - target) <= min(abs(each - target) for each in shares) + 1e-6


def test_a_target_that_no_shift_reaches_leaves_the_gates_at_the_end() -> None:
    net = warmed(SkipNet(depth=8, width=0.25))
    batch = images(16)
    with torch.no_grad():
        net.gates.favour(40.0)
        hold(net, batch, 0.5)
        assert float(net.share(net.run(batch, threshold).actions).mean()) == 1
    assert all(bool(p.isfinite().all()) for p in net.gates.parameters())


def test_a_phase_ends_with_the_target_on_new_statistics() -> None:
    net = warmed(SkipNet(depth=14, width=0.25)).train()
    batches = [images(64, seed=seed) for seed in range(6)]
    with torch.no_grad():
        settle(net, iter(batches), regather=True, target=0.4)
        net.eval()
        share = float(net.share(net.run(torch.cat(batches), threshold).actions).mean())
    assert share == pytest.approx(0.4, abs=0.08)


def test_statistics_that_drive_the_decisions_away_are_gathered_at_every_shift(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Gates that are sure in a narrow network: norms that fit the held share move it again."""
    excess = {}
    batches = [images(64, seed=seed) for seed in range(2)]
    for how, far in {"in turns": 1.0, "together": settling.FAR}.items():
        monkeypatch.setattr(settling, "FAR", far)
        net = warmed(SkipNet(depth=14, width=0.125, gate="rnn"), seed=2).train()
        with torch.no_grad():
            for weight in net.gates.parameters():
                weight.mul_(10 if weight.ndim > 1 else 1)
            for part in net.backbone.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.weight.mul_(2)
            settle(net, iter(batches), regather=True, target=0.7)
            net.eval()
            share = net.share(net.run(torch.cat(batches), threshold).actions).mean()
        excess[how] = abs(float(share) - 0.7)
    assert excess["in turns"] > 0.05
    assert excess["together"] < 0.005


def test_skipping_is_rewarded_above_the_target_and_punished_below() -> None:
    rates = torch.tensor([0.1, 0.39, 0.4, 0.41, 1.0])
    pressures = [float(pressure(rate, 0.4)) for rate in rates]
    assert pressures == sorted(pressures)
    assert pressures[0] == -1
    assert pressures[2] == pytest.approx(0, abs=1e-6)
    assert pressures[4] == 1
    rate = torch.tensor(0.41, requires_grad=True)
    slope = torch.autograd.grad(2 * (rate / 0.4 - 1) ** 2, rate)[0]
    assert pressures[3] == pytest.approx(float(slope)), "the derivative of the penalty"


def test_noise_of_temperature_one_runs_with_the_gates_probability() -> None:
    torch.manual_seed(0)
    assert float(noisy(1.0, 0, torch.full((20_000,), 1.0)).mean()) == pytest.approx(
        0.7311, abs=0.01
    )


def test_smoothed_labels_stay_out_of_the_reward() -> None:
    expected = {}
    for smoothing in (0.0, 0.3):
        torch.manual_seed(0)
        method = SkipNet(depth=8)
        net = method.build(TASK).train()
        method.phases(smoothing)[1].loss(net, images(), torch.arange(12) % 5)
        expected[smoothing] = net.expected.clone()
    assert torch.equal(expected[0.0], expected[0.3])


@pytest.mark.parametrize("learning", ["reinforce", "straight-through"])
def test_both_ways_of_learning_lower_a_share_above_the_target(learning: str) -> None:
    torch.manual_seed(0)
    method = SkipNet.of(
        {"depth": 8, "learning": learning, "target": 0.2, "alpha": 4.0, "gate_bias": 2.0}
    )
    net = method.build(TASK).train()
    policy = method.phases()[1]
    gates = list(policy.parameters(net)[1].parameters)
    sgd = torch.optim.SGD(gates, lr=0.1)
    batch, labels = images(128), torch.arange(128) % 5

    @torch.no_grad()
    def probable() -> float:
        return float(net.share(torch.sigmoid(net.run(batch, run_all).odds)).mean())

    before = probable()
    for _ in range(10):
        policy.advance(net, 0.0)
        sgd.zero_grad()
        policy.loss(net, batch, labels).backward()  # type: ignore[no-untyped-call]
        sgd.step()
    assert before > 0.8
    assert probable() < before - 0.1


@pytest.mark.parametrize(
    ("share", "warm", "names"),
    [(0.0, False, ["supervised"]), (0.5, True, ["supervised", "policy"]), (1.0, True, ["policy"])],
)
def test_the_papers_ablations_have_one_phase(share: float, warm: bool, names: list[str]) -> None:
    phases = SkipNet(policy_share=share, warm=warm).phases()
    assert [phase.name for phase in phases] == names
    assert sum(phase.share for phase in phases) == 1


def test_gates_that_would_never_train_are_refused() -> None:
    with pytest.raises(MethodError, match=r"policy_share is 0; set warm to false"):
        SkipNet.of({"policy_share": 0.0})


def test_supervised_gates_and_reinforced_ones_train_from_the_start() -> None:
    for method in (SkipNet(policy_share=0, warm=False, target=0), SkipNet(policy_share=1)):
        torch.manual_seed(0)
        net = method.build(TASK).train()
        (phase,) = method.phases()
        phase.advance(net, 0.0)
        phase.loss(net, images(), torch.arange(12) % 5).backward()
        for part in (net.gates.head, net.backbone.stem):
            assert next(part.parameters()).grad is not None


@pytest.mark.parametrize("learning", ["reinforce", "straight-through"])
def test_the_share_that_runs_is_followed(learning: str) -> None:
    method = SkipNet.of({"depth": 14, "learning": learning, "gate_bias": 8.0})
    net = method.build(TASK).train()
    method.phases()[1].loss(net, images(64), torch.arange(64) % 5)
    assert float(net.rate) > 0.9
    assert int(net.steps) == 1


@pytest.mark.parametrize(
    ("fields", "rate", "says"),
    [
        ({}, 0.62, None),
        ({}, 0.85, "ran 85% of the gated MACs, for a target of 60%: raise alpha"),
        ({"target": 0.0}, 0.85, None),
    ],
)
def test_a_policy_that_never_came_to_its_target_is_told(
    fields: dict[str, float], rate: float, says: str | None
) -> None:
    method = SkipNet.of({"depth": 14, **fields})
    net = varied(method)
    net.rate.fill_(rate)
    net.steps.fill_(100)
    said = method.alarm(net, images(64))
    assert said is None if says is None else says in (said or "")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"target": 0.0}, "give a target"),
        ({"gate_norm": False}, "set gate_norm"),
        ({"warm": False}, "set warm"),
        ({}, "more epochs or another target"),
    ],
)
def test_the_advice_names_what_is_missing(fields: dict[str, float], says: str) -> None:
    method = SkipNet.of({"depth": 14, "gate_bias": 10.0, **fields})
    torch.manual_seed(0)
    net = method.build(TASK).eval()
    assert says in (method.alarm(net, images()) or "")


class TestBodyFirst:
    def test_gates_wait_and_every_block_runs_meanwhile(self) -> None:
        method = SkipNet(depth=14)
        net, batch = warmed(method), images()
        body, policy = method.phases()
        body.advance(net, 0.5)
        ids = {id(p) for group in body.parameters(net) for p in group.parameters}
        assert not ids & {id(p) for p in net.gates.parameters()}
        with torch.no_grad():
            output, decisions = net.route(batch)
            shipped = SkippingNet(net)
            logits = shipped(batch)
        assert bool(decisions.all())
        torch.testing.assert_close(logits, output.logits, rtol=1e-4, atol=1e-4)
        assert executed_macs(shipped, batch) == output.macs.sum()
        assert method.alarm(net, batch) is None, "no gate has decided anything"
        policy.advance(net, 0.0)
        with torch.no_grad():
            hold(net, batch, 0.5)
            assert not bool(net.route(batch)[1].all())

    def test_a_checkpoint_knows_whether_gates_decide(self) -> None:
        method = SkipNet(depth=8)
        net = method.build(TASK)
        net.gated = False
        other = method.build(TASK)
        other.load_state_dict(copy.deepcopy(net.state_dict()))
        assert not other.gated

    def test_a_checkpoint_of_an_earlier_version_is_read(self) -> None:
        method = SkipNet.of(SkipNet.FORMER | {"depth": 8})
        net = method.build(TASK)
        former = {
            name: value
            for name, value in net.state_dict().items()
            if name not in ("rate", "steps", "_extra_state")
        }
        other = method.build(TASK)
        other.load_state_dict(former)
        assert other.gated
        assert torch.equal(other.gates.head.weight, net.gates.head.weight)

    def test_blocks_are_dropped_ever_more_often(self) -> None:
        net = warmed(SkipNet(depth=14))
        batch = images()
        with torch.no_grad():
            everything = net.backbone(batch)
            torch.testing.assert_close(net.dropped(batch, 1.0), everything)
            nothing = net.dropped(batch, 0.0)
            handed = net.route(batch, torch.zeros(len(batch), 5, dtype=torch.bool))[0]
        torch.testing.assert_close(nothing, handed.logits)


def test_the_price_by_trace_counts_no_norm() -> None:
    net = warmed(SkipNet(depth=14))
    net.gated = False
    shipped = SkippingNet(net)
    batch = images(1)

    class Traced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = shipped

        def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
            return self.net.run(batch)

    assert macs(Traced(), batch) == net(batch).macs.sum()
