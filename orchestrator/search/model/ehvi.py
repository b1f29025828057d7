"""The next configuration: where the front of error over MACs is expected to gain most.

One Gaussian process for the logarithm of the error, one for that of the MACs; candidates are drawn
over the whole space and around the front, and the one of highest expected hypervolume improvement
is taken (Emmerich, Giannakoglou and Naujoks, IEEE TEC 10, 2006). MACs follow from the
configuration nearly without noise, so the expectation is over the error alone, in closed form.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import moocore
import numpy as np
from optuna.trial import FrozenTrial, TrialState
from scipy.spatial.distance import cdist
from scipy.special import ndtr

from methods.values import Params, Scalar
from orchestrator.record.trials import OVER
from orchestrator.search.model.gaussian import Array, Cube, Process, learn
from orchestrator.search.promotion.curves import SMALLEST
from orchestrator.study.space import Space

CANDIDATES = 400
"""Drawn over the whole space, and as many around the front."""
REACH = 0.15
"""Standard deviation of a step from a front member, in units of a parameter's range."""
ROUNDS, LEADERS, STEPS = 3, 10, 300
"""Rounds in which the best candidates so far, and steps from them, are the next candidates; each
round's steps are half as long."""
APART = 0.02
"""Configurations are the same where no parameter differs by this part of its range."""
BLOCK = 8
"""Length scales are fitted again after so many trials."""
LEARNED, SHOWN = 100, 200
"""Trials from which length scales are learned, and by which the processes go, at most."""


def improving(
    space: Space, history: Sequence[FrozenTrial], budget: float, random: np.random.Generator
) -> dict[str, Scalar]:
    """Free parameters of highest expected gain; `budget` are the MACs above which nothing counts.

    Spread over the space where fewer than two trials of the history have values.
    """
    beliefs = Beliefs.of(space, history, budget)
    if beliefs is None:
        return space.at(random.random(len(space.free)).tolist())
    return best(space, beliefs, random)


