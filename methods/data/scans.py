"""Scans of digits to make images of, apart for each split."""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8

SIDE = 8
"""Pixels of a scan's side."""
INK = 255 / 16
"""Grey values per level of ink of scikit-learn's digits."""
SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}
"""Shares of the scans that the splits draw from."""


@dataclass(frozen=True)
class Scans:
    """Digits to draw from."""

    images: UInt8[np.ndarray, "scans 8 8"]
    classes: Int[np.ndarray, " scans"]

    def of(self, rows: Int[np.ndarray, " rows"]) -> "Scans":
        """Those of these rows."""
        return Scans(self.images[rows], self.classes[rows])


def split(draw: np.random.Generator) -> dict[str, Scans]:
    """scikit-learn's digits, each for one split only."""
    from sklearn.datasets import load_digits  # noqa: PLC0415

    digits = load_digits()
    scans = Scans(np.rint(digits.images * INK).astype(np.uint8), digits.target.astype(np.int64))
    order = draw.permutation(len(scans.classes))
    ends = [round(end * len(order)) for end in itertools.accumulate(SHARES.values())]
    parts = zip(SHARES, np.split(order, ends[:-1]), strict=True)
    return {role: scans.of(rows) for role, rows in parts}
