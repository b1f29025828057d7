"""The plan of a study: its space, effort, time, and the differences that its seeds can detect."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from methods.api import Images, Task
from methods.data.load import Data
from methods.errors import ClusterError, Diverged, StudyError
from methods.machine import threads
from methods.values import Params
from orchestrator.board.rules import BASELINE
from orchestrator.search.bases import base_params, planned
from orchestrator.search.confirming import confirm_runs, unreduced_runs
from orchestrator.search.doubts import blind_on_gpus, busy, spread_over_workers, warnings
from orchestrator.search.samples import accepted, price, reach, sampled, spread
from orchestrator.search.split import Detectable, Splits, detectable_by, splits_of
from orchestrator.search.window import Sight, sight, waves
from orchestrator.study.budgets import MACS, Cost
from orchestrator.study.check import SMALL, images, layers, prepared, reading, runnable, slots_here
from orchestrator.study.distributions import ends, ranged
from orchestrator.study.file import Study
from orchestrator.study.identity import BASE
from orchestrator.study.params import derive, parts, unreduced
from orchestrator.study.sections import SearchPlan
from orchestrator.study.space import Space
from orchestrator.trial.packing import Packing, Trial, packing
from orchestrator.trial.rate import GPUS, Hours, Load, Rate, check_rate, slots_on
from orchestrator.trial.timing import Timing, quiet, time_trial

IMAGES = 8
"""Validation images that a built network is priced on."""
FEW = 2
"""Images of noise that it is priced on, where the data were not read."""
STEPS = 5
"""Optimiser steps in one of the timing's short epochs."""


@dataclass(frozen=True, kw_only=True)
class MethodPlan:
    """What one method's part of a study can reach, and what it takes. Costs are MACs per image, or
    milliseconds of a call as predicted, where budgets are."""

    method: str
    free: Mapping[str, str]
    """Searched hyperparameters, each with its range in words."""
    opening: Params
    """What the first trial has from the paper; empty where the search begins with the defaults."""
    samples: int
    refused: float
    """Fraction of the samples whose values the method does not take together."""
    least: float
    """The least that any configuration can cost; NaN where times cannot be predicted here."""
    most: float | None
    """The most that an untrained network of the samples costs; None if none can be built. Of times
    the largest of what the samples can take at least."""
    fits: tuple[float, ...]
    """Per budget, the fraction of the samples that can cost as little."""
    trials: int
    """Search trials that run, of all repeats; refused ones come on top, and take no worker."""
    epochs: tuple[int, int]
    """Epochs of a trial, least and most."""
    confirm: int
    """Confirm runs of all repeats, at most: a configuration that is best at two budgets runs once
    per seed."""
    unreduced: int = 0
    """Runs of what its choices are reduced from, of all repeats, at most."""
    base: int = 0
    """Epochs of the base that its trials start from; each search has as many fewer."""
    trial_seconds: float | None
    """A trial of median cost; None where it was not timed."""
    longest_seconds: float | None = None
    """The longest of its runs that were timed: a trial, the first one, an unreduced network."""
    base_seconds: float = 0.0
    """The base that its trials start from."""
    base_shared: bool = False
    """Whether a method before it trains that base."""
    search_seconds: float | None
    confirm_seconds: float | None
    """At most, as `confirm`; with the unreduced runs."""
    steps: int
    """Optimiser steps that the times are extrapolated from."""
    sight: Sight | None = None
    """What the proposals of each of its searches will see; None where the slots are not known."""

    @property
    def seconds(self) -> float | None:
        """Device time of base, search and confirm."""
        if self.search_seconds is None or self.confirm_seconds is None:
            return None
        return self.base_seconds + self.search_seconds + self.confirm_seconds

    @property
    def most_epochs(self) -> int:
        """Epochs of search and confirm, at most."""
        return self.base + (self.trials + self.confirm + self.unreduced) * self.epochs[1]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study as it would run."""

    study: str
    hash: str
    data: str
    images: tuple[int, int, int]
    """Number of images in the training, validation and test splits."""
    budgets: tuple[float, ...]
    primary: float
    methods: tuple[MethodPlan, ...]
    slots: int | None
    """Trials at once on this machine; None if it holds none."""
    untimed: str | None
    """Why nothing was timed, if so."""
    compared: int
    """Pairs of methods that are tested at the primary budget."""
    detectable: tuple[Detectable, ...]
    """For the study's seeds, and for more; empty where searches are repeated."""
    splits: Splits | None
    """How else the effort could be spent on claims about methods; None where nothing is compared,
    or a search is bounded by time."""
    warnings: tuple[str, ...]
    cost: Cost = MACS
    """What budgets are spent in."""
    packing: Packing | None = None
    """How many trials share a GPU best; None where there is none, or nothing was timed."""
    rate: Rate | None = None
    """The throughput that times are derived from; None where they are measured, or there are
    none."""
    hours: tuple[Hours, ...] = ()
    """How long the study takes on several numbers of GPUs; empty without a `rate`."""
    stand_in: bool = False
    """Whether the data were not read: noise stands for them, as many images as there are."""

    @property
    def seconds(self) -> float | None:
        """Device time of all methods, at most; a base that several share is trained once."""
        known = [method.seconds for method in self.methods]
        shared = sum(method.base_seconds for method in self.methods if method.base_shared)
        return None if None in known else sum(s for s in known if s is not None) - shared


