"""The studies in an MLflow store: their boards, at any budget, and side by side."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pydantic

from methods import METHODS
from methods.errors import MethodError, StorageError, StudyError, nearest
from methods.files import digest
from orchestrator import store
from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.model import Board
from orchestrator.board.rules import BASELINE, Rules
from orchestrator.board.versus import Side, Versus, versus
from orchestrator.board.words import budgets_text, plural
from orchestrator.record import evidence
from orchestrator.record.log import Curves
from orchestrator.record.provenance import SOURCE, Provenance
from orchestrator.record.rows import Row
from orchestrator.report.publish import Outcome, Source, publish
from orchestrator.store.place import check_folder, default_uri, is_writable
from orchestrator.store.tags import UNREADABLE
from orchestrator.study import file as studies
from orchestrator.study.file import Study

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredStudy:
    """A study as its MLflow store holds it."""

    study: Study
    provenance: Provenance
    rows: list[Row]
    uri: str
    home: Path
    """The folder for what is made of it: the study's, or one of the user's cache."""

    @property
    def cache(self) -> Path:
        """The folder of what was read from the store before."""
        return self.home / "cache"

    def curves(self, trials: Sequence[Row], *, refresh: bool = False) -> Curves:
        """The learning curves of these trials."""
        runs = {row.trial: row.run_id for row in trials if row.run_id}
        return store.read_curves(self.uri, self.study.name, runs, cache=self.cache, refresh=refresh)


def located(study: str, out: Path, uri: str | None) -> tuple[str, str]:
    """The MLflow store that is meant, and the name of the study in it.

    Raises:
        StorageError: the store does not answer.
        StudyError: there is no store, or no study file.
    """
    place = uri or default_uri(out)
    store.check(place, reading=True)
    return place, studies.load(Path(study)).name if study.endswith((".yaml", ".yml")) else study


def stored(study: str, out: Path, *, uri: str | None = None, refresh: bool = False) -> StoredStudy:
    """A study of this name, or of this file, from its MLflow store alone.

    What was read is cached in the study's folder, or in the user's cache where that cannot be
    written; `refresh` reads everything again.

    Raises:
        StorageError: the store does not answer.
        StudyError: it holds no study of this name, or one that this version cannot read.
    """
    place, name = located(study, out, uri)
    home = _home(out, name)
    provenance = store.read_study(place, name)
    _take_methods(home)
    try:
        declared = Study.model_validate(provenance.study)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise StudyError(
            f"study {name!r} in this store cannot be read by this version of isoflop: "
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from None
    rows = store.read_trials(place, name, cache=home / "cache", refresh=refresh)
    return StoredStudy(declared, provenance, _of_study(declared, rows), place, home)


def show(
    study: str,
    out: Path,
    *,
    uri: str | None = None,
    primary: float | None = None,
    refresh: bool = False,
) -> Outcome:
    """The board of a study, of what its MLflow store holds now.

    `primary` is another of the study's budgets to test at; its report lies in a folder of
    its own, so that the declared one stays.

    Raises:
        StorageError: the store does not answer.
        StudyError: it holds no study of this name, or `primary` is none of its budgets.
    """
    source = stored(study, out, uri=uri, refresh=refresh)
    declared = source.study
    if primary is not None and primary not in declared.budgets:
        raise StudyError(
            f"--primary must be one of the study's budgets, {budgets_text(declared.budgets)}, but "
            f"got {primary:g}; `isoflop compare {declared.name} --at {primary:g}` compares at any "
            "other"
        )
    folder = source.home
    store.fetch_evidence(source.uri, source.rows, folder)
    published = publish(
        Source(
            study=declared,
            rows=source.rows,
            provenance=source.provenance,
            images=evidence.images(folder, source.rows),
            latencies=store.read_latencies(source.uri, declared.name),
            curves=lambda trials: source.curves(trials, refresh=refresh),
        ),
        folder,
        primary=primary,
    )
    return Outcome(
        published.board,
        published.page,
        source.uri,
        store.link(source.uri, declared.name),
        fresh=False,
        times=published.times,
    )


def at_budgets(
    study: str,
    at: Sequence[float],
    out: Path,
    *,
    methods: Sequence[str] = (),
    uri: str | None = None,
    refresh: bool = False,
) -> Board:
    """A study's methods at any budgets, by default its own; only `methods` and dense.

    What is tested, and corrected for, is what the study's board tests, whatever is shown. At a
    budget that the study did not declare the choice is among what was confirmed for others.

    Raises:
        StorageError: the store does not answer.
        StudyError: it holds no study of this name, or a method is none of the study's.
    """
    source = stored(study, out, uri=uri, refresh=refresh)
    return _at(source, at or source.study.budgets, _methods(source, methods))


def two_studies(
    first: str,
    second: str,
    at: Sequence[float],
    out: Path,
    *,
    methods: Sequence[str] = (),
    uri: str | None = None,
    refresh: bool = False,
) -> Versus:
    """The methods that two studies of one store share, at the budgets that they share or at `at`.

    Raises:
        StorageError: the store does not answer.
        StudyError: no such study, other data, no method or no budget in common.
    """
    both = [stored(name, out, uri=uri, refresh=refresh) for name in (first, second)]
    one, other = (source.study for source in both)
    if one.name == other.name:
        raise StudyError(f"two studies must be compared, but both are {one.name!r}")
    if one.cost != other.cost:
        raise StudyError(
            "two studies must have budgets of one kind, but "
            + " and ".join(f"those of {study.name} are {_kind(study)}" for study in (one, other))
        )
    budgets = at or [budget for budget in one.budgets if budget in other.budgets]
    if not budgets:
        raise StudyError(
            "two studies must share a budget, but "
            + " and ".join(
                f"{study.name} has {budgets_text(study.budgets)}" for study in (one, other)
            )
            + "; --at names budgets at which to compare what was confirmed for others"
        )
    names = [_methods(source, methods) for source in both]
    first_side, second_side = (
        Side(source.study, source.provenance, _at(source, budgets, named))
        for source, named in zip(both, names, strict=True)
    )
    return versus(first_side, second_side)


def _kind(study: Study) -> str:
    """What a study's budgets are, for people."""
    if study.cost.batch is None:
        return "million MACs"
    return f"milliseconds of a call on {plural(study.cost.batch, 'image')}"


