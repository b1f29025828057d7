"""What runs next: equal effort over the methods, then the configurations to confirm.

A proposal is a pure function of the seed, the trial's number and the trials that are numbered at
least `lag` before it; so the same study makes the same trials, however the workers race.
"""

import copy
import json
import logging
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher
from scipy.stats import qmc

from methods.api import Task
from methods.errors import MethodError
from orchestrator.ledger import OVER, REFUSED, Ledger, Ticket, derive
from orchestrator.params import parts
from orchestrator.rows import cap, choose
from orchestrator.sampler import condensed, improving
from orchestrator.seeding import planned
from orchestrator.shared import Handle
from orchestrator.space import Space
from orchestrator.stopping import Stopping
from orchestrator.study import SearchPlan, Study
from orchestrator.trainable import TOLD

logger = logging.getLogger(__name__)

REFUSALS = 20
"""Trials, as a multiple of the planned ones, after which a search ends that is mostly refused."""
FEW = 32
"""Trials per method below which `auto` is gp: it gains nothing over tpe, and costs 30 times as much
at 16 trials and ever more after that (docs/search.md)."""
MEMORY = 300
"""Trials that a sampler is shown, at most."""


class StudySearch(Searcher):  # type: ignore[misc]
    """Serves Ray Tune with the trials of one study and keeps its ledger."""

    def __init__(
        self,
        ledger: Ledger,
        spaces: Mapping[str, Space],
        task: Task,
        settings: Mapping[str, Any],
        warm: Mapping[str, Sequence[FrozenTrial]],
    ) -> None:
        super().__init__()
        self._ledger = ledger
        self._study = ledger.study
        self._spaces = spaces
        self._task = task
        self.lag = 1
        """A proposal sees the trials numbered this far before it: the trials at once, at least."""
        self.shared: Handle | None = None
        """Where workers find the data set; None if they read it by themselves."""
        self._settings = dict(settings)
        self.device = str(settings["device"])
        self._running: dict[str, Ticket] = {}
        ledger.abandon()
        self._again = ledger.interrupted(spaces)
        self._again.sort(key=lambda ticket: not ledger.suspect(ticket.trial))
        self._warm = dict(warm)
        self._stopping = Stopping(ledger, task)
        self._served: set[str] = set()
        self._planned: tuple[tuple[int, int], list[Ticket]] | None = None
        self.reasons: dict[str, str] = {}
        """Why a trial's worker died, by Tune's own name; filled by the sweep's scheduler."""
        self.stopped: dict[str, str] = {}
        """Why a trial is to stop early, by Tune's own name; heeded by the sweep's scheduler."""
        self.overdue: dict[str, str] = {}
        """Why a trial was ended from outside, by Tune's own name; filled by the sweep's watch."""

    @property
    def finished(self) -> bool:
        """Whether every trial of search and confirm has an end."""
        searched = all(self._searched(method) for method in self._study.methods)
        return searched and not self._again and not self._unconfirmed()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's configuration, None to wait, or FINISHED."""
        ticket = self._next()
        if not isinstance(ticket, Ticket):
            return ticket
        if ticket in self._again:
            self._again.remove(ticket)
        if ticket.role == "confirm":
            self._ledger.announce({"event": "plan", "confirm": len(self._to_confirm())})
        self._ledger.start(ticket)
        self._served.add(ticket.trial)
        self._running[trial_id] = ticket
        return {**self._settings, "shared": self.shared, **wire(self._study, ticket)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """One epoch of a running trial."""
        ticket, told = self._running[trial_id], json.loads(result[TOLD])
        self._hear(ticket, told)
        if told["end"] is None and (reason := self._stopping.reason(ticket, self.lag)):
            self.stopped[trial_id] = reason

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The end of a trial by its own word; one whose worker died is served again."""
        ticket = self._running.pop(trial_id)
        told = json.loads(result[TOLD]) if result and not error else None
        overdue = self.overdue.pop(trial_id, None)
        stopped = self.stopped.pop(trial_id, None)
        if told and told["end"]:
            self._hear(ticket, told)
            self._ledger.end(ticket.trial, **told["end"])
        elif stopped:
            self._ledger.end(ticket.trial, "PRUNED", reason=stopped)
        elif overdue:
            self._ledger.end(ticket.trial, "FAIL", reason=overdue)
        else:
            self._ledger.lose(ticket.trial, self.reasons.pop(trial_id, "its worker died"))
            if not self._given_up(ticket):
                self._served.discard(ticket.trial)
                if ticket.role == "search":
                    self._again.append(ticket)
                return
        self._ledger.tidy(ticket)

    def trained(self, trial_id: str) -> float:
        """Seconds that a running trial's epochs took, those of its former starts included."""
        return self._ledger.trained(self._running[trial_id].trial)

    def _given_up(self, ticket: Ticket) -> bool:
        """Whether a trial was lost too often; it has failed then."""
        reason = self._ledger.doomed(ticket.trial)
        if reason is not None:
            self._ledger.end(ticket.trial, "FAIL", reason=reason)
        return reason is not None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its parts for a restore that is never asked for."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""

    def _hear(self, ticket: Ticket, told: Mapping[str, Any]) -> None:
        if told.get("warning"):
            logger.warning("%s: %s", ticket.trial, told["warning"])
        if told["metrics"]:
            self._ledger.epoch(ticket.trial, told["step"], told["time"], told["metrics"])

    def _next(self) -> Ticket | str | None:
        if any(self._ledger.suspect(ticket.trial) for ticket in self._running.values()):
            return None  # it runs alone until it gets on: another driver's death is no one else's
        while self._again:
            ticket = self._again[0]
            if self._given_up(ticket):
                self._ledger.tidy(self._again.pop(0))
            elif (refusal := self._refusal(ticket.method, ticket.params)) is None:
                return ticket
            else:
                self._refuse(self._again.pop(0), refusal.reason)
        methods = [m for m in self._study.methods if not self._searched(m)]
        for method in sorted(methods, key=self._ledger.effort):
            if proposed := self._propose(method):
                return proposed
        if any(not self._searched(m) for m in methods) or self._searching():
            return None
        left = [ticket for ticket in self._unconfirmed() if not self._given_up(ticket)]
        if left:
            return min(left, key=lambda ticket: not self._ledger.suspect(ticket.trial))
        return None if self._running else str(Searcher.FINISHED)

    def _unconfirmed(self) -> list[Ticket]:
        return [
            ticket
            for ticket in self._to_confirm()
            if ticket.trial not in self._served and not self._ledger.ended(ticket.trial)
        ]

    def _to_confirm(self) -> list[Ticket]:
        """The plan, made again only when another trial has ended that it may depend on."""
        races = self._study.confirm.race
        now = (self._ledger.searched, self._ledger.confirmed if races else 0)
        if self._planned is None or self._planned[0] != now:
            self._planned = (now, confirm_plan(self._ledger))
        return self._planned[1]

    def _searching(self) -> bool:
        return any(ticket.role == "search" for ticket in self._running.values())

    def _searched(self, method: str) -> bool:
        return self._spent(method) or self._hopeless(method)

    def _spent(self, method: str) -> bool:
        plan = self._study.search
        planned = (
            plan.trials * self._spaces[method].epochs if plan.seconds is None else plan.seconds
        )
        return self._ledger.effort(method) >= planned

    def _hopeless(self, method: str) -> bool:
        return self._ledger.numbers(method) >= self._study.search.trials * REFUSALS

    def _propose(self, method: str) -> Ticket | None:
        """The method's next trial that fits a budget; None while one that it builds on runs."""
        space = self._spaces[method]
        while not self._searched(method):
            number = self._ledger.numbers(method)
            history = self._ledger.history(method, number - self.lag)
            if history is None:
                return None
            own = [self._stopping.shown(method, trial) for trial in history]
            seen = [*self._warm.get(method, ()), *own]
            spread = self._ledger.refused(method, number - 1)
            searched = propose(space, seen, self._study, number, spread=spread)
            refusal = self._refusal(method, space.params(searched))
            ticket = self._ledger.add(space, searched, over=refusal and refusal.over)
            if refusal is None:
                return ticket
            self._refuse(ticket, refusal.reason)
        if not self._spent(method):
            logger.warning("%s: the search ended early, too many trials were refused", method)
        return None

    def _refuse(self, ticket: Ticket, reason: str) -> None:
        self._ledger.start(ticket)
        self._ledger.end(ticket.trial, "FAIL", reason=REFUSED + reason)

    def _refusal(self, method: str, params: Mapping[str, Any]) -> "_Refusal | None":
        """Why a trial cannot be, or cannot hold any budget: known before it takes a worker."""
        try:
            floor = parts(method, params)[0].floor(self._task)
        except MethodError as error:
            return _Refusal(str(error), 1.0)
        largest = self._study.budgets[-1]
        if floor <= cap(largest):
            return None
        reason = f"costs {floor / 1e6:.4g} MMACs at least, the largest budget is {largest:g}"
        return _Refusal(reason, floor / cap(largest) - 1)


class _Refusal(NamedTuple):
    """Why a trial takes no worker, and by which fraction it lies over the largest budget."""

    reason: str
    over: float


def propose(
    space: Space,
    history: Sequence[FrozenTrial],
    study: Study,
    number: int,
    *,
    spread: bool = False,
) -> dict[str, Any]:
    """Free parameters of trial `number`; the first ones are the space's own.

    One sampler per proposal, seeded by the study, the method and the number. `spread` takes the
    next Sobol point instead: a sampler's own choice was refused, and it would choose it again.
    """
    first = space.first
    if number < len(first) or not space.free:
        return first[min(number, len(first) - 1)]
    name = _named(study.search)
    place = number - len(first)
    if name == "sobol" or (name in LEARNING and (spread or place < _start(study.search))):
        return space.at(_sobol(len(space.free), place, derive(study, f"{space.method}/sobol", 0)))
    seed = derive(study, f"{space.method}/sampler", number)
    shown = [] if name == "random" else _bounded(condensed(history, MEMORY), study.budgets[-1])
    if name == "ehvi":
        return improving(space, shown, cap(study.budgets[-1]), np.random.default_rng(seed))
    sampler = SAMPLERS[name](seed, study.search.trials)
    memory = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    memory.add_trials(shown)
    return dict(memory.ask(dict(space.free)).params)


def confirm_plan(ledger: Ledger) -> list[Ticket]:
    """The chosen configurations on fresh seeds; one chosen at two budgets runs once.

    Seeds go round: every configuration gets its first seed before any gets its second.
    """
    study, rows = ledger.study, ledger.rows()
    choices = choose(rows, study.budgets)
    seeds = planned(rows, study).given
    return [
        Ticket(
            trial=f"{config}-seed{index}",
            method=own[0].method,
            role="confirm",
            config=config,
            seed=index,
            params=own[0].params,
            budgets=tuple(choice.budget for choice in own),
            point=own[0].point,
        )
        for index in range(1, max(seeds.values(), default=0) + 1)
        for config in dict.fromkeys(choice.config for choice in choices)
        if index <= seeds[config]
        if (own := [choice for choice in choices if choice.config == config])
    ]


def wire(study: Study, ticket: Ticket) -> dict[str, Any]:
    """What a worker is sent: names and numbers."""
    return {
        "trial": ticket.trial,
        "method": ticket.method,
        "params": dict(ticket.params),
        "role": ticket.role,
        "seed": derive(study, ticket.config, ticket.seed),
    }


def _named(plan: SearchPlan) -> str:
    """The sampler that a plan means."""
    if plan.sampler != "auto":
        return plan.sampler
    return "gp" if plan.trials < FEW else "tpe"


def _start(plan: SearchPlan) -> int:
    """Trials that spread over the space before a sampler learns from them."""
    return max(4, min(10, plan.trials // 3))


def _sobol(dimensions: int, number: int, seed: int) -> list[float]:
    """Point `number` of the scrambled Sobol sequence of a seed."""
    sequence = qmc.Sobol(dimensions, rng=seed)
    if number:
        sequence.fast_forward(number)
    return [float(u) for u in sequence.random(1)[0]]


def _bounded(history: Sequence[FrozenTrial], budget: float) -> list[FrozenTrial]:
    """The trials as a sampler sees them: beyond the largest budget (MMACs) they break a constraint.

    A refused one has no error, and is shown with the usual one. To NSGA-II all that came before is
    the population from which the best become parents.
    """
    errors = [trial.values[0] for trial in history if trial.state == TrialState.COMPLETE]
    usual = statistics.median(errors) if errors else 0.5
    shown = []
    for trial in history:
        seen, over = copy.copy(trial), trial.user_attrs.get(OVER)
        if over is not None:
            seen.state, seen.values = TrialState.COMPLETE, [usual, cap(budget) * (1 + over)]
        if seen.state == TrialState.COMPLETE:
            seen.system_attrs = {"NSGAIISampler:generation": 0}
            seen.set_constraint("budget", seen.values[1] / cap(budget) - 1)
        shown.append(seen)
    return shown


def _gp(seed: int, _trials: int) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.GPSampler(
            seed=seed, n_startup_trials=1, deterministic_objective=False
        )


def _nsga2(seed: int, trials: int) -> optuna.samplers.BaseSampler:
    population = min(50, max(8, trials // 4))
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=population)


LEARNING = ("ehvi", "gp", "tpe")
"""Samplers that start from points spread over the space."""
SAMPLERS: Mapping[str, Callable[[int, int], optuna.samplers.BaseSampler]] = {
    "gp": _gp,
    "tpe": lambda seed, _: optuna.samplers.TPESampler(seed=seed, n_startup_trials=1),
    "nsga2": _nsga2,
    "random": lambda seed, _: optuna.samplers.RandomSampler(seed=seed),
}
