"""Kubernetes' quantities, such as 500m, 6Gi and 1e3."""

import re

DECIMAL = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
BINARY = {f"{prefix}i": 2.0 ** (10 * power) for power, prefix in enumerate("KMGTPE", 1)}
SUFFIXES = {"": 1.0, **BINARY, **DECIMAL, "E": 1e18}
"""Suffix -> its factor."""


def amount(text: str) -> float:
    """The number that a quantity stands for.

    Raises:
        ValueError: it is no quantity.
    """
    parts = re.fullmatch(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([A-Za-z]*)", text)
    if not parts or parts[2] not in SUFFIXES:
        raise ValueError(f"must be a quantity such as 500m or 6Gi, but got {text!r}")
    return float(parts[1]) * SUFFIXES[parts[2]]
