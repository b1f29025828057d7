"""Crops, colours and mixtures, against formulas of others: torch, Pillow, and soft labels."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from torch import Tensor
from torch.nn import functional as F

from methods.data.augment import (
    Augment,
    Boxes,
    Colours,
    Mixed,
    Shift,
    coloured,
    mixed,
    multiplied,
    paired,
    resized,
)
from methods.data.load import load
from methods.data.splits import Resident, Split
from methods.dsnet.gate import task_losses
from methods.parallel.group import own_rows

SEVERAL = 6


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def augment(seed: int = 0, **more: object) -> Augment:
    return Augment(pad=2, flip=True, generator=generator(seed), **more)  # type: ignore[arg-type]


def pictures(count: int, height: int, width: int, channels: int = 3) -> Tensor:
    """Smooth pictures, as those of cameras are, with some noise."""
    draw = generator(1)
    coarse = torch.rand(count, channels, 4, 4, generator=draw)
    fine = F.interpolate(coarse, (height, width), mode="bicubic")
    fine = fine + 0.1 * torch.randn(fine.shape, generator=draw)
    return (255 * fine).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


# Resized crops


@pytest.mark.parametrize("how", [resized, multiplied])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(16, 16), (40, 24), (5, 7)])
def test_a_resized_crop_is_torchs_of_the_box_cut_out(
    size: tuple[int, int], channels: int, how: Callable[..., Tensor]
) -> None:
    """Both ways, on a CPU and on a GPU, against torch's in real numbers."""
    pixels = pictures(SEVERAL, 30, 36, channels)
    place = augment(crop="resized").draw(SEVERAL, (30, 36), size).place
    assert isinstance(place, Boxes)
    got = how(pixels, place, size)
    assert got.shape == (SEVERAL, *size, channels)
    for image, cut, (top, left, height, width, mirror) in zip(
        pixels, got, zip(*place, strict=True), strict=True
    ):
        box = image[top : top + height, left : left + width].permute(2, 0, 1)[None].float()
        alike = F.interpolate(box, size, mode="bilinear", antialias=True, align_corners=False)
        alike = alike.flip(3) if mirror else alike
        assert (cut.permute(2, 0, 1).float() - alike[0]).abs().max() <= 0.501 * (
            1 + (how is resized)
        )


def test_the_whole_image_at_its_size_is_itself() -> None:
    pixels = pictures(2, 9, 9)
    whole = Boxes(*(torch.full((2,), side) for side in (0, 0, 9, 9)), torch.tensor([False, True]))
    for how in (resized, multiplied):
        got = how(pixels, whole, (9, 9))
        assert torch.equal(got[0], pixels[0])
        assert torch.equal(got[1], pixels[1].flip(1))


def test_boxes_have_their_areas_and_ratios() -> None:
    """As torchvision's RandomResizedCrop draws them, by the formulas of its documentation."""
    place = augment(crop="resized").draw(20_000, (256, 256), (224, 224)).place
    assert isinstance(place, Boxes)
    top, left, height, width = (side.double() for side in place[:4])
    assert min(int(top.min()), int(left.min())) == 0
    assert int((top + height).max()) <= 256
    assert int((left + width).max()) <= 256
    areas, ratios = height * width / 256**2, width / height
    assert float(areas.min()) == pytest.approx(0.08, abs=0.01)
    assert float(areas.max()) > 0.95
    assert 0.72 < float(ratios.min()) < 0.78
    assert 1.28 < float(ratios.max()) < 1.39
    assert float(ratios.log().mean()) == pytest.approx(0, abs=0.01)
    draw = np.random.default_rng(0)  # an independent loop, image by image
    expected = []
    for _ in range(20_000):
        for _ in range(10):
            area, ratio = (
                65536 * draw.uniform(0.08, 1),
                np.exp(draw.uniform(*np.log([3 / 4, 4 / 3]))),
            )
            w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
            if w <= 256 and h <= 256:
                expected.append(w * h / 65536)
                break
        else:
            expected.append(1.0)
    assert float(areas.mean()) == pytest.approx(np.mean(expected), abs=0.01)
    assert float(areas.std()) == pytest.approx(np.std(expected), abs=0.01)
    assert float(place.mirror.double().mean()) == pytest.approx(0.5, abs=0.02)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.01, 1), st.integers(0, 99))
def test_every_box_lies_in_its_image(height: int, width: int, area: float, seed: int) -> None:
    place = augment(seed, crop="resized", area=area).draw(50, (height, width), (8, 8)).place
    assert isinstance(place, Boxes)
    for start, side, most in ((place.top, place.height, height), (place.left, place.width, width)):
        assert int(side.min()) >= 1
        assert int(start.min()) >= 0
        assert int((start + side).max()) <= most


