"""The costs that budgets limit: MACs, which are counted, or milliseconds, which are measured.

A study's budgets are a list of numbers in either case; its `Cost` says what they limit. Code that
chooses, bounds, labels or prints asks the cost, and does not know which one it is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pydantic
from pydantic_core.core_schema import (
    CoreSchema,
    no_info_wrap_validator_function,
    plain_serializer_function_ser_schema,
)

from methods.errors import nearest
from methods.values import mistake, refuse_other_kind, shown
from orchestrator.study.reading import Misfit

MOST_IMAGES = 1024
"""Largest number of images in one timed call."""
FIELDS = ("latency_ms", "batch")


@dataclass(frozen=True)
class Cost:
    """A cost of a network that budgets limit."""

    unit: str
    """Unit of a budget, as people read it."""
    name: str
    """Unit at the end of table columns and of keys in files."""
    suffix: str
    """Unit at the end of the names of MLflow's metrics, behind a budget."""
    scale: float
    """Factor from a budget's unit to the unit of the rows."""
    searched: str
    """The field of a search row that a budget limits."""
    tested: str
    """The field of a confirm row that shows whether it holds."""
    batch: int | None = None
    """Images in one call, where time is limited."""

    @property
    def clocked(self) -> bool:
        """Whether a clock measures it, so that the evidence cannot recompute it."""
        return self.batch is not None

    def cap(self, budget: float) -> float:
        """A budget in the rows' unit; rounded, since 0.57 * 1e6 lies below 570,000."""
        return round(budget * self.scale, 3) if self.scale != 1 else budget

    def of_search(self, row: object) -> float | None:
        """The cost of a search row's network, in the rows' unit; None where it is not known."""
        value: float | None = getattr(row, self.searched)
        return value

    def of_test(self, row: object) -> float | None:
        """The cost of a confirm row's network, in the rows' unit; None where it is not known."""
        value: float | None = getattr(row, self.tested)
        return value

    def amount(self, budget: float) -> str:
        """A budget with its unit, as short as it is exact: '0.3 MMACs', '0.5 ms'."""
        return f"{number(budget)} {self.unit}"

    def text(self, value: float | None) -> str:
        """A cost in the rows' unit as a number of budgets' units, three to four digits."""
        if value is None:
            return "-"
        value /= self.scale
        if self.clocked:
            return f"{value:,.3g}"
        digits = 3 if value < 1 else 2 if value < 100 else 1 if value < 1000 else 0
        return f"{value:,.{digits}f}" if value >= 0.01 else f"{value:.2g}"


MACS = Cost("MMACs", "mmac", "m", 1e6, "val_macs_mean", "test_macs_mean")
"""Million MACs per image (fvcore FLOPs), mean over a split."""


def milliseconds(batch: int) -> Cost:
    """Milliseconds of one call of the deployed network on so many images."""
    return Cost("ms", "ms", "ms", 1, "ms", "ms", batch)


class Milliseconds(list[float]):
    """Budgets in milliseconds of one call on `batch` images."""

    def __init__(self, budgets: Iterable[float], batch: int) -> None:
        super().__init__(budgets)
        self.batch = batch


def cost_of(budgets: list[float]) -> Cost:
    """The cost that budgets limit."""
    return milliseconds(budgets.batch) if isinstance(budgets, Milliseconds) else MACS


def number(budget: float) -> str:
    """A budget without its unit, as short as it is exact."""
    return f"{budget:,.12g}"


class Spendable:
    """Annotation of a list of budgets: a file may name their unit around it."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: pydantic.GetCoreSchemaHandler
    ) -> CoreSchema:
        written = plain_serializer_function_ser_schema(_written)
        return no_info_wrap_validator_function(_read, handler(source), serialization=written)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: pydantic.GetJsonSchemaHandler
    ) -> dict[str, Any]:
        numbers = handler(schema)
        batch = {"type": "integer", "minimum": 1, "maximum": MOST_IMAGES, "default": 1}
        timed = {
            "type": "object",
            "properties": {"latency_ms": numbers, "batch": batch},
            "required": ["latency_ms"],
            "additionalProperties": False,
        }
        return {"anyOf": [numbers, timed]}


def _read(given: object, handler: pydantic.ValidatorFunctionWrapHandler) -> list[float]:
    """Budgets as given: a list in million MACs, or a mapping with `latency_ms`."""
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        budgets: list[float] = handler(given)
        return Milliseconds(budgets, given.batch) if isinstance(given, Milliseconds) else budgets
    for name in given:
        if name not in FIELDS:
            hint = nearest(str(name), FIELDS)
            raise Misfit(f"{shown(name)} is no field of budgets in milliseconds; {hint}", name)
    if "latency_ms" not in given:
        raise Misfit(
            "`latency_ms` must be given, but is missing; write `{latency_ms: [0.3, 1], batch: 1}`, "
            "or a list for million MACs"
        )
    batch = given.get("batch", 1)
    if not isinstance(batch, int) or isinstance(batch, bool) or not 1 <= batch <= MOST_IMAGES:
        raise Misfit(
            f"`batch` must be a whole number of images, 1 to {MOST_IMAGES:,}, but got "
            f"{shown(batch)}",
            "batch",
        )
    times = given["latency_ms"]
    try:
        for time in times if isinstance(times, list) else ():
            refuse_other_kind(float, time)
        return Milliseconds(handler(times), batch)
    except pydantic.ValidationError as error:
        raise Misfit(f"`latency_ms` {mistake(error.errors()[0])}", "latency_ms") from None
    except ValueError as error:
        raise Misfit(f"`latency_ms` {error}", "latency_ms") from None


def _written(budgets: list[float]) -> object:
    """Budgets as a study file writes them."""
    if isinstance(budgets, Milliseconds):
        return {"latency_ms": list(budgets), "batch": budgets.batch}
    return list(budgets)
