"""Gaussian processes over a method's space: small, exact, and the same for the same input.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, sections 2.2 and 5.4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from methods.values import Params

Array = NDArray[np.float64]

LENGTH, LENGTH_SPREAD = np.log(2.0), 0.5
"""Prior of a log length scale, in units of a parameter's range. With it a few recorded trials
predict the others better than with shorter scales, on each table of studies/tables."""
STEPS = 15
"""Iterations of the optimiser of length scales and noise, at most."""
NOISE_SPREAD = 1.5
"""Prior spread of the log noise."""


@dataclass(frozen=True)
class Cube:
    """A space as the unit cube; a choice is its index, and two choices are 1 apart.

    `Space.cube` gives all choices and steps equal widths instead, to draw from them: other places.
    """

    free: Mapping[str, BaseDistribution]

    @property
    def closed(self) -> Array:
        """1 where a parameter is a choice, 0 where it is a number."""
        return np.array([isinstance(d, CategoricalDistribution) for d in self.free.values()], float)

    def place(self, params: Params) -> Array:
        """The coordinates of one configuration."""
        return np.array([_coordinate(params[name], d) for name, d in self.free.items()])

    def snap(self, units: Array) -> Array:
        """The coordinates of what `Space.at` makes of places in its unit cube, one a row."""
        columns = zip(units.T, self.free.values(), strict=True)
        return np.column_stack([_snapped(u, distribution) for u, distribution in columns])

    def places(self, many: Sequence[Params]) -> Array:
        """The coordinates of configurations, one a row."""
        return np.array([self.place(params) for params in many]).reshape(-1, len(self.free))


@dataclass(frozen=True)
class Process:
    """Matern 5/2 processes that share length scales and noise, one per output, after the data."""

    inputs: Array
    closed: Array
    scales: Array
    noise: float
    """Variance of the noise over the variance of the process."""
    root: Array
    weights: Array
    mean: Array
    sd: Array
    variance: Array
    """Variance of each output, in standardised units."""

    @classmethod
    def fit(cls, inputs: Array, outputs: Array, closed: Array, *, noise: float) -> "Process":
        """Length scales and noise of highest posterior density; `noise` is its prior median."""
        return cls.of(inputs, outputs, closed, *learn(inputs, outputs, closed, noise=noise))

    @classmethod
    def of(
        cls, inputs: Array, outputs: Array, closed: Array, scales: Array, noise: float
    ) -> "Process":
        """With these length scales and this noise."""
        mean, sd, standard = _standardised(outputs)
        gram = _matern(_squares(inputs, inputs, closed), scales)[0]
        gram[np.diag_indices_from(gram)] += noise
        root = cholesky(gram, lower=True)
        weights = cho_solve((root, True), standard)
        variance = np.maximum((standard * weights).mean(axis=0), 1e-12)
        return cls(inputs, closed, scales, noise, root, weights, mean, sd, variance)

    def at(self, places: Array) -> tuple[Array, Array]:
        """Mean and standard deviation without noise: places x outputs each."""
        cross = _matern(_squares(places, self.inputs, self.closed), self.scales)[0]
        mean = self.mean + self.sd * (cross @ self.weights)
        inner = solve_triangular(self.root, cross.T, lower=True)
        left = np.maximum(1.0 - (inner**2).sum(axis=0), 1e-12)
        return mean, self.sd * np.sqrt(left[:, None] * self.variance)

    def mean_at(self, place: Array) -> Array:
        """Mean at one place: outputs."""
        cross = _matern(_squares(place[None], self.inputs, self.closed), self.scales)[0][0]
        return np.asarray(self.mean + self.sd * (cross @ self.weights))

    def left_out(self) -> Array:
        """Each row's outputs as the rows at other places predict them (leave-one-out).

        Rows at one place, the seeds of a configuration, are left out together. Source: section
        5.4.2, with a block of the inverse for its diagonal.
        """
        inverse = cho_solve((self.root, True), np.eye(len(self.inputs)))
        standard = self._standard()
        places = np.unique(self.inputs, axis=0, return_inverse=True)[1].ravel()
        for place in range(places.max() + 1):
            rows = np.flatnonzero(places == place)
            block = inverse[np.ix_(rows, rows)]
            standard[rows] -= np.linalg.solve(block, self.weights[rows])
        return np.asarray(self.mean + self.sd * standard)

    def _standard(self) -> Array:
        return np.asarray(self.root @ (self.root.T @ self.weights))


def learn(inputs: Array, outputs: Array, closed: Array, *, noise: float) -> tuple[Array, float]:
    """Length scales and noise of highest posterior density; `noise` is its prior median."""
    squares = _squares(inputs, inputs, closed)
    start = np.append(np.full(len(closed), LENGTH), np.log(noise))
    best = minimize(
        _loss,
        start,
        (squares, _standardised(outputs)[2], np.log(noise)),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-4.0, 4.0)] * len(closed) + [(np.log(1e-6), np.log(10.0))],
        options={"maxiter": STEPS},
    ).x
    return np.exp(best[:-1]), float(np.exp(best[-1]))


def _standardised(outputs: Array) -> tuple[Array, Array, Array]:
    mean, sd = outputs.mean(axis=0), outputs.std(axis=0)
    sd = np.where(sd > 1e-9, sd, 1.0)
    return mean, sd, (outputs - mean) / sd


def _loss(theta: Array, squares: Array, outputs: Array, noise: float) -> tuple[float, Array]:
    """Negative log posterior, the outputs' variances at their best, and its gradient."""
    scales, level = np.exp(theta[:-1]), np.exp(theta[-1])
    gram, slope = _matern(squares, scales)
    n, count = outputs.shape
    gram[np.diag_indices(n)] += level + 1e-9
    root = cholesky(gram, lower=True, check_finite=False)
    weights = cho_solve((root, True), outputs, check_finite=False)
    variance = np.maximum((outputs * weights).mean(axis=0), 1e-12)
    inverse = cho_solve((root, True), np.eye(n), check_finite=False)
    value = 0.5 * n * float(np.log(variance).sum()) + count * float(np.log(np.diag(root)).sum())
    outer = 0.5 * (count * inverse - (weights / variance) @ weights.T)
    gradient = np.append(
        np.einsum("dij,ij->d", squares, outer * slope) / scales**2, level * np.trace(outer)
    )
    centre = np.append(np.full(len(scales), LENGTH), noise)
    spread = np.append(np.full(len(scales), LENGTH_SPREAD), NOISE_SPREAD)
    off = (theta - centre) / spread
    return value + 0.5 * float(off @ off), gradient + off / spread


