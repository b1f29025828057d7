"""Searchers compared on one table: replicates, intervals, the terminal's tables, the figure."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO, StringIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.table import Table as Grid
from scipy.stats import qmc

from methods.errors import StorageError
from orchestrator.board.stats.intervals import summary
from orchestrator.report.figures.style import STYLE
from orchestrator.report.palette import INK, OKABE_ITO
from orchestrator.report.table import number, table
from orchestrator.search.model.gaussian import Array
from orchestrator.search.replay.curves import Table
from orchestrator.search.replay.foreign import Foreign
from orchestrator.search.replay.simulate import (
    Goal,
    Searcher,
    Trace,
    by_epochs,
    by_time,
    goal,
    shares,
    simulate,
)
from orchestrator.search.replay.surrogate import Surrogate, surrogates

FRACTIONS = tuple(i / 20 for i in range(1, 21))
"""Fractions of a method's epochs at which hypervolumes are compared."""
SHOWN = (0.2, 0.4, 0.6, 1.0)
"""Those of `FRACTIONS` that the terminal shows."""
PLACES = 2048
"""Configurations per method among which the best front is looked for."""


@dataclass(frozen=True)
class Track:
    """A table made ready: surrogates, and the best front known of each method."""

    table: Table
    surrogates: Mapping[str, Surrogate]
    goals: Mapping[str, Goal]

    @classmethod
    def of(cls, table: Table) -> "Track":
        """From a table of recorded curves.

        Raises:
            StudyError: too few trials to learn from.
        """
        by_method = surrogates(table)
        limit = table.study.cost.cap(table.study.budgets[-1])
        goals = {}
        for method, surrogate in by_method.items():
            space = table.space(method)
            places = qmc.Sobol(len(space.free), rng=1).random(PLACES)
            goals[method] = goal(surrogate, space, limit, places)
        return cls(table, by_method, goals)


@dataclass(frozen=True)
class Standing:
    """One searcher's replicates; hypervolumes are shares of the best front's, method by method."""

    searcher: str
    confirmed: Array
    """Replicates x `FRACTIONS`: observed fronts at their noise-free errors, mean over methods."""
    observed: Array
    """The same at the measured errors, which luck makes larger."""
    times: Array
    """Simulated seconds, one grid for all replicates."""
    timed: Array
    """Replicates x times: as `confirmed`."""
    started: float
    """Trials per replicate, refused ones left out."""
    whole: float
    """Trials per replicate that ran to their end."""
    unseen: float
    """Share of trials whose curve the surrogate made up."""
    busy: float
    """Simulated worker seconds per second of simulation."""
    elapsed: float
    """Simulated seconds per second of simulation."""
    cpu: float
    """Seconds of CPU time per search, those of a searcher's own process included."""


def race(
    track: Track, searcher: Searcher, *, workers: int, trials: int, seeds: Sequence[int]
) -> Standing:
    """One search per seed.

    Raises:
        SearcherError: a searcher of others fails.
    """
    options = {"workers": workers, "trials": trials}
    began = _cpu()
    try:
        traces = [
            simulate(track.table, track.surrogates, searcher, **options, seed=seed)
            for seed in seeds
        ]
    finally:
        if isinstance(searcher, Foreign):
            searcher.close()
    times = np.linspace(0.0, max(trace.seconds for trace in traces), 41)[1:]
    per_epoch = np.array([_by_epochs(track, trace, trials) for trace in traces])
    timed = np.array([_by_time(track, trace, times) for trace in traces])
    runs = [run for trace in traces for run in trace.runs.values()]
    started = sum(run.started for run in runs)
    wall = sum(trace.wall for trace in traces)
    return Standing(
        searcher.name,
        per_epoch[:, 1],
        per_epoch[:, 0],
        times,
        timed,
        started / len(traces),
        sum(len(run.points) for run in runs) / len(traces),
        sum(run.unknown for run in runs) / max(1, started),
        sum(trace.worked for trace in traces) / wall,
        sum(trace.seconds for trace in traces) / wall,
        (_cpu() - began) / len(traces),
    )


def qualities(track: Track) -> Grid:
    """How well each surrogate predicts trials that it was not fitted to."""
    heads = ("trials", "last error off by", "rank correlation", "MACs off by")
    grid = table("method", *map(number, heads), title="Surrogate, leave-one-out")
    for surrogate in track.surrogates.values():
        q = surrogate.quality
        cells = (f"{100 * q.error:.2f} points", f"{q.order:.2f}", f"{100 * q.macs:.2g} %")
        grid.add_row(q.method, str(q.trials), *cells)
    return grid


