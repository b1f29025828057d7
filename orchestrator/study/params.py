"""A trial's flat parameters and their meaning: all that a worker needs from a space."""

import hashlib

from methods import METHODS
from methods.api import Method
from methods.training.recipe import Recipe
from methods.values import Params, Scalar
from orchestrator.study.file import Study

PREFIX = "recipe."
"""Marks the shared training settings among a trial's parameters."""
ALIAS = "method"
"""A parameter of a control's trials: the method that they are, under another name."""


def parts(method: str, params: Params) -> tuple[Method, Recipe]:
    """A trial's flat parameters as its method and its recipe.

    Raises:
        MethodError: a parameter outside its bounds.
    """
    fields, settings = split(params)
    return model_of(method, params).of(fields), Recipe.of(settings)


def recorded_parts(method: str, params: Params) -> tuple[Method, Recipe]:
    """A recorded trial's parameters as its method and its recipe, whichever version recorded them.

    Raises:
        MethodError: a parameter outside its bounds.
    """
    return parts(method, completed(method, params))


def completed(method: str, params: Params) -> dict[str, Scalar]:
    """A recorded trial's parameters, with the fields that an earlier version did not have."""
    return {**model_of(method, params).FORMER, **params}


def model_of(method: str, params: Params) -> type[Method]:
    """The method of this name, or the one that a control's parameters name."""
    return METHODS[str(params.get(ALIAS, method))]


def split(params: Params) -> tuple[dict[str, Scalar], dict[str, Scalar]]:
    """A trial's flat parameters as its method's and its recipe's."""
    fields = {
        name: value
        for name, value in params.items()
        if not name.startswith(PREFIX) and name != ALIAS
    }
    settings = {
        name.removeprefix(PREFIX): value
        for name, value in params.items()
        if name.startswith(PREFIX)
    }
    return fields, settings


def derive(study: Study, config: str, index: int) -> int:
    """The seed of one run: from the study's seed, the trial's identity and the seed index."""
    text = f"{study.seed}/{config}/{index}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
