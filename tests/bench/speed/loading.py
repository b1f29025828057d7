"""Augmented batches per second, by the wall's clock (goal 3)."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.data.augment import Augment, shifted
from methods.data.augment import Shift as Moves
from tests.bench.speed.clock import Clock, same
from tests.bench.speed.goals import Finding, found
from tests.bench.speed.pictures import MEAN, STD, Opened, Pictures

BATCH = 128
BATCHES = 4


def findings(clock: Clock) -> Iterator[Finding]:
    """Over a loader whose worker starts anew for each batch, and over crops by distinct shifts."""
    wall = Clock(str(clock.device), wall=True)
    for side, stretch in ((32, 150.0), (8, None)):
        pictures = Pictures.drawn(BATCH * BATCHES, side)
        agree(pictures)
        split = pictures.split(str(clock.device))
        loader = pictures.loader(BATCH, workers=1)
        plain = pictures.loader(BATCH, workers=0)
        augment = Augment(pad=pictures.pad, flip=True, generator=torch.Generator())
        order = torch.Generator()
        images = _normalised(torch.from_numpy(pictures.pixels).to(clock.device))

        def ours() -> None:
            for _ in split.batches(BATCH, shuffle=order, augment=augment):  # noqa: B023
                pass

        def restarted() -> None:
            for _ in range(BATCHES):
                next(iter(loader))  # noqa: B023

        def cropped() -> None:
            rows = torch.randperm(len(images), device=images.device)  # noqa: B023
            moves = augment.draw(len(images), (0, 0), (0, 0))  # noqa: B023
            for chunk in torch.arange(len(rows)).split(BATCH):
                some = moves.rows(chunk).to(images.device).place  # noqa: B023
                assert isinstance(some, Moves)
                by_shift(images[rows[chunk]], some, pictures.pad)  # noqa: B023

        over_workers = wall.faster(restarted, ours, rounds=5)[0]
        over_plain, over_crops = (
            wall.faster(work, ours, rounds=5)[0]
            for work in (lambda: list(plain), cropped)  # noqa: B023
        )
        limits = {"least": 50.0} | ({"stretch": stretch} if stretch else {})
        yield found("3", f"batches at {side} px over a loader started anew", over_workers, **limits)
        yield found("3", f"batches at {side} px over crops by shift", over_crops, least=2.0)
        yield found("", f"batches at {side} px over a loader without workers", over_plain)


def agree(pictures: Pictures) -> None:
    """All three ways give the same picture for the same draw."""
    pad, opened = pictures.pad, Opened(pictures)
    pixels = torch.from_numpy(pictures.pixels)
    rows = torch.arange(16)
    draws = torch.randint(-pad, pad + 1, (2, 16)), torch.randint(0, 2, (16,)).bool()
    moves = Moves(pad, *draws[0], draws[1])
    ours = _normalised(shifted(pixels[rows], moves))
    theirs = torch.stack(
        [
            opened.seen(row, pad - right, pad - down, mirror)
            for row, (down, right, mirror) in enumerate(
                zip(*(draw.tolist() for draw in moves[1:]), strict=True)
            )
        ]
    )
    same(ours, theirs, tolerance=1e-6)
    same(by_shift(_normalised(pixels[rows]), moves, pad), ours, tolerance=1e-6)


def by_shift(images: Tensor, moves: Moves, pad: int) -> Tensor:
    """Crops by one slice for each distinct shift, rows first and columns then."""
    side = images.shape[-1]
    images = torch.where(moves.mirror[:, None, None, None], images.flip(3), images)
    padded = F.pad(images, (pad,) * 4, value=-MEAN / STD)
    halfway = padded.new_empty((*padded.shape[:2], side, side + 2 * pad))
    done = padded.new_empty((*padded.shape[:2], side, side))
    for move in range(-pad, pad + 1):
        some = moves.down == move
        halfway[some] = padded[some, :, pad - move : pad - move + side]
    for move in range(-pad, pad + 1):
        some = moves.right == move
        done[some] = halfway[some, :, :, pad - move : pad - move + side]
    return done


def _normalised(pixels: Tensor) -> Tensor:
    return (pixels.permute(0, 3, 1, 2).float() - MEAN) / STD
