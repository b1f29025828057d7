"""The contract of a method as tests of one's own.

import pytest
from isoflop.testing import CHECKS, check

@pytest.mark.parametrize("part", CHECKS)
def test_it_keeps_the_contract(part):
    check(MyMethod(depth=8, width=0.25), part)
"""

from methods import METHODS
from methods.api import Method
from methods.errors import IsoflopError
from methods.training import contract

CANDIDATE = "candidate"
SEARCHED = "its_ranges_can_be_searched"
CHECKS = (*contract.CHECKS, SEARCHED)
"""The parts of the contract, by name."""


def check(method: Method | type[Method], *parts: str) -> None:
    """Checks a method's contract, or these parts of it; returns if they hold.

    A class stands for its defaults. The checks train networks on 8 x 8 digits, so a small
    configuration takes seconds where a large one takes minutes.

    >>> from methods.dense import Dense
    >>> check(Dense(depth=8, width=0.25), "shares_sum_to_one", "nothing_costs_less_than_the_floor")

    Raises:
        AssertionError: says which part does not hold, what must hold and what was found.
        ValueError: no part of the contract has this name.
    """
    candidate = method() if isinstance(method, type) else method
    for part in parts or CHECKS:
        if part not in CHECKS:
            raise ValueError(f"the contract has no part {part!r}; valid: {', '.join(CHECKS)}")
        try:
            if part == SEARCHED:
                _searched(type(candidate))
            else:
                contract.CHECKS[part](candidate)
        except AssertionError as error:
            name = type(candidate).__name__
            raise AssertionError(f"{name}: {part.replace('_', ' ')}: {error}") from None


def _searched(method: type[Method]) -> None:
    """A study takes the method with its own ranges, and its defaults lie within them."""
    from isoflop.study import Study
    from orchestrator.study.space import spaces

    METHODS[CANDIDATE] = method
    try:
        study = Study(name="contract", data="digits", budgets=[1], methods={CANDIDATE: {}})
        space = spaces(study)[CANDIDATE]
        assert space.holds(space.defaults()), f"{space.defaults()} must lie in {dict(space.free)}"
    except IsoflopError as error:
        raise AssertionError(str(error)) from None
    finally:
        del METHODS[CANDIDATE]
