"""Optuna's distributions of hyperparameters, and their maps to the unit interval."""

import math
import warnings
from typing import Any, Literal, get_args, get_origin

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic.fields import FieldInfo

from methods.api import Search
from methods.errors import StudyError
from methods.values import Scalar
from orchestrator.study.narrowing import Choices, Narrowing, Range

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution
"""The distribution of a hyperparameter."""


def ends(distribution: Distribution) -> tuple[Scalar, ...]:
    """Every choice of a distribution, or its least and its largest number."""
    if isinstance(distribution, CategoricalDistribution):
        return tuple(choice for choice in distribution.choices if choice is not None)
    return distribution.low, distribution.high


def ranged(distribution: Distribution) -> str:
    """A distribution in words."""
    if isinstance(distribution, CategoricalDistribution):
        return " | ".join(str(choice) for choice in distribution.choices)
    low, high, step = distribution.low, distribution.high, distribution.step
    log, whole = distribution.log, isinstance(distribution.low, int)
    stepped = step is not None and not log and not (whole and step == 1)
    return f"{low:g} to {high:g}" + (", log" if log else f", step {step:g}" if stepped else "")


def spread(u: float, distribution: Distribution) -> Scalar:
    """The `u` quantile of a distribution; choices have equal weight."""
    if isinstance(distribution, CategoricalDistribution):
        return ends(distribution)[int(u * len(distribution.choices))]
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.log:
        value = float(low * (high / low) ** u)
        return min(round(value), high) if isinstance(distribution, IntDistribution) else value
    if step is None:
        return low + u * (high - low)
    value = low + step * int(u * (math.floor((high - low) / step + 1e-9) + 1))
    return int(value) if isinstance(distribution, IntDistribution) else float(value)


def rank(value: Any, distribution: Distribution) -> float:
    """The middle of the interval that `spread` maps to a value."""
    if isinstance(distribution, CategoricalDistribution):
        return (distribution.choices.index(value) + 0.5) / len(distribution.choices)
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.log:
        return math.log(value / low) / math.log(high / low)
    if step is None:
        return float((value - low) / (high - low))
    count = math.floor((high - low) / step + 1e-9) + 1
    return float((math.floor((value - low) / step + 0.5) + 0.5) / count)


def inside(value: Any, distribution: Distribution) -> Scalar:
    """The nearest value in a distribution; the first choice if the value is not a choice, the
    middle of a range for None."""
    if isinstance(distribution, CategoricalDistribution):
        return value if value in distribution.choices else ends(distribution)[0]
    if value is None:
        return spread(0.5, distribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    clipped = min(max(value, low), high)
    if step and not distribution.log:
        clipped = min(low + math.floor((clipped - low) / step + 0.5) * step, high)
    return int(clipped) if isinstance(distribution, IntDistribution) else float(clipped)


def described(field: FieldInfo) -> str:
    """The search range in a field's annotation as text; empty where the field is not searched."""
    span = default_range(field)
    if span is None:
        return ""
    if span.low is None or span.high is None:
        return " | ".join(str(choice) for choice in span.choices or _closed(field))
    extra = ", log" if span.log else f", step {span.step:g}" if span.step else ""
    return f"{span.low:g} to {span.high:g}{extra}"


def place(
    name: str,
    field: FieldInfo,
    narrowing: Narrowing | Search | None,
    fixed: dict[str, Scalar],
    free: dict[str, Distribution],
) -> None:
    """Add one field to the fixed or to the free ones, as narrowed; None keeps the method's range.

    Raises:
        StudyError: a range that the field cannot have.
    """
    if narrowing is None:
        return
    if isinstance(narrowing, Search) and narrowing.choices is None and narrowing.low is None:
        narrowing = Choices(choices=list(_closed(field)))
    if isinstance(narrowing, Choices | Search) and narrowing.choices:
        free[name] = CategoricalDistribution(tuple(narrowing.choices))
    elif isinstance(narrowing, Range | Search):
        free[name] = _numbers(name, field, narrowing)
    elif not isinstance(narrowing, Choices):
        fixed[name] = narrowing
    if name in free and free[name].single():
        fixed[name] = ends(free.pop(name))[0]


def _closed(field: FieldInfo) -> tuple[Scalar, ...]:
    if get_origin(field.annotation) is Literal:
        return get_args(field.annotation)
    return (False, True)


def _number(field: FieldInfo) -> type | None:
    """The kind of number that a field takes, which may also have none; None if it takes others."""
    kinds = {int, float} & {field.annotation, *get_args(field.annotation)}
    return next(iter(kinds)) if len(kinds) == 1 else None


def _numbers(name: str, field: FieldInfo, span: Range | Search) -> Distribution:
    default = default_range(field)
    low, high = span.low, span.high
    kind = _number(field)
    if kind is None:
        raise StudyError(
            f"{name} must be one of {list(_closed(field))}, but got a range; use `choices:`"
        )
    if low is None or high is None:
        raise StudyError(f"{name} must have both `low` and `high`, but has one; write the other")
    step = (
        span.step if span.step is not None else (default.step if default and not span.log else None)
    )
    if kind is float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # `high` is rounded down to a step
            return FloatDistribution(float(low), float(high), log=span.log, step=step)
    if any(int(bound) != bound for bound in (low, high, step or 1)):
        stepped = f", step={step}" if span.step is not None else ""
        raise StudyError(
            f"{name} must have whole numbers, but got (low={low}, high={high}{stepped}); round them"
        )
    stride = int(step) if step else 1
    return IntDistribution(int(low), int(high) - (int(high) - int(low)) % stride, span.log, stride)


def default_range(field: FieldInfo) -> Search | None:
    """The search range in a field's annotation."""
    return next((mark for mark in field.metadata if isinstance(mark, Search)), None)
