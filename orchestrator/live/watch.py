"""One sweep, watched: a thread reads what its driver adds, and whoever shows it waits for news."""

import dataclasses
import json
import logging
import threading
import time

from methods.errors import IsoflopError
from orchestrator.live.follow import Follower, Sweep
from orchestrator.live.state import State, state
from orchestrator.live.waiting import Outlook
from orchestrator.report.drawing import interim
from orchestrator.report.publish import Source

logger = logging.getLogger(__name__)

EVERY = 1.0
"""Seconds between two looks at the folder."""
AGAIN = 5.0
"""Seconds after which times are told anew, where nothing else has changed."""
SHARE = 0.1
"""Largest share of the time in which interim boards are drawn: workers need the processors."""


class Watch:
    """What is known of a sweep, for any number of readers.

    Interim boards are drawn only when somebody asks, and in a tenth of the time at most.
    """

    def __init__(self, follower: Follower) -> None:
        self.follower = follower
        self._outlook: Outlook | None = None
        self._problem = ""
        self._lock = threading.RLock()
        self._news = threading.Condition()
        self._number, self._told = 0, ""
        self._state: State | None = None
        self._told_at = 0.0
        self._drawing = threading.Lock()
        self._offered = self._drawn = 0
        self._page, self._ended, self._next = b"", 0, 0.0
        self._over = threading.Event()

    def start(self) -> None:
        """Read on, in a thread of its own, until `stop`."""
        threading.Thread(target=self._read, name="watch", daemon=True).start()

    def stop(self) -> None:
        """Read no further, and let whoever waits for news go."""
        self._over.set()
        with self._news:
            self._news.notify_all()

    @property
    def stopped(self) -> bool:
        """Whether nothing new will come."""
        return self._over.is_set()

    def news(self, since: int, timeout: float) -> tuple[int, str]:
        """The latest state as JSON with its number, once that is another one than `since`.

        After `timeout` seconds what is known is returned all the same.
        """
        with self._news:
            self._news.wait_for(lambda: self._number != since or self.stopped, timeout)
            return self._number, self._told

    def board(self) -> bytes | None:
        """The interim board as a page; None before a search trial has ended."""
        with self._drawing:
            with self._lock:
                sweep, number = self.follower.sweep, self._offered
                if sweep is None or not number:
                    return None
                if number == self._drawn:
                    return self._page or None
                began, ended, source = time.monotonic(), sweep.history.searched, _source(sweep)
            page = b""
            try:
                page = interim(source).encode()
            except Exception:  # the page does without, and a later board may do
                logger.exception("the interim board could not be drawn")
            with self._lock:
                self._page, self._drawn, self._ended = page, number, ended
                self._next = time.monotonic() + (time.monotonic() - began) / SHARE
            return page or None

    def look(self) -> None:
        """Take what is new in the folder, and tell it."""
        more = True
        while more:
            try:
                with self._lock:
                    more = self.follower.advance()
                    self._problem = ""
            except (IsoflopError, OSError) as error:
                self._problem, more = str(error), False
            now = time.time()
            with self._lock:
                current = self._current(now)
            old = current.phase == "running" and now - self._told_at >= AGAIN
            if old or self._state is None or _lasting(current) != _lasting(self._state):
                told = json.dumps(dataclasses.asdict(current), allow_nan=False)
                with self._news:
                    self._number, self._told = self._number + 1, told
                    self._news.notify_all()
                self._state, self._told_at = current, now

    def _read(self) -> None:
        while not self._over.is_set():
            try:
                self.look()
            except Exception:  # the page shows what was known before
                logger.exception("the sweep could not be read")
            self._over.wait(AGAIN if self._problem else EVERY)

    def _current(self, now: float) -> State:
        sweep = self.follower.sweep
        if sweep is None:
            self._outlook = None
        elif self._outlook is None or self._outlook.sweep is not sweep:
            self._outlook = Outlook(sweep)
        if self._outlook is not None:
            self._outlook.update()
        self._offer(sweep)
        return state(self.follower, self._outlook, now, board=self._offered, problem=self._problem)

    def _offer(self, sweep: Sweep | None) -> None:
        """Offer a further board where trials have ended since the last one, and it is time."""
        ended = 0 if sweep is None or sweep.history.begun is None else sweep.history.searched
        if not ended:
            self._offered = self._drawn = self._ended = 0
        elif ended != self._ended and self._offered == self._drawn:
            self._offered += time.monotonic() >= self._next


def _source(sweep: Sweep) -> Source:
    begun = sweep.history.begun
    assert begun is not None, "a board is offered of a sweep that began"
    return Source(
        study=sweep.study,
        rows=sweep.history.rows(),
        provenance=begun.provenance,
        curves=sweep.curves_of,
    )


def _lasting(moment: State) -> State:
    """A state without what changes by itself."""
    running = tuple(dataclasses.replace(trial, taken="") for trial in moment.running)
    return dataclasses.replace(moment, left="", running=running)
