"""The figures of an evaluation, from per-sample values, without torch."""

import numpy as np
from jaxtyping import Float, Integer


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
