"""Which rows count, and which configuration of each search of a method stands at a budget."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from methods.values import Params
from orchestrator.board.stats.fronts import accuracy_flaw, macs_flaw
from orchestrator.record.rows import Row
from orchestrator.study.budgets import MACS, Cost


@dataclass(frozen=True)
class Excluded:
    """A row that carries no figure of the board, and why."""

    row: Row
    reason: str


@dataclass(frozen=True)
class Choice:
    """The configuration and operating point that are best on validation at or under a budget."""

    method: str
    budget: float
    """In the unit of the study's cost."""
    config: str
    config_hash: str
    point: str
    params: Params
    val_acc: float
    val_macs_mean: float
    repeat: int = 1
    """Which of the method's searches made the choice, from 1 on."""
    ms: float | None = None
    """As the search measured it, where budgets are in milliseconds."""

    def spent(self, cost: Cost) -> float:
        """What the budget limits: MACs on validation, or milliseconds."""
        return _number(self.ms if cost.clocked else self.val_macs_mean)


def clean(rows: Iterable[Row]) -> tuple[list[Row], list[Excluded]]:
    """The rows that may carry figures, and the others with their reasons; order does not matter.

    Bases are neither: they count as effort alone.
    """
    complete: dict[tuple[object, ...], Row] = {}
    excluded = []
    for row in _ordered(row for row in rows if row.role != "base"):
        reason = _flaw(row)
        first = complete.get(_identity(row))
        if reason is None and first is not None:
            reason = f"duplicate of {first.trial} (seed {first.seed}), which is counted"
        if reason is None:
            complete[_identity(row)] = row
        else:
            excluded.append(Excluded(row, reason))
    return list(complete.values()), excluded


def choose(complete: Iterable[Row], budgets: Sequence[float], cost: Cost = MACS) -> list[Choice]:
    """What to confirm: per search and budget the best row that `clean` let through, on validation.

    A method has as many choices at a budget as it has searches, by method, repeat and budget. The
    budget is inclusive and nothing is interpolated; ties go to the lower cost, then to the
    configuration id. A search without a row under a budget has no choice there.
    """
    if not budgets:
        return []
    searched: dict[tuple[str, int], list[Row]] = {}
    for row in complete:
        if row.role == "search" and cost.of_search(row) is not None:
            searched.setdefault((row.method, row.repeat), []).append(row)
    ranked = [
        sorted(candidates, key=lambda row: _preference(row, cost))
        for _, candidates in sorted(searched.items())
    ]
    return [
        _choice(first, budget)
        for candidates in ranked
        for budget in sorted(set(budgets))
        if (first := next((row for row in candidates if under(row, budget, cost)), None))
    ]


def under(row: Row, budget: float, cost: Cost = MACS) -> bool:
    """Whether a complete search row costs the budget or less; not where its cost is unknown."""
    spent = cost.of_search(row)
    return spent is not None and spent <= cost.cap(budget)


def choose_confirmed(
    complete: Sequence[Row], budgets: Sequence[float], declared: Sequence[float], cost: Cost = MACS
) -> list[Choice]:
    """As `choose` at the budgets that were declared; at others only among what was confirmed.

    What was confirmed is what was best at a declared budget, so that between two of them a better
    configuration may exist that nobody has tested.
    """
    tested = {_tested(row) for row in complete if row.role == "confirm"}
    some = [row for row in complete if row.role == "search" and _tested(row) in tested]
    return [
        *choose(complete, [budget for budget in budgets if budget in declared], cost),
        *choose(some, [budget for budget in budgets if budget not in declared], cost),
    ]


def costs(
    choices: Iterable[Choice], primary: float, baseline: str, cost: Cost = MACS
) -> dict[str, float]:
    """What each method's choices at the primary budget cost in the search, as a budget."""
    spent: dict[str, list[float]] = {}
    for choice in choices:
        if choice.budget == primary and choice.method != baseline:
            spent.setdefault(choice.method, []).append(choice.spent(cost))
    return {name: math.fsum(all_) / len(all_) / cost.scale for name, all_ in sorted(spent.items())}


