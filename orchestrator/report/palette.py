"""Colours of figures, tables and MLflow's pages, as hexadecimal RGB."""

from collections.abc import Iterable

from methods import METHODS

INK, RULE, GREY = "#1b1c1e", "#d8d9db", "#8f9194"
NEUTRAL = "#77797c"
"""INK where the paper may be white or black and no ink follows it, as in MLflow's pages."""
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def places(methods: Iterable[str], baseline: str = "dense") -> dict[str, int]:
    """Each method's place among colours and shapes; the baseline has none.

    A method of isoflop has the same place in every study, whatever stands beside it; others follow
    by name.
    """
    known = sorted(name for name in METHODS.own if name != baseline)
    others = sorted({*methods} - {*known, baseline})
    order = {name: i for i, name in enumerate([*known, *others])}
    return {name: order[name] for name in methods if name != baseline}


def colour(place: int | None) -> str:
    """The colour of a place; without one that of the baseline."""
    return INK if place is None else OKABE_ITO[place % len(OKABE_ITO)]


def run_colour(place: int | None) -> str:
    """The colour of a place in MLflow's pages."""
    return NEUTRAL if place is None else colour(place)
