"""The hyperparameters that a study searches, as axes to draw its trials on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from methods.errors import IsoflopError
from methods.values import Scalar
from orchestrator.study.distributions import ends
from orchestrator.study.file import Study
from orchestrator.study.space import spaces

Kind = Literal["linear", "log", "choice"]


@dataclass(frozen=True)
class Field:
    """One searched hyperparameter of a method."""

    method: str
    name: str
    kind: Kind
    """How its values are spaced."""
    ends: Sequence[Scalar]
    """The least and the largest number, or every choice."""


def searched(study: Study) -> list[Field]:
    """Every searched hyperparameter by method and name, whatever their order in the study; empty
    where this version cannot read them."""
    try:
        free = {method: space.free for method, space in spaces(study).items()}
    except IsoflopError:  # a study of an earlier version may have had other fields
        return []
    return [
        Field(method, name, _kind(distribution), ends(distribution))
        for method, fields in sorted(free.items())
        for name, distribution in sorted(fields.items())
    ]


def _kind(distribution: object) -> Kind:
    if hasattr(distribution, "choices"):
        return "choice"
    return "log" if getattr(distribution, "log", False) else "linear"
