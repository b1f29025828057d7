"""Ways to search that can be simulated: a sampler, with promotion or without."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from methods.api import Task
from methods.errors import StudyError, nearest
from methods.values import Params
from orchestrator.record.history import History
from orchestrator.search.agenda import Agenda
from orchestrator.search.replay.foreign import PATIENCE, Foreign
from orchestrator.search.replay.simulate import Searcher
from orchestrator.search.window import Window
from orchestrator.study.file import Study
from orchestrator.study.params import derive
from orchestrator.study.sections import SearchPlan
from orchestrator.study.space import Space


@dataclass(frozen=True)
class Strategy:
    """The search of `isoflop run`: its proposals and its pauses."""

    name: str
    sampler: str
    promotes: bool = False
    """Whether trials pause at a rung."""

    def agenda(self, study: Study, spaces: Mapping[str, Space], task: Task, lag: int) -> Agenda:
        """A fresh search in memory."""
        stop = "promote" if self.promotes else "none"
        return Agenda(in_memory(study, spaces, self.sampler, stop), task, lag=lag)


@dataclass(frozen=True)
class Stock:
    """One of Optuna's samplers by ask and tell, in a separate study; stops nothing.

    Starts, refusals and effort are the agenda's. The study lives as long as the search, since some
    count in it: NSGA-II its generations.
    """

    name: str
    make: Callable[[int, int], BaseSampler]
    """From a seed and the number of whole trials."""
    sampler: str = ""
    """The sampler whose evenly spread trials these searches have; that of their name by default."""
    seeded_as: str = ""
    """The word that its seeds derive from; that sampler by default."""

    def agenda(self, study: Study, spaces: Mapping[str, Space], task: Task, lag: int) -> Agenda:
        """A fresh search in memory."""
        sampler = self.sampler or self.name
        word = self.seeded_as or sampler
        samples = {search: _AskAndTell(self.make, word) for search in spaces}

        def sample(
            space: Space, history: Sequence[FrozenTrial], study: Study, number: int
        ) -> Params:
            return samples[space.search](space, history, study, number)

        window = replace(Window.of(lag, len(spaces)), running=False)  # its study has them itself
        return Agenda(in_memory(study, spaces, sampler), task, window=window, sample=sample)


@dataclass
class _AskAndTell:
    """One method's sampler, in an Optuna study that lives as long as the search."""

    make: Callable[[int, int], BaseSampler]
    word: str
    _study: optuna.Study | None = None
    _asked: dict[int, optuna.Trial] = field(default_factory=dict)
    _told: int = 0

    def __call__(
        self, space: Space, history: Sequence[FrozenTrial], study: Study, number: int
    ) -> Params:
        if self._study is None:
            seed = derive(study, f"{space.search}/{self.word}", 0)
            sampler = self.make(seed, study.search.trials)
            self._study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
        for trial in history[self._told :]:
            if trial.number not in self._asked:  # it was a start, or spread after a refusal
                self._study.enqueue_trial(trial.params)
                self._asked[trial.number] = self._study.ask(dict(space.free))
            self._study.tell(self._asked.pop(trial.number), trial.values, trial.state)
        self._told = len(history)
        self._asked[number] = self._study.ask(dict(space.free))
        return dict(self._asked[number].params)


def in_memory(
    study: Study, spaces: Mapping[str, Space], sampler: str, stop: str = "none"
) -> History:
    """The empty history of a study with this sampler."""
    search = study.search.model_copy(update={"sampler": sampler, "stop": stop})
    return History(study.model_copy(update={"search": search}), spaces)


SAMPLERS: tuple[str, ...] = get_args(SearchPlan.model_fields["sampler"].annotation)
"""What a study file may ask for."""
STOCK = (
    Stock("random", lambda seed, _: RandomSampler(seed=seed)),
    Stock("tpe", lambda seed, _: TPESampler(seed=seed)),
)
OURS = (
    Strategy("default", "auto"),
    *(Strategy(name, name) for name in SAMPLERS if name != "auto"),
    Strategy("default+promote", "auto", promotes=True),
    *(Strategy(f"{name}+promote", name, promotes=True) for name in ("random", "ehvi", "tpe")),
)
SEARCHERS: dict[str, Searcher] = {
    **{strategy.name: strategy for strategy in OURS},
    **{stock.name: stock for stock in STOCK},
}
"""By name; a stock sampler stands in place of ours of the same name."""


def named(names: str, patience: float = PATIENCE) -> list[Searcher]:
    """The searchers of a comma-separated list: known names, and classes of others by their places.

    Raises:
        StudyError: an unknown name.
    """
    searchers: list[Searcher] = []
    for name in names.split(","):
        searcher = SEARCHERS.get(name) or Foreign.written(name, patience)
        if searcher is None:
            hint = nearest(name, list(SEARCHERS))
            raise StudyError(f"no searcher is called {name!r}; {hint}, or `package.module:Class`")
        searchers.append(searcher)
    return searchers
