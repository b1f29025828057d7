"""DS-Net's losses, teacher and gate phase, against independent formulas."""

from typing import Any

import pytest
import torch
from slims import TASK, images, lived_in
from torch import Tensor
from torch.nn import functional as F

from methods.api import Phase
from methods.dsnet.losses import Lessons, Teacher, frozen, recalibrate, sandwich, sparsification
from methods.dsnet.method import DSNet
from methods.dsnet.networks import GatedSupernet
from methods.dsnet.supernet import SlimMobileNet

METHOD = DSNet(depth=14, width=0.5, choices=6, routing_start=1)
PUBLISHED = DSNet.published(depth=14, width=0.5, choices=6, routing_start=1)
LABELS = torch.arange(12) % 5


def fresh(method: DSNet = METHOD, seed: int = 0) -> GatedSupernet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = method.build(TASK).train()
    lived_in(net.supernet)
    return net


def supernet_phase(method: DSNet = METHOD) -> Phase[GatedSupernet]:
    return method.phases()[0]


def gate_phase(method: DSNet = METHOD) -> Phase[GatedSupernet]:
    return method.phases()[1]


def state_of(net: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("teacher", ["average", "largest", "labels"])
@pytest.mark.parametrize("ensemble", [False, True])
def test_the_sandwich_is_the_sum_of_four_losses_with_their_gradients(
    teacher: Teacher, ensemble: bool
) -> None:
    """Under in-place bootstrapping, in-place distillation, and no teacher but the labels."""
    net, batch = fresh(), images()
    student = net.supernet
    lived_in(net.teacher)
    torch.manual_seed(5)
    lessons = Lessons(teacher, ensemble, dropout=0.0, smoothing=0.1)
    loss = sandwich(student, net.teacher, batch, LABELS, lessons)
    gradients = torch.autograd.grad(loss, list(student.parameters()))

    torch.manual_seed(5)
    layout = student.layout
    middle = [layout.uniform(choice) for choice in torch.randperm(6)[:2].tolist()]
    master = net.teacher if teacher == "average" else student

    def soft(path: tuple[int, ...]) -> Tensor:
        if teacher == "labels":
            return 0.9 * F.one_hot(LABELS, 5) + 0.1 / 5
        with torch.no_grad():
            return master(batch, path).softmax(1)

    target = for_smallest = soft(layout.largest)
    if ensemble:
        for_smallest = (target + soft(middle[0]) + soft(middle[1])) / 3
    parts = [F.cross_entropy(student(batch, layout.largest), LABELS, label_smoothing=0.1)]
    lessons = [(middle[0], target), (middle[1], target), (layout.uniform(0), for_smallest)]
    for path, wanted in lessons:
        parts.append(-(wanted * student(batch, path).log_softmax(1)).sum(1).mean())
    torch.testing.assert_close(loss, torch.stack(parts).sum())
    total = [torch.zeros_like(p) for p in student.parameters()]
    for part in parts:
        shares = torch.autograd.grad(part, list(student.parameters()), allow_unused=True)
        total = [s if g is None else s + g for s, g in zip(total, shares, strict=True)]
    for one, other in zip(gradients, total, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_teacher_and_student_run_the_same_random_widths(monkeypatch: pytest.MonkeyPatch) -> None:
    method = DSNet(depth=8, width=0.25, choices=6, ensemble=True)
    net = fresh(method)
    ran: dict[int, list[tuple[int, ...]]] = {id(net.supernet): [], id(net.teacher): []}
    back = SlimMobileNet.back

    def spied(self: SlimMobileNet, features: Tensor, path: Any, dropout: float = 0.0) -> Tensor:
        ran[id(self)].append(path)
        return back(self, features, path, dropout)

    monkeypatch.setattr(SlimMobileNet, "back", spied)
    torch.manual_seed(0)
    drawn = set()
    layout = net.supernet.layout
    for _ in range(20):
        for paths in ran.values():
            paths.clear()
        supernet_phase(method).loss(net, images(4), LABELS[:4])
        largest, *middle, smallest = ran[id(net.supernet)]
        assert (largest, smallest) == (layout.largest, layout.uniform(0))
        assert ran[id(net.teacher)] == [layout.largest, *middle]
        assert len(set(middle)) == 2
        drawn |= set(middle)
    assert drawn == {layout.uniform(choice) for choice in range(6)}, "none is left out"


def test_the_teacher_is_the_running_average_of_past_supernets() -> None:
    """Weights and statistics: a ninth of the past at first, the decay's span in the end."""
    method = METHOD.model_copy(update={"teacher_decay": 0.8})
    net, phase = fresh(method), supernet_phase(method)
    net.teacher.load_state_dict(net.supernet.state_dict())
    names = ("stem.weight", "norm.running_mean", "head.bias")
    now = state_of(net.supernet)
    average = {name: now[name] for name in names}
    for step in range(60):
        phase.advance(net, step / 60)
        decay = min(0.8, (1 + step) / (10 + step))
        average = {n: decay * average[n] + (1 - decay) * now[n] for n in names}
        with torch.no_grad():
            for value in net.supernet.state_dict().values():
                value.add_(torch.randn_like(value))
        now = state_of(net.supernet)
    for name in names:
        torch.testing.assert_close(
            net.teacher.state_dict()[name], average[name], rtol=1e-4, atol=1e-4
        )
    with torch.no_grad():
        phase.finish(net, [])
    for name in names:
        last = 0.8 * average[name] + 0.2 * now[name]
        torch.testing.assert_close(net.teacher.state_dict()[name], last, rtol=1e-4, atol=1e-4)


def test_the_teacher_resumes_from_a_checkpoint_as_if_there_had_been_no_pause() -> None:
    phase, one = supernet_phase(), fresh()
    phase.advance(one, 0.25)
    with torch.no_grad():
        one.supernet.stem.weight.add_(1)
    other = fresh(seed=1)
    other.load_state_dict(one.state_dict())
    phase.advance(one, 0.5)
    phase.advance(other, 0.5)
    assert same(state_of(one), state_of(other))
    assert not torch.equal(one.teacher.stem.weight, one.supernet.stem.weight)


def test_recalibrated_the_largest_network_and_a_choice_evaluate_as_they_train() -> None:
    """On one batch, whose statistics are then those of training, but for n / (n - 1)."""
    net, batch = fresh().supernet, images(40)
    for path in (net.layout.uniform(0), net.layout.uniform(5), net.layout.largest):
        with torch.no_grad():
            trained = net.train()(batch, path)
            recalibrate(net, [batch])
            torch.testing.assert_close(net.eval()(batch, path), trained, rtol=0.05, atol=0.05)


def test_gate_sparsification_is_on_raw_logits() -> None:
    sure = torch.tensor([[30.0, 0, 0, 0], [0, 0, 0, 30]])
    right = torch.tensor([True, False])
    assert sparsification(sure, right, None) < 1e-6, "softmax taken twice cannot fall below 0.744"


def test_balanced_labels_weigh_alike() -> None:
    odds = torch.zeros(10, 4, requires_grad=True)
    sparsification(odds, torch.arange(10) < 9, torch.tensor(0.9)).backward()
    assert odds.grad is not None
    pull = odds.grad.sum(0)
    torch.testing.assert_close(pull[0], pull[3])


@pytest.mark.parametrize("truth", [True, False])
def test_labels_say_whether_the_smallest_routed_network_is_right(truth: bool) -> None:
    net, batch = fresh(PUBLISHED), images()
    with frozen(net.supernet), torch.no_grad():
        guess = net.supernet(batch, net.paths[0]).argmax(1)
        odds = net.gate(net.supernet.front(batch, net.paths[0])[1])
    off = {"task_weight": 0.0, "mac_weight": 0.0}
    loss = gate_phase(PUBLISHED.model_copy(update=off)).loss(
        net, batch, guess if truth else (guess + 1) % 5
    )
    torch.testing.assert_close(loss, F.cross_entropy(odds, torch.full((12,), 0 if truth else 3)))
    assert float(net.easy) == pytest.approx(0.525 if truth else 0.475)


def test_the_mac_loss_is_relative_to_the_dearest_routed_choice() -> None:
    off = {"sgs_weight": 0.0, "task_weight": 0.0, "mac_weight": 0.7}
    method = PUBLISHED.model_copy(update=off)
    for place in (0, 3):
        net = fresh(method)
        with torch.no_grad():
            net.gate.weight.fill_(-1e4)  # beyond any noise
            net.gate.weight[place] = 1e4
        loss = gate_phase(method).loss(net, images(), LABELS)
        share = float(net.prices[place] / net.prices.max())
        assert float(loss.detach()) == pytest.approx(0.7 * share**2)


def test_the_task_loss_is_that_of_the_sampled_widths() -> None:
    method = PUBLISHED.model_copy(update={"sgs_weight": 0.0, "mac_weight": 0.0})
    net, batch = fresh(method), images()
    torch.manual_seed(4)
    loss = gate_phase(method).loss(net, batch, LABELS)
    torch.manual_seed(4)
    with frozen(net.supernet), torch.no_grad():
        features, reduced = net.supernet.front(batch, net.paths[0])
        taken = F.gumbel_softmax(net.gate(reduced), hard=True).argmax(1)
        logits = torch.stack([net.supernet.back(features, path) for path in net.paths])
    assert len(taken.unique()) > 1
    torch.testing.assert_close(
        loss, F.cross_entropy(logits[taken, torch.arange(12)], LABELS), rtol=1e-4, atol=1e-4
    )


def test_freezing_ends_with_its_block_even_by_an_error() -> None:
    net = fresh().supernet
    with pytest.raises(RuntimeError), frozen(net):  # noqa: PT012
        assert not net.training
        assert not any(p.requires_grad for p in net.parameters())
        raise RuntimeError
    assert all(part.training for part in net.modules())
    assert all(p.requires_grad for p in net.parameters())


def test_a_gate_can_learn_to_tell_images_apart() -> None:
    """Where narrow is right on some images and wrong on others that look different."""
    method = DSNet.published(depth=8, width=0.5, task_weight=0.0, balanced=True)
    net, batch = fresh(method), images()
    with frozen(net.supernet), torch.no_grad():
        guess = net.supernet(batch, net.paths[0]).argmax(1)
    labels = torch.where(torch.arange(12) < 6, guess, (guess + 1) % 5)
    phase = gate_phase(method)
    sgd = torch.optim.SGD(net.gate.parameters(), lr=1.0, momentum=0.9)
    torch.manual_seed(0)
    for _ in range(100):
        sgd.zero_grad()
        phase.loss(net, batch, labels).backward()
        sgd.step()
    prices = net.eval()(batch).macs
    assert prices[:6].mean() < 0.9 * prices[6:].mean()


@pytest.mark.parametrize("phase", [0, 1])
def test_both_losses_run_in_bfloat16(phase: int) -> None:
    method = METHOD.model_copy(update={"ensemble": True})
    net = fresh(method)
    with torch.autocast("cpu", torch.bfloat16):
        loss = method.phases()[phase].loss(net, images(), LABELS)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
