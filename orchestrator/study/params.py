"""A trial's flat parameters and their meaning: everything that a worker needs from a space."""

import hashlib

from methods import METHODS
from methods.api import Method
from methods.errors import MethodError, StudyError, nearest
from methods.outside import Source, refuse_other_name, source
from methods.training.recipe import Recipe
from methods.values import Params, Scalar, shown
from orchestrator.study.file import RESERVED, Study
from orchestrator.study.places import standing

PREFIX = "recipe."
"""Prefix of the shared training settings among a trial's parameters."""
ALIAS = "method"
"""The parameter that names the method of a trial whose name does not: that of a control, or of an
unreduced network."""


def original_of(study: Study, name: str) -> str:
    """The method that an entry of a study's methods is: a name, or the place of one's own."""
    original = str(study.methods[name].get(ALIAS, name))
    if original != name and original in study.methods:
        return str(study.methods[original].get(ALIAS, original))
    return original


def named(study: Study, name: str) -> type[Method]:
    """The method of an entry of a study's methods.

    Raises:
        StudyError: there is none, or the entry has the name of another.
        MethodError: it cannot be imported, or is no method.
    """
    original = original_of(study, name)
    if original != name and name in METHODS:
        kind = original.rpartition(":")[2].lower() if ":" in original else f"{original}-again"
        raise StudyError(
            f"{name!r} is the name of a method and must not name a control, a variant or a class "
            f"of your own; write `{kind if kind != name else f'my-{kind}'}`"
        )
    if original not in METHODS:
        raise StudyError(f"no method is called {shown(name)}; {nearest(name, list(METHODS))}")
    model = METHODS[original]
    if METHODS.place(original) is None:
        return model
    if name not in study.controls:
        refuse_other_name(name, "this one is")
    for word in RESERVED:
        if word in model.model_fields:
            raise MethodError(
                f"no field of a method may be called {word!r}, which is a word of studies, but one "
                f"of {original} is; rename it"
            )
    return model


def outside(study: Study) -> dict[str, Source]:
    """The source of a study's methods of other packages, by the name or the place of each.

    Raises:
        MethodError: it cannot be read, or has changed since this process imported it.
    """
    sources = {}
    for name in study.methods:
        original = original_of(study, name)
        with standing("methods", name):
            if (place := METHODS.place(original)) is not None:
                sources[original] = source(place, METHODS[original])
    return sources


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
    """The method of this name, or the one that a control's parameters name.

    Raises:
        MethodError: there is none: the package that had it is not here.
    """
    name = str(params.get(ALIAS, method))
    try:
        return METHODS[name]
    except KeyError:
        raise MethodError(
            f"the method {name!r} must be here, but no installed package registers it; "
            f"{nearest(name, list(METHODS))}"
        ) from None


def flat(method: str, given: Params) -> dict[str, Scalar]:
    """Every parameter of one trial, flat: hyperparameters, and the recipe with its prefix.

    Incompatible values are kept: they form a trial too, which is refused.
    """
    try:
        values, recipe = parts(method, given)
    except MethodError:
        fields, settings = split(given)
        values = model_of(method, given).model_construct(None, **fields)
        recipe = Recipe.model_construct(None, **settings)
    whole: dict[str, Scalar] = values.model_dump(mode="json", warnings=False)
    whole |= {ALIAS: given[ALIAS]} if ALIAS in given else {}
    whole |= {PREFIX + name: value for name, value in recipe.model_dump(mode="json").items()}
    stated = {name: value for name, value in given.items() if name.startswith(PREFIX)}
    return whole | {name: value for name, value in stated.items() if name not in whole}


def unreduced(method: str, params: Params) -> dict[str, Scalar] | None:
    """The parameters of a recorded trial's unreduced network; None if it has none.

    Raises:
        MethodError: a parameter outside its bounds, or what it is reduced from has no such field.
    """
    whole = completed(method, params)
    changes = parts(method, whole)[0].unreduced()
    if changes is None:
        return None
    other = str(changes.get(ALIAS, whole.get(ALIAS, method)))
    known = METHODS[other].model_fields if other in METHODS else {}
    for name in changes:
        if name != ALIAS and name not in known:
            raise MethodError(
                f"{method} must be reduced from fields of {other}, but its `unreduced` gives "
                f"{shown(name)}; {nearest(name, list(known))}"
            )
    recipe = {name: value for name, value in whole.items() if name.startswith(PREFIX)}
    return flat(method, {**(recipe if ALIAS in changes else whole), **changes})


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
