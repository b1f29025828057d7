"""What a method's networks can reach under budgets in milliseconds, before anything is trained."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from methods.api import Method
from methods.shipping.layers import Layers


@dataclass(frozen=True)
class Reach:
    """Predicted milliseconds of some samples of a space; see `plan.MethodPlan`."""

    least: float
    most: float | None
    fits: tuple[float, ...]


def reach(
    table: Layers | None,
    smallest: Sequence[Method],
    samples: Sequence[Method],
    budgets: Sequence[float],
    share: float,
) -> Reach:
    """Of these samples, which stand for a `share` of all; NaN where nothing can be predicted."""
    if table is None:
        return Reach(math.nan, None, (math.nan,) * len(budgets))
    times = [table.least_ms(method) for method in samples]
    return Reach(
        least=min([*map(table.least_ms, smallest), *times]),
        most=max(times, default=None),
        fits=tuple(
            share * sum(ms <= budget for ms in times) / max(1, len(times)) for budget in budgets
        ),
    )
