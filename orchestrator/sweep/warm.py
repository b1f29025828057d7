"""Warm start: what an earlier study found out, handed to the samplers of this one."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial, create_trial

from methods import files
from methods.data.digest import Digest
from methods.errors import StudyError
from methods.values import Params, Scalar
from orchestrator import store
from orchestrator.board.stats.fronts import accuracy_flaw, macs_flaw
from orchestrator.study.file import Study
from orchestrator.study.params import ALIAS
from orchestrator.study.space import Space

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Earlier:
    """A complete search trial of an earlier study, by its last operating point."""

    method: str
    params: Params
    val_acc: float | None
    """Fraction."""
    val_macs_mean: float | None
    ms: float | None = None
    """Where its budgets were milliseconds."""


def taken(study: Study, uri: str, folder: Path, data: Digest | None = None) -> list[Earlier]:
    """The earlier study's complete search trials; as they were when this study began.

    `data` is what this study reads, where that is known.

    Raises:
        StudyError: there is no such study, or it is on other data.
        StorageError: the store cannot be used.
    """
    written = folder / "warm.json"
    if study.search.warm is None:
        return []
    if written.exists():
        return [Earlier(**trial) for trial in json.loads(written.read_text())]
    file = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not file.exists():
        raise StudyError(
            f"search.from: {file} must be the MLflow store that holds study "
            f"{study.search.warm!r}, but there is none; name it with --out or --mlflow"
        )
    try:
        origin = store.read_study(uri, study.search.warm)
    except StudyError as error:
        raise StudyError(f"search.from: {error}") from None
    if origin.study["data"] != study.data:
        raise StudyError(
            f"search.from must name a study on {study.data}, but {study.search.warm!r} is on "
            f"{origin.study['data']}"
        )
    if data is not None and origin.data is not None and origin.data.sha256 != data.sha256:
        raise StudyError(
            f"search.from must name a study on the same images, but {study.search.warm!r} read "
            f"others from {study.data}: {', '.join(origin.data.differing(data)) or 'classes'}"
        )
    if (theirs := origin.clock and origin.clock.batch) != study.cost.batch:
        kinds = [
            f"milliseconds for a batch of {batch}" if batch else "million MACs"
            for batch in (theirs, study.cost.batch)
        ]
        raise StudyError(
            "search.from must name a study with budgets of the same kind, but those of "
            f"{study.search.warm!r} are {kinds[0]} and this one's are {kinds[1]}"
        )
    objectives = {
        row.trial: Earlier(row.method, dict(row.params), row.val_acc, row.val_macs_mean, row.ms)
        for row in store.read_rows(uri, study.search.warm)
        if row.role == "search" and row.state == "COMPLETE"
    }  # a trial's last operating point stands for it
    return list(objectives.values())


def keep(trials: Sequence[Earlier], folder: Path) -> None:
    """Write them down once, so that every later run starts from the same."""
    written = folder / "warm.json"
    if trials and not written.exists():
        files.write(written, json.dumps([vars(trial) for trial in trials]))


def within(spaces: Mapping[str, Space], trials: Sequence[Earlier]) -> dict[str, list[FrozenTrial]]:
    """Per method, those that its space could have proposed, as Optuna's trials."""
    usable = {
        method: [_frozen(space, trial) for trial in trials if _lies_in(space, trial)]
        for method, space in spaces.items()
    }
    if trials and not any(usable.values()):
        logger.warning(
            "search.from: none of its %d trials lies in a space of this study", len(trials)
        )
    return usable


def _frozen(space: Space, trial: Earlier) -> FrozenTrial:
    return create_trial(
        params={name: trial.params[name] for name in space.free},
        distributions=dict(space.free),
        values=[1 - (trial.val_acc or 0.0), trial.ms or trial.val_macs_mean or 0.0],
    )


def _lies_in(space: Space, trial: Earlier) -> bool:
    if trial.method != space.fixed.get(ALIAS, space.method):
        return False  # a control is taught what its method is
    if accuracy_flaw("val_acc", trial.val_acc) or macs_flaw("macs", trial.val_macs_mean):
        return False
    params = trial.params
    searched = {name: params[name] for name in space.free if name in params}
    return (
        len(searched) == len(space.free)
        and space.holds(searched)
        and _named_alike(space.params(searched)) == dict(params)
    )


def _named_alike(params: Params) -> dict[str, Scalar]:
    return {name: value for name, value in params.items() if name != ALIAS}