def _of_study(study: Study, rows: Sequence[Row]) -> list[Row]:
    """The rows, in which a run of a method that is none of the study's carries no figure."""
    known = {*study.methods, BASELINE}
    return [row if row.method in known else _stray(row) for row in rows]


def _stray(row: Row) -> Row:
    if row.state == UNREADABLE:
        return row
    reason = f"run {row.run_id} in MLflow: its method {row.method!r} is none of the study's"
    return replace(row, state=UNREADABLE, reason=reason)


def _take_methods(home: Path) -> None:
    """Takes methods of other packages as the study recorded them, for the ranges of the search."""
    try:
        METHODS.use(home / SOURCE)
    except (MethodError, StorageError) as error:
        logger.warning("what was searched is not shown: %s", error)


def _home(out: Path, name: str) -> Path:
    """The folder for a study's report, evidence and cache.

    Raises:
        StorageError: `out` is no folder, or its name cannot be used.
    """
    folder = out.absolute() / name
    existing = folder if folder.is_dir() else folder.parent
    if not existing.is_dir() or is_writable(existing):
        check_folder(out, name)
        return folder
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "isoflop" / "studies" / f"{name}-{digest(str(folder))[:12]}"
    logger.warning("%s cannot be written: report and cache lie in %s", existing, home)
    return home


def _methods(source: StoredStudy, wanted: Sequence[str]) -> tuple[str, ...]:
    """The methods named, with what they repeat and the baseline; none where none is named."""
    study, controls = source.study, source.study.controls
    known = sorted({*study.methods, BASELINE})
    for name in wanted:
        if name not in known:
            raise StudyError(
                f"--methods: study {study.name!r} has no method {name!r}; {nearest(name, known)}"
            )
    repeated = {controls[name] for name in wanted if name in controls}
    return tuple(sorted({*wanted, *repeated, BASELINE})) if wanted else ()


def _at(source: StoredStudy, budgets: Sequence[float], methods: Sequence[str]) -> Board:
    rules = Rules.between(source.study, source.provenance, budgets)
    store.fetch_evidence(source.uri, source.rows, source.home)
    board = leaderboard(source.rows, rules, evidence.images(source.home, source.rows))
    return board.only(methods) if methods else board
