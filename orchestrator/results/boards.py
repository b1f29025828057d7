"""Studies as an MLflow store holds them: their boards, at any budget, and side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pydantic

from methods.errors import StudyError, nearest
from orchestrator import store
from orchestrator.board.leaderboard import Board, leaderboard
from orchestrator.board.versus import Side, Versus, versus
from orchestrator.board.words import mmacs
from orchestrator.record import evidence
from orchestrator.record.log import Curves
from orchestrator.record.rows import Row
from orchestrator.report.publish import Outcome, publish
from orchestrator.store.place import default_uri, writable
from orchestrator.study import file as studies
from orchestrator.study.file import Study


@dataclass(frozen=True)
class Stored:
    """A study as its MLflow store holds it."""

    study: Study
    facts: Mapping[str, Any]
    """Where its numbers come from; see `provenance`."""
    rows: list[Row]
    uri: str
    cache: Path

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
    if place.startswith("sqlite:///") and not Path(place.removeprefix("sqlite:///")).exists():
        raise StudyError(
            f"{place.removeprefix('sqlite:///')} must be a store of studies, but there is none; "
            "`isoflop run` makes one, --out or --mlflow names another"
        )
    store.check(place)
    return place, studies.load(Path(study)).name if study.endswith((".yaml", ".yml")) else study


def stored(study: str, out: Path, *, uri: str | None = None, refresh: bool = False) -> Stored:
    """A study of this name, or of this file, from its MLflow store alone.

    What was read lies in a cache below `out`; `refresh` reads everything again.

    Raises:
        StorageError: the store does not answer.
        StudyError: it holds no study of this name, or one that this version cannot read.
    """
    place, name = located(study, out, uri)
    writable(out)
    what, facts = store.read_study(place, name)
    try:
        found = Study.model_validate(what)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise StudyError(
            f"study {name!r} in this store cannot be read by this version of isoflop: "
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from None
    cache = out.absolute() / name / "cache"
    rows = store.read_trials(place, name, cache=cache, refresh=refresh)
    return Stored(found, facts, rows, place, cache)


def show(
    study: str,
    out: Path,
    *,
    uri: str | None = None,
    primary: float | None = None,
    refresh: bool = False,
) -> Outcome:
    """The board of a study, of what its MLflow store holds now.

    `primary` (MMACs) is another of the study's budgets to test at; its report lies in a folder of
    its own, so that the declared one stays.

    Raises:
        StorageError: the store does not answer.
        StudyError: it holds no study of this name, or `primary` is none of its budgets.
    """
    found = stored(study, out, uri=uri, refresh=refresh)
    what = found.study
    if primary is not None and primary not in what.budgets:
        raise StudyError(
            f"--primary must be one of the study's budgets, {_listed(what.budgets)}, but got "
            f"{primary:g}; `isoflop compare {what.name} --at {primary:g}` compares at any other"
        )
    folder = out.absolute() / what.name
    store.fetch_evidence(found.uri, found.rows, folder)
    board, report, times = publish(
        what,
        found.rows,
        found.facts,
        folder,
        lambda trials: found.curves(trials, refresh=refresh),
        correct=evidence.correctness(folder, found.rows),
        latencies=store.read_latencies(found.uri, what.name),
        primary=primary,
    )
    link = store.link(found.uri, what.name)
    return Outcome(board, report, found.uri, link, fresh=False, times=times)


def at_budgets(
    study: str,
    at: Sequence[float],
    out: Path,
    *,
    methods: Sequence[str] = (),
    uri: str | None = None,
    refresh: bool = False,
) -> Board:
    """A study's methods at any budgets (MMACs), by default its own; only `methods` and dense.

    At a budget that the study did not declare the choice is among what was confirmed for others.

    Raises:
        StorageError: the store does not answer.
        StudyError: it holds no study of this name, or a method is none of the study's.
    """
    found = stored(study, out, uri=uri, refresh=refresh)
    return _at(found, at or found.study.budgets, _methods(found, methods))


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
    one, other = both
    if one.study.name == other.study.name:
        raise StudyError(f"two studies must be compared, but both are {one.study.name!r}")
    ladder = at or [b for b in one.study.budgets if b in other.study.budgets]
    if not ladder:
        raise StudyError(
            "two studies must share a budget, but "
            + " and ".join(f"{f.study.name} has {_listed(f.study.budgets)}" for f in both)
            + "; --at names budgets at which to compare what was confirmed for others"
        )
    named = [_methods(found, methods) for found in both]
    ours, theirs = (
        Side(found.study, found.facts, _at(found, ladder, names))
        for found, names in zip(both, named, strict=True)
    )
    return versus(ours, theirs)


def _methods(found: Stored, wanted: Sequence[str]) -> tuple[str, ...]:
    """The methods named, with what they repeat and the baseline; none where none is named."""
    controls, known = found.study.controls, sorted({*found.study.methods, "dense"})
    for name in wanted:
        if name not in known:
            raise StudyError(
                f"--methods: study {found.study.name!r} has no method {name!r}; "
                f"{nearest(name, known)}"
            )
    repeated = {controls[name] for name in wanted if name in controls}
    return tuple(sorted({*wanted, *repeated, "dense"})) if wanted else ()


def _at(found: Stored, at: Sequence[float], names: Sequence[str]) -> Board:
    study = found.study
    primary = study.primary_budget if study.primary_budget in at else max(at)
    twins = study.controls
    board = leaderboard(
        [row for row in found.rows if not names or row.method in names],
        at,
        primary=primary,
        chance=1 / found.facts["classes"],
        methods=names or tuple(study.methods),
        controls={twin: own for twin, own in twins.items() if not names or twin in names},
        targets=study.targets,
        images=found.facts.get("test_images"),
        confirmed_for=study.budgets,
        seeds=study.confirm.seeds,
        extra=study.confirm.budget or 0,
    )
    return replace(board, study=study.name)


def _listed(budgets: Sequence[float]) -> str:
    return ", ".join(mmacs(budget) for budget in budgets)
