"""Checks before a worker starts: the study, its data, and whether a trial fits this machine."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from optuna.trial import FrozenTrial

from methods import METHODS
from methods.api import Task
from methods.data.load import Data, Reading, check
from methods.errors import ClusterError, StudyError
from methods.machine import cores, native_bf16, threads
from methods.shipping.layers import CLEARLY, Layers
from methods.training.contract import prove
from methods.training.loop import check_parts
from orchestrator.study.distributions import ends
from orchestrator.study.file import Study
from orchestrator.study.params import original_of, parts
from orchestrator.study.reading import Retired
from orchestrator.study.sections import Resources
from orchestrator.study.space import Space, spaces

logger = logging.getLogger(__name__)

SMALL = 8
"""Number of networks of a method with the least MACs, among which the fastest counts as its
smallest."""


@dataclass(frozen=True)
class Prepared:
    """A study that passed every check that needs no worker."""

    study: Study
    spaces: Mapping[str, Space]
    data: Data
    warm: Mapping[str, Sequence[FrozenTrial]] = field(default_factory=dict)
    """Per method, the trials of an earlier study for the sampler."""


def prepare(study: Study) -> Prepared:
    """Check everything in a study that can be checked before a worker starts.

    Raises:
        StudyError, MethodError, DataError: what must hold and does not.
    """
    by_method = runnable(study)  # a mistake in the file is reported before the data are read
    return prepared(study, images(study), by_method)


def runnable(study: Study) -> dict[str, Space]:
    """The spaces of a study that is to run, and not only to be read.

    Raises:
        StudyError: as `spaces`, or the study asks for what only earlier versions had.
    """
    for name, field_ in type(study.search).model_fields.items():
        word = getattr(study.search, name)
        for retired in field_.metadata:
            if isinstance(retired, Retired) and word in retired.words:
                with study.lines():
                    raise StudyError(
                        f"search.{name}: `{word}` is gone, since {retired.why} (docs/search.md); "
                        f"write `{retired.instead}`, or delete `{name}`, under another `name` if "
                        "the study has begun",
                        at=("search", name),
                    )
    return spaces(study)


def images(study: Study, device: str = "cpu") -> Data:
    """The data of a study, with its pixels on a device.

    Raises:
        DataError: they cannot be read as the study asks.
    """
    with study.lines("data"):
        return reading(study).load(seed=study.seed, device=device)


def reading(study: Study) -> Reading:
    """How a study reads its images."""
    return Reading(study.data, study.size, study.fit, study.resize)


def prepared(
    study: Study, data: Data, by_method: Mapping[str, Space], *, begun: bool = False
) -> Prepared:
    """Like `prepare`, for data and spaces that are already loaded.

    The times of a study that has `begun` are not measured again: they are in its record.

    Raises:
        StudyError, MethodError, DataError: what must hold and does not.
    """
    with study.lines("data"):
        for space in by_method.values():
            _trainable(space, data)
    if not begun:
        _proven(study, by_method, data)
    with study.lines("data"):
        if not study.cost.clocked:
            _affordable(study, by_method, data.task)
        elif not begun:
            _in_time(study, by_method, data.task)
    if study.resources.spread > 1:
        with study.lines():
            _divisible(study, by_method, data)
    _arithmetic(study)
    return Prepared(study, by_method, data)


def slots_here(resources: Resources) -> int:
    """How many trials run at once on this machine.

    Raises:
        ClusterError: a trial needs more CPUs or GPUs than the machine has.
    """
    return slots(resources, [(float(cores()), float(torch.cuda.device_count()))])


def slots(resources: Resources, nodes: list[tuple[float, float]]) -> int:
    """How many trials run at once on nodes of so many CPUs and GPUs; the study may ask for fewer.

    A trial's fraction of a GPU lies on one of them; its workers may lie on several nodes.

    Raises:
        ClusterError: no node holds one trial, or all of them together not the workers of one.
    """
    held = 0
    for cpus, gpus in nodes:
        by_cpu = int(cpus / resources.cpu)
        held += min(by_cpu, on_gpus(resources.worker_gpu, gpus)) if resources.gpu else by_cpu
    spread = resources.spread
    if held < spread and spread > 1:
        gpu = " and a GPU" if resources.gpu else ""
        cpus, gpus = sum(c for c, _ in nodes), sum(g for _, g in nodes)
        raise ClusterError(
            f"the {spread} workers of a trial must fit, on {resources.cpu:g} CPUs{gpu} each, but "
            f"{held} do: there are {cpus:g} CPUs and {gpus:g} GPUs (nodes: {len(nodes)}); lower "
            "`resources` in the study",
            at=("resources",),
        )
    if held == 0:
        cpus, gpus = max(c for c, _ in nodes), max(g for _, g in nodes)
        raise ClusterError(
            f"a trial must fit one node, but it asks for {resources.cpu:g} CPUs and "
            f"{resources.gpu:g} GPUs and the largest node has {cpus:g} CPUs and {gpus:g} GPUs; "
            "lower `resources` in the study",
            at=("resources",),
        )
    most = held // spread
    return min(most, resources.concurrency or most)


def on_gpus(share: float, gpus: float) -> int:
    """Number of trials that fit so many GPUs, if each takes this fraction of one."""
    return int(gpus) * int(1 / share) if share < 1 else int(gpus / share)


def _trainable(space: Space, data: Data) -> None:
    """Check that no batch exceeds the training split, and that every phase has data."""
    check(data, max(_ends(space, "batch_size")))
    check_parts(space.method_at(space.defaults()).phases(), data)


def _ends(space: Space, field: Literal["batch_size", "accumulate"]) -> list[int]:
    """The default of a field of the recipe and the ends, or the choices, of its range."""
    distribution = space.free.get(f"recipe.{field}")
    recipe = parts(space.method, {**space.fixed, **space.defaults()})[1]
    values = [int(getattr(recipe, field))]
    return values if distribution is None else [*values, *map(int, ends(distribution))]


def _divisible(study: Study, by_method: Mapping[str, Space], data: Data) -> None:
    """Check that several workers can train each trial together.

    Raises:
        StudyError: says what takes one worker.
    """
    workers, place = study.resources.spread, ("resources",)
    if study.cost.clocked:
        raise StudyError(
            f"budgets in milliseconds are measured by one worker, but a trial has {workers}; take "
            "budgets in MACs, or one worker",
            at=place,
        )
    for name, space in by_method.items():
        if METHODS.place(original_of(study, name)) is not None:
            raise StudyError(
                f"several workers train the methods of isoflop alone, but {name!r} is of another "
                f"package and a trial has {workers} workers; set one worker",
                at=place,
            )
        recipe = parts(space.method, {**space.fixed, **space.defaults()})[1]
        if recipe.engine != "eager" or "recipe.engine" in space.free:
            raise StudyError(
                f"several workers train by the engine `eager` alone, but {name!r} has "
                f"`{recipe.engine}` and a trial has {workers} workers; delete `recipe.engine`, or "
                "set one worker",
                at=place,
            )
        pieces = max(_ends(space, "accumulate"))
        least = min(_ends(space, "batch_size")) // pieces
        if least < 2 * workers:
            raise StudyError(
                f"each worker of a trial must have two images of a batch, but {name!r} has "
                f"{'batches' if pieces == 1 else 'pieces of batches'} of {least} for {workers} "
                "workers; raise `recipe.batch_size`, or take fewer workers",
                at=place,
            )
        for phase in space.method_at(space.defaults()).phases():
            if (images := len(data.train.part(*phase.part))) < workers:
                raise StudyError(
                    f"each worker of a trial must have an image of every phase, but {phase.name!r} "
                    f"of {name!r} has {images} for {workers} workers; use fewer workers or more "
                    "data",
                    at=place,
                )


def _proven(study: Study, by_method: Mapping[str, Space], data: Data) -> None:
    """Every method of another package prices what it executes; isoflop's own are tested with it."""
    for name, space in by_method.items():
        if METHODS.place(original_of(study, name)) is not None and name not in study.controls:
            with study.lines("methods", name):
                prove(space.method_at(space.defaults()), data)