# Windows of images that are stored larger


def larger(count: int = 40, channels: int = 3) -> Split:
    pixels = pictures(count, 12, 12, channels)
    labels = torch.arange(count) % 5
    zero, one = torch.zeros(channels), torch.ones(channels)
    return Split(Resident(pixels), labels, zero, one, size=(8, 8))


def test_evaluation_sees_the_centre_of_larger_images() -> None:
    split = larger()
    images = torch.cat([images for images, _ in split.batches(7)])
    assert isinstance(split.store, Resident)
    centre = split.store.pixels[:, 2:10, 2:10].permute(0, 3, 1, 2).float()
    assert torch.equal(images, centre)
    assert torch.equal(split.head(5)[0], centre[:5])
    assert torch.equal(split.part(0.0, 0.5).head(99)[0], centre[:20])
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_training_sees_windows_of_larger_images() -> None:
    split = larger()
    assert isinstance(split.store, Resident)
    own = Augment(pad=2, flip=True, generator=generator(3))
    again = Augment(pad=2, flip=True, generator=generator(3))
    place = again.draw(40, (12, 12), (8, 8)).place
    images = torch.cat([images for images, _ in split.batches(7, augment=own)])
    assert isinstance(place, Shift)
    assert {int(-place.down.min()), int(-place.right.min())} == {4}
    for image, pixels, down, right, mirror in zip(
        images, split.store.pixels, *place[1:], strict=True
    ):
        seen = pixels.flip(1) if mirror else pixels
        window = seen[-down : 8 - down, -right : 8 - right]
        assert torch.equal(image, window.permute(2, 0, 1).float())


# Colours, against Pillow's


def enhanced(pixels: Tensor, kind: type[ImageEnhance._Enhance], factor: float) -> Tensor:
    return torch.from_numpy(np.array(kind(Image.fromarray(pixels.numpy())).enhance(factor)))  # type: ignore[call-arg]


@pytest.mark.parametrize("factor", [0.2, 0.7, 1.0, 1.3, 1.8])
@pytest.mark.parametrize("which", range(3))
def test_a_colour_is_pillows_to_a_level(which: int, factor: float) -> None:
    pixels = pictures(3, 10, 14)
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    factors = torch.ones(3, 3)
    factors[which] = factor
    got = coloured(pixels, Colours(*factors))
    alike = torch.stack([enhanced(image, kinds[which], factor) for image in pixels])
    assert (got.int() - alike.int()).abs().max() <= 1


def test_all_colours_one_after_the_other_are_pillows_to_a_few_levels() -> None:
    pixels, factors = pictures(4, 10, 14), torch.rand(3, 4, generator=generator(5)) + 0.5
    got = coloured(pixels, Colours(*factors))
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for image, ours, own in zip(pixels, got, factors.T, strict=True):
        for kind, factor in zip(kinds, own.tolist(), strict=True):
            image = enhanced(image, kind, factor)  # noqa: PLW2901
        assert (ours.int() - image.int()).abs().max() <= 4


def test_grey_images_have_no_saturation() -> None:
    pixels = pictures(2, 6, 6, channels=1)
    ones = torch.ones(2)
    assert torch.equal(coloured(pixels, Colours(ones, ones, 0 * ones)), pixels)
    assert not torch.equal(coloured(pixels, Colours(ones, 0.5 * ones, ones)), pixels)


def test_factors_of_colour_are_within_the_strength_of_1() -> None:
    colours = augment(colour=0.4).draw(9999, (8, 8), (8, 8)).colours
    assert colours is not None
    for factor in colours:
        assert float(factor.min()) == pytest.approx(0.6, abs=0.01)
        assert float(factor.max()) == pytest.approx(1.4, abs=0.01)
        assert float(factor.mean()) == pytest.approx(1, abs=0.01)


# Mixtures


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixed_labels_are_soft_targets(reduction: str, smoothing: float) -> None:
    draw = generator()
    logits = torch.randn(9, 5, generator=draw, requires_grad=True)
    one, two = (torch.randint(5, (9,), generator=draw) for _ in range(2))
    weight = torch.rand(9, generator=draw) / 2 + 0.5
    soft = weight[:, None] * F.one_hot(one, 5) + (1 - weight)[:, None] * F.one_hot(two, 5)
    alike = F.cross_entropy(logits, soft, label_smoothing=smoothing, reduction=reduction)
    labels = Mixed.of(one, two, weight)
    got = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction=reduction)
    torch.testing.assert_close(got, alike)
    grads = [torch.autograd.grad(loss.sum(), logits, retain_graph=True)[0] for loss in (got, alike)]
    torch.testing.assert_close(*grads)
    wrong = (1 - logits.softmax(1) * soft / soft.sum(1, keepdim=True)).detach()
    assert wrong.shape == (9, 5)
    expected = 1 - (logits.softmax(1) * soft).sum(1)
    torch.testing.assert_close(task_losses("miss", logits, labels, smoothing), expected)


