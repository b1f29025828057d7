"""Which images are easy: accuracy and MACs of each method by difficulty, and by class."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from orchestrator.board.model import INTERVAL_FROM, Board
from orchestrator.board.stats.intervals import Summary, accuracy, crossed_mean
from orchestrator.board.stats.units import Units
from orchestrator.record.evidence import Images, PerImage

Kind = Literal["difficulty", "loss", "class"]
"""The groups of test images: by the difficulty that the data set states, else by the baseline's
loss, and by the label."""
PARTS = 5
"""Groups of equal size by difficulty or loss, where there are more values than that."""
MOST_CLASSES = 40
"""Largest number of classes that are shown as groups."""


@dataclass(frozen=True)
class Group:
    """A group of test images, at one method's cell; means over its seeds."""

    method: str
    kind: Kind
    name: str
    """The difficulty or class, or the rank of the part, from the easiest."""
    images: int
    accuracy: Summary
    """As a cell's: for new units and new images of the kind."""
    macs: Summary
    """MACs of an image; no interval with fewer than three units."""


def groups(board: Board, images: Images) -> tuple[Group, ...]:
    """Each method's test images at the primary budget, by difficulty or loss, and by class."""
    return (*_by_difficulty(board, images), *_by_class(board, images))


def rows(parts: Sequence[Group], kind: Kind) -> list[list[Group]]:
    """The groups of one kind: a row for each name, every method in it in the board's order."""
    names = dict.fromkeys(part.name for part in parts if part.kind == kind)
    return [[p for p in parts if (p.kind, p.name) == (kind, name)] for name in names]


def _by_difficulty(board: Board, images: Images) -> Iterator[Group]:
    baseline = _runs(_units(board, board.baseline, images))
    for name in board.methods:
        units = _units(board, name, images)
        if not units:
            continue
        known = units[0][0].difficulty
        kind: Kind = "difficulty" if known is not None else "loss"
        values = known if known is not None else _loss(baseline)
        if values is None or any(len(run.correct) != len(values) for run in _runs(units)):
            continue
        names, place = _parted(values)
        for index, group in enumerate(names):
            yield Group(name, kind, group, *_figures(units, place == index, board.rules.level))


def _by_class(board: Board, images: Images) -> Iterator[Group]:
    for name in board.methods:
        if units := _units(board, name, images):
            classes, place = np.unique(units[0][0].labels, return_inverse=True)
            if len(classes) <= MOST_CLASSES:
                for index, label in enumerate(classes):
                    figures = _figures(units, place == index, board.rules.level)
                    yield Group(name, "class", str(label), *figures)


def _figures(
    units: Sequence[Sequence[PerImage]], inside: Bool[np.ndarray, " images"], level: float
) -> tuple[int, Summary, Summary]:
    """How many images are inside, the accuracy on them, and their MACs."""
    correct = np.array([np.mean([run.correct[inside] for run in unit], axis=0) for unit in units])
    macs = np.array([np.mean([run.macs[inside] for run in unit], axis=0) for unit in units])
    count = int(inside.sum())
    right = accuracy(Units(correct.mean(axis=1).tolist(), correct, count), level)
    cost = crossed_mean(macs, level)
    return count, right, cost if len(units) >= INTERVAL_FROM else replace(cost, lo=None, hi=None)


def _parted(values: Float[np.ndarray, " images"]) -> tuple[list[str], Int[np.ndarray, " images"]]:
    """Names from the easiest on, and the index of each image's name."""
    levels, place = np.unique(values, return_inverse=True)
    if len(levels) <= PARTS:
        return [f"{level:.3g}" for level in levels], place
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return [str(part + 1) for part in range(PARTS)], ranks * PARTS // len(values)


def _loss(baseline: Sequence[PerImage]) -> Float[np.ndarray, " images"] | None:
    """The baseline's mean loss over its seeds on each image; None where it was not recorded."""
    losses = [run.losses for run in baseline if run.losses is not None]
    if not losses or len({len(loss) for loss in losses}) > 1:
        return None
    mean: np.ndarray = np.mean(losses, axis=0)
    return mean


def _runs(units: Sequence[Sequence[PerImage]]) -> list[PerImage]:
    return [run for unit in units for run in unit]


def _units(board: Board, method: str, images: Images) -> list[list[PerImage]]:
    """The results of each seed of a method's primary cell, or of the seeds of each search where
    searches are repeated; those on other test images are left out."""
    units: dict[object, list[PerImage]] = {}
    first: PerImage | None = None
    for row in board.cell(method, board.primary).seeds:
        run = images.get((row.trial, row.point))
        first = first or run
        if run is not None and first is not None and len(run.labels) == len(first.labels):
            unit = row.repeat if board.rules.repeats > 1 else (row.trial, row.point)
            units.setdefault(unit, []).append(run)
    return list(units.values())
