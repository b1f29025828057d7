"""A confirm run's deployed network as a folder to hand on: the model, and a card that proves it."""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from methods import METHODS
from methods.api import Images
from methods.errors import DiskFull, ExportError, StorageError, StudyError, nearest
from methods.files import NO_ROOM
from methods.shipping import write
from methods.shipping.card import CARD, Format
from methods.shipping.load import opened
from orchestrator import store
from orchestrator.board.choose import best, choose, clean
from orchestrator.board.words import budgets_text, macs_text, percent
from orchestrator.record import evidence
from orchestrator.record.depot import Folder
from orchestrator.record.provenance import SOURCE
from orchestrator.record.rows import Row
from orchestrator.results import card
from orchestrator.results.boards import StoredStudy, located, stored
from orchestrator.results.contents import refuse_other_data
from orchestrator.study.check import reading
from orchestrator.study.params import recorded_parts
from orchestrator.trial import kept
from orchestrator.trial.checkpoints import deployed

TOLERANCE = 1e-4
"""Largest difference between the logits of an export and of the network that the board measured."""
IMAGES = 64
"""Test images on which the two are compared, in one batch and one by one."""
AGREEING = 0.9
"""Fraction of predictions that must be those of the run's evidence: machines round differently, but
other weights predict otherwise."""
EXPORTS = "exports"
"""The folder of the exports, in the study's."""


@dataclass(frozen=True)
class ConfirmedPoint:
    """One operating point of one confirm run."""

    stored: StoredStudy
    row: Row
    folder: Path
    """The study's, where the weights of its confirm runs are."""


def find(
    run: str,
    out: Path,
    *,
    uri: str | None = None,
    at: float | None = None,
    point: str | None = None,
) -> ConfirmedPoint:
    """The run that is meant: STUDY/TRIAL, STUDY/METHOD for a cell of the board, or MLflow's run id.

    STUDY is a name, a file, or a study's folder. Of a cell, at the budget `at` or the
    primary one, it is the confirm run of the first seed, as where its latency is taken; `point`
    names an operating point of a TRIAL that has several.

    Raises:
        StorageError: the store does not answer.
        StudyError: there is no such study, run, cell or point, or it has no weights to ship.
    """
    if re.fullmatch("[0-9a-f]{32}", run):
        study, name = store.trial_of(located("", out, uri)[0], run)
    else:
        where, _, name = run.rstrip("/").rpartition("/")
        study = where.removesuffix("/trials")
        if not study or not name:
            raise StudyError(
                f"RUN must be STUDY/TRIAL, STUDY/METHOD or an MLflow run id, but got {run!r}; the "
                "report lists a study's trials"
            )
        if (Path(study) / "wal.jsonl").is_file():
            out, study = Path(study).absolute().parent, Path(study).absolute().name
    source = stored(study, out, uri=uri)
    if name in source.study.methods:
        if point is not None:
            raise StudyError(f"--point names an operating point of a trial, but {name!r} is none")
        row = _cell(source, name, at)
    else:
        if at is not None:
            raise StudyError(f"--at names a cell of a method, but {name!r} is none")
        row = _trial(source, name, point)
    return ConfirmedPoint(source, row, out.absolute() / source.study.name)


def trained(folder: Path, point: str | None = None) -> ConfirmedPoint:
    """An operating point of what `isoflop train` left in a folder; by default the last.

    Raises:
        StorageError: the folder holds no training.
        StudyError: it has no such operating point.
    """
    training = kept.read(folder)
    rows = {row.point: row for row in training.rows}
    name = next(reversed(rows)) if point is None else point
    if name not in rows:
        raise StudyError(f"--point must be one of the training's; {nearest(name, list(rows))}")
    where = training.folder.absolute()
    source = StoredStudy(training.study, training.provenance, training.rows, "", where)
    return ConfirmedPoint(source, rows[name], where)


def export(source: ConfirmedPoint, how: Format, to: Path | None = None) -> Path:
    """Ships the network; the folder, complete or not at all. An earlier export there is replaced.

    Raises:
        ExportError: the format cannot hold the network, or what was written answers otherwise.
        StorageError: the weights are gone, or others, or the place is taken or cannot be written.
        DataError: the study's data set cannot be loaded.
        StudyError: the data are others than those that the study read.
    """
    row, study = source.row, source.stored.study
    name = "-".join(part for part in (row.trial, row.point.replace("/", "-"), how) if part)
    to = (to or source.folder / EXPORTS / name).absolute()
    if to.exists() and not (to / CARD).is_file():
        raise StorageError(f"--to must be a new folder or an earlier export, but {to} is neither")
    METHODS.use(source.folder / SOURCE)
    method = recorded_parts(row.method, row.params)[0]
    data = reading(study).load(seed=study.seed)
    recorded = refuse_other_data(source.folder, source.stored.provenance, data)
    trial = source.folder / "trials" / row.trial
    network = deployed(Folder(trial), method, data.task, row.point)
    images = data.test.head(IMAGES)[0]
    agreeing = _agreeing(source, network, images)
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=to.parent) as scratch:
            new, old = Path(scratch) / "new", Path(scratch) / "old"
            new.mkdir()
            file = write.write(how, network, data.task, new)
            facts = card.facts(source.stored, row, method, data, how)
            facts["evidence"] = agreeing
            facts["data"] = None if recorded is None else {"sha256": recorded.sha256}
            facts["parity"] = parity(opened(file.read_bytes(), facts), network, images)
            card.write(facts, new)
            if to.exists():
                to.rename(old)
            new.rename(to)
    except OSError as error:
        kind = DiskFull if error.errno in NO_ROOM else StorageError
        raise kind(
            f"an export must be written to {to}, but: {error.strerror}; --to names another folder"
        ) from None
    return to


