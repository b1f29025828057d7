"""Fields of a space for tools that have no steps: a stepped number is searched by its index."""

import math
from typing import Any

WORST = 1.0
"""The error of what could not be run."""


def indices(field: dict[str, Any]) -> int | None:
    """How many values a stepped number has; None where it is continuous, or no number."""
    step = field.get("step")
    if field["kind"] == "choice" or step is None or field["log"]:
        return None
    if field["kind"] == "int" and step == 1:
        return None
    return int((field["high"] - field["low"]) / step + 1e-9) + 1


def value(field: dict[str, Any], searched: Any) -> Any:
    """The value that a searched number or index stands for."""
    return searched if indices(field) is None else field["low"] + int(searched) * field["step"]


def searched(field: dict[str, Any], own: Any) -> Any:
    """The inverse of `value`."""
    return own if indices(field) is None else round((own - field["low"]) / field["step"])


def objectives(error: "float | None", macs: "float | None") -> "list[float]":
    """Error and decades of MACs, which are of one order; what could not run is bad at both.

    A tool that adds objectives up without scaling them would see nothing but MACs otherwise.
    """
    return [WORST if error is None else error, 9.0 if macs is None else math.log10(macs)]
