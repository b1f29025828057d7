"""What a person sees while a sweep runs: a live table in a wide terminal, plain lines elsewhere."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from orchestrator.board.words import percent, plural
from orchestrator.cli.console import TABLE_WIDTH
from orchestrator.record.events import End, Epoch, Lost, News, Planned, Point, Resumed, Start
from orchestrator.record.result import OVER_BUDGET, REFUSED, Outcome
from orchestrator.report.table import number, table
from orchestrator.search.counts import confirm_runs, unreduced_runs
from orchestrator.study.file import Study
from orchestrator.study.space import spaces


@dataclass
class _Counts:
    """The trials of one method so far."""

    running: dict[str, int] = field(default_factory=dict)
    ended: Counter[str] = field(default_factory=Counter)
    unfit: Counter[str] = field(default_factory=Counter)
    """Trials that took no worker, by their outcome."""
    best: float | None = None
    spent: str = ""
    """What that costs."""


class Progress:
    """Listens to the sweep's events and shows where it stands."""

    def __init__(self, study: Study, console: Console) -> None:
        self._study = study
        self._console = console
        self._counts = {method: _Counts() for method in study.methods}
        self._starts: dict[str, Start] = {}
        self._lock = threading.Lock()
        self._confirm: int | None = None
        self._searches: int | None = None
        self._searched = 0
        self._began = time.monotonic()
        self._ended_before = 0
        wide = console.width > TABLE_WIDTH
        self._live = wide and console.is_terminal and not console.is_dumb_terminal
        self._prints = False

    def __call__(self, news: News) -> None:
        """Takes one event, or one announcement."""
        with self._lock:
            match news:
                case Resumed():
                    self._resumed()
                case Planned():
                    self._confirm, self._searches = news.confirm, news.searches
                case Start():
                    self._starts[news.trial] = news
                    self._counts_of(news.trial).running[news.trial] = 0
                case Epoch():
                    self._counts_of(news.trial).running[news.trial] = news.step
                case Lost():
                    self._lost(news)
                case End():
                    self._end(news)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show progress until the block ends."""
        if not self._live:
            yield
            return
        with Live(get_renderable=self._table, console=self._console, refresh_per_second=4):
            yield

    def _resumed(self) -> None:
        """All earlier events have come; those from now on are new."""
        for counts in self._counts.values():
            counts.running.clear()
        self._began = time.monotonic()
        self._ended_before = self._done()
        self._prints = not self._live
        if self._prints and self._ended_before:
            self._console.print(
                f"Resuming after {plural(self._ended_before, 'trial')}", highlight=False
            )

    def _counts_of(self, trial: str) -> _Counts:
        return self._counts[self._starts[trial].method]

    def _end(self, end: End) -> None:
        counts = self._counts_of(end.trial)
        counts.running.pop(end.trial, None)
        outcome = Outcome.of(end.state, end.reason)
        if outcome.took_a_worker:
            counts.ended[outcome.word] += 1
            self._searched += self._starts[end.trial].role == "search"
        else:
            counts.unfit[outcome.word] += 1
        for point in end.points:
            if counts.best is None or point.val.accuracy > counts.best:
                counts.best, counts.spent = point.val.accuracy, self._spent(point)
        if self._prints:
            self._console.print(self._line(end), highlight=False, soft_wrap=True)

    def _lost(self, lost: Lost) -> None:
        self._counts_of(lost.trial).running.pop(lost.trial, None)
        if self._prints:
            text = Text(f"[{self._where()}] {lost.trial} lost: {lost.reason}")
            self._console.print(text, highlight=False, soft_wrap=True)

    def _line(self, end: End) -> Text:
        if end.reason:
            text = str(Outcome.of(end.state, end.reason))
            return Text(f"[{self._where()}] {end.trial} {text}")
        figures = "; ".join(
            f"{point.point + ': ' if point.point else ''}"
            f"{percent(point.val.accuracy, 1)} % validation at "
            f"{self._spent(point)}"
            + (f" (alarm: {point.alarm})" if point.alarm is not None else "")
            for point in end.points
        )
        return Text(f"[{self._where()}] {end.trial} {end.state}: {figures}")

    def _spent(self, point: Point) -> str:
        """What a budget limits of an operating point, with its unit."""
        cost = self._study.cost
        return f"{cost.text(point.ms if cost.clocked else point.val.macs_mean)} {cost.unit}"

    def _where(self) -> str:
        planned = self._planned()
        if planned is None:
            return f"{self._done()}"
        most = "at most " if self._confirm is None else ""
        return f"{self._done()} of {most}{planned}"

    def _done(self) -> int:
        return sum(sum(counts.ended.values()) for counts in self._counts.values())

    def _planned(self) -> int | None:
        """Trials in all, or the most there can be; None where the search is bounded by time."""
        study, confirm, searches = self._study, self._confirm, self._searches
        if study.search.seconds is not None:
            return None if confirm is None else self._searched + confirm
        if searches is None:
            searches = len(study.methods) * study.search.repeats
            if study.search.repeats > 1 and confirm is None:
                searches += study.confirm.budget or 0
        if confirm is None:
            confirm = self._most_confirm
        return max(study.search.trials * searches + confirm, self._done())

    @cached_property
    def _most_confirm(self) -> int:
        """Confirm runs that there can be, whatever is chosen."""
        study = self._study
        runs = [
            confirm_runs(study, space) + unreduced_runs(study, space)
            for space in spaces(study).values()
        ]
        repeats, further = study.search.repeats, study.confirm.budget or 0
        return sum(runs) + further * (max(runs) // repeats if repeats > 1 else 1)

    def _left(self) -> str:
        done, planned = self._done() - self._ended_before, self._planned()
        if done < 2 or planned is None:
            return "time left: not known yet"
        seconds = (time.monotonic() - self._began) / done * (planned - self._done())
        return f"time left: {_clock(seconds)}" + (" at most" if self._confirm is None else "")

    def _table(self) -> Group:
        with self._lock:
            heads = map(number, ("done", "running", "failed", REFUSED, OVER_BUDGET))
            title = f"{self._study.name}: trials"
            grid = table("method", *heads, "best on validation", title=title)
            for method, counts in self._counts.items():
                best = "none yet"
                if counts.best is not None:
                    best = f"{percent(counts.best, 1)} % at {counts.spent}"
                failed = counts.ended["FAIL"]
                done = sum(counts.ended.values()) - failed
                unfit = (counts.unfit[REFUSED], counts.unfit[OVER_BUDGET])
                numbers = (done, len(counts.running), failed, *unfit)
                grid.add_row(method, *(f"{count:,}" for count in numbers), best)
            foot = f"{self._where()} trials, {self._left()}"
            return Group(grid, Text(foot))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