def plan(
    study: Study, *, steps: int = STEPS, rate: float | None = None, gpus: Sequence[int] = GPUS
) -> Plan:
    """The plan of a study; times it in short epochs of `steps` optimiser steps, not at all if 0.

    With a `rate`, the images per second that one GPU trains, times are derived from it and from
    MACs, for these numbers of `gpus`: nothing is timed, and well-known data are not read.

    Raises:
        StudyError, MethodError, DataError: what must hold and does not.
    """
    if rate is not None:
        check_rate(rate)
        if study.cost.clocked:
            raise StudyError(
                "a rate gives the time of MACs, so that budgets must be in MACs, but they are in "
                "milliseconds; delete `--rate`, or give the budgets in million MACs",
                at=("budgets",),
            )
    opened = runnable(study)
    slots, untimed = _slots(study) if rate is None else (None, None)
    average = os.getloadavg()[0]
    device = "cuda" if study.resources.gpu and slots else "cpu"
    noise = None if rate is None else reading(study).stand_in(seed=study.seed)
    data = images(study, device) if noise is None else noise
    timing = partial(time_trial, steps=steps, device=device, batch=study.cost.batch)
    with quiet():  # what preflight would warn of stands in the plan
        prepared(study, data, opened)
    derived = None if rate is None else _rate(study, opened, data.task, rate)
    if steps == 0 and derived is None:
        untimed = "skipped on request"

    def timed(name: str, params: Params) -> Timing | None:
        if untimed:
            return None
        method, recipe = parts(name, params)
        if derived:
            return derived.timing(method, recipe, data)
        seed = derive(study, f"{name}/plan", 0)
        try:
            with threads(max(1, int(study.resources.cpu))):
                return timing(method, recipe, data, seed=seed)
        except Diverged:
            return None

    with threads(1):
        priced = data.validation.head(IMAGES if noise is None else FEW)[0]
        methods = tuple(_method(study, space, data, priced, timed) for space in opened.values())
    methods = _in_ms(study, opened, data.task, methods) if study.cost.clocked else methods
    bases = planned(study, opened)
    shared = {method for base in bases for method in base.serves[1:]}
    methods = tuple(replace(method, base_shared=method.method in shared) for method in methods)
    methods = tuple(_sighted(study, opened[method.method], method, slots) for method in methods)
    tested = set(study.methods) - study.controls.keys()
    compared = math.comb(len(tested), 2) if BASELINE in tested else 0
    clocked = not untimed and derived is None
    return Plan(
        study=study.name,
        hash=study.hash,
        data=study.data,
        images=(len(data.train), len(data.validation), len(data.test)),
        budgets=tuple(study.budgets),
        primary=study.primary_budget,
        cost=study.cost,
        methods=methods,
        slots=slots,
        untimed=untimed,
        compared=compared,
        detectable=detectable_by(study, compared) if study.search.repeats == 1 else (),
        splits=splits_of(study, opened, (len(data.validation), len(data.test))),
        warnings=(
            *warnings(study, methods, timed=not untimed),
            *spread_over_workers(study.resources, timed=clocked),
            *(busy(average) if clocked else []),
            *(blind_on_gpus(study, opened, methods) if derived else []),
        ),
        packing=packing(_longest(study, opened, methods), device)
        if clocked and device == "cuda"
        else None,
        rate=derived,
        hours=_hours(study, opened, methods, gpus) if derived else (),
        stand_in=noise is not None,
    )


