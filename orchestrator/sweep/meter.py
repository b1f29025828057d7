"""A sweep's figures for Prometheus, which Ray exports beside its own."""

import contextlib
import logging
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from ray.util.metrics import Gauge

from orchestrator.record.events import End, Epoch, Lost, Paused, Rung, Start
from orchestrator.record.ledger import Ledger, News, Resumed
from orchestrator.record.result import Outcome

logger = logging.getLogger(__name__)

FIGURES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "isoflop_trials_ended": (
        "Trials that took a worker and ended, by state: COMPLETE, PRUNED, FAIL.",
        ("state",),
    ),
    "isoflop_trials_refused": (
        "Trials that took no worker, by reason: over budget, refused.",
        ("reason",),
    ),
    "isoflop_trials_running": ("Trials that a worker has.", ()),
    "isoflop_epochs": ("Epochs that trials have trained.", ()),
    "isoflop_trial_seconds": ("Seconds that ended trials took, together.", ()),
}
"""Name -> its meaning, and its labels beside study and method. Ray puts `ray_` before each name.

They are levels, not counters: a driver that resumes reports at once what the record holds, which as
a counter would look like a burst of trials.
"""
BEGAN = "isoflop_began_seconds"
"""When the study's first trial began, in seconds since 1970, by study."""


REFRESH = 5.0
"""Seconds between two reports. Ray sends a level to its agent once, every 10 s, and the agent
forgets one that it has not heard for 20 s."""


class Meter:
    """A listener that counts the totals of a record: those of earlier drivers, and what happens.

    Hearing is an addition. A report is a call into Ray's core per figure, of some 20 microseconds,
    whether anyone reads it or not.
    """

    def __init__(self, study: str) -> None:
        self._study = study
        self._gauges: dict[str, Any] = {
            name: Gauge(name, text, tag_keys=("study", "method", *labels))
            for name, (text, labels) in FIGURES.items()
        }
        self._gauges[BEGAN] = Gauge(BEGAN, "When its first trial began.", tag_keys=("study",))
        self._methods: dict[str, str] = {}
        self._running: set[str] = set()
        self._steps: dict[str, int] = {}
        self._totals: defaultdict[tuple[str, str, str], float] = defaultdict(float)
        """By name, method and the figure's own label."""
        self._began = 0

    def report(self) -> None:
        """Tell Ray every total."""
        if self._began:
            self._gauges[BEGAN].set(self._began / 1000, tags={"study": self._study})
        for (name, method, label), total in tuple(self._totals.items()):
            tags = {"study": self._study, "method": method}
            self._gauges[name].set(total, tags=tags | dict.fromkeys(FIGURES[name][1], label))

    def __call__(self, news: News) -> None:
        """Something happened."""
        if isinstance(news, Start):
            self._start(news)
        elif isinstance(news, Epoch):
            self._epochs(news.trial, news.step)
        elif isinstance(news, End):
            self._end(news)
        elif isinstance(news, Lost | Rung):
            self._rest(news.trial)
        elif isinstance(news, Paused):
            for trial in news.trials:
                self._rest(trial)
        elif isinstance(news, Resumed):
            for trial in tuple(self._running):  # by a driver that is no more
                self._rest(trial)

    def _start(self, start: Start) -> None:
        self._methods[start.trial] = start.method
        self._began = self._began or start.time
        if start.trial not in self._running:
            self._running.add(start.trial)
            self._add("isoflop_trials_running", start.method, 1)

    def _epochs(self, trial: str, step: int) -> None:
        """A trial that resumes may train an epoch again: its last step counts."""
        self._add("isoflop_epochs", self._methods[trial], step - self._steps.get(trial, 0))
        self._steps[trial] = step

    def _rest(self, trial: str) -> None:
        """A trial has no worker any more."""
        if trial in self._running:
            self._running.remove(trial)
            self._add("isoflop_trials_running", self._methods[trial], -1)

    def _end(self, end: End) -> None:
        self._rest(end.trial)
        method, outcome = self._methods[end.trial], Outcome.of(end.state, end.reason)
        if outcome.took_a_worker:
            self._add("isoflop_trials_ended", method, 1, outcome.word)
            self._epochs(end.trial, end.epochs)
            self._add("isoflop_trial_seconds", method, end.seconds)
        else:
            self._add("isoflop_trials_refused", method, 1, outcome.word)

    def _add(self, name: str, method: str, amount: float, label: str = "") -> None:
        self._totals[name, method, label] += amount


@contextlib.contextmanager
def metered(ledger: Ledger) -> Iterator[None]:
    """Reports a sweep's figures, again and again, to the Ray that runs for the block."""
    meter, stop = Meter(ledger.study.name), threading.Event()
    ledger.replay(meter)

    def told() -> bool:
        """Whether a report went out; no sweep ends for its figures."""
        try:
            meter.report()
        except Exception:
            logger.warning("The sweep's figures are no longer reported to Ray.", exc_info=True)
            return False
        return True

    def refresh() -> None:
        while told() and not stop.wait(REFRESH):
            pass

    thread = threading.Thread(target=refresh, name="meter", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        ledger.listeners.remove(meter)
        told()  # how it ended
