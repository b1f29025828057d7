"""What every method must keep, whatever it does; a new one is covered by being in METHODS."""

import pytest

from methods import METHODS
from methods.api import Method, RoutedNetwork
from methods.training.contract import CHECKS, digits

SMALL = {
    "depth": 8,
    "width": 0.5,
    "stages": "1-1-1",
    "choices": 4,
    "routing_size": 2,
    "narrowest": 0.5,
}
"""Fields that make a method small, where it has them."""
STATIC = {"dense", "condensenet", "resrep"}


def small(name: str) -> Method:
    fields = METHODS[name].model_fields
    return METHODS[name].of({key: value for key, value in SMALL.items() if key in fields})


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", METHODS.own)
def test_it_keeps_the_contract(name: str, check: str) -> None:
    CHECKS[check](small(name))


@pytest.mark.parametrize("name", METHODS.own)
def test_a_network_decides_for_each_image_or_treats_all_alike(name: str) -> None:
    routed = isinstance(small(name).build(digits().task), RoutedNetwork)
    assert routed == (name not in STATIC)
