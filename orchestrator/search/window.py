"""What a proposal sees of its search: a function of numbers alone, however workers race."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.record.history import History
from orchestrator.search.promotion.brackets import SIZE
from orchestrator.search.samplers import sampler_of, uninformed
from orchestrator.study.file import Study
from orchestrator.study.space import Space

SLACK = 2
"""Trials of one search that can run at once, as a multiple of its equal share of the slots: trials
differ in length, and with less workers wait (docs/search.md)."""
FEW = 4
"""Ended trials below which a proposal learns next to nothing."""


@dataclass(frozen=True)
class Window:
    """How far a proposal looks back."""

    lag: int
    """It waits for the trials that are numbered so far before it, or further, and sees their
    ends."""
    running: bool
    """Whether it sees the later ones too: as running, even where they have ended."""

    @classmethod
    def of(cls, slots: int, searches: int) -> "Window":
        """The window of each of so many searches that share so many slots."""
        return cls(min(slots, math.ceil(SLACK * slots / searches)), running=True)

    @classmethod
    def begun(cls, history: History, slots: int) -> "Window":
        """The window with which a study began, which stands for all its drivers."""
        searches = len(history.spaces)
        if history.begun is None or history.begun.window > 1:
            return cls.of(slots, searches)
        return cls(-(-slots // (searches if history.study.search.repeats > 1 else 1)), False)


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What the proposals of one search see; refused trials, which come on top, are not counted."""

    sampler: str
    trials: int
    slots: int
    """Trials of the study at once."""
    lag: int
    """See `Window.lag`."""
    unseeing: int
    """Trials 1 to this one see no other: they are named by study or paper, or spread evenly."""
    last: int
    """Trials that have ended for the last proposal."""
    learners: int
    """Proposals that a sampler would learn from the trials before them if one ran at a time."""
    blind: int
    """Those among them for which fewer than `FEW` trials have ended."""

    @property
    def running(self) -> int:
        """Trials that the last proposal sees as running."""
        return self.lag if self.last else 0


def sight(study: Study, space: Space, trials: int, slots: int) -> Sight:
    """What a search of so many trials sees where so many trials of the study run at once."""
    lag = Window.of(slots, len(study.methods) * study.search.repeats).lag
    opened = bool(space.opening)
    first = opened + uninformed(space, study.search)
    known = [max(0, number - lag) for number in range(trials)]
    if study.search.stop == "promote":  # of whole brackets
        known = [before - before % SIZE for before in known]
    seen = [max(0, before - opened) for before in known]
    learners = [ended for number, ended in enumerate(seen) if number >= first]
    return Sight(
        sampler=sampler_of(study.search),
        trials=trials,
        slots=slots,
        lag=lag,
        unseeing=trials - sum(ended > 0 for ended in learners),
        last=learners[-1] if learners else 0,
        learners=len(learners),
        blind=sum(ended < FEW for ended in learners),
    )


def waves(study: Study, space: Space, trials: int, slots: int) -> tuple[int, int]:
    """How many trials of one search follow one on another at least, and how many run at once at
    most, where so many trials of the study run at once."""
    lag = Window.of(slots, len(study.methods) * study.search.repeats).lag
    free = uninformed(space, study.search) + bool(space.opening)
    first = max(lag, min(trials, free))
    later = math.ceil(max(0, trials - first) / lag)
    return min(trials, 1) + later, int(min(trials, first, slots))


def warning(study: Study, sights: Mapping[str, Sight]) -> str | None:
    """A warning, with a remedy, where most proposals of a method see next to nothing.

    None where trials of an earlier study are shown to all.
    """
    blind = {name: each for name, each in sights.items() if 2 * each.blind > each.learners}
    if study.search.warm or not blind:
        return None
    name = max(blind, key=lambda name: blind[name].blind)
    worst = blind[name]
    return (
        f"The search is blind with {worst.slots} trials at once: {worst.blind} of the "
        f"{worst.learners} trials of {name} that {worst.sampler} proposes see fewer than {FEW} "
        "trials that ended. It sees more with more `search.trials`, or with a smaller "
        "`resources.concurrency`; `search.sampler: sobol` spreads all trials evenly."
    )