def _rate(study: Study, opened: Mapping[str, Space], task: Task, rate: float) -> Rate:
    """The throughput of dense at its defaults in this study, or else of the first method."""
    space = opened[BASELINE] if BASELINE in opened else next(iter(opened.values()))
    params = space.params(space.defaults())
    method, recipe = parts(space.method, params)
    named = {*study.methods[space.method], *space.free}
    fields = [f"{name} {params[name]}" for name in type(method).model_fields if name in named]
    network = f"{space.method} ({', '.join(fields)})" if fields else space.method
    return Rate.of(rate, network, method, recipe, task)


def _hours(
    study: Study, opened: Mapping[str, Space], methods: Sequence[MethodPlan], gpus: Sequence[int]
) -> tuple[Hours, ...]:
    """How long the study takes on each number of GPUs; nothing where a time is not known."""
    repeats = study.search.repeats

    def load(method: MethodPlan, slots: int) -> Load:
        each = method.trials // repeats
        follow, beside = waves(study, opened[method.method], each, max(1, slots))
        search = method.search_seconds or 0.0
        return Load(
            base=method.base_seconds,
            shared=method.base_shared,
            search=search,
            confirm=method.confirm_seconds or 0.0,
            trial=search / max(1, method.trials),
            longest=method.longest_seconds or 0.0,
            waves=follow,
            beside=repeats * beside,
            runs=method.confirm + method.unreduced,
        )

    if any(method.seconds is None for method in methods):
        return ()
    return tuple(
        Hours.of(
            [load(method, slots_on(study.resources, number)) for method in methods],
            study.resources,
            number,
        )
        for number in gpus
    )


def _longest(study: Study, spaces: Mapping[str, Space], methods: Sequence[MethodPlan]) -> Trial:
    """The defaults of the method whose trials take longest: others leave more of a GPU free."""
    name = max(methods, key=lambda method: method.trial_seconds or 0.0).method
    space = spaces[name]
    return Trial(name, {**space.fixed, **space.defaults()}, reading(study), study.seed)


def _slots(study: Study) -> tuple[int | None, str | None]:
    """Trials at once on this machine, or None and why."""
    try:
        return slots_here(study.resources), None
    except ClusterError as error:
        return None, f"this machine is too small for a trial ({error})"