def test_mixed_labels_are_the_larger_shares_class_to_all_else() -> None:
    one, two = torch.tensor([1, 2, 0]), torch.tensor([2, 2, 1])
    labels = Mixed.of(one, two, torch.tensor([0.6, 0.7, 0.8]))
    assert torch.equal(torch.tensor([1, 0, 0]) == labels, torch.tensor([True, False, True]))
    part = labels[1:].to("cpu")
    assert isinstance(part, Mixed)
    assert (part.others.tolist(), len(part)) == ([2, 1], 2)
    assert type(torch.bincount(labels)) is torch.Tensor


def test_each_image_is_mixed_with_its_neighbour_in_the_batch() -> None:
    split = larger(11, channels=1)
    plain = list(split.batches(4, augment=augment(colour=0.2)))
    both = list(split.batches(4, augment=augment(colour=0.2, mixup=0.3)))
    share = augment(colour=0.2, mixup=0.3).draw(11, (12, 12), (8, 8)).weight
    assert share is not None
    assert 0.5 <= float(share.min()) < float(share.max()) <= 1
    for number, ((images, labels), (got, known)) in enumerate(zip(plain, both, strict=True)):
        assert isinstance(known, Mixed)
        assert got.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(known.as_subclass(Tensor), labels)
        for row, image in enumerate(got):
            mate = row ^ 1 if row ^ 1 < len(images) else row
            weight = float(share[4 * number + row])
            alike = weight * images[row] + (1 - weight) * images[mate]
            torch.testing.assert_close(image, alike, rtol=1e-5, atol=1e-3)
            assert known.others[row] == labels[mate]


@pytest.mark.parametrize("most", [1, 2])
@pytest.mark.parametrize("count", [2, 3])
def test_workers_mix_what_one_worker_mixes(count: int, most: int) -> None:
    split = load("digits").train.between(0, 95)

    def batches(worker: tuple[int, int]) -> list[tuple[Tensor, Tensor]]:
        own = augment(4, crop="resized", colour=0.3, mixup=0.4)
        order = generator(3)
        return list(split.batches(33, shuffle=order, augment=own, worker=worker, most=most))

    whole, parts = batches((0, 1)), [batches((rank, count)) for rank in range(count)]
    for (images, labels), *some in zip(whole, *parts, strict=True):
        rows = torch.cat([own_rows(len(labels), 33, rank, count, most) for rank in range(count)])
        together = torch.empty_like(images)
        together[rows] = torch.cat([part for part, _ in some])
        torch.testing.assert_close(together, images)
        assert isinstance(labels, Mixed)
        others = torch.empty_like(labels.others)
        others[rows] = torch.cat([known.others for _, known in some])  # type: ignore[attr-defined]
        assert torch.equal(others, labels.others)


@given(st.integers(2, 9), st.integers(1, 40), st.integers(1, 4), st.integers(1, 3))
def test_partners_are_neighbours(size: int, samples: int, count: int, most: int) -> None:
    for rank in range(count):
        for batch in torch.split(torch.arange(samples), size):
            own = batch[own_rows(len(batch), size, rank, count, most)]
            every, partner = paired(own, size, samples)
            assert torch.equal(every[: len(own)], own)
            assert len(set(every.tolist())) == len(every)
            for row, mate in zip(own.tolist(), every[partner].tolist(), strict=True):
                neighbour = row + (-1 if row % size % 2 else 1)
                there = neighbour < samples and neighbour // size == row // size
                assert mate == (neighbour if there else row)


def test_shares_are_of_a_beta_distribution() -> None:
    share = augment(mixup=0.4).draw(50_000, (8, 8), (8, 8)).weight
    assert share is not None
    beta = np.random.default_rng(1).beta(0.4, 0.4, 50_000)
    expected = np.quantile(np.maximum(beta, 1 - beta), [0.1, 0.5, 0.9])
    assert np.quantile(share.numpy(), [0.1, 0.5, 0.9]) == pytest.approx(expected, abs=0.01)


def test_mixing_leaves_what_it_is_given() -> None:
    images, labels = torch.randn(3, 1, 2, 2), torch.tensor([0, 1, 2])
    before = images.clone()
    mixed(images, labels, torch.full((3,), 0.7), torch.tensor([1, 0]))
    assert torch.equal(images, before)
