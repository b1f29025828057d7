"""The loop: epochs, phases, seeds, checkpoints, and trials that go wrong."""

import dataclasses
import io
import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from toy import CLOCK, Toy, ToyNet, clock, late_groups

from methods.api import Phase
from methods.data.load import Data, load
from methods.data.splits import count_batches
from methods.dsnet.method import DSNet
from methods.errors import DataError, Diverged, MethodError
from methods.training.evaluate import evaluate
from methods.training.loop import Epoch, Recipe, plan_epochs, train

EPOCHS = 6
RECIPE = Recipe(epochs=EPOCHS, batch_size=200, label_smoothing=0.1, warmup=0.2)


@pytest.fixture(scope="module")
def data() -> Data:
    return load("digits")


def run(data: Data, recipe: Recipe = RECIPE, seed: int = 1, **more: Any) -> list[Epoch]:
    return list(train(Toy(), data, recipe, seed=seed, **more))


def weights(epoch: Epoch) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in epoch.net.state_dict().items()}


def same(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded


# The loop


def test_an_epoch_says_where_the_trial_is(data: Data) -> None:
    epochs = run(data)
    assert [e.index for e in epochs] == [1, 2, 3, 4, 5, 6]
    assert {e.epochs for e in epochs} == {EPOCHS}
    assert [e.phase for e in epochs] == ["early"] * 3 + ["late"] * 3
    assert [e.phase_done for e in epochs] == [False, False, True] * 2
    assert [e.progress for e in epochs] == pytest.approx([i / 6 for i in range(1, 7)])
    assert all(e.seconds > 0 for e in epochs)


def test_it_learns(data: Data) -> None:
    recipe = Recipe(epochs=8, batch_size=64, augment=False)
    first, *_, last = run(data, recipe)
    assert last.loss < 0.7 * first.loss
    assert evaluate(last.net, data.validation).accuracy > 0.6


def test_the_clock_runs_from_0_towards_1_in_each_phase(data: Data) -> None:
    CLOCK.clear()
    run(data)
    steps = 3 * 6  # 1259 samples make 6 batches of 200, and 59 are left out
    for name in ("early", "late"):
        ticks = [progress for phase, progress in CLOCK if phase == name]
        assert ticks == pytest.approx([i / steps for i in range(steps)])


def test_stopping_is_ceasing_to_iterate(data: Data) -> None:
    epochs = train(Toy(), data, RECIPE, seed=1)
    first = next(epochs)
    before = weights(first)
    del epochs
    assert same(before, weights(first))


def test_training_mode_is_set_anew_in_every_epoch(data: Data) -> None:
    undisturbed = run(data)[-1]
    for epoch in train(Toy(), data, RECIPE, seed=1):
        epoch.net.eval()
    assert same(weights(epoch), weights(undisturbed))


def test_the_loss_is_the_mean_over_samples(data: Data) -> None:
    batches: list[tuple[float, int]] = []

    class Watched(Toy):
        def phases(self, smoothing: float = 0.0) -> list[Phase[Any]]:
            def loss(net: ToyNet, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
                value = F.cross_entropy(net(images).logits, labels)
                batches.append((value.item(), len(labels)))
                return value

            return [Phase(name="only", share=1.0, loss=loss)]

    epoch = next(train(Watched(), data, Recipe(epochs=1, batch_size=500), seed=0))
    assert [size for _, size in batches] == [500, 500, 259]
    assert epoch.loss == pytest.approx(sum(value * size for value, size in batches) / 1259)


# Seeds


def test_the_seed_decides_everything(data: Data) -> None:
    torch.manual_seed(5)
    first = run(data)
    torch.manual_seed(6)
    again, other = run(data), run(data, seed=2)
    assert [e.loss for e in first] == [e.loss for e in again]
    assert same(weights(first[-1]), weights(again[-1]))
    assert not same(weights(first[-1]), weights(other[-1]))


def test_the_global_generator_is_left_as_it_was(data: Data) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for _ in train(Toy(), data, RECIPE, seed=1):
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.get_rng_state(), before)


def test_order_and_augmentation_differ_from_epoch_to_epoch(data: Data) -> None:
    orders: list[torch.Tensor] = []

    class Watched(Toy):
        def phases(self, smoothing: float = 0.0) -> list[Phase[Any]]:
            def loss(net: ToyNet, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
                orders.append(labels)
                return F.cross_entropy(net(images).logits, labels)

            return [Phase(name="only", share=1.0, loss=loss)]

    list(train(Watched(), data, Recipe(epochs=2, batch_size=1259), seed=0))
    assert not torch.equal(orders[0], orders[1])
    assert torch.equal(orders[0].sort().values, orders[1].sort().values)


# Checkpoint and resume


@pytest.fixture(scope="module")
def reference(data: Data) -> tuple[list[dict[str, Any]], list[float], dict[str, torch.Tensor]]:
    """States after each epoch, losses, and final weights of a trial that was never paused."""
    states, losses = [], []
    for epoch in train(Toy(), data, RECIPE, seed=1):
        states.append(epoch.state())
        losses.append(epoch.loss)
    return states, losses, weights(epoch)


@pytest.mark.parametrize("pause", range(1, EPOCHS))
def test_resume_equals_no_pause(data: Data, reference: Any, pause: int) -> None:
    states, losses, final = reference
    resumed = train(Toy(), data, RECIPE, seed=99, state=through_a_file(states[pause - 1]))
    later = []
    for epoch in resumed:
        later.append(epoch.loss)
        torch.randn(7)  # the listener draws
        evaluate(epoch.net, data.validation)
        assert epoch.index == pause + len(later)
    assert later == losses[pause:]
    assert same(weights(epoch), final)


def test_a_pause_after_every_epoch_changes_nothing(data: Data, reference: Any) -> None:
    states, losses, final = reference
    state, resumed = None, []
    for index in range(EPOCHS):
        epoch = next(train(Toy(), data, RECIPE, seed=1, state=state))
        torch.manual_seed(index)
        resumed.append(epoch.loss)
        state = through_a_file(epoch.state())
    assert resumed == losses
    assert same(weights(epoch), final)
    assert same(state["net"], states[-1]["net"])


def test_a_finished_trial_yields_nothing_more(data: Data, reference: Any) -> None:
    assert run(data, state=reference[0][-1]) == []


def test_a_state_is_a_copy(data: Data) -> None:
    epochs = train(Toy(), data, RECIPE, seed=1)
    state = next(epochs).state()
    before = {name: value.clone() for name, value in state["net"].items()}
    next(epochs)
    assert same(state["net"], before)


def test_the_length_in_the_checkpoint_stands(
    data: Data, reference: Any, caplog: pytest.LogCaptureFixture
) -> None:
    longer = RECIPE.model_copy(update={"epochs": 50})
    with caplog.at_level(logging.WARNING):
        epochs = run(data, longer, state=reference[0][-2])
    assert [e.index for e in epochs] == [EPOCHS]
    assert epochs[0].loss == reference[1][-1]
    assert "checkpoint's 6 epochs apply" in caplog.text


def test_another_methods_checkpoint_is_refused(data: Data, reference: Any) -> None:
    with pytest.raises(MethodError, match="resumes only the method that wrote it"):
        train(Toy(blow_up=True), data, RECIPE, seed=1, state=reference[0][0])


# Phases and their epochs


def phase(share: float, name: str = "one", **more: Any) -> Phase[Any]:
    return Phase(name=name, share=share, loss=lambda net, images, labels: images.sum(), **more)


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6), st.integers(0, 300))
def test_every_phase_gets_its_share_and_one_epoch_at_least(parts: list[float], more: int) -> None:
    epochs = len(parts) + more
    shares = [part / sum(parts) for part in parts]
    plan = plan_epochs([phase(share) for share in shares], epochs)
    assert plan[0][1] == 0
    assert plan[-1][2] == epochs
    assert all(left[2] == right[1] for left, right in itertools.pairwise(plan))
    assert all(end > start for _, start, end in plan)
    if all(share * epochs >= 1.5 for share in shares):
        for share, (_, start, end) in zip(shares, plan, strict=True):
            assert abs(end - start - share * epochs) <= 1 + 1e-6


