"""The one-epoch baseline: all configurations train for one epoch, then the best to their end.

"The Unreasonable Effectiveness of Early Discarding After One Epoch in Neural Network Hyperparameter
Optimization" (Egele et al., 2024, arXiv 2404.04111; before it 2307.15422). Configurations are drawn
at random. Half of the epochs are first ones, as successive halving gives each rung the same. The
best are those on the front of error and MACs, then those on the next front, and so on; on one front
those come first that have most room. They continue from their checkpoints.
"""

import math
import random
from typing import Any

Figures = tuple[float, float]


class OneEpoch:
    def __init__(self, space: dict[str, Any], seed: int, trials: int, epochs: int) -> None:
        self.space, self.random = space, random.Random(seed)
        self.first = trials * epochs // 2 if epochs > 1 else 0
        self.figures: dict[int, Figures] = {}
        self.taken: set[int] = set()
        self.best: list[int] = []
        self.begun = 0

    def ask(self, trial: int) -> Any:
        if self.begun < self.first or len(self.taken) == len(self.figures):
            self.begun += 1
            return {name: self.draw(field) for name, field in self.space.items()}
        if len(self.best) < len(self.figures):
            self.best = order(self.figures)
        best = next(each for each in self.best if each not in self.taken)
        self.taken.add(best)
        return best

    def tell(self, **_: Any) -> None:
        """All is known from the first epochs."""

    def stop(self, trial: int, epochs: int, error: float, macs: float) -> bool:
        if epochs == 1:
            self.figures[trial] = (error, math.log(macs))
        return epochs == 1

    def draw(self, field: dict[str, Any]) -> Any:
        if field["kind"] == "choice":
            return self.random.choice(field["choices"])
        if field["log"]:
            return field["low"] * (field["high"] / field["low"]) ** self.random.random()
        if field["step"]:
            count = int((field["high"] - field["low"]) / field["step"] + 1e-9) + 1
            return field["low"] + field["step"] * self.random.randrange(count)
        return self.random.uniform(field["low"], field["high"])


def order(figures: dict[int, Figures]) -> list[int]:
    """Trials, the best first."""
    left, ordered = dict(figures), []
    while left:
        front = [
            one
            for one, (error, macs) in left.items()
            if not any(
                e <= error and m <= macs and (e, m) != (error, macs) for e, m in left.values()
            )
        ]
        ordered += sorted(front, key=lambda one: -room({each: left[each] for each in front}, one))
        for one in front:
            del left[one]
    return ordered


def room(front: dict[int, Figures], one: int) -> float:
    """The distance between the neighbours of a trial on its front; the ends have the most."""
    along = sorted(front, key=lambda each: front[each])
    place = along.index(one)
    if place in (0, len(along) - 1):
        return math.inf
    (low, high), (first, last) = (along[place - 1], along[place + 1]), (along[0], along[-1])
    return sum(
        abs(front[high][i] - front[low][i]) / (abs(front[last][i] - front[first][i]) or 1.0)
        for i in (0, 1)
    )
