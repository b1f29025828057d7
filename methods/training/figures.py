"""The figures of an evaluation, from per-sample values, without torch."""

import numpy as np
from jaxtyping import Float, Int, Integer, Shaped

STEP = 0.1
"""Weights of a mixture that round to the same multiple of this count as the same decision."""


def figures(
    predictions: Integer[np.ndarray, " samples"],
    labels: Integer[np.ndarray, " samples"],
    macs: Float[np.ndarray, " samples"],
) -> dict[str, float]:
    """Accuracy (a fraction) and statistics of MACs of an `Evaluation`, from per-sample values."""
    return {
        "accuracy": float(np.mean(predictions == labels)),
        "macs_mean": float(macs.mean()),
        "macs_p95": float(np.quantile(macs, 0.95, method="higher")),
        "macs_max": float(macs.max()),
    }


def exchange(samples: int, draw: int) -> Int[np.ndarray, " samples"]:
    """For each sample the index of another one: a random cycle through all of them."""
    order = np.random.default_rng(draw).permutation(samples)
    other = np.empty(samples, dtype=np.int64)
    other[order] = np.roll(order, 1)
    return other


def majority(
    decisions: Shaped[np.ndarray, "samples decisions"],
) -> Shaped[np.ndarray, "1 decisions"]:
    """The most frequent value of each decision, or the mean of each weight."""
    if decisions.dtype.kind == "f":
        mean: np.ndarray = decisions.mean(axis=0, keepdims=True, dtype=decisions.dtype)
        return mean
    columns = [np.unique(column, return_counts=True) for column in decisions.T]
    usual = [values[counts.argmax()] for values, counts in columns]
    return np.array([usual], dtype=decisions.dtype)


def alike(decisions: Shaped[np.ndarray, "samples decisions"]) -> float:
    """Fraction of the samples that have the most frequent row of decisions."""
    rows = np.round(decisions / STEP) if decisions.dtype.kind == "f" else decisions
    counts = np.unique(rows, axis=0, return_counts=True)[1]
    return float(counts.max() / len(rows))
