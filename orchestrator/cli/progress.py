"""What a person sees while a sweep runs: a live view in a wide terminal, short lines elsewhere."""

import contextlib
import math
import threading
import time
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from orchestrator.board.words import percent, plural
from orchestrator.cli.console import TABLE_WIDTH
from orchestrator.live.tally import Tally, clock, ended_text
from orchestrator.record.events import End, Epoch, Lost, Rung, Start
from orchestrator.record.ledger import Doing, News, Planned, Resumed
from orchestrator.record.result import OVER_BUDGET, REFUSED
from orchestrator.report.table import number, table, text
from orchestrator.study.file import Study

LINE = 100
"""Characters of a line at most where nothing is redrawn."""
LOADING = "Loading PyTorch, Ray and MLflow"
"""The driver's first step, before its first event."""
AROUND = 12
"""Lines of the live view beside those of methods and running trials."""


class Progress:
    """Listens to the sweep's events and shows where it stands."""

    def __init__(self, study: Study, console: Console, *, quiet: bool = False) -> None:
        self._study = study
        self._console = console
        self._lock = threading.Lock()
        self._doing = Doing(LOADING)
        self._began = time.monotonic()
        self._tally = Tally(study, self._began)
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
                    self._tally.confirm, self._tally.searches = news.confirm, news.searches
                case Start():
                    self._tally.start(news, time.monotonic())
                case Epoch():
                    self._tally.epoch(news)
                case Rung():
                    self._rest(news)
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
            self._tally.trains_since = time.monotonic()
        if doing.what and doing.what != self._doing.what:
            total = f", {plural(doing.total, 'pair')}" if doing.total else ""
            self._print(f"{doing.what}{total}")
        self._doing = doing

    def _resume(self) -> None:
        """All earlier events have come; those from now on are new."""
        self._tally.resume()
        self._resumed = True
        if before := self._tally.ended_before:
            self._print(f"Resuming after {plural(before, 'trial')}")

    def _end(self, end: End) -> None:
        self._tally.end(end)
        if self._resumed:
            ended = ended_text(end, self._study.cost)
            self._print(f"[{self._tally.where}] {end.trial} {ended}")

    def _rest(self, rung: Rung) -> None:
        self._tally.rest(rung.trial)
        if self._resumed:
            self._print(f"[{self._tally.where}] {rung.trial} paused at epoch {rung.step}")

    def _lost(self, lost: Lost) -> None:
        self._tally.lose(lost.trial)
        if self._resumed:
            self._print(f"[{self._tally.where}] {lost.trial} lost: {lost.reason}")

    def _view(self) -> Group:
        with self._lock:
            parts: list[RenderableType] = [self._now(), self._bar(), Text(), self._methods()]
            if running := self._running():
                parts.append(running)
            return Group(*parts)

    def _now(self) -> RenderableType:
        """What happens now, and for how long this command has run."""
        training = "Searching" if self._tally.confirm is None else "Confirming on fresh seeds"
        what = self._doing.what or training
        if self._doing.total:
            what += f", pair {self._doing.done + 1} of {self._doing.total}"
        line = f"{self._study.name}: {what} ({clock(time.monotonic() - self._began)})"
        if what in ("Done", "Stopped"):
            return Text(line, style="bold")
        self._spinner.update(text=Text(line, style="bold"))
        return self._spinner

    def _bar(self) -> RenderableType:
        planned = self._tally.planned
        words = [f"{self._tally.where} trials"]
        if not self._doing.what and (left := self._tally.left(time.monotonic())):
            words.append(left)
        line = Text(", ".join(words))
        if not planned:
            return line
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_row(ProgressBar(total=planned, completed=self._tally.done, width=20), line)
        return grid

    def _methods(self) -> Table:
        pauses = ("paused",) if self._study.search.stop == "promote" else ()
        heads = map(number, ("done", "running", *pauses, "failed", REFUSED, OVER_BUDGET))
        grid = table("method", *heads, "best on validation")
        for method, counts in self._tally.counts.items():
            best = "none yet"
            if counts.best is not None:
                best = f"{percent(counts.best, 1)} % at {counts.spent}"
            unfit = (counts.unfit[REFUSED], counts.unfit[OVER_BUDGET])
            paused = (len(counts.paused),) if pauses else ()
            numbers = (counts.done, len(counts.running), *paused, counts.failed, *unfit)
            grid.add_row(method, *(f"{count:,}" for count in numbers), best)
        return grid

    def _running(self) -> Table | None:
        """The trials that run, as many as there is room for."""
        running = list(self._tally.running.items())
        if not running:
            return None
        room = max(1, self._console.height - AROUND - len(self._tally.counts))
        hidden = len(running) - room if len(running) > room else 0
        grid = table(text("running", wrap=False), number("epoch"), number("validation"))
        for trial, each in running[: len(running) - hidden]:
            of = f" of {each.epochs}" if each.epochs else ""
            accuracy = "-" if math.isnan(each.accuracy) else f"{percent(each.accuracy, 1)} %"
            grid.add_row(trial, f"{each.step}{of}", accuracy)
        if hidden:
            grid.add_row(f"and {hidden} more", "", "")
        return grid
