"""A study's folder, followed while its driver writes: the log as far as it goes, read once.

Nothing is written there, and no lock is taken.
"""

import json
import math
from array import array
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pydantic

from methods.errors import IsoflopError, StorageError, StudyError
from orchestrator.board.words import listed, plural
from orchestrator.live.tally import Tally, ended_text
from orchestrator.record import log
from orchestrator.record.depot.lent import KEY
from orchestrator.record.events import (
    Begun,
    Bracket,
    End,
    Epoch,
    Event,
    Latency,
    Lost,
    Paused,
    Rung,
    Start,
)
from orchestrator.record.history import History
from orchestrator.record.log import SLICE, Curves
from orchestrator.record.rows import Row
from orchestrator.study.file import Study
from orchestrator.study.space import searches

LATEST = 12
"""Events that are kept to be told."""


@dataclass
class Curve:
    """A trial's validation accuracies, as fractions, by epoch; small, since thousands are kept."""

    steps: "array[int]" = field(default_factory=lambda: array("l"))
    accuracies: "array[float]" = field(default_factory=lambda: array("d"))

    def add(self, epoch: Epoch) -> None:
        """One epoch; one that is repeated, or has no figure, adds nothing."""
        if math.isfinite(epoch.metrics.val_acc) and epoch.step > (self.steps or [0])[-1]:
            self.steps.append(epoch.step)
            self.accuracies.append(epoch.metrics.val_acc)

    def points(self, most: int | None = None) -> list[tuple[int, float]]:
        """Epoch and accuracy; at most so many, evenly spaced, the last one included."""
        count = len(self.steps)
        if most is None or count <= most:
            places: Iterable[int] = range(count)
        else:
            places = (i * (count - 1) // (most - 1) for i in range(most))
        return [(self.steps[i], self.accuracies[i]) for i in places]


@dataclass(frozen=True)
class Told:
    """One of the latest events, in words."""

    time: int
    """Milliseconds since 1970."""
    text: str


class Sweep:
    """What the log of one study adds up to."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.history = History(study, searches(study))
        self.tally = Tally(study)
        self.curves: dict[str, Curve] = {}
        self.lost: dict[str, str] = {}
        """Why a trial without an end has no worker any more."""
        self.latest: deque[Told] = deque(maxlen=LATEST)
        self.time = 0
        """Time of the last event, in milliseconds since 1970."""

    def take(self, event: Event) -> None:
        """One event of the log.

        Raises:
            KeyError, ValueError: it is of no trial of this study.
        """
        self.time = max(self.time, event.time)
        match event:
            case Begun():
                self._begin(event)
            case Start():
                self.tally.start(event, event.time / 1000)
                self.lost.pop(event.trial, None)
            case Epoch():
                self.curves.setdefault(event.trial, Curve()).add(event)
            case Lost():
                self._stop([event.trial], event.reason)
            case Paused():
                self._stop(event.trials, "its driver was stopped")
            case Rung():
                self.tally.rest(event.trial)
        self.history.apply(event)
        match event:
            case Epoch():
                self.tally.epoch(event)
            case End():
                self.tally.end(event)
                self.lost.pop(event.trial, None)
                self.history.records[event.trial].curve.clear()  # they are in `curves`
        if text := self._text(event):
            self.latest.append(Told(event.time, text))

    def curves_of(self, trials: Iterable[Row]) -> Curves:
        """The curves of these trials."""
        names = sorted({row.trial for row in trials})
        return {name: self.curves[name].points() for name in names if name in self.curves}

    def _begin(self, begun: Begun) -> None:
        """A driver takes over: what still runs by the log died with the one before."""
        self._stop(list(self.tally.running), "its driver died")
        self.history.abandon()
        self.tally.resume()
        self.tally.trains_since = begun.time / 1000

    def _stop(self, trials: Iterable[str], reason: str) -> None:
        for trial in trials:
            self.tally.lose(trial)
            self.lost[trial] = reason

    def _text(self, event: Event) -> str:
        """An event in words; '' for an epoch, of which there are too many."""
        text = ""
        match event:
            case Begun():
                before = self.tally.ended_before
                text = f"A driver resumed after {plural(before, 'trial')}" if before else "Begun"
            case Start():
                record = self.history.records[event.trial]
                again = f", attempt {record.attempts}" if record.attempts > 1 else ""
                text = f"{event.trial} " + ("resumed" if record.promoted else f"started{again}")
            case Lost():
                text = f"{event.trial} lost: {event.reason}"
            case Paused():
                text = f"The driver was stopped; {plural(len(event.trials), 'trial')} paused"
            case Rung():
                text = f"{event.trial} paused at epoch {event.step}"
            case Bracket():
                text = f"Of {plural(len(event.trials), 'trial')}, {listed(event.promoted)} resume"
            case End():
                text = f"{event.trial} {ended_text(event, self.study.cost)}"
            case Latency():
                text = f"{event.trial} timed"
        return text


class Follower:
    """Reads what a driver adds to a study's folder, and begins anew where the log was replaced."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sweep: Sweep | None = None
        """None as long as no driver has begun."""
        self._wal = folder / "wal.jsonl"
        self._offset = 0
        self._file: tuple[int, int] | None = None

    def advance(self) -> bool:
        """Take about `SLICE` bytes that were not read yet; False where there are none.

        A last line without its end is left for the next time.

        Raises:
            StorageError, StudyError: what lies there is not the log of a study.
        """
        try:
            status = self._wal.stat()
        except FileNotFoundError:
            begun, self.sweep = self.sweep is not None, None
            return begun
        file = (status.st_dev, status.st_ino)
        if self.sweep is None or file != self._file or status.st_size < self._offset:
            self.sweep, self._file, self._offset = Sweep(_declared(self.folder)), file, 0
        if status.st_size == self._offset:
            return False
        try:
            events, offset = log.read(self._wal, self._offset, SLICE)
            for event in events:
                self.sweep.take(event)
        except (KeyError, ValueError) as error:
            self.sweep = None
            raise StorageError(
                f"{self._wal} must be the log of the study beside it, but cannot be read: {error!r}"
            ) from None
        read, self._offset = offset > self._offset, offset
        return read

    @property
    def finished(self) -> bool:
        """Whether nothing is left to run."""
        sweep = self.sweep  # another thread may forget it
        return sweep is not None and log.finished(self._wal, sweep.study.hash)

    @property
    def report(self) -> Path | None:
        """The report of the finished study, once it has been written."""
        sweep, page = self.sweep, self.folder / "report" / "report.html"
        try:
            fresh = sweep is not None and page.stat().st_mtime * 1000 >= sweep.time
        except OSError:
            return None
        return page if fresh and self.finished else None


def _declared(folder: Path) -> Study:
    """The study that a folder records.

    Raises:
        StudyError: there is none that this version can read.
    """
    written = folder / "study.json"
    try:
        content = json.loads(written.read_text())
        study_hash = content.pop("hash")
        content.pop(KEY, None)
        return Study.model_validate(content).known_as(study_hash)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        reason = f"{where}: {first['msg']}"
    except (OSError, ValueError, KeyError, IsoflopError) as error:
        reason = str(error)
    raise StudyError(
        f"{written} must be a study that this version of isoflop can read, but: {reason}"
    )
