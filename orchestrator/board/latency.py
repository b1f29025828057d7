"""The latency of a board's deployed networks, timed in turns with the static baseline's.

It is measured when all trials have ended, by one worker at a time, so that no other trial of the
sweep runs. Both networks run in the fastest of their exact forms for that batch size (see
`methods.shipping.forms`), which may execute more MACs than are priced. The speed-up kept by a cell
(`honesty` in files) is its measured speed-up over the baseline at the same budget, divided by the
speed-up that its MACs predict: at 1 the MACs saved are time saved.
"""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from methods.values import Params
from orchestrator.board.choose import best, choose, clean
from orchestrator.record.events import Latency
from orchestrator.record.rows import Row
from orchestrator.study.budgets import MACS, Cost

SEEDS = 3
"""Number of confirm runs of a cell that are timed, those of the lowest seeds: the noise of timing
is as large as the difference between seeds, and each further run takes a second or two per cell."""


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
        """The identity of one measurement."""
        return (self.network.trial, self.network.point, self.reference.trial, self.reference.point)


@dataclass(frozen=True)
class Timed:
    """The latency of a cell of the board; medians over the timed seeds, so that a moment in which
    the machine was busy counts little."""

    method: str
    budget: float
    """As the study has it."""
    trial: str
    """The confirm run of the lowest seed."""
    batch: int
    ms: float | None
    """Median of a call; None where it could not be measured."""
    spread_ms: float | None
    """Distance between the quartiles of a seed's rounds."""
    baseline_ms: float | None
    """The same of the baseline's network at this budget, timed in the same rounds."""
    speed_up: float | None
    """Measured speed-up over the baseline."""
    macs_speed_up: float | None
    """Speed-up that the MACs on test predict."""
    honesty: float | None
    """Speed-up kept: the measured speed-up divided by the predicted one."""
    device: str
    forms: str = ""
    """What ran, of the lowest seed: layout, images at a time, forms of layers."""
    reason: str = ""
    """Why there is no figure."""
    seeds: int = 1
    """Confirm runs that were timed."""
    seeds_sd_ms: float | None = None
    """Standard deviation of the seeds' medians; None where one was timed."""
    p95_ms: float | None = None
    """The time that 95 % of a seed's calls do not exceed."""
    calls: int | None = None
    """Number of calls of a seed."""
    joules: float | None = None
    """Per image, gross; None where the machine counts none."""
    energy: str = ""
    """What counted the joules, or why nothing did."""

    @property
    def ms_text(self) -> str:
        """Milliseconds of a call, with the standard deviation over seeds."""
        if self.ms is None:
            return "-"
        sd = self.seeds_sd_ms
        return f"{self.ms:.3g}" if sd is None else f"{self.ms:.3g} ± {sd:.2g}"


def pairs(
    rows: Iterable[Row], budgets: Sequence[float], baseline: str, cost: Cost = MACS
) -> list[Pair]:
    """The pairs to measure: for each cell its first confirm runs that ended well."""
    by_key: dict[tuple[str, str, str, str], Pair] = {}
    for cell in _cells(rows, budgets, baseline, cost):
        for row, reference in cell.seeds:
            pair = Pair(Network.of(row), Network.of(reference))
            by_key.setdefault(pair.key, pair)
    return list(by_key.values())


def missing(wanted: Iterable[Pair], events: Iterable[Latency]) -> list[Pair]:
    """The pairs without an event."""
    known = {_key(event) for event in events}
    return [pair for pair in wanted if pair.key not in known]


def timed(
    rows: Sequence[Row],
    budgets: Sequence[float],
    baseline: str,
    events: Iterable[Latency],
    cost: Cost = MACS,
) -> list[Timed]:
    """Every cell of the board that was measured, or could not be: a line per size of a batch."""
    by_key: dict[tuple[str, str, str, str], list[Latency]] = {}
    for event in events:
        by_key.setdefault(_key(event), []).append(event)
    if not by_key:
        return []
    lines = []
    for cell in _cells(rows, budgets, baseline, cost):
        runs = [
            _Run(row, reference, event)
            for row, reference in cell.seeds
            for event in by_key.get(Pair(Network.of(row), Network.of(reference)).key, ())
        ]
        measured = [run for run in runs if run.event.ms]
        lines += [
            _timed(cell.budget, [run for run in measured if run.event.batch == batch])
            for batch in sorted({run.event.batch or 0 for run in measured})
        ]
        if runs and not measured:
            lines.append(_timed(cell.budget, runs[:1]))
    return lines


class _Cell(NamedTuple):
    """A budget, and a method's confirm runs there, each with the baseline's that it is beside."""

    budget: float
    seeds: list[tuple[Row, Row]]


class _Run(NamedTuple):
    """A confirm run, the baseline's, and what the clock said of the two."""

    row: Row
    reference: Row
    event: Latency

    @property
    def speed_up(self) -> float | None:
        ms, reference_ms = self.event.ms, self.event.reference_ms
        return reference_ms / ms if ms and reference_ms else None

    @property
    def promised(self) -> float | None:
        macs, reference_macs = self.row.test_macs_mean, self.reference.test_macs_mean
        return reference_macs / macs if macs and reference_macs else None


def _cells(
    rows: Iterable[Row], budgets: Sequence[float], baseline: str, cost: Cost
) -> Iterator[_Cell]:
    """The cells that have confirm runs, of the lowest seeds; the baseline's has the same seed.

    Of several searches of a method, the configuration that is best on validation is timed.
    """
    valid = clean(rows)[0]
    confirmed: dict[tuple[str, str, str], dict[int, Row]] = {}
    for row in sorted(valid, key=lambda row: row.seed):
        if row.role == "confirm":
            confirmed.setdefault((row.method, row.config, row.point), {}).setdefault(row.seed, row)
    chosen = {
        cell: confirmed.get((choice.method, choice.config, choice.point), {})
        for cell, choice in best(choose(valid, budgets, cost), cost).items()
    }
    for (_, budget), seeds in chosen.items():
        references = chosen.get((baseline, budget), {})
        if seeds and references:
            first = next(iter(references.values()))
            beside = [(row, references.get(seed, first)) for seed, row in seeds.items()]
            yield _Cell(budget, beside[:SEEDS])


def _timed(budget: float, runs: Sequence[_Run]) -> Timed:
    """One line of some seeds' runs, at one size of a batch."""
    first, events = runs[0], [run.event for run in runs]
    medians = [event.ms for event in events if event.ms is not None]
    speed_up = _median(run.speed_up for run in runs)
    promised = _median(run.promised for run in runs)
    return Timed(
        method=first.row.method,
        budget=budget,
        trial=first.row.trial,
        batch=first.event.batch or 0,
        ms=_median(medians),
        spread_ms=_median(event.spread_ms for event in events),
        baseline_ms=_median(event.reference_ms for event in events),
        speed_up=speed_up,
        macs_speed_up=promised,
        honesty=speed_up / promised if speed_up and promised else None,
        device=first.event.device or "",
        forms=first.event.forms or "",
        reason=first.event.reason or "",
        seeds=len(medians),
        seeds_sd_ms=statistics.stdev(medians) if len(medians) > 1 else None,
        p95_ms=_median(event.p95_ms for event in events),
        calls=first.event.calls,
        joules=_median(event.joules for event in events),
        energy=first.event.energy or "",
    )


def _median(values: Iterable[float | None]) -> float | None:
    """The median of the known values; None if there are none."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _key(event: Latency) -> tuple[str, str, str, str]:
    return (event.trial, event.point, event.reference, event.reference_point)