def _matern(squares: Array, scales: Array) -> tuple[Array, Array]:
    """The kernel, and the factor of a squared scaled distance in its slope by a log scale."""
    far = np.sqrt(5.0 * np.tensordot(scales**-2.0, squares, axes=1) + 1e-12)
    fall = np.exp(-far)
    return (1.0 + far + far**2 / 3.0) * fall, (5.0 / 3.0) * (1.0 + far) * fall


def _squares(a: Array, b: Array, closed: Array) -> Array:
    """Squared distance by parameter: parameters x rows of a x rows of b."""
    gap = a.T[:, :, None] - b.T[:, None, :]
    return np.where(closed[:, None, None] > 0, gap != 0, gap**2)


def _snapped(u: Array, distribution: BaseDistribution) -> Array:
    if isinstance(distribution, CategoricalDistribution):
        return np.floor(u * len(distribution.choices))
    low, high, step = distribution.low, distribution.high, distribution.step  # type: ignore[attr-defined]
    if distribution.log:  # type: ignore[attr-defined]
        if isinstance(distribution, IntDistribution):
            value = np.minimum(np.round(low * (high / low) ** u), high)
            return np.asarray(np.log(value / low) / np.log(high / low))
        return u
    if step is None:
        return u
    count = np.floor((high - low) / step + 1e-9) + 1
    return np.asarray(step * np.floor(u * count) / (high - low))


def _coordinate(value: Any, distribution: BaseDistribution) -> float:
    if isinstance(distribution, CategoricalDistribution):
        return float(distribution.choices.index(value))
    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
    if high == low:
        return 0.5
    if distribution.log:  # type: ignore[attr-defined]
        return float(np.log(value / low) / np.log(high / low))
    return float((value - low) / (high - low))