def _arithmetic(study: Study) -> None:
    """Warn of a processor that only emulates the precision that the study asks for."""
    emulated = not study.resources.gpu and not native_bf16(torch.device("cpu"))
    if study.recipe.get("precision") == "bf16" and emulated:
        logger.warning("this machine's processor has no native bf16: precision fp32 is faster")


def _affordable(study: Study, by_method: Mapping[str, Space], task: Task) -> None:
    """Check that the largest budget holds the cheapest configuration of at least one method."""
    floors, largest = {name: s.floor(task) for name, s in by_method.items()}, study.budgets[-1]
    for name, floor in floors.items():
        if floor > study.cost.cap(largest):
            logger.warning("%s costs at least %.4g MMACs and fits no budget", name, floor / 1e6)
    cheapest = min(floors, key=floors.__getitem__)
    if floors[cheapest] > study.cost.cap(largest):
        raise StudyError(
            "a budget must hold at least one configuration, but the largest is "
            f"{largest:g} MMACs and the cheapest ({cheapest}) costs "
            f"{floors[cheapest] / 1e6:.4g}; raise `budgets` or widen the methods' ranges",
            at=("budgets",),
        )


def layers(study: Study, task: Task) -> Layers | None:
    """The times of layers here, for budgets in milliseconds; None where the device is elsewhere."""
    device = "cuda" if study.resources.gpu else "cpu"
    if study.cost.batch is None or (device == "cuda" and not torch.cuda.is_available()):
        return None
    return Layers(task, device, study.cost.batch)


def _in_time(study: Study, by_method: Mapping[str, Space], task: Task) -> None:
    """Check that the largest budget in milliseconds holds the fastest network of at least one
    method.

    Only networks whose prediction is close to it are measured, on the device of this machine.
    """
    largest = study.budgets[-1]
    with threads(max(1, int(study.resources.cpu))):
        if (table := layers(study, task)) is None:
            return
        smallest = {
            name: min(space.smallest(task, SMALL), key=table.least_ms)
            for name, space in by_method.items()
        }
        predicted = {name: table.least_ms(method) for name, method in smallest.items()}
        for name, ms in predicted.items():
            if ms > CLEARLY * largest:
                logger.warning("%s takes about %.3g ms at least and fits no budget", name, ms)
        least = min(predicted.values())
        if CLEARLY * least <= largest:
            return
        near = [name for name, ms in predicted.items() if ms <= CLEARLY * least]
        measured = {name: table.measured_ms(smallest[name]) for name in near}
    fastest = min(measured, key=measured.__getitem__)
    if measured[fastest] > largest:
        raise StudyError(
            f"a budget must hold at least one network, but the largest is {largest:g} ms and the "
            f"smallest network ({fastest}) takes {measured[fastest]:.3g} ms here, for "
            f"{study.cost.batch} image{'s' if study.cost.batch != 1 else ''} a call; raise "
            "`budgets` or widen the methods' ranges",
            at=("budgets",),
        )