def line(standing: Standing) -> str:
    """What a searcher did, in one line."""
    return (
        f"{standing.searcher}: {standing.started:.0f} trials per search, {standing.whole:.0f} of "
        f"them complete, {100 * standing.unseen:.0f} % with a simulated curve; "
        f"{standing.busy:,.0f} times faster than the workers, {standing.elapsed:,.0f} times "
        "faster than the search"
    )


def standings(searchers: Sequence[Standing]) -> Grid:
    """Hypervolume over the best known, with 95 % t-intervals over replicates."""
    grid = table(
        "searcher",
        *(number(f"{100 * fraction:.0f} % of epochs", wrap=True) for fraction in SHOWN),
        title="Hypervolume of the front at its noise-free errors, share of the best known",
    )
    for standing in searchers:
        cells = [_cell(standing.confirmed[:, FRACTIONS.index(fraction)]) for fraction in SHOWN]
        grid.add_row(standing.searcher, *cells)
    return grid


def write_figure(searchers: Sequence[Standing], path: Path) -> None:
    """Hypervolume over epochs and over simulated time, as png, svg or html by the file's name.

    Raises:
        StorageError: another ending, or a file that cannot be written.
    """
    kind = path.suffix.lstrip(".")
    if kind not in ("png", "svg", "html"):
        raise StorageError(f"a figure must end in .png, .svg or .html, got {path.name!r}")
    with mpl.rc_context({**STYLE, "svg.fonttype": "path"}):
        figure = Figure(figsize=(10.5, 4.4), layout="constrained", facecolor="white")
        left, right = figure.subplots(1, 2, sharey=True)
        for standing, colour in zip(searchers, _colours(len(searchers)), strict=True):
            _band(left, 100 * np.array(FRACTIONS), standing.confirmed, standing.searcher, colour)
            _band(right, standing.times / 60, standing.timed, standing.searcher, colour)
        left.set_xlabel("epochs spent, % of each method's")
        left.set_ylabel("hypervolume, share of the best known")
        left.set_title("Equal epochs: mean and 95 % interval over replicates")
        right.set_xlabel("simulated time, minutes")
        right.set_title("Simulated time")
        left.legend(frameon=False, loc="lower right")
        content = _drawn(figure, kind)
    try:
        path.write_bytes(content)
    except OSError as error:
        raise StorageError(f"{path} must be writable, but: {error.strerror}") from None


def _cpu() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def _by_epochs(track: Track, trace: Trace, trials: int) -> Array:
    """Observed and confirmed, mean over methods: 2 x fractions."""
    volumes = [
        shares(run, track.goals[method], by_epochs(run, FRACTIONS, trials))
        for method, run in trace.runs.items()
    ]
    return np.asarray(np.mean(volumes, axis=0))


def _by_time(track: Track, trace: Trace, times: Array) -> Array:
    """Confirmed, mean over methods, at each time."""
    volumes = [
        shares(run, track.goals[method], by_time(run, times.tolist()))[1]
        for method, run in trace.runs.items()
    ]
    return np.asarray(np.mean(volumes, axis=0))


def _cell(values: Array) -> str:
    interval = summary(values.tolist())
    if interval.mean is None:
        return ""
    if interval.hi is None:
        return f"{interval.mean:.3f}"
    return f"{interval.mean:.3f} ± {interval.hi - interval.mean:.3f}"


def _colours(count: int) -> list[str]:
    table = (INK, *OKABE_ITO)
    return [table[i % len(table)] for i in range(count)]


def _band(axes: Axes, x: Array, values: Array, label: str, colour: str) -> None:
    intervals = [summary(column.tolist()) for column in values.T]
    mean = np.array([interval.mean for interval in intervals], float)
    axes.plot(x, mean, color=colour, label=label, linewidth=1.4)
    if intervals[0].hi is not None:
        low = np.array([interval.lo for interval in intervals], float)
        high = np.array([interval.hi for interval in intervals], float)
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def _drawn(figure: Figure, kind: str) -> bytes:
    if kind == "png":
        buffer = BytesIO()
        FigureCanvasAgg(figure)
        figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
        return buffer.getvalue()
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    if kind == "svg":
        return text.getvalue().encode()
    svg = text.getvalue()
    title = escape("Simulated searches")
    page = f"<!doctype html><meta charset=utf-8><title>{title}</title>{svg[svg.index('<svg') :]}"
    return page.encode()
