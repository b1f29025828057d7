"""Figures of sweeps under two rules, paired by their seeds: what `tests.bench.promoted` shows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from orchestrator.board.stats.intervals import summary
from orchestrator.record.events import End, Epoch, Event, Start
from orchestrator.report.table import number, table, text
from orchestrator.search.model.gaussian import Array
from orchestrator.search.replay.simulate import Goal

RULES = ("none", "promote")
BUDGET, SLOTS = 0.3, 2
"""Million MACs and trials at once in `promoted.yaml`."""
Rows = list[list[str]]
HEADS = ("seed, rule", "begun", "whole", "epochs", "hypervolume", "test, %", "search, s")
SWEEPS = (*HEADS, "in epochs")
METHODS = ("method", "begun", "whole", "hypervolume", "paired", "test, %", "paired")


@dataclass(frozen=True)
class Searched:
    """One method's search in one sweep, and what was confirmed."""

    begun: int
    """Trials that took a worker."""
    whole: int
    """Trials that trained to their end."""
    epochs: int
    """Epochs that its search trials trained."""
    ends: list[tuple[float, float]]
    """MACs and validation error of the whole trials."""
    test: float | None
    """Test accuracy of what was chosen at the budget, mean over confirm seeds, a fraction."""


@dataclass(frozen=True)
class Sweep:
    """One sweep's figures."""

    rule: str
    seed: int
    methods: dict[str, Searched]
    seconds: float
    """From the first search trial's start to the last one's end."""
    trained: float
    """Those of all epochs that ended in between, confirm runs included, over all slots."""


def times(events: Iterable[Event]) -> tuple[float, float]:
    """Seconds from the first search trial's start to the last one's end, and those of all epochs
    that ended in between, confirm runs included."""
    searched, moments, epochs = set[str](), list[int](), list[Epoch]()
    for event in events:
        match event:
            case Start(role="search"):
                searched.add(event.trial)
                moments.append(event.time)
            case End() if event.trial in searched:
                moments.append(event.time)
            case Epoch():
                epochs.append(event)
    trained = sum(epoch.metrics.seconds for epoch in epochs if epoch.time <= max(moments))
    return (max(moments) - min(moments)) / 1000, trained


def goals(sweeps: Sequence[Sweep]) -> dict[str, Goal]:
    """What each method's hypervolumes are measured against, as in simulations: log MACs and error
    under the budget and the error that one whole trial in four exceeds. The best front known is
    here that of all sweeps together."""
    found = {}
    for name in sweeps[0].methods:
        points = np.array([end for each in sweeps for end in each.methods[name].ends], float)
        corner = (float(np.log(1e6 * BUDGET)), float(np.quantile(points[:, 1], 0.75)))
        found[name] = Goal(corner, Goal(corner, 1.0).share(*points.T))
    return found


def volumes(sweeps: Sequence[Sweep]) -> Array:
    """Sweeps x methods: shares of the best hypervolume known."""
    known = goals(sweeps)
    rows = [
        [
            known[name].share(*np.array(each.methods[name].ends, float).reshape(-1, 2).T)
            for name in known
        ]
        for each in sweeps
    ]
    return np.array(rows)


def accuracies(sweeps: Sequence[Sweep]) -> Array:
    """Sweeps x methods: confirmed test accuracies in percent; NaN where nothing was confirmed."""
    rows = [[each.methods[name].test for name in sweeps[0].methods] for each in sweeps]
    return 100 * np.array(rows, float)


def paired(values: Array, digits: int) -> str:
    """The mean of differences, with the 95 % interval of a t-distribution."""
    found = summary(values.tolist())
    if found.mean is None:
        return ""
    mean = f"{found.mean:+.{digits}f}"
    return mean if found.hi is None else f"{mean} ± {found.hi - found.mean:.{digits}f}"


def by_rule(sweeps: Sequence[Sweep]) -> dict[str, list[Sweep]]:
    """The sweeps of each rule by rising seeds, of the seeds that both have."""
    ran = {rule: {each.seed: each for each in sweeps if each.rule == rule} for rule in RULES}
    both = sorted(set.intersection(*map(set, ran.values())))
    return {rule: [ran[rule][seed] for seed in both] for rule in RULES}


def sweep_rows(sweeps: Sequence[Sweep]) -> Rows:
    """A line per sweep, all methods together, then the paired differences and the ratio of times.

    A test accuracy counts where both sweeps of its seed confirmed that method. Searches of other
    methods or seeds are independent, so that an interval is over all of these pairs.
    """
    sides = by_rule(sweeps)
    count = len(sides["none"])
    both = [each for rule in RULES for each in sides[rule]]
    shares, right = (of_(both).reshape(2, count, -1) for of_ in (volumes, accuracies))
    right = np.where(np.isfinite(right).all(axis=0), right, np.nan)
    rows = []
    for place in range(count):
        for side, rule in enumerate(RULES):
            each = sides[rule][place]
            found = each.methods.values()
            rows.append(
                [
                    f"{each.seed}, `{rule}`",
                    *(str(sum(getattr(m, key) for m in found)) for key in SWEEPS[1:4]),
                    f"{shares[side, place].mean():.3f}",
                    f"{np.nanmean(right[side, place]):.1f}",
                    f"{each.seconds:.0f}",
                    f"{100 * each.trained / SLOTS / each.seconds:.0f} %",
                ]
            )
    seconds = np.array([[each.seconds for each in sides[rule]] for rule in RULES])
    ratios = seconds[1] / seconds[0]
    gained = right[1] - right[0]
    last = [paired(np.ravel(shares[1] - shares[0]), 3), paired(gained[np.isfinite(gained)], 1)]
    times = f"x {np.exp(np.log(ratios).mean()):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
    return [*rows, ["`promote` less `none`", "", "", "", *last, times, ""]]


def method_rows(sweeps: Sequence[Sweep]) -> Rows:
    """A line per method, `none` and `promote`, means over seeds, with paired differences; a seed
    counts for the test accuracy where both sweeps confirmed the method."""
    sides = by_rule(sweeps)
    both = [each for rule in RULES for each in sides[rule]]
    names = list(both[0].methods)
    shares, right = (of_(both).reshape(2, -1, len(names)) for of_ in (volumes, accuracies))
    rows = []
    for place, name in enumerate(names):
        row = [name]
        for key in ("begun", "whole"):
            counts = [[getattr(each.methods[name], key) for each in sides[r]] for r in RULES]
            row.append(", ".join(f"{np.mean(count):.1f}" for count in counts))
        for values, digits in ((shares[..., place], 3), (right[..., place], 1)):
            held = values[:, np.isfinite(values).all(axis=0)]
            row.append(
                ", ".join(f"{sum(side) / len(side):.{digits}f}" for side in held if len(side))
            )
            row.append(paired(held[1] - held[0], digits))
        rows.append(row)
    return rows


def gap(sweeps: Sequence[Sweep]) -> int:
    """The largest difference of a method's epochs between the two rules of one seed."""
    sides = by_rule(sweeps)
    return max(
        abs(one.methods[name].epochs - other.methods[name].epochs)
        for one, other in zip(sides["none"], sides["promote"], strict=True)
        for name in one.methods
    )


def shown(heads: Sequence[str], rows: Rows) -> Table:
    """For the terminal."""
    grid = table(text(heads[0], wrap=False), *map(number, heads[1:]))
    for row in rows:
        grid.add_row(*row)
    return grid


def markdown(heads: Sequence[str], rows: Rows) -> str:
    """For the page."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
