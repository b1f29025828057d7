"""The run-time check of shapes and types in the signatures of methods/."""

import functools
from collections import Counter
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from beartype import beartype

CALLS = 100
"""Checked calls of one function in one test; a training makes thousands, all alike."""
counts = Counter[str]()
"""Calls of each function since the test began."""
P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """`function` with its signature checked by beartype in the first calls of a test.

    Not while torch traces a graph: there every look at a shape becomes a node, and pricing takes
    five times as long.
    """
    strict = beartype(function)
    name = f"{function.__module__}.{function.__qualname__}"

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if counts[name] >= CALLS or torch.jit.is_tracing():
            return function(*args, **kwargs)
        counts[name] += 1
        return strict(*args, **kwargs)

    return call
