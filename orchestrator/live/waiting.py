"""What of a sweep waits, and what for: read off its history, as the agenda would decide."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.board import latency
from orchestrator.board.rules import BASELINE
from orchestrator.board.words import listed, plural
from orchestrator.live.follow import Sweep
from orchestrator.record.trials import Ticket
from orchestrator.search.confirming import awaited, confirm_plan, current, searched, searches
from orchestrator.study.identity import search_of

SHOWN = 8
"""Trials that wait each for a reason of its own, one by one; the others are counted."""


@dataclass(frozen=True)
class Waiting:
    """Something that is left to run, and why it does not yet."""

    what: str
    why: str


class Outlook:
    """What a study asks for yet; made again only when a trial has ended that it depends on."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self._history = sweep.history
        self._asked: tuple[int, int] | None = None
        self.searches: list[str] = list(sweep.history.spaces)
        """Every search that is asked for by now."""
        self.confirms: list[Ticket] | None = None
        """Every confirm run; None as long as a search runs."""
        self.timed = self.to_time = 0
        """Pairs of networks that were timed, and of those that are to be; 0 before all ended."""
        self._pairs: list[latency.Pair] | None = None

    def update(self) -> None:
        """Take what has happened into account, the tally's plan included."""
        history, study = self._history, self.sweep.study
        now = (history.searched, history.confirmed if study.confirm.race else 0)
        if now != self._asked:
            self._asked = now
            self._plan()
        tally = self.sweep.tally
        tally.confirm = None if self.confirms is None else len(self.confirms)
        tally.searches = len(self.searches) if study.search.repeats > 1 else None
        if self.ended and self._pairs is None:
            self._pairs = latency.pairs(history.rows(), study.budgets, BASELINE, study.cost)
        if self._pairs is not None:
            self.to_time = len(self._pairs)
            self.timed = self.to_time - len(latency.missing(self._pairs, history.latencies))

    @property
    def left(self) -> list[Ticket]:
        """Confirm runs without an end."""
        return [t for t in self.confirms or () if not self._history.ended(t.trial)]

    @property
    def ended(self) -> bool:
        """Whether every trial of search and confirm has an end."""
        return self.confirms is not None and not self.left

    def waiting(self) -> list[Waiting]:
        """What waits, in the order in which it is served."""
        running = self.sweep.tally.running
        waits = self._lost()
        suspects = [trial for trial in running if self._history.suspect(trial)]
        if suspects:
            why = f"{suspects[0]} runs alone until it has a new epoch: its driver may have died "
            waits.append(Waiting("every other trial", f"{why}of it"))
        records = self._history.records
        paused = sorted(self.sweep.tally.paused)
        waits += [Waiting(t, "a free worker, to resume") for t in paused if records[t].promoted]
        if undecided := sum(records[trial].promoted is None for trial in paused):
            why = "the others of their brackets must pause or end: then the better half resumes"
            waits.append(Waiting(plural(undecided, "paused trial"), why))
        waits += self._searching()
        if self.confirms is None:
            runs = sum(self.sweep.tally.most_confirm.values())
            why = "a search must end first: only then is chosen what is trained on fresh seeds"
            waits.append(Waiting(f"at most {plural(runs, 'confirm run')}", why))
        unserved = [
            ticket
            for ticket in self.left
            if ticket.trial not in running and ticket.trial not in self.sweep.lost
        ]
        if unserved:
            waits.append(Waiting(plural(len(unserved), "confirm run"), "a free worker"))
        if not self.ended:
            waits.append(
                Waiting("latency, and the board with its tests", "every confirm run must end first")
            )
        elif self.timed < self.to_time:
            pairs = plural(self.to_time - self.timed, "pair")
            waits.append(Waiting(f"the latency of {pairs} of networks", "timed one after another"))
        return waits

    def _plan(self) -> None:
        history = self._history
        self.confirms, self._pairs, self.to_time, self.timed = None, None, 0, 0
        if not all(map(self._over, history.spaces)):
            self.searches = list(history.spaces)
            return
        asked = current(history)
        further = [name for name in searches(asked) if name not in history.spaces]
        self.searches = [*history.spaces, *further]
        if not all(map(self._over, further)):
            return
        self.confirms = confirm_plan(history, asked)

    def _over(self, search: str) -> bool:
        """Whether a search has had its effort, and all its trials have ended."""
        return searched(self._history, search) and not self._unended(search)

    def _unended(self, search: str) -> str | None:
        """The first trial of a search that was started and has no end."""
        records = self._history.records
        tally = self.sweep.tally
        started = (*tally.running, *tally.paused, *self.sweep.lost)
        own = (name for name in started if records[name].start.role == "search")
        return min((name for name in own if search_of(name) == search), default=None)

    def _lost(self) -> list[Waiting]:
        """Trials that had a worker and have none now: they are served first."""
        lost = self.sweep.lost
        waits = [
            Waiting(trial, f"a free worker, to start again: {reason}")
            for trial, reason in list(lost.items())[:SHOWN]
        ]
        if more := len(lost) - len(waits):
            waits.append(Waiting(f"{plural(more, 'trial')} more", "the same"))
        return waits

    def _searching(self) -> list[Waiting]:
        """The searches that have trials to come."""
        history = self._history
        held: dict[str, list[str]] = {}
        free: list[str] = []
        for search in self.searches:
            if searched(history, search):
                continue
            if first := self._builds_on(search):
                held.setdefault(first, []).append(search)
            else:
                free.append(search)
        waits = []
        if free:
            why = "a free worker; whichever search has had the least effort comes first"
            waits.append(Waiting(f"the next {_trials(free)}", why))
        waits += [
            Waiting(
                f"the next {_trials(names)}", f"{first} must end: the next proposal learns of it"
            )
            for first, names in held.items()
        ]
        return waits[:SHOWN]

    def _builds_on(self, search: str) -> str | None:
        """The trial without whose end a search proposes nothing."""
        history = self._history
        if base := awaited(history, search):
            return base
        lag = history.begun.lag if history.begun else 1
        number = history.study.search.repeats
        lag = -(-lag // (len(history.spaces) if number > 1 else 1))
        before = history.numbers(search) - lag
        return self._unended(search) if history.trials(search, before) is None else None


def _trials(names: Sequence[str]) -> str:
    """'trials of dense and skipnet', of a few by name."""
    if len(names) > SHOWN:
        return f"trials of {len(names)} searches"
    return f"trial{'' if len(names) == 1 else 's'} of {listed(names)}"