def test_fewer_epochs_than_phases_are_refused_at_once(data: Data) -> None:
    with pytest.raises(MethodError, match=r"\(epochs=1\) for 2 phases \(early, late\)"):
        train(Toy(), data, Recipe(epochs=1), seed=0)


def test_shares_that_do_not_sum_to_one_are_refused() -> None:
    with pytest.raises(MethodError, match="sum to 1"):
        plan_epochs([phase(0.5), phase(0.4)], 10)


def test_data_that_cannot_be_trained_on_are_refused_at_once(data: Data) -> None:
    with pytest.raises(DataError, match="batch_size=5000"):
        train(Toy(), data, Recipe(epochs=2, batch_size=5000), seed=0)


def test_a_phase_without_a_sample_is_refused_and_not_waited_for(data: Data) -> None:
    few = dataclasses.replace(data, train=data.train.part(0.0, 0.05))
    with pytest.raises(DataError, match=r"phase 'gate' takes those between 0\.9 and 1 .* none"):
        train(DSNet(depth=8, held_out=0.1), few, Recipe(epochs=2, batch_size=8), seed=0)


# Trials that go wrong


def test_a_loss_that_is_not_finite_ends_the_trial(data: Data) -> None:
    with pytest.raises(Diverged, match="loss is inf at epoch 1, step 1 of phase early"):
        next(train(Toy(blow_up=True), data, RECIPE, seed=0))


