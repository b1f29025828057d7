"""How long the deployed networks of a board take, timed in turns with the static baseline's.

Measured when all trials have ended, by one worker at a time: whatever else runs on the machine is
not isoflop's. Both networks run in the fastest of their exact forms for that size of a batch (see
`methods.shipping.forms`), which may execute more MACs than are priced. The honesty ratio of a cell
is its measured speed-up over the baseline at the same budget, divided by the speed-up that its MACs
predict: 1 where the clock agrees with the count.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from methods.values import Params
from orchestrator.board.choose import best, choose, clean
from orchestrator.record.events import Latency
from orchestrator.record.rows import Row


@dataclass(frozen=True)
class Network:
    """One operating point of one confirm run."""

    method: str
    trial: str
    point: str
    params: Params

    @classmethod
    def of(cls, row: Row) -> "Network":
        return cls(row.method, row.trial, row.point, row.params)


@dataclass(frozen=True)
class Pair:
    """A network, and the baseline's at the same budget: the same one for the baseline itself."""

    network: Network
    reference: Network

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What one measurement is known by."""
        return (self.network.trial, self.network.point, self.reference.trial, self.reference.point)


@dataclass(frozen=True)
class Timed:
    """A cell of the board by the clock."""

    method: str
    budget: float
    """MMACs."""
    trial: str
    batch: int
    ms: float | None
    """Median of a call; None where it could not be measured."""
    spread_ms: float | None
    """Distance between the quartiles."""
    baseline_ms: float | None
    """The same of the baseline's network at this budget, timed in the same rounds."""
    speed_up: float | None
    """Measured, over the baseline."""
    macs_speed_up: float | None
    """As the MACs on test promise it."""
    honesty: float | None
    """The first of these over the second."""
    device: str
    forms: str = ""
    """What ran: layout, images at a time, forms of layers."""
    reason: str = ""
    """Why there is no figure."""


def pairs(rows: Iterable[Row], budgets: Sequence[float], baseline: str) -> list[Pair]:
    """What is to be measured: for each cell the first confirm run that ended well."""
    by_key: dict[tuple[str, str, str, str], Pair] = {}
    for _, row, reference in _cells(rows, budgets, baseline):
        pair = Pair(Network.of(row), Network.of(reference))
        by_key.setdefault(pair.key, pair)
    return list(by_key.values())


def missing(wanted: Iterable[Pair], events: Iterable[Latency]) -> list[Pair]:
    """Those without an event."""
    known = {_key(event) for event in events}
    return [pair for pair in wanted if pair.key not in known]


def timed(
    rows: Sequence[Row],
    budgets: Sequence[float],
    baseline: str,
    events: Iterable[Latency],
) -> list[Timed]:
    """Every cell of the board that was measured, or could not be."""
    by_key: dict[tuple[str, str, str, str], list[Latency]] = {}
    for event in events:
        by_key.setdefault(_key(event), []).append(event)
    return [
        _timed(budget, row, reference, event)
        for budget, row, reference in _cells(rows, budgets, baseline)
        for event in by_key.get(Pair(Network.of(row), Network.of(reference)).key, ())
    ]


def _cells(
    rows: Iterable[Row], budgets: Sequence[float], baseline: str
) -> Iterator[tuple[float, Row, Row]]:
    """Budget, a method's confirm run there, and the baseline's: of each the lowest seed.

    Of several searches of a method, the configuration that is best on validation is timed.
    """
    valid = clean(rows)[0]
    first: dict[tuple[str, str, str], Row] = {}
    for row in sorted(valid, key=lambda row: row.seed):
        if row.role == "confirm":
            first.setdefault((row.method, row.config, row.point), row)
    chosen = {
        cell: first.get((choice.method, choice.config, choice.point))
        for cell, choice in best(choose(valid, budgets)).items()
    }
    for (_, budget), confirmed in chosen.items():
        reference = chosen.get((baseline, budget))
        if confirmed is not None and reference is not None:
            yield budget, confirmed, reference


def _timed(budget: float, row: Row, reference: Row, event: Latency) -> Timed:
    ms, baseline_ms = event.ms, event.reference_ms
    speed_up = baseline_ms / ms if ms and baseline_ms else None
    macs, baseline_macs = row.test_macs_mean, reference.test_macs_mean
    promised = baseline_macs / macs if macs and baseline_macs else None
    return Timed(
        method=row.method,
        budget=budget,
        trial=row.trial,
        batch=event.batch or 0,
        ms=ms,
        spread_ms=event.spread_ms,
        baseline_ms=baseline_ms,
        speed_up=speed_up,
        macs_speed_up=promised,
        honesty=speed_up / promised if speed_up and promised else None,
        device=event.device or "",
        forms=event.forms or "",
        reason=event.reason or "",
    )


def _key(event: Latency) -> tuple[str, str, str, str]:
    return (event.trial, event.point, event.reference, event.reference_point)
