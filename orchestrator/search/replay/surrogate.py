"""The curve that a trial of any configuration would have: fitted to a table of recorded curves."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from methods.errors import StudyError
from methods.values import Params, Scalar
from orchestrator.search.model.gaussian import Array, Cube, Process
from orchestrator.search.promotion.curves import SMALLEST
from orchestrator.search.replay.curves import Table

FEWEST = 5
"""Recorded trials that a method's surrogate needs, at least."""


@dataclass(frozen=True)
class Course:
    """A trial as it would run, epoch by epoch; errors are fractions, costs MACs."""

    errors: Array
    macs: Array
    seconds: Array
    expected: float
    """The last error without noise: what fresh seeds would give on average."""

    @property
    def error(self) -> float:
        """The objective's error at full length."""
        return float(self.errors[-1])

    @property
    def cost(self) -> float:
        """The objective's MACs at full length."""
        return float(self.macs[-1])


@dataclass(frozen=True)
class Quality:
    """How well the surrogate predicts configurations that it was not fitted to (leave-one-out)."""

    method: str
    trials: int
    error: float
    """Median absolute deviation of the last error, as a fraction of 1."""
    order: float
    """Spearman's rank correlation of the last errors."""
    macs: float
    """Median relative deviation of the last MACs."""


@dataclass(frozen=True)
class Surrogate:
    """One method's courses: processes through the recorded curves, and the noise around them.

    Noise is resampled as whole curves, the differences of a recorded trial from what the others
    predict: courses cross as recorded ones do. It holds what seeds change and what the processes
    miss alike.
    """

    method: str
    cube: Cube
    curves: Process
    """Log errors, by epoch."""
    costs: Process
    """Log MACs, by epoch."""
    pace: Process
    """Log seconds of an epoch, mean over the trial."""
    noise: Array
    """Recorded trials x epochs, in log error."""
    profile: Array
    """Seconds of an epoch over its trial's mean: by epoch."""
    recorded: Mapping[tuple[float, ...], int]
    """Trials of the table, by place."""
    known: Sequence[Course]
    quality: Quality

    @property
    def epochs(self) -> int:
        """The full length of a trial."""
        return len(self.profile)

    def course(self, params: Params, random: np.random.Generator) -> tuple[Course, bool]:
        """A trial's course, and whether the table holds it; unseen ones come with noise."""
        place = self.cube.place(params)
        recorded = self.recorded.get(tuple(place))
        log_errors = self.curves.mean_at(place)
        expected = float(np.exp(np.minimum(log_errors[-1], 0.0)))
        if recorded is not None:
            return replace(self.known[recorded], expected=expected), True
        noise = self.noise[random.integers(len(self.noise))]
        macs = np.exp(self.costs.mean_at(place))
        seconds = float(np.exp(self.pace.mean_at(place)[0])) * self.profile
        errors = np.exp(np.minimum(log_errors + noise, 0.0))
        return Course(errors, macs, seconds, expected), False

    def expected(self, many: Sequence[Params]) -> tuple[Array, Array]:
        """Noise-free MACs and error at full length, one per configuration."""
        places = self.cube.places(many)
        errors = np.exp(np.minimum(self.curves.at(places)[0][:, -1], 0.0))
        return np.exp(self.costs.at(places)[0][:, -1]), errors


def surrogates(table: Table) -> dict[str, Surrogate]:
    """One surrogate per method of a table.

    Raises:
        StudyError: a method has too few trials, or trials of several lengths.
    """
    return {method: _surrogate(table, method) for method in table.study.methods}


def _surrogate(table: Table, method: str) -> Surrogate:
    space = table.space(method)
    rows = table.rows[table.rows["method"] == method]
    trials = [rows[rows["trial"] == name] for name in sorted(set(rows["trial"]))]
    lengths = sorted({int(trial["epochs"].iloc[0]) for trial in trials})
    if len(lengths) > 1:
        raise StudyError(
            f"{method}: trials must have one length to be simulated, but have {lengths}"
        )
    whole = [course for trial in trials if (course := _recorded(trial)) is not None]
    if len(whole) < FEWEST:
        raise StudyError(
            f"{method} must have {FEWEST} complete trials to be simulated, but has {len(whole)}"
        )
    cube = Cube(space.free)
    places = cube.places([params for params, _ in whole])
    known = [course for _, course in whole]
    log_errors = np.log(np.maximum([c.errors for c in known], SMALLEST))
    macs = np.log([course.macs for course in known])
    mean_seconds = np.array([course.seconds.mean() for course in known])
    curves = Process.fit(places, log_errors, cube.closed, noise=0.1)
    costs = Process.fit(places, macs, cube.closed, noise=1e-4)
    pace = Process.fit(places, np.log(mean_seconds)[:, None], cube.closed, noise=0.1)
    left_out = curves.left_out()
    costs_out = costs.left_out()[:, -1]
    quality = Quality(
        method=method,
        trials=len(known),
        error=float(np.median(np.abs(np.exp(left_out[:, -1]) - [c.error for c in known]))),
        order=_rank_correlation(left_out[:, -1], log_errors[:, -1]),
        macs=float(np.median(np.abs(np.expm1(costs_out - macs[:, -1])))),
    )
    return Surrogate(
        method=method,
        cube=cube,
        curves=curves,
        costs=costs,
        pace=pace,
        noise=log_errors - left_out,
        profile=np.mean([c.seconds / c.seconds.mean() for c in known], axis=0),
        recorded={tuple(place): i for i, place in reversed(list(enumerate(places)))},
        known=known,
        quality=quality,
    )


def _recorded(trial: Any) -> tuple[dict[str, Scalar], Course] | None:
    """A whole trial's parameters and course; None where it did not run to its end."""
    first = trial.iloc[0]
    if first["state"] != "COMPLETE" or len(trial) != first["epochs"]:
        return None
    errors = np.maximum(1.0 - trial["val_acc"].to_numpy(float), SMALLEST)
    macs = trial["macs_mean"].to_numpy(float).copy()
    errors[-1], macs[-1] = max(1.0 - first["final_acc"], SMALLEST), first["final_macs"]
    seconds = trial["seconds"].to_numpy(float)
    seconds = seconds + max(0.0, first["trial_seconds"] - seconds.sum()) / len(seconds)
    return json.loads(first["params"]), Course(errors, macs, seconds, float(errors[-1]))


def _rank_correlation(a: Array, b: Array) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(spearmanr(a, b).statistic)
