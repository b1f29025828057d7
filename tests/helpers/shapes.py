"""The run-time check of shapes and types in the signatures of methods/."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from beartype import beartype

P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """`function` with its signature checked by beartype, except while torch traces a graph.

    In a trace every look at a shape becomes a node of the graph: pricing takes five times as long.
    """
    strict = beartype(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return (function if torch.jit.is_tracing() else strict)(*args, **kwargs)

    return call