@dataclass(frozen=True)
class Beliefs:
    """What a history says of every configuration of a space.

    Running trials count as if they had ended as predicted (the Kriging believer of Ginsbourger et
    al., 2010). Of trials over the budget, which took no worker, the MACs are known, and learned
    from.
    """

    known: "Data"
    accuracy: Process
    cost: Process
    limit: float
    """Log MACs of the largest budget."""

    @classmethod
    def of(cls, space: Space, history: Sequence[FrozenTrial], budget: float) -> Self | None:
        """None where fewer than two trials have values."""
        ended = [trial for trial in history if trial.state != TrialState.RUNNING]
        settled = _data(space, condensed(ended[: len(ended) // BLOCK * BLOCK], LEARNED), budget)
        known = _data(space, condensed(ended, SHOWN), budget)
        if len(known.params) < 2:
            return None
        if len(settled.params) < 2:
            settled = known
        accuracy = _process(settled, known, 0, noise=0.1)
        cost = _process(settled, known, 1, noise=1e-3)
        if running := [trial.params for trial in history if trial.state == TrialState.RUNNING]:
            places = Cube(space.free).places(running)
            known = known.believing(running, places, accuracy.at(places)[0], cost.at(places)[0])
            accuracy = _process(settled, known, 0, noise=0.1)
            cost = _process(settled, known, 1, noise=1e-3)
        return cls(known, accuracy, cost, float(np.log(budget)))

    @functools.cached_property
    def believed(self) -> Array:
        """Log errors of the known trials without noise."""
        return self.log_errors(self.known.places)[0]

    @functools.cached_property
    def front(self) -> list[int]:
        """The known trials that no other dominates, by rising MACs."""
        return front_of(self.known.outputs[:, 1], self.believed, self.limit)

    def log_errors(self, places: Array) -> tuple[Array, Array]:
        """Means and standard deviations at places in the coordinates of `Cube`, one a row."""
        mean, deviation = self.accuracy.at(places)
        return mean[:, 0], deviation[:, 0]

    def gains(self, places: Array) -> Array:
        """Expected gains of hypervolume at such places; below 0 where a trial was or is."""
        front, macs = self.front, self.known.outputs[:, 1]
        gained = gain(
            self.cost.at(places)[0][:, 0],
            *self.log_errors(places),
            front=np.column_stack([macs[front], np.exp(self.believed[front])]),
            corner=(self.limit, float(np.exp(np.quantile(self.believed, 0.75)))),
        )
        nearest = cdist(places, self.known.places, "chebyshev").min(axis=1)
        return np.where(nearest < APART, -1.0, gained)


def best(space: Space, beliefs: Beliefs, random: np.random.Generator) -> dict[str, Scalar]:
    """Free parameters of highest expected gain."""

    def gains(candidates: Array) -> Array:
        return beliefs.gains(Cube(space.free).snap(candidates))

    middle = [beliefs.known.params[i] for i in beliefs.front] or beliefs.known.params
    candidates = _candidates(np.array([space.cube(params) for params in middle]), random)
    for halvings in range(1, ROUNDS + 1):
        leaders = candidates[np.argsort(-gains(candidates), kind="stable")[:LEADERS]]
        candidates = _around(leaders, REACH / 2**halvings, random)
    return space.at(candidates[int(np.argmax(gains(candidates)))].tolist())


def condensed(history: Sequence[FrozenTrial], most: int) -> list[FrozenTrial]:
    """At most `most` of the trials, in their order: the front, then the latest.

    A sampler's time grows with what it is shown, up to the cube of it.
    """
    if len(history) <= most:
        return list(history)
    whole = [i for i, trial in enumerate(history) if trial.state == TrialState.COMPLETE]
    points = np.array([history[i].values for i in whole], float).reshape(-1, 2)
    leading = moocore.is_nondominated(points) if whole else []
    chosen = {i for i, leads in zip(whole, leading, strict=True) if leads}
    chosen = set(sorted(chosen)[-most:])
    for i in reversed(range(len(history))):
        if len(chosen) >= most:
            break
        chosen.add(i)
    return [history[i] for i in sorted(chosen)]


def gain(
    log_macs: Array,
    mean: Array,
    deviation: Array,
    *,
    front: Array,
    corner: tuple[float, float],
) -> Array:
    """Expected growth of the area under `corner` that a front dominates: one per candidate.

    Args:
        log_macs: Log MACs of the candidates.
        mean: Predicted log errors of the candidates.
        deviation: Standard deviations of the predictions.
        front: Log MACs and errors, by rising MACs.
        corner: Log MACs and error beyond which nothing counts.
    """
    starts = np.concatenate([[-np.inf], front[:, 0]])
    ends = np.concatenate([front[:, 0], [corner[0]]])
    best = np.minimum(np.concatenate([[np.inf], front[:, 1]]), corner[1])
    widths = np.maximum(ends - np.maximum(starts, log_macs[:, None]), 0.0)
    lead = (np.log(best) - mean[:, None]) / deviation[:, None]
    level = np.exp(mean + 0.5 * deviation**2)[:, None]
    below = best * ndtr(lead) - level * ndtr(lead - deviation[:, None])
    return np.asarray((widths * np.maximum(below, 0.0)).sum(axis=1))


@dataclass(frozen=True)
class Data:
    """The trials of a history that processes are fitted to."""

    params: Sequence[Params]
    places: Array
    outputs: Array
    """Log error and log MACs, one row per trial."""
    dear: Array
    """Places of the trials over the budget."""
    dear_macs: Array
    """Their log MACs, one column."""
    closed: Array

    def rows(self, output: int) -> tuple[Array, Array]:
        """Places and values of one output, a column: 0 is the log error, 1 are the log MACs."""
        values = self.outputs[:, [output]]
        if output == 0:
            return self.places, values
        return np.concatenate([self.places, self.dear]), np.concatenate([values, self.dear_macs])

    def believing(
        self, params: Sequence[Params], places: Array, log_errors: Array, log_macs: Array
    ) -> "Data":
        """With further trials as if they had ended as predicted."""
        return Data(
            [*self.params, *params],
            np.concatenate([self.places, places]),
            np.concatenate([self.outputs, np.column_stack([log_errors, log_macs])]),
            self.dear,
            self.dear_macs,
            self.closed,
        )


def _data(space: Space, history: Sequence[FrozenTrial], budget: float) -> Data:
    whole = [trial for trial in history if trial.state == TrialState.COMPLETE]
    dear = [trial for trial in history if OVER in trial.user_attrs]
    cube = Cube(space.free)
    params = [trial.params for trial in whole]
    values = np.array([trial.values for trial in whole], float).reshape(-1, 2)
    outputs = np.log(np.maximum(values, [SMALLEST, 1.0]))
    dear_macs = np.log([budget * (1 + trial.user_attrs[OVER]) for trial in dear]).reshape(-1, 1)
    dear_places = cube.places([trial.params for trial in dear])
    return Data(params, cube.places(params), outputs, dear_places, dear_macs, cube.closed)


def _process(settled: Data, known: Data, output: int, *, noise: float) -> Process:
    """The process of one output; its scales were learned when the last block was full."""
    inputs, values = settled.rows(output)
    scales = _scales(inputs.tobytes(), values.tobytes(), settled.closed.tobytes(), noise)
    return Process.of(*known.rows(output), known.closed, *scales)


@functools.lru_cache(maxsize=64)
def _scales(inputs: bytes, outputs: bytes, closed: bytes, noise: float) -> tuple[Array, float]:
    kinds = np.frombuffer(closed)
    places = np.frombuffer(inputs).reshape(-1, len(kinds))
    return learn(places, np.frombuffer(outputs).reshape(len(places), -1), kinds, noise=noise)


def front_of(log_macs: Array, log_errors: Array, limit: float) -> list[int]:
    """Indices of the points under the limit that no other dominates, by rising MACs."""
    front: list[int] = []
    for i in sorted(range(len(log_macs)), key=lambda i: (log_macs[i], log_errors[i])):
        better = not front or log_errors[i] < log_errors[front[-1]]
        if better and log_macs[i] <= limit:
            front.append(i)
    return front


def _candidates(around: Array, random: np.random.Generator) -> Array:
    """Places of the unit cube: over all of it, and a few coordinates away from those given."""
    count, width = CANDIDATES, around.shape[1]
    start = around[random.integers(len(around), size=count)]
    step = start + random.normal(0.0, REACH, (count, width))
    fresh = random.random((count, width))
    moved = np.where(random.random((count, width)) < 0.2, fresh, step)
    near = np.where(random.random((count, width)) < 0.5, moved, start)
    spread = random.random((count, width))
    return np.asarray(np.clip(np.concatenate([spread, near]), 0.0, 1.0 - 1e-9))


def _around(best: Array, reach: float, random: np.random.Generator) -> Array:
    """These places of the unit cube, the best first, and others a few coordinates away."""
    start = best[random.integers(len(best), size=STEPS)]
    step = random.normal(0.0, reach, start.shape) * (random.random(start.shape) < 0.5)
    return np.asarray(np.clip(np.concatenate([best, start + step]), 0.0, 1.0 - 1e-9))
