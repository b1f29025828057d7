"""A trial's flat parameters, and what they mean: all that a worker needs of a space."""

import hashlib
from collections.abc import Mapping
from typing import Any

from methods import METHODS
from methods.api import Method
from methods.training.recipe import Recipe
from orchestrator.study.file import Study

PREFIX = "recipe."
"""Marks the shared training settings among a trial's parameters."""
ALIAS = "method"
"""A parameter of a control's trials: the method that they are, under another name."""


def parts(method: str, params: Mapping[str, Any]) -> tuple[Method, Recipe]:
    """A trial's flat parameters as its method and its recipe.

    Raises:
        MethodError: a parameter outside its bounds.
    """
    own, shared = split(params)
    return model_of(method, params).of(own), Recipe.of(shared)


def model_of(method: str, params: Mapping[str, Any]) -> type[Method]:
    """The method that a name means: its own, or the one that its parameters say it repeats."""
    return METHODS[params.get(ALIAS, method)]


def split(params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A trial's flat parameters as its method's and its recipe's."""
    own = {
        name: value
        for name, value in params.items()
        if not name.startswith(PREFIX) and name != ALIAS
    }
    shared = {
        name.removeprefix(PREFIX): value
        for name, value in params.items()
        if name.startswith(PREFIX)
    }
    return own, shared


def derive(study: Study, config: str, index: int) -> int:
    """The seed of one run: from the study's seed, the trial's identity and the seed index."""
    text = f"{study.seed}/{config}/{index}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def trial_name(method: str, number: int) -> str:
    """How a search trial is called everywhere: its method and its number there."""
    return f"{method}-{number:05d}"
