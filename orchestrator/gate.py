"""The gate that a figure passes before it may stand on a front; trials need no more of fronts."""

import math

MACS_LIMIT = 1e18
"""Above this a count is no measurement; MLflow turns inf into 1.797e308."""


def accuracy_flaw(name: str, value: float | None) -> str | None:
    """Why `value` cannot be an accuracy in [0, 1], or None."""
    if value is None or math.isnan(value):
        return f"{name} is missing"
    if not 0 <= value <= 1:
        return f"{name} must lie in [0, 1], got {value:g}"
    return None


def macs_flaw(name: str, value: float | None) -> str | None:
    """Why `value` cannot be a MAC count, or None."""
    if value is None or math.isnan(value):
        return f"{name} is missing"
    if not 0 < value < MACS_LIMIT:
        return f"{name} must lie in (0, {MACS_LIMIT:g}), got {value:g}"
    return None