def test_the_first_bad_step_is_named(data: Data) -> None:
    class Late(Toy):
        def phases(self, smoothing: float = 0.0) -> list[Phase[Any]]:
            calls: list[int] = []

            def loss(net: ToyNet, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
                calls.append(1)
                value = F.cross_entropy(net(images).logits, labels)
                return value * float("nan") if len(calls) >= 9 else value

            return [Phase(name="only", share=1.0, loss=loss, advance=clock("only"))]

    with pytest.raises(Diverged, match="loss is nan at epoch 2, step 3 of phase only"):
        run_all(Late(), data)


def run_all(method: Toy, data: Data) -> None:
    for _ in train(method, data, RECIPE, seed=0):
        pass


def test_weights_that_are_not_finite_end_the_trial(data: Data) -> None:
    class Cliff(Toy):
        def phases(self, smoothing: float = 0.0) -> list[Phase[Any]]:
            def loss(net: ToyNet, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
                return net.head.bias.mul(0).sqrt().sum()  # 0, of slope nan

            return [Phase(name="only", share=1.0, loss=loss, parameters=late_groups)]

    recipe = Recipe(epochs=1, batch_size=1259)
    with pytest.raises(Diverged, match="not finite after epoch 1 of phase only"):
        next(train(Cliff(), data, recipe, seed=0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_trains_and_resumes() -> None:
    data = load("digits", device="cuda")
    epochs = train(Toy(), data, RECIPE, seed=1, device="cuda")
    state = through_a_file(next(epochs).state())
    expected = [epoch.loss for epoch in epochs]
    resumed = train(Toy(), data, RECIPE, seed=1, device="cuda", state=state)
    assert [epoch.loss for epoch in resumed] == pytest.approx(expected, rel=1e-2)


def test_a_phase_may_see_a_part_of_the_split_in_as_many_steps(data: Data) -> None:
    early, late = data.train.part(0.0, 0.8), data.train.part(0.8, 1.0)
    assert len(early) + len(late) == len(data.train)
    for part in (early, late):
        shares = torch.bincount(part.labels) / len(part)
        whole = torch.bincount(data.train.labels) / len(data.train)
        torch.testing.assert_close(shares, whole, rtol=0.05, atol=0.01)
    rows = [image.flatten() for split in (early, late) for image in split.head(len(split))[0]]
    assert len({tuple(row.tolist()) for row in rows}) == len(
        {tuple(row.flatten().tolist()) for row in data.train.head(len(data.train))[0]}
    )
    sizes: list[int] = []

    class Partly(Toy):
        def phases(self, smoothing: float = 0.0) -> Sequence[Phase[Any]]:
            first, *_ = super().phases(smoothing)

            def loss(net: ToyNet, images: Tensor, labels: Tensor) -> Tensor:
                sizes.append(len(labels))
                return first.loss(net, images, labels)

            return [dataclasses.replace(first, share=1.0, loss=loss, part=(0.8, 1.0))]

    list(train(Partly(), data, Recipe(epochs=1, batch_size=64, lr=0.05), seed=0))
    assert len(sizes) == count_batches(len(data.train), 64, drop_short=True)
    assert sum(sizes) > len(late)


def test_a_finished_phase_sees_its_images_once_more(data: Data) -> None:
    counts: list[int] = []

    class Finishing(Toy):
        def phases(self, smoothing: float = 0.0) -> Sequence[Phase[Any]]:
            def finish(net: ToyNet, batches: Iterable[Tensor]) -> None:
                assert net.training
                assert not torch.is_grad_enabled()
                counts.append(sum(len(images) for images in batches))

            return [dataclasses.replace(p, finish=finish) for p in super().phases(smoothing)]

    for epoch in train(Finishing(), data, Recipe(epochs=4, batch_size=64, lr=0.05), seed=0):
        assert len(counts) == epoch.index // 2
    assert counts == [counts[0]] * 2
    assert counts[0] > 0.9 * len(data.train)