@torch.no_grad()
def parity(shipped: nn.Module, network: nn.Module, images: Images) -> dict[str, Any]:
    """How far the logits of two networks are apart, and on how many images they agree.

    Raises:
        ExportError: further than `TOLERANCE`.
    """
    apart = []
    for batch in (1, len(images)):
        pairs = [(shipped(part), network(part)) for part in torch.split(images, batch)]
        apart += [float((one - other).abs().max()) for one, other in pairs]
    furthest = max(apart)
    if not furthest <= TOLERANCE:
        raise ExportError(
            f"an export must give the network's logits to within {TOLERANCE:g}, but is "
            f"{furthest:.2g} apart: nothing was written; --format torch ships the network as it is"
        )
    ((one, other),) = pairs
    return {
        "images": len(images),
        "batches": [1, len(images)],
        "max_abs_difference": furthest,
        "tolerance": TOLERANCE,
        "same_class": int((one.argmax(1) == other.argmax(1)).sum()),
    }


def _cell(source: StoredStudy, method: str, at: float | None) -> Row:
    study = source.study
    budget = study.primary_budget if at is None else at
    if budget not in study.budgets:
        raise StudyError(
            f"--at must be one of the study's budgets, {budgets_text(study.budgets)}, "
            f"got {budget:g}"
        )
    complete, _ = clean(source.rows)
    chosen = best(choose(complete, [budget], study.cost), study.cost).get((method, budget))
    if chosen is None:
        raise StudyError(
            f"{method} of study {study.name!r} has no configuration at or under "
            f"{study.cost.amount(budget)}"
        )
    confirmed = [
        row
        for row in complete
        if row.role == "confirm" and (row.config, row.point) == (chosen.config, chosen.point)
    ]
    if not confirmed:
        raise StudyError(
            f"{chosen.config} of study {study.name!r}, the best of {method} at or under "
            f"{study.cost.amount(budget)}, has not been confirmed yet; `isoflop run` confirms it"
        )
    return min(confirmed, key=lambda row: row.seed)


def _trial(source: StoredStudy, trial: str, point: str | None) -> Row:
    rows = [row for row in source.rows if row.trial == trial]
    confirmed = sorted({row.trial for row in source.rows if row.role == "confirm"})
    if not rows:
        valid = [*source.study.methods, *confirmed]
        raise StudyError(
            f"study {source.study.name!r} has no method or confirm run {trial!r}; "
            f"{nearest(trial, valid)}"
        )
    if rows[0].role == "search":
        runs = [name for name in confirmed if name.startswith(f"{trial}-seed")]
        hint = f"its confirm runs are {', '.join(runs)}" if runs else "it has none"
        raise StudyError(
            f"export takes a confirm run, but {trial} is of the search, which keeps no weights; "
            f"{hint}"
        )
    if rows[0].state != "COMPLETE":
        raise StudyError(f"export takes a run that ended well, but {trial} is {rows[0].outcome}")
    by_point = {row.point: row for row in rows}
    if point is None and len(rows) == 1:
        return rows[0]
    if point not in by_point:
        listed = ", ".join(
            f"{row.point} ({percent(row.val_acc)} % on validation, "
            f"{macs_text(row.val_macs_mean)} MMACs)"
            for row in rows
        )
        got = "none is named" if point is None else f"got {point!r}"
        raise StudyError(f"--point must be an operating point of {trial}, but {got}: {listed}")
    return by_point[point]


def _agreeing(source: ConfirmedPoint, network: nn.Module, images: Images) -> dict[str, int] | None:
    """On how many test images the weights that lie here predict what the run said at its end.

    Raises:
        StorageError: on too few: they are other weights.
    """
    row = source.row
    home = source.stored.home
    store.fetch_evidence(source.stored.uri, [row], home)
    content = evidence.read(home, row.trial, row.evidence) if row.evidence else None
    if content is None:
        return None
    recorded = evidence.unpacked(content).points[row.point].predictions[: len(images)]
    with torch.no_grad():
        same = int((network(images).argmax(1).numpy() == recorded).sum())
    if same < AGREEING * len(images):
        raise StorageError(
            f"the weights in {source.folder / 'trials' / row.trial} must be those of the run, but "
            f"predict {len(images) - same} of {len(images)} test images differently from its "
            "evidence"
        )
    return {"images": len(images), "same_class": same}
