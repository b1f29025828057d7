"""What a person sees while a sweep runs: a live view in a wide terminal, short lines elsewhere."""

import contextlib
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from orchestrator.board.words import percent, plural
from orchestrator.cli.console import TABLE_WIDTH
from orchestrator.record.events import (
    Doing,
    End,
    Epoch,
    Lost,
    News,
    Planned,
    Point,
    Resumed,
    Role,
    Start,
)
from orchestrator.record.result import OVER_BUDGET, REFUSED, Outcome
from orchestrator.record.trials import EPOCHS
from orchestrator.report.table import number, table, text
from orchestrator.search.confirming import confirm_runs, unreduced_runs
from orchestrator.study.file import Study
from orchestrator.study.space import spaces

LINE = 100
"""Characters of a line at most where nothing is redrawn."""
LOADING = "Loading PyTorch, Ray and MLflow"
"""The driver's first step, before its first event."""
FEW = 2
"""Trials that must have ended before the time left is more than a guess."""
AROUND = 12
"""Lines of the live view beside those of methods and running trials."""


@dataclass
class _Running:
    """A trial that a worker has."""

    start: Start
    since: float
    """Seconds of a clock that only rises."""
    step: int = 0
    accuracy: float = math.nan
    """On validation, a fraction."""

    @property
    def epochs(self) -> int:
        """Epochs of the whole trial; 0 where they are not recorded."""
        return int(self.start.params.get(EPOCHS) or 0)

    @property
    def left(self) -> float:
        """The fraction of it that is still to run."""
        return max(0.0, 1 - self.step / self.epochs) if self.epochs else 1.0


@dataclass
class _Counts:
    """The trials of one method so far."""

    running: dict[str, _Running] = field(default_factory=dict)
    ended: Counter[str] = field(default_factory=Counter)
    by_role: Counter[Role] = field(default_factory=Counter)
    """Trials that took a worker and ended."""
    seconds: dict[Role, list[float]] = field(default_factory=dict)
    """How long complete trials took."""
    unfit: Counter[str] = field(default_factory=Counter)
    """Trials that took no worker, by their outcome."""
    best: float | None = None
    spent: str = ""
    """What that costs."""

    def mean_seconds(self, role: Role) -> float | None:
        """Mean seconds of a trial of this role, else of the other: both train a configuration of
        the method."""
        other: Role = "confirm" if role == "search" else "search"
        measured = self.seconds.get(role) or self.seconds.get(other)
        return fmean(measured) if measured else None