def to_confirm(
    rows: Iterable[Row],
    budgets: Sequence[float],
    primary: float,
    baseline: str,
    cost: Cost = MACS,
    *,
    matched: bool = False,
) -> list[Choice]:
    """The choices at every budget; where `matched`, the baseline's at each method's cost, too."""
    complete, _ = clean(rows)
    choices = choose(complete, budgets, cost)
    if matched:
        own = [row for row in complete if row.method == baseline]
        choices += choose(own, list(costs(choices, primary, baseline, cost).values()), cost)
    return choices


def best(choices: Iterable[Choice], cost: Cost = MACS) -> dict[tuple[str, float], Choice]:
    """By method and budget the choice, among those of all repeats, that is best on validation.

    It is the network that one would take there; a claim about the method rests on all repeats.
    """
    chosen: dict[tuple[str, float], Choice] = {}
    for choice in sorted(choices, key=lambda c: (-c.val_acc, c.spent(cost), c.config)):
        chosen.setdefault((choice.method, choice.budget), choice)
    return dict(sorted(chosen.items()))


def _tested(row: Row) -> tuple[str, int, str, str]:
    return (row.method, row.repeat, row.config, row.point)


def _flaw(row: Row) -> str | None:
    """Why a row carries no figure; of a search row validation counts, of a confirm row test."""
    if row.role not in ("search", "confirm"):
        return f"role must be search or confirm, got {row.role!r}"
    if row.state != "COMPLETE":
        return str(row.outcome)
    if row.role == "search":
        return (
            accuracy_flaw("val_acc", row.val_acc)
            or macs_flaw("val_macs_mean", row.val_macs_mean)
            or _spread_flaw(val_macs_p95=row.val_macs_p95, val_macs_max=row.val_macs_max)
        )
    return (
        accuracy_flaw("test_acc", row.test_acc)
        or macs_flaw("test_macs_mean", row.test_macs_mean)
        or _spread_flaw(test_macs_p95=row.test_macs_p95, test_macs_max=row.test_macs_max)
    )


def _spread_flaw(**values: float | None) -> str | None:
    """Tail figures may be missing, but not impossible."""
    for name, value in values.items():
        if value is not None and not math.isnan(value) and (flaw := macs_flaw(name, value)):
            return flaw
    return None


def _identity(row: Row) -> tuple[object, ...]:
    """Two search rows are one by their trial, two confirm rows by their configuration and seed."""
    search = (row.study, row.method, row.repeat, row.role)
    if row.role == "search":
        return (*search, row.trial, row.point)
    return (*search, row.config, row.point, row.seed)


def _ordered(rows: Iterable[Row]) -> Iterator[Row]:
    """By name, those that ended well first; a row is spelt out only where names do not decide."""
    for _, same in itertools.groupby(sorted(rows, key=_order), key=_order):
        first, *more = same
        yield from sorted((first, *more), key=repr) if more else (first,)


def _order(row: Row) -> tuple[object, ...]:
    names = (row.study, row.method, row.repeat, row.role, row.config, row.trial, row.point)
    return (*names, row.seed, row.state != "COMPLETE")


def _preference(row: Row, cost: Cost) -> tuple[float, float, str, str]:
    return (-_number(row.val_acc), _number(cost.of_search(row)), row.config, row.point)


def _choice(row: Row, budget: float) -> Choice:
    return Choice(
        method=row.method,
        budget=budget,
        config=row.config,
        config_hash=row.config_hash,
        point=row.point,
        params=row.params,
        val_acc=_number(row.val_acc),
        val_macs_mean=_number(row.val_macs_mean),
        repeat=row.repeat,
        ms=row.ms,
    )


def _number(value: float | None) -> float:
    assert value is not None, "the gate lets no missing figure through"
    return value
