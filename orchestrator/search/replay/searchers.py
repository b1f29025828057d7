"""Ways to search that can be simulated: a sampler, and a rule that stops trials or none."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from methods.errors import StudyError, nearest
from orchestrator.search import rungs
from orchestrator.search.proposals import propose
from orchestrator.search.replay.simulate import Ended, Searcher, Session, frozen
from orchestrator.search.rungs import REMEMBERED, Curve, Plan
from orchestrator.study.file import Study
from orchestrator.study.params import derive
from orchestrator.study.space import Space

Shown = Literal["pruned", "predicted", "nothing"]


@dataclass(frozen=True)
class Strategy:
    """Our own search: what `isoflop run` proposes and stops."""

    name: str
    sampler: str
    plan: Plan | None = None
    shown: Shown = "predicted"
    """What a sampler sees of a stopped trial: nothing, that it was pruned, or its outlook."""

    def session(self, space: Space, study: Study) -> Session:
        """A fresh search of one method."""
        search = study.search.model_copy(update={"sampler": self.sampler})
        return _StrategySession(self, space, study.model_copy(update={"search": search}))


@dataclass
class _StrategySession:
    """Holds nothing but what it worked out before."""

    strategy: Strategy
    space: Space
    study: Study
    _trials: dict[int, FrozenTrial | None] = field(default_factory=dict)

    def propose(self, number: int, ended: Sequence[Ended]) -> Mapping[str, Any]:
        history = [self._shown(trial, ended) for trial in ended]
        seen = [trial for trial in history if trial is not None]
        return propose(self.space, seen, self.study, number)

    def stops(self, number: int, own: Curve, ended: Sequence[Ended]) -> bool:  # noqa: ARG002
        if self.strategy.plan is None or own.step < rungs.first_rung(
            self.strategy.plan, own.epochs
        ):
            return False
        others = [trial.curve for trial in ended[-REMEMBERED:] if not trial.refused]
        return rungs.stops(self.strategy.plan, own, others) is not None

    def close(self) -> None:
        pass

    def _shown(self, trial: Ended, ended: Sequence[Ended]) -> FrozenTrial | None:
        if trial.number not in self._trials:
            self._trials[trial.number] = self._frozen(trial, ended)
        return self._trials[trial.number]

    def _frozen(self, trial: Ended, ended: Sequence[Ended]) -> FrozenTrial | None:
        curve = trial.curve
        if curve.final_error is not None and curve.final_macs is not None:
            return frozen(self.space, trial, (curve.final_error, curve.final_macs))
        if trial.refused or self.strategy.shown == "pruned":
            return frozen(self.space, trial, None)
        if self.strategy.shown == "nothing":
            return None
        others = [other.curve for other in ended[: trial.number] if not other.refused]
        seen = rungs.outlook(curve, others[-REMEMBERED:])
        if seen is None:
            return frozen(self.space, trial, None)
        return frozen(self.space, trial, (math.exp(seen[1]), math.exp(seen[0])))


@dataclass(frozen=True)
class Stock:
    """One of Optuna's samplers by ask and tell, in a study of its own; stops nothing.

    NSGA-II counts its generations in the study that asked: our own way, a fresh study per
    proposal, would make it a random search.
    """

    name: str
    make: Callable[[int, int], BaseSampler]
    """From a seed and the number of whole trials."""

    def session(self, space: Space, study: Study) -> Session:
        """A fresh search of one method, the published values first."""
        seed = derive(study, f"{space.method}/{self.name}", 0)
        sampler = self.make(seed, study.search.trials)
        own = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
        own.enqueue_trial(space.defaults())
        return _StockSession(space, own)


@dataclass
class _StockSession:
    space: Space
    study: optuna.Study
    _told: int = 0

    def propose(self, number: int, ended: Sequence[Ended]) -> Mapping[str, Any]:
        for trial in ended[self._told :]:
            curve = trial.curve
            values = None if trial.refused else [curve.final_error, curve.final_macs]
            state = TrialState.FAIL if trial.refused else TrialState.COMPLETE
            self.study.tell(trial.number, values, state)  # type: ignore[arg-type]
        self._told = len(ended)
        asked = self.study.ask(dict(self.space.free))
        assert asked.number == number, "trials are asked for in turn"
        return dict(asked.params)

    def stops(self, number: int, own: Curve, ended: Sequence[Ended]) -> bool:  # noqa: ARG002
        return False

    def close(self) -> None:
        pass


def _nsga2(seed: int, trials: int) -> BaseSampler:
    """Four generations at least: Optuna's fifty a generation would be random in short searches."""
    return NSGAIISampler(seed=seed, population_size=min(50, max(4, trials // 4)))


SEARCHERS: dict[str, Searcher] = {
    searcher.name: searcher
    for searcher in (
        Strategy("default", "auto"),
        Stock("random", lambda seed, _: RandomSampler(seed=seed)),
        Stock("nsga2", _nsga2),
        Stock("tpe", lambda seed, _: TPESampler(seed=seed)),
        Strategy("sobol", "sobol"),
        Strategy("gp", "gp"),
        Strategy("ehvi", "ehvi"),
        Strategy("ehvi+asha", "ehvi", Plan(rule="asha")),
        Strategy("ehvi+moasha", "ehvi", Plan(rule="moasha")),
        Strategy("ehvi+predictive", "ehvi", Plan(rule="predictive")),
        Strategy("tpe+predictive", "tpe", Plan(rule="predictive")),
    )
}


def named(names: str) -> list[Searcher]:
    """The searchers of a comma-separated list.

    Raises:
        StudyError: an unknown name.
    """
    found = []
    for name in names.split(","):
        if name not in SEARCHERS:
            raise StudyError(f"no searcher is called {name!r}; {nearest(name, list(SEARCHERS))}")
        found.append(SEARCHERS[name])
    return found