class Progress:
    """Listens to the sweep's events and shows where it stands."""

    def __init__(self, study: Study, console: Console, *, quiet: bool = False) -> None:
        self._study = study
        self._console = console
        self._counts = {method: _Counts() for method in study.methods}
        self._starts: dict[str, Start] = {}
        self._lock = threading.Lock()
        self._confirm: int | None = None
        self._searches: int | None = None
        self._searched = 0
        self._doing = Doing(LOADING)
        self._began = self._trains_since = time.monotonic()
        self._ended_before = 0
        self._busy = 0.0
        """Seconds of the trials that ended since this command began."""
        wide = console.width > TABLE_WIDTH
        self._live = wide and console.is_terminal and not console.is_dumb_terminal and not quiet
        self._quiet = quiet
        self._resumed = False
        self._spinner = Spinner("line")

    def __call__(self, news: News) -> None:
        """Takes one event, or one announcement."""
        with self._lock:
            match news:
                case Resumed():
                    self._resume()
                case Doing():
                    self._do(news)
                case Planned():
                    self._confirm, self._searches = news.confirm, news.searches
                case Start():
                    self._starts[news.trial] = news
                    running = _Running(news, time.monotonic())
                    self._counts_of(news.trial).running[news.trial] = running
                case Epoch():
                    self._epoch(news)
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
        with Live(get_renderable=self._view, console=self._console, refresh_per_second=4):
            try:
                yield
            except BaseException:
                self(Doing("Stopped"))
                raise
            self(Doing("Done"))

    def _print(self, line: str) -> None:
        """A line of a pipe or a file; `LINE` characters at most."""
        if not self._live and not self._quiet:
            cut = line if len(line) <= LINE else f"{line[: LINE - 3]}..."
            self._console.print(Text(cut), highlight=False, soft_wrap=True)

    def _do(self, doing: Doing) -> None:
        if not doing.what and self._doing.what:
            self._trains_since = time.monotonic()
        if doing.what and doing.what != self._doing.what:
            total = f", {plural(doing.total, 'pair')}" if doing.total else ""
            self._print(f"{doing.what}{total}")
        self._doing = doing

    def _resume(self) -> None:
        """All earlier events have come; those from now on are new."""
        for counts in self._counts.values():
            counts.running.clear()
        self._busy = 0.0
        self._ended_before = self._done()
        self._resumed = True
        if self._ended_before:
            self._print(f"Resuming after {plural(self._ended_before, 'trial')}")

    def _counts_of(self, trial: str) -> _Counts:
        return self._counts[self._starts[trial].method]

    def _epoch(self, epoch: Epoch) -> None:
        running = self._counts_of(epoch.trial).running.get(epoch.trial)
        if running is not None:
            running.step, running.accuracy = epoch.step, epoch.metrics.val_acc

    def _end(self, end: End) -> None:
        counts, role = self._counts_of(end.trial), self._starts[end.trial].role
        counts.running.pop(end.trial, None)
        outcome = Outcome.of(end.state, end.reason)
        if outcome.took_a_worker:
            counts.ended[outcome.word] += 1
            counts.by_role[role] += 1
            self._searched += role == "search"
            self._busy += end.seconds
            if end.state != "FAIL":
                counts.seconds.setdefault(role, []).append(end.seconds)
        else:
            counts.unfit[outcome.word] += 1
        for point in end.points:
            if counts.best is None or point.val.accuracy > counts.best:
                counts.best, counts.spent = point.val.accuracy, self._spent(point)
        if self._resumed:
            self._print(f"[{self._where()}] {end.trial} {self._result(end)}")

    def _result(self, end: End) -> str:
        """How a trial ended, in a few words; the report has the rest."""
        if end.reason or not end.points:
            return str(Outcome.of(end.state, end.reason))
        best = max(end.points, key=lambda point: point.val.accuracy)
        accuracy = percent(best.val.accuracy, 1)
        words = f"{end.state}: {accuracy} % validation at {self._spent(best)}"
        if alarms := sum(point.alarm is not None for point in end.points):
            words += f", {plural(alarms, 'alarm')}"
        return words

    def _spent(self, point: Point) -> str:
        """What a budget limits of an operating point, with its unit."""
        cost = self._study.cost
        return f"{cost.text(point.ms if cost.clocked else point.val.macs_mean)} {cost.unit}"

    def _lost(self, lost: Lost) -> None:
        self._counts_of(lost.trial).running.pop(lost.trial, None)
        if self._resumed:
            self._print(f"[{self._where()}] {lost.trial} lost: {lost.reason}")

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
        further, repeats = study.confirm.budget or 0, study.search.repeats
        own = len(study.methods) * repeats
        if searches is None:
            searches = own + (further if repeats > 1 and confirm is None else 0)
        if confirm is None:
            runs = self._most_confirm.values()
            added = (searches - own) * (max(runs) // repeats) if repeats > 1 else further
            confirm = sum(runs) + added
        return max(study.search.trials * searches + confirm, self._done())

    @cached_property
    def _most_confirm(self) -> Mapping[str, int]:
        """Confirm runs of each method, whatever is chosen; without those that a race adds."""
        return {
            method: confirm_runs(self._study, space) + unreduced_runs(self._study, space)
            for method, space in spaces(self._study).items()
        }

    def _left(self) -> str:
        """The remaining time of training, once every method with trials left was measured."""
        seconds = self._device_seconds_left()
        if seconds is None or self._done() - self._ended_before < FEW:
            return ""
        now = time.monotonic()
        running = [r for counts in self._counts.values() for r in counts.running.values()]
        busy = self._busy + sum(now - each.since for each in running)
        pace = busy / max(now - self._trains_since, 1e-9)
        if not pace or not seconds:
            return ""
        most = "up to about" if self._confirm is None else "about"
        return f"{most} {_rounded(seconds / pace)} of training left"

    def _device_seconds_left(self) -> float | None:
        """Seconds of one worker for all trials that are left; None where a method was not
        measured."""
        plan, left = self._study.search, 0.0
        confirm_left = None
        if self._confirm is not None:
            confirm_left = self._confirm - (self._done() - self._searched)
        for method, counts in self._counts.items():
            search, confirm = counts.mean_seconds("search"), counts.mean_seconds("confirm")
            if search is None or confirm is None:
                return None
            running = list(counts.running.values())
            left += sum(
                each.left * (search if each.start.role == "search" else confirm) for each in running
            )
            started = counts.by_role["search"] + sum(r.start.role == "search" for r in running)
            if plan.seconds is not None:
                spent = sum(counts.seconds.get("search", []))
                left += max(0.0, plan.seconds * plan.repeats - spent) if confirm_left is None else 0
            elif confirm_left is None:
                left += max(0, plan.trials * plan.repeats - started) * search
            if confirm_left is None:
                left += self._most_confirm[method] * confirm
        if confirm_left is not None:
            confirms = sum(
                each.start.role == "confirm"
                for counts in self._counts.values()
                for each in counts.running.values()
            )
            means = [counts.mean_seconds("confirm") or 0.0 for counts in self._counts.values()]
            left += max(0, confirm_left - confirms) * fmean(means)
        return left

    def _view(self) -> Group:
        with self._lock:
            parts: list[RenderableType] = [self._now(), self._bar(), Text(), self._methods()]
            if running := self._running():
                parts.append(running)
            return Group(*parts)

    def _now(self) -> RenderableType:
        """What happens now, and for how long this command has run."""
        training = "Searching" if self._confirm is None else "Confirming on fresh seeds"
        what = self._doing.what or training
        if self._doing.total:
            what += f", pair {self._doing.done + 1} of {self._doing.total}"
        line = f"{self._study.name}: {what} ({_clock(time.monotonic() - self._began)})"
        if what in ("Done", "Stopped"):
            return Text(line, style="bold")
        self._spinner.update(text=Text(line, style="bold"))
        return self._spinner

    def _bar(self) -> RenderableType:
        planned = self._planned()
        words = [f"{self._where()} trials"]
        if not self._doing.what and (left := self._left()):
            words.append(left)
        line = Text(", ".join(words))
        if not planned:
            return line
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_row(ProgressBar(total=planned, completed=self._done(), width=20), line)
        return grid

    def _methods(self) -> Table:
        heads = map(number, ("done", "running", "failed", REFUSED, OVER_BUDGET))
        grid = table("method", *heads, "best on validation")
        for method, counts in self._counts.items():
            best = "none yet"
            if counts.best is not None:
                best = f"{percent(counts.best, 1)} % at {counts.spent}"
            failed = counts.ended["FAIL"]
            done = sum(counts.ended.values()) - failed
            unfit = (counts.unfit[REFUSED], counts.unfit[OVER_BUDGET])
            numbers = (done, len(counts.running), failed, *unfit)
            grid.add_row(method, *(f"{count:,}" for count in numbers), best)
        return grid

    def _running(self) -> Table | None:
        """The trials that run, as many as there is room for."""
        running = [item for counts in self._counts.values() for item in counts.running.items()]
        if not running:
            return None
        room = max(1, self._console.height - AROUND - len(self._counts))
        hidden = len(running) - room if len(running) > room else 0
        grid = table(text("running", wrap=False), number("epoch"), number("validation"))
        for trial, each in running[: len(running) - hidden]:
            of = f" of {each.epochs}" if each.epochs else ""
            accuracy = "-" if math.isnan(each.accuracy) else f"{percent(each.accuracy, 1)} %"
            grid.add_row(trial, f"{each.step}{of}", accuracy)
        if hidden:
            grid.add_row(f"and {hidden} more", "", "")
        return grid


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _rounded(seconds: float) -> str:
    """A time, rounded to its precision."""
    if seconds < 90:
        return f"{max(1, round(seconds)) if seconds < 10 else 10 * round(seconds / 10)} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
