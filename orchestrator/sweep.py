"""One study from file to board: check, search, confirm, report; run again, it goes on."""

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import Callback, FailureConfig, ResultGrid, RunConfig, TuneConfig, Tuner

from methods.errors import StorageError, StudyError
from orchestrator import cluster, store, warm
from orchestrator import study as studies
from orchestrator.leaderboard import Board, leaderboard
from orchestrator.ledger import Ledger, refuse_other
from orchestrator.preflight import Prepared, prepare, slots_here
from orchestrator.provenance import provenance
from orchestrator.report import write_report
from orchestrator.rows import Row
from orchestrator.search import StudySearch
from orchestrator.study import Study
from orchestrator.trainable import Trial

logger = logging.getLogger(__name__)

Listener = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Outcome:
    """What a sweep ends in."""

    board: Board
    report: Path
    uri: str
    """The MLflow store."""
    link: str | None
    """The board in MLflow's pages, from `#` on; None where the store did not answer."""
    fresh: bool
    """Whether anything was left to run."""


def run(
    study: Study,
    out: Path,
    *,
    uri: str | None = None,
    address: str = "local",
    listener: Listener | None = None,
) -> Outcome:
    """Runs what a study has left to run and makes its board.

    Raises:
        IsoflopError: the study, the data, the folder, the store or the resources do not do.
        KeyboardInterrupt: stopped by hand; the same call goes on from there.
    """
    ready = prepare(study)
    if address == "local":
        slots_here(study.resources)  # refused before Ray is started
    folder = out.absolute() / study.name
    place = uri or default_uri(out)
    facts = provenance(study, ready.task)
    _writable(out)
    store.check(place)
    refuse_other(folder, study)
    earlier = warm.taken(study, place, folder)
    ready = replace(ready, warm=warm.within(ready.spaces, earlier))
    with contextlib.ExitStack() as stack:
        slots = None
        if address != "local":  # a cluster that does not answer leaves no trace
            slots = stack.enter_context(cluster.started(study.resources, address))
        _made(out)
        store.claim(place, study.name, study.hash)
        ledger = Ledger(folder, study)
        stack.callback(ledger.close)
        warm.keep(earlier, folder)
        projector = store.Projector(ledger.wal, place, study.name)
        projector.start()
        patience = 5.0
        try:
            fresh = _train(ledger, ready, facts, slots, listener)
            patience = 120.0
        finally:
            if not projector.flush(patience):
                logger.warning("MLflow does not hold everything yet; the same command goes on")
            projector.stop()
        rows = ledger.rows()
        facts = ledger.provenance or facts
    board, report = publish(study, rows, facts, folder)
    try:
        link = store.write_board(place, study.name, board, report.parent)
    except Exception as error:  # the board stands in the folder; the view can be written again
        logger.warning("MLflow did not take the board: %s", error)
        link = None
    return Outcome(board, report, place, link, fresh)


def show(study: str, out: Path, *, uri: str | None = None) -> Outcome:
    """The board of a study, of what its MLflow store holds now.

    Raises:
        StorageError: the store does not answer.
        StudyError: it holds no study of this name.
    """
    place = uri or default_uri(out)
    if place.startswith("sqlite:///") and not Path(place.removeprefix("sqlite:///")).exists():
        raise StudyError(
            f"{place.removeprefix('sqlite:///')} must be a store of studies, but there is none; "
            "`isoflop run` makes one, --out or --mlflow names another"
        )
    _writable(out)
    store.check(place)
    name = studies.load(Path(study)).name if study.endswith((".yaml", ".yml")) else study
    what, facts = store.read_study(place, name)
    folder = out.absolute() / name
    board, report = publish(Study.model_validate(what), store.read_rows(place, name), facts, folder)
    return Outcome(board, report, place, store.link(place, name), fresh=False)


def default_uri(out: Path) -> str:
    """The SQLite store that the studies of one folder share."""
    return f"sqlite:///{out.absolute() / 'mlflow.db'}"


def publish(
    study: Study, rows: Iterable[Row], facts: Mapping[str, Any], folder: Path
) -> tuple[Board, Path]:
    """The board of these rows, and its report in the study's folder."""
    rows = list(rows)
    board = leaderboard(
        rows,
        study.budgets,
        primary=study.primary_budget,
        chance=1 / facts["classes"],
        methods=tuple(study.methods),
    )
    return board, write_report(board, rows, dict(facts), folder / "report", {})


def _writable(out: Path) -> None:
    """Refuse an output folder before anything is written into it."""
    nearest = next(place for place in (out.absolute(), *out.absolute().parents) if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise StorageError(f"--out must be a folder that can be written, but {nearest} is not")


def _made(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"--out must be a folder that can be written, but {out}: {error.strerror}"
        ) from None


class _Reasons(Callback):  # type: ignore[misc]
    """Tells the search why Tune gave a trial up."""

    def __init__(self, search: StudySearch) -> None:
        self._search = search

    def on_trial_error(  # Tune's signature
        self,
        iteration: int,  # noqa: ARG002
        trials: list[Any],  # noqa: ARG002
        trial: Any,
        **info: Any,  # noqa: ARG002
    ) -> None:
        error = str(trial.get_error() or "")
        last = error.strip().splitlines()[-1] if error.strip() else ""
        self._search.reasons[trial.trial_id] = f"its workers died: {last}"[:500]


def _train(
    ledger: Ledger,
    ready: Prepared,
    facts: Mapping[str, Any],
    slots: int | None,
    listener: Listener | None,
) -> bool:
    """Search and confirm; False where nothing was left to do."""
    study = ledger.study
    search = StudySearch(ledger, ready.spaces, ready.task, _settings(ledger), ready.warm)
    if search.finished:
        return False
    if listener:
        ledger.replay(listener)
    for left in ledger.folder.glob("ray-*"):
        shutil.rmtree(left, ignore_errors=True)  # a driver that was killed here
    with contextlib.ExitStack() as stack:
        if slots is None:
            slots = stack.enter_context(cluster.started(study.resources, "local"))
        search.lag = ledger.begin(facts, lag=slots, device=search.device)
        with tempfile.TemporaryDirectory(prefix="ray-", dir=ledger.folder) as scratch:
            _tune(search, study, slots, scratch)
    return True


def _settings(ledger: Ledger) -> dict[str, Any]:
    study = ledger.study
    return {
        "data": _absolute(study.data),
        "data_seed": study.seed,
        "folder": str(ledger.folder),
        "device": "cuda" if study.resources.gpu else "cpu",
        "threads": max(1, int(study.resources.cpu)),
    }


def _tune(search: StudySearch, study: Study, slots: int, scratch: str) -> ResultGrid:
    trial = tune.with_resources(Trial, {"cpu": study.resources.cpu, "gpu": study.resources.gpu})
    tuner = Tuner(
        trial,
        tune_config=TuneConfig(
            search_alg=search,
            num_samples=-1,
            max_concurrent_trials=slots,
            reuse_actors=True,
        ),
        run_config=RunConfig(
            name="tune",
            storage_path=scratch,
            verbose=0,
            callbacks=[_Reasons(search)],
            failure_config=FailureConfig(max_failures=study.resources.retries),
        ),
    )
    return tuner.fit()


def _absolute(data: str) -> str:
    return str(Path(data).absolute()) if Path(data).exists() else data
