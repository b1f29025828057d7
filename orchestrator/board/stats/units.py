"""The basis of a claim: independent runs of a method, and the test images that they share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Units:
    """Test accuracy of each independent unit: a repeat of the search, or a seed of one search.

    A repeat's accuracy is the mean over its confirm seeds.
    """

    accuracies: Sequence[float]
    """Fractions, one per unit."""
    correct: Floats | None = None
    """How often each unit is right on each image, in [0, 1]: units images; None where unknown."""
    images: int | None = None
    """Number of test images; None where unknown."""

    @property
    def n(self) -> int:
        return len(self.accuracies)

    @property
    def mean(self) -> float:
        """The mean accuracy; of at least one unit."""
        return float(np.mean(self.accuracies))

    @property
    def spread(self) -> float:
        """Variance of the mean over units; equal accuracies have exactly none."""
        return moments(self.accuracies)[1] / self.n

    @property
    def interaction(self) -> float:
        """The part of the mean's variance that neither the unit nor the image explains."""
        assert self.correct is not None
        return interaction(self.correct) / self.correct.size

    @property
    def of_images(self) -> float:
        """Variance of the mean over images: binomial, by the rule of Jeffreys, if only their number
        is known; 0 if not even that is."""
        if self.images is None:
            return 0.0
        share = (self.mean * self.images + 0.5) / (self.images + 1)
        return share * (1 - share) / self.images


def moments(values: Sequence[float]) -> tuple[float, float]:
    """Mean and unbiased variance; equal values have exactly none."""
    array = np.asarray(values, dtype=np.float64)
    if np.ptp(array) == 0:
        return float(array[0]), 0.0
    return float(array.mean()), float(array.var(ddof=1))


def interaction(values: Floats) -> float:
    """Mean square of what neither the unit (axis 0) nor the image (axis 1) explains."""
    rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    freedom = (len(values) - 1) * (values.shape[1] - 1)
    return float((rest**2).sum() / freedom)


def quantile(confidence: float, freedom: float) -> float:
    """The quantile of Student's t for a two-sided interval."""
    return float(scipy().special.stdtrit(freedom, 0.5 + confidence / 2))


def scipy() -> Any:
    """scipy, once it is needed: workers read what a board is made of, and never test.

    It imports a submodule as its name is read; `scipy.special` takes a third of the time of
    `scipy.stats`, which is built on it.
    """
    import scipy  # noqa: PLC0415

    return scipy