def _method(
    study: Study,
    space: Space,
    data: Data,
    images: Images,
    timed: Callable[[str, Params], Timing | None],
) -> MethodPlan:
    device = str(images.device)
    places = sampled(study, space)
    taken = accepted(space, places, data.task)
    cap = math.inf if (cost := study.cost).clocked else cost.cap(study.budgets[-1])
    fitting = [s for s in taken if s.floor <= cap]
    built = [sample.method for sample in (*spread(taken), *spread(fitting))]
    prices = {each: price(each, data.task, images, device) for each in dict.fromkeys(built)}
    median = sorted(spread(fitting), key=lambda s: prices[s.method])[len(spread(fitting)) // 2 :]
    defaults = accepted(space, [space.defaults()], data.task)
    first = [s for s in defaults if s.floor <= cap]
    usual = [space.params(sample.searched) for sample in (*first[:1], *median[:1])]
    timings = [timed(space.method, params) for params in usual]
    known = [timing for timing in timings if timing is not None]
    repeats, confirm = study.search.repeats, confirm_runs(study, space)
    wholes = unreduced_runs(study, space)
    whole = unreduced(space.method, usual[-1]) if wholes and known else None
    unreduced_time = timed(space.method, whole) if whole else None
    opening, typical = (known[0], known[-1]) if known else (None, None)
    base = _base(study, space)
    base_time = timed(BASE, base_params(study, space)) if base and known else None
    trials = _trials(study.search, opening, typical) - base // space.epochs
    longest = max((t.seconds + t.test_seconds for t in (*known, unreduced_time) if t), default=None)
    return MethodPlan(
        method=space.method,
        free={name: ranged(distribution) for name, distribution in space.free.items()},
        opening=space.opening,
        samples=len(places),
        refused=1 - len(taken) / len(places),
        least=min(space.floor(data.task), *(s.floor for s in (*taken, *defaults))),
        most=max(prices.values(), default=None),
        fits=tuple(sum(s.floor <= cost.cap(b) for s in taken) / len(places) for b in study.budgets),
        trials=repeats * trials,
        epochs=_epochs(space),
        confirm=confirm,
        trial_seconds=typical.seconds if typical else None,
        longest_seconds=longest,
        base_seconds=base_time.seconds if base_time else 0.0,
        search_seconds=repeats * (opening.seconds + (trials - 1) * typical.seconds)
        if opening and typical
        else None,
        unreduced=wholes,
        base=base,
        confirm_seconds=_confirming(confirm, typical, wholes, unreduced_time),
        steps=sum(timing.steps for timing in (*known, unreduced_time) if timing),
    )


def _sighted(study: Study, space: Space, plan: MethodPlan, slots: int | None) -> MethodPlan:
    """The same with what its searches will see on this machine."""
    if slots is None:
        return plan
    return replace(plan, sight=sight(study, space, plan.trials // study.search.repeats, slots))


def _confirming(
    runs: int, typical: Timing | None, wholes: int, whole: Timing | None
) -> float | None:
    """Seconds of confirm runs, and of the unreduced ones; None where one kind was not timed."""
    if typical is None or (wholes and whole is None):
        return None
    seconds = runs * (typical.seconds + typical.test_seconds)
    return seconds + (wholes * (whole.seconds + whole.test_seconds) if whole else 0.0)


def _in_ms(
    study: Study, opened: Mapping[str, Space], task: Task, methods: Sequence[MethodPlan]
) -> tuple[MethodPlan, ...]:
    """The same with predicted milliseconds: of some of the samples, since each is built for it."""
    reached = []
    with threads(max(1, int(study.resources.cpu))):
        table = layers(study, task)
        for plan in methods:
            space = opened[plan.method]
            some = [s.method for s in spread(accepted(space, sampled(study, space), task))]
            found = reach(table, space.smallest(task, SMALL), some, study.budgets, 1 - plan.refused)
            reached.append(replace(plan, **vars(found)))
    return tuple(reached)


def _trials(search: SearchPlan, opening: Timing | None, typical: Timing | None) -> int:
    """Trials of one search: as many as are asked for, or as fit the seconds."""
    if search.seconds is None or opening is None or typical is None:
        return search.trials
    return 1 + math.ceil(max(0.0, search.seconds - opening.seconds) / typical.seconds)


def _base(study: Study, space: Space) -> int:
    """Epochs of the base of a method; 0 where it starts otherwise."""
    if study.start_of(space.method) != BASE:
        return 0
    return parts(BASE, base_params(study, space))[1].epochs


def _epochs(space: Space) -> tuple[int, int]:
    distribution = space.free.get("recipe.epochs")
    if distribution is None:
        epochs = parts(space.method, {**space.fixed, **space.defaults()})[1].epochs
        return epochs, epochs
    numbers = [int(epochs) for epochs in ends(distribution)]
    return min(numbers), max(numbers)
