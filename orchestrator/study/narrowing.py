"""The forms of a hyperparameter in a study, a value, a range or choices; and of its methods."""

from collections.abc import Collection, Mapping
from typing import Annotated

import pydantic
from pydantic import BeforeValidator, Field

from methods.names import same
from methods.values import Scalar, shown
from orchestrator.study.identity import BASE
from orchestrator.study.reading import Misfit, Strict

MOST_STEPS = 1_000_000
"""Largest number of values in a stepped range."""


class Range(Strict):
    """Numbers from `low` to `high`, both included."""

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> "Range":
        low, high = shown(self.low), shown(self.high)
        if not self.low <= self.high:
            raise Misfit(f"`low <= high` must hold, but got ({low=!s}, {high=!s})", "low")
        if self.log and self.low <= 0:
            raise Misfit(f"a log range must start above 0, but got low={low}", "low")
        if self.log and self.step is not None:
            raise Misfit("a range is either log or stepped, but got both; delete `step`", "step")
        if self.step is not None:
            _finite_steps(self.low, self.high, self.step)
        return self


class Choices(Strict):
    """One of a closed list of values."""

    choices: Annotated[list[Scalar], Field(min_length=1, max_length=1000)]

    @pydantic.model_validator(mode="after")
    def _different(self) -> "Choices":
        repeated = [c for index, c in enumerate(self.choices) if c in self.choices[:index]]
        if repeated:
            raise Misfit(
                f"`choices` must differ, but got {shown(repeated[0])} twice; delete one", "choices"
            )
        return self


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "choices" if any(same(str(name), ["choices"]) for name in value) else "range"
    if isinstance(value, Choices):
        return "choices"
    return "range" if isinstance(value, Range) else "fixed"


def _narrowing(value: object) -> object:
    """Check a hyperparameter's form; pydantic would report one error for each of five types."""
    if isinstance(value, bool | int | float | str | dict | Range | Choices):
        return value
    hint = f"; write {{choices: {shown(value)}}}" if isinstance(value, list) else ""
    hint = "; leave it out for the method's own range" if value is None else hint
    raise ValueError(f"must be one value, a range or choices, but got {shown(value)}{hint}")


Narrowing = Annotated[
    Annotated[Range, pydantic.Tag("range")]
    | Annotated[Choices, pydantic.Tag("choices")]
    | Annotated[Scalar, pydantic.Tag("fixed")],
    pydantic.Discriminator(_kind),
    BeforeValidator(_narrowing),
]
"""A fixed value, a range, or a list of choices."""


def _finite_steps(low: float, high: float, step: float) -> None:
    if step <= 0:
        raise Misfit(
            f"`step` must be above 0, but got {shown(step)}; leave it out for any number", "step"
        )
    if (high - low) / step > MOST_STEPS:
        raise Misfit(
            f"`step` must cut a range into at most {MOST_STEPS:,} values, but got {shown(step)}; "
            "leave it out for any number",
            "step",
        )


def filled(methods: object) -> object:
    """A method without fields has its defaults; one with a word has the profile of that name."""
    if isinstance(methods, dict):
        return {
            name: {"profile": fields} if isinstance(fields, str) else fields or {}
            for name, fields in methods.items()
        }
    names = [methods] if isinstance(methods, str) else methods
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        fields = ", ".join(f"{name}: {{}}" for name in names[:6])
        raise ValueError(
            f"must hold `method: fields` pairs, but got {shown(methods)}; write {{{fields[:100]}}}"
        )
    return methods


def starts_belong(
    methods: Collection[str],
    controls: Collection[str],
    start: Mapping[str, str],
    base: Mapping[str, Scalar],
) -> None:
    """Checks that trained starts are those of methods of the study.

    Raises:
        Misfit: says which is none's.
    """
    real = [name for name in methods if name not in controls]
    for name in start:
        if name not in real:
            raise Misfit(
                f"start: {shown(name)} must be a method of this study that is no control, "
                f"{' or '.join(real)[:200]}",
                *("start", name),
            )
    based = BASE in start.values()
    if base and not based:
        raise Misfit(
            f"`base` sets how bases are trained, but no `start` is `{BASE}`; delete it", "base"
        )
    if based and BASE in methods:
        raise Misfit(f"with a start `{BASE}` no method may be called so; rename it", "methods")
