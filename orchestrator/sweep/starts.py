"""The trained weights of a study: checked against its networks, kept, and told to workers."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from methods import files, outside
from methods.api import Method, Task
from methods.errors import MethodError, StorageError, StudyError
from methods.training.start import Fit, Weights, fit, fresh
from methods.values import Params, shown
from orchestrator.record.depot import Folder
from orchestrator.record.provenance import Origin
from orchestrator.search import bases
from orchestrator.study.distributions import ends
from orchestrator.study.file import Study
from orchestrator.study.identity import BASE
from orchestrator.study.params import parts
from orchestrator.study.space import Space
from orchestrator.trial import start

logger = logging.getLogger(__name__)

INDEX = "starts.json"
"""The list of the weights that a study keeps."""
Starts = Mapping[str, tuple[Origin, Weights | None]]
"""By method: where its weights are from, and the weights; None for a base, which has none yet."""


def taken(study: Study, spaces: Mapping[str, Space], task: Task, folder: Path) -> Starts:
    """The starts of a study whose folder this is; writes nothing.

    Raises:
        StudyError, StorageError, MethodError: weights that cannot be read, that fit another network
            than one of the study's, or that are others than when the study began.
    """
    recorded, found = _recorded(folder), {}
    for method, name in study.start.items():
        with study.lines("start", method):
            space = spaces[method]
            if name == BASE:
                weights, fits = None, _of_base(study, space, task)
            else:
                weights = _weights(study.name, name, task, folder, recorded.get(method))
                fits = _fitting(study, space, task, weights)
            sha256 = weights.sha256 if weights else ""
            found[method] = (Origin(name, sha256, fits.left, fits.unused), weights)
            if method not in recorded:
                level = logging.WARNING if fits.left or fits.unused else logging.INFO
                logger.log(level, "%s starts from %s: %s", method, name, fits)
    return found


def keep(folder: Path, starts: Starts) -> None:
    """Writes weights into the study's folder, unless they are there.

    Raises:
        StorageError: they cannot be written.
    """
    index = folder / start.FOLDER / INDEX
    if not starts or index.exists():
        return
    for origin, weights in starts.values():
        if weights is not None:
            start.keep(folder / start.file_of(origin), weights)
    files.write(index, json.dumps({name: vars(o) for name, (o, _) in starts.items()}))


def paths(study: Study, folder: Path, spaces: Mapping[str, Space]) -> tuple[tuple[str, str], ...]:
    """By method and control, the file in the study's depot from which a worker fills networks."""
    recorded = _recorded(folder)
    based = {
        method: f"trials/{ticket.trial}/last.pt"
        for ticket in bases.planned(study, spaces)
        for method in ticket.serves
    }
    found = []
    for method in study.methods:
        original = study.controls.get(method, method)
        if method in based:
            found.append((method, based[method]))
        elif original in recorded:
            found.append((method, start.file_of(recorded[original])))
    return tuple(found)


def _recorded(folder: Path) -> dict[str, Origin]:
    try:
        content = json.loads((folder / start.FOLDER / INDEX).read_text())
        return {name: Origin.of(each) for name, each in content.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"{folder / start.FOLDER / INDEX} must list the study's trained weights, but: {error}"
        ) from None


def _weights(study: str, name: str, task: Task, folder: Path, began: Origin | None) -> Weights:
    """Weights as they are now; the kept ones where the study has begun and they are gone here."""
    folders = [*outside.FOLDERS, Path.cwd()]
    if began is not None and start.located(name, folders) is None:
        weights = start.kept(Folder(folder), start.file_of(began), task)
    else:
        weights = start.read(name, task, folders=folders, out=folder.parent)
    if began is not None and weights.sha256 != began.sha256:
        raise StudyError(
            f"the weights of {name}, from which trials of study {study!r} start, must be those "
            f"that it began with, but differ (SHA-256 {began.sha256[:12]} then, "
            f"{weights.sha256[:12]} now); restore the file, or give the study another name"
        )
    return weights


def _fitting(study: Study, space: Space, task: Task, weights: Weights) -> Fit:
    """How weights fit the default network, once they fit every network of the space."""
    fits = fit(space.method_at(space.defaults()), task, weights)
    for what, method in _networks(study, space):
        try:
            fit(method, task, weights)
        except MethodError as error:
            raise StudyError(
                f"a start must fit every network of {space.method}, but not that with {what}: "
                f"{error}; fix that field"
            ) from None
    return fits


def _of_base(study: Study, space: Space, task: Task) -> Fit:
    """How a base will fit the default network, once all networks of the space have the same base.

    Raises:
        StudyError: they have several bases, or the base leaves the search no effort.
    """
    params = bases.base_params(study, space)
    plain = bases.plain_of(space, space.params(space.defaults()))
    for what, method in _networks(study, space, unreduced=False):
        if {**plain, **(method.plain() or {})} != plain:
            raise StudyError(
                f"a start `{BASE}` is one network for all trials of {space.method}, but that with "
                f"{what} has another; fix that field in `methods: {{{space.method}: ...}}`",
                at=("methods", space.method),
            )
    base, recipe = parts(BASE, params)
    search = study.search
    if search.seconds is None and recipe.epochs >= search.trials * space.epochs:
        raise StudyError(
            f"a base must leave its search epochs, but takes {recipe.epochs} of "
            f"{search.trials * space.epochs} ({search.trials} trials of {space.epochs}); raise "
            "`search: {trials: ...}`, or lower `base: {epochs: ...}`"
        )
    if len(base.phases()) > 1:
        raise StudyError(f"the base of {space.method} must train in one phase, but has several")
    net, origin = fresh(base, task), f"the base of {space.method}"
    state = net.state_dict()
    weights = Weights(origin, {plain: state[place] for plain, place in base.places(net).items()})
    return _fitting(study, space, task, weights)


def _networks(
    study: Study, space: Space, *, unreduced: bool = True
) -> Iterator[tuple[str, Method]]:
    """The ends of every searched field, as published, and unreduced; those that can be built."""
    cases: list[tuple[str, Params]] = [
        (f"{name} {shown(end)}", space.params({**space.defaults(), name: end}))
        for name, distribution in space.free.items()
        for end in ends(distribution)
    ]
    if space.opening:
        cases.append(("the paper's settings", space.params(space.published(), opening=True)))
    if unreduced and study.confirm.unreduced and (whole := space.unreduced()) is not None:
        cases.append(("nothing reduced", whole))
    for what, params in cases:
        try:
            yield what, parts(space.method, params)[0]
        except MethodError:  # values that do not go together, which no trial has
            continue
