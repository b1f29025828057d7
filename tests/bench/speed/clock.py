"""Two ways of doing one thing, timed in turns: what is read is their ratio.

On a CPU the clock is the process's own CPU time, so that a busy machine disturbs little; on a GPU
it is the wall's, and the device is waited for.
"""

import gc
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Work = Callable[[], object]

LEAST = 0.03
"""Seconds of one reading, at least: short work is repeated within it."""


class Ratio(NamedTuple):
    """A ratio's median over the rounds, and its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Ratio":
        low, median, high = np.quantile(list(values), (0.25, 0.5, 0.75))
        return cls(float(median), float(low), float(high))


class Clock:
    """Times work on one device."""

    def __init__(self, device: str, *, wall: bool = False) -> None:
        self.device = torch.device(device)
        self.wall = wall

    def faster(self, reference: Work, *ours: Work, rounds: int = 7) -> list[Ratio]:
        """How many times faster than the reference each of ours is; the reference is first."""
        taken = self.seconds(reference, *ours, rounds=rounds)
        return [
            Ratio.of(theirs / own for theirs, own in zip(taken[0], mine, strict=True))
            for mine in taken[1:]
        ]

    def seconds(self, *works: Work, rounds: int = 7) -> list[list[float]]:
        """Seconds of one call of each, round by round; the order turns from round to round."""
        repeats = []
        for work in works:
            work()
            once = min(self._read(work, 1) for _ in range(2))
            repeats.append(max(1, round(LEAST / max(once, 1e-7))))
        taken: list[list[float]] = [[] for _ in works]
        enabled = gc.isenabled()
        gc.disable()
        try:
            for round_ in range(rounds):
                order = range(len(works))
                for index in order if round_ % 2 else reversed(order):
                    taken[index].append(self._read(works[index], repeats[index]))
        finally:
            if enabled:
                gc.enable()
        return taken

    def _read(self, work: Work, repeats: int) -> float:
        began = self._now()
        for _ in range(repeats):
            work()
        return (self._now() - began) / repeats

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        if self.wall or self.device.type == "cuda":
            return time.perf_counter()
        return time.process_time()


def same(ours: Tensor, theirs: Tensor, *, tolerance: float = 1e-3) -> None:
    """Refuses to time two things that do not give the same.

    Raises:
        AssertionError: they differ by more than this fraction of the largest value.
    """
    ours, theirs = ours.detach().double(), theirs.detach().double()
    off = float((ours - theirs).abs().max())
    scale = max(1.0, float(theirs.abs().max()))
    if not off <= tolerance * scale:
        raise AssertionError(f"both sides must give the same, but differ by {off:g} of {scale:g}")
