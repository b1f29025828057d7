"""A searcher that knows the surrogates: what was to be won in a comparison."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import moocore
import numpy as np
from optuna.trial import FrozenTrial
from scipy.stats import qmc

from methods.api import Task
from methods.values import Params
from orchestrator.search.agenda import Agenda
from orchestrator.search.replay.searchers import in_memory
from orchestrator.search.replay.tournament import PLACES, Track
from orchestrator.study.file import Study
from orchestrator.study.space import Space


@dataclass(frozen=True)
class Perfect:
    """After the defaults it tries the places that add most to the noise-free front, in turn."""

    track: Track
    name: str = "perfect knowledge"
    _found: dict[tuple[str, int], list[Params]] = field(default_factory=dict)

    def agenda(self, study: Study, spaces: Mapping[str, Space], task: Task, lag: int) -> Agenda:
        """A search that waits for nothing."""
        left = {
            search: itertools.cycle(self.best(space, study, task))
            for search, space in spaces.items()
        }

        def sample(space: Space, _history: Sequence[FrozenTrial], _: Study, number: int) -> Params:
            return next(left[space.search])

        return Agenda(in_memory(study, spaces, "random"), task, lag=lag, sample=sample)

    def best(self, space: Space, study: Study, task: Task) -> list[Params]:
        """As many places as a search has trials, each the one of largest gain."""
        key = (space.method, study.search.trials)
        if key not in self._found:
            self._found[key] = self._searched(space, study, task)
        return self._found[key]

    def _searched(self, space: Space, study: Study, task: Task) -> list[Params]:
        limit = study.cost.cap(study.budgets[-1])
        units = qmc.Sobol(len(space.free), rng=1).random(PLACES)
        places = [space.at(unit.tolist()) for unit in units]
        macs, errors = self.track.surrogates[space.method].expected(places)
        points = np.column_stack([np.log(macs), errors])
        corner = self.track.goals[space.method].reference
        left = np.flatnonzero((points < corner).all(axis=1)).tolist()
        chosen: list[int] = []
        while len(chosen) < study.search.trials and left:
            gains = [moocore.hypervolume(points[[*chosen, i]], ref=list(corner)) for i in left]
            place = left.pop(int(np.argmax(gains)))
            if space.method_at(places[place]).floor(task) <= limit:
                chosen.append(place)
        return [places[i] for i in chosen]
