"""Training of one method without Ray, a study or a store."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from methods import METHODS
from methods.api import Task
from methods.data.load import Reading
from methods.errors import ClusterError, DataError, MethodError, nearest
from methods.machine import tune_allocator
from methods.training.evaluate import evaluate
from methods.training.loop import Recipe, train
from methods.training.start import Weights, fill, fit
from methods.values import Scalar, shown
from orchestrator.board.words import macs_text, percent
from orchestrator.record.events import Point
from orchestrator.record.provenance import Origin
from orchestrator.study.document import parsed
from orchestrator.study.identity import BASE
from orchestrator.study.params import ALIAS, PREFIX, parts
from orchestrator.study.places import place_of_start
from orchestrator.trial.kept import Keeper, trial_name
from orchestrator.trial.measure import measure
from orchestrator.trial.start import read

BATCH = 64
"""Batch size by hand unless `recipe.batch_size` is set: the embedded data sets are small."""


def by_hand(
    method: str,
    settings: Sequence[str],
    *,
    data: Reading,
    epochs: int,
    seed: int,
    device: str,
    published: bool = False,
    start: str = "",
    keep: Callable[[str], Path] | None = None,
) -> Iterator[str]:
    """Trains a method on a data set, a line per epoch, then a line per operating point.

    `keep` gives the folder for the results of a training of this name: weights and, as evidence,
    the networks' results on the test images. `published` takes the paper's settings, optimiser
    included, unless `settings` says otherwise. `start` names trained weights, which are told.

    Raises:
        MethodError: an unknown method or field, or a value outside its bounds.
        DataError: a data set that cannot be trained on.
        ClusterError: a device that this machine does not have.
        StorageError: trained weights that cannot be read.
    """
    if method not in METHODS:
        raise MethodError(f"no method is called {method!r}; {nearest(method, list(METHODS))}")
    model, name = METHODS[method], method
    recipe_fields = [PREFIX + field for field in Recipe.model_fields]
    params: dict[str, Scalar] = {f"{PREFIX}batch_size": BATCH}
    params |= model.STARTED if start else {}
    params |= model.PUBLISHED if published else {}
    params |= {f"{PREFIX}epochs": epochs}
    params |= _settings(settings, list(model.model_fields) + recipe_fields)
    chosen, recipe = parts(method, params)
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    devices += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if device not in devices:
        raise ClusterError(f"--device must be one of {', '.join(devices)}, but got {device!r}")
    if not data.name:
        raise DataError("--data must name a data set or a path, but is empty; try digits")
    tune_allocator()
    loaded = data.load(seed=seed, device=device)
    weights = _weights(start, loaded.task)
    fits = fit(chosen, loaded.task, weights) if weights else None
    yield f"{chosen!r} on {data.name}: {loaded.task}"
    if fits:
        yield f"start: {start}: {fits}"
    phases = len(chosen.phases())
    keeper, seconds = None, 0.0
    if keep is not None:
        whole = chosen.model_dump(mode="json")
        whole |= {PREFIX + field: value for field, value in recipe.model_dump(mode="json").items()}
        if ":" in method:  # a class of one's own, which names its place and is called as itself
            name, whole = model.__name__.lower(), {**whole, ALIAS: method}
        origin = Origin(start, weights.sha256, fits.left, fits.unused) if weights and fits else None
        folder = keep(trial_name(name, whole, seed, data, weights)).absolute()
        keeper = Keeper(folder, name, whole, seed=seed, reading=_there(data), origin=origin)
    begin = partial(fill, method=chosen, weights=weights) if weights else None
    for epoch in train(chosen, loaded, recipe, seed=seed, device=device, start=begin):
        validation = evaluate(epoch.net, loaded.validation, device=device)
        yield (
            f"epoch {epoch.index}/{epoch.epochs} {epoch.phase}: loss {epoch.loss:.4f}, "
            f"validation {percent(validation.accuracy)} % at "
            f"{macs_text(validation.macs_mean)} MMACs ({epoch.seconds:.2f} s)"
        )
        seconds += epoch.seconds
        if not epoch.phase_done:
            continue
        name, test = epoch.phase if phases > 1 else "", keeper is not None
        for measured in measure(chosen, epoch.points(), name, loaded, device, test=test):
            yield _point(measured.point)
            if keeper:
                keeper.point(measured.point, measured.shot)
        if keeper and epoch.index < epoch.epochs:
            keeper.phase(epoch.phase, epoch.state())
        elif keeper:
            keeper.done(loaded, epoch.state(), epochs=epoch.epochs, seconds=seconds)


def _weights(start: str, task: Task) -> Weights | None:
    if not start:
        return None
    if start == BASE:
        raise MethodError(
            f"--start must name trained weights, but {BASE!r} is what a study trains; give a "
            "file, `timm:NAME` or `trial:STUDY/TRIAL`"
        )
    try:
        place_of_start(start)
    except ValueError as error:
        raise MethodError(f"--start {error}") from None
    return read(start, task, folders=[Path.cwd()], out=Path("runs"))


def _there(data: Reading) -> Reading:
    """The same images, whatever the working folder is."""
    path = Path(data.name)
    return replace(data, name=str(path.absolute())) if path.exists() else data


def _settings(settings: Sequence[str], valid: list[str]) -> dict[str, Scalar]:
    params: dict[str, Scalar] = {}
    for setting in settings:
        field, equals, value = setting.partition("=")
        if not equals:
            raise MethodError(f"--set takes field=value, but got {setting!r}")
        if field not in valid:
            raise MethodError(f"no field is called {field!r}; {nearest(field, valid)}")
        try:
            parameter = parsed(value)
        except ValueError as error:
            raise MethodError(f"--set {field} must be a value, but: {error}") from None
        if not isinstance(parameter, Scalar):
            raise MethodError(f"--set {field} must be one value, but got {shown(parameter)}")
        params[field] = parameter
    return params


def _point(point: Point) -> str:
    name, val = point.point or "network", point.val
    macs = ", ".join(
        f"{which} {macs_text(cost)}"
        for which, cost in (("mean", val.macs_mean), ("p95", val.macs_p95), ("max", val.macs_max))
    )
    alarm = f"; {point.alarm}" if point.alarm else ""
    five = "" if val.top5 is None else f" (top-5 {percent(val.top5)} %)"
    return (
        f"{name}: validation {percent(val.accuracy)} %{five}, MMACs {macs}; "
        f"the price equals the executed MACs{alarm}"
    )
