"""Which images are easy: accuracy and MACs of each method by difficulty, and by class."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from orchestrator.board.model import Board
from orchestrator.record.evidence import Images, PerImage

Kind = Literal["difficulty", "loss", "class"]
"""What the test images are grouped by: the difficulty that the data set states, the baseline's
loss where it states none, or the label."""
PARTS = 5
"""Groups of equal size by difficulty or loss, where there are more values than that."""
MOST_CLASSES = 40
"""Classes beyond which they are not told apart."""


@dataclass(frozen=True)
class Group:
    """Test images that have something in common, at one method's cell; means over its seeds."""

    method: str
    kind: Kind
    name: str
    """The difficulty or class, or the rank of the part, from the easiest."""
    images: int
    accuracy: float
    macs: float
    """Mean MACs of an image."""


def groups(board: Board, images: Images) -> tuple[Group, ...]:
    """Each method's test images at the primary budget, by difficulty or loss, and by class."""
    return (*_by_difficulty(board, images), *_by_class(board, images))


def _by_difficulty(board: Board, images: Images) -> Iterator[Group]:
    baseline = _runs(board, board.baseline, images)
    runs = {name: _runs(board, name, images) for name in board.methods}
    for name in board.methods:
        if not runs[name]:
            continue
        known = runs[name][0].difficulty
        kind: Kind = "difficulty" if known is not None else "loss"
        values = known if known is not None else _loss(baseline)
        if values is None or any(len(run.correct) != len(values) for run in runs[name]):
            continue
        yield from _grouped(name, kind, runs[name], *_parted(values))


def _by_class(board: Board, images: Images) -> Iterator[Group]:
    for name in board.methods:
        if runs := _runs(board, name, images):
            classes, place = np.unique(runs[0].labels, return_inverse=True)
            if len(classes) <= MOST_CLASSES:
                yield from _grouped(name, "class", runs, [str(label) for label in classes], place)


def _grouped(
    method: str,
    kind: Kind,
    runs: Sequence[PerImage],
    names: Sequence[str],
    place: Int[np.ndarray, " images"],
) -> Iterator[Group]:
    """The groups of a method's images; `place` is the index of each image's name."""
    accuracy = np.mean([run.correct for run in runs], axis=0)
    macs = np.mean([run.macs for run in runs], axis=0)
    for index, name in enumerate(names):
        inside = place == index
        yield Group(
            method,
            kind,
            name,
            int(inside.sum()),
            float(accuracy[inside].mean()),
            float(macs[inside].mean()),
        )


def _parted(values: Float[np.ndarray, " images"]) -> tuple[list[str], Int[np.ndarray, " images"]]:
    """Names from the easiest on, and the index of each image's name."""
    levels, place = np.unique(values, return_inverse=True)
    if len(levels) <= PARTS:
        return [f"{level:.3g}" for level in levels], place
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return [str(part + 1) for part in range(PARTS)], ranks * PARTS // len(values)


def _loss(baseline: Sequence[PerImage]) -> Float[np.ndarray, " images"] | None:
    """The baseline's loss on each image, mean over its seeds; None where it was not kept."""
    losses = [run.losses for run in baseline if run.losses is not None]
    if not losses or len({len(loss) for loss in losses}) > 1:
        return None
    mean: np.ndarray = np.mean(losses, axis=0)
    return mean


def _runs(board: Board, method: str, images: Images) -> list[PerImage]:
    """What the seeds of a method's primary cell gave; those on other test images are left out."""
    keys = [(row.trial, row.point) for row in board.cell(method, board.primary).seeds]
    runs = [images[key] for key in keys if key in images]
    return [run for run in runs if len(run.labels) == len(runs[0].labels)]
