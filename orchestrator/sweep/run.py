"""One study from file to board: check, search, confirm, report; run again, it goes on."""

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import ray
from ray import tune
from ray.exceptions import RayError

from methods.errors import ClusterLost, DiskFull, IsoflopError, StorageError
from methods.files import NO_ROOM
from orchestrator import store
from orchestrator.board import latency
from orchestrator.board.rules import BASELINE
from orchestrator.record import contents, evidence
from orchestrator.record.events import Listener
from orchestrator.record.ledger import Ledger
from orchestrator.record.log import logged, mark_finished
from orchestrator.record.provenance import Provenance, provenance
from orchestrator.report.publish import Outcome, Source, publish
from orchestrator.search.agenda import Agenda
from orchestrator.store.place import default_uri
from orchestrator.study.check import Prepared
from orchestrator.study.file import Study
from orchestrator.sweep import cluster, shared, signals, warm
from orchestrator.sweep.ready import Place, ready
from orchestrator.sweep.tune import drive
from orchestrator.sweep.worker import Trial
from orchestrator.trial.job import Settings
from orchestrator.trial.latency import measured

logger = logging.getLogger(__name__)

Start = Callable[[], contextlib.AbstractContextManager[int]]
"""Brings Ray up, and tells how many trials run at once."""


def run(
    study: Study,
    out: Path,
    *,
    uri: str | None = None,
    address: str = "local",
    listener: Listener | None = None,
    trainable: type[tune.Trainable] = Trial,
    slots: int | None = None,
    optuna: str | None = None,
    patience: float = 0,
) -> Outcome:
    """Runs what a study has left to run and makes its board; `trainable` runs the trials.

    `slots` trials run at once, by default as many as the nodes hold now; `optuna` is a database
    instead of a journal file; another driver of the study is waited for `patience` seconds.

    Raises:
        IsoflopError: the study, the data, the folder, the store or the resources do not do.
        DiskFull, ClusterLost: the machine failed; the same call goes on from there.
        KeyboardInterrupt: stopped by hand; the same call goes on from there.
    """
    local = address == "local"
    checked = ready(study, Place(out=out, mlflow=uri, optuna=optuna, here=local))
    if not local:
        cluster.preflight(study.resources, address, slots)
    prepared, folder, earlier = checked.prepared, checked.folder, checked.earlier
    study, place, read = prepared.study, uri or default_uri(out), checked.survey
    origin = provenance(study, prepared.data.task, len(prepared.data.test), read.digest)
    with _room(), contextlib.ExitStack() as stack:
        _made(out)
        store.claim(place, study.name, study.hash)
        ledger = Ledger(folder, study, optuna=optuna, patience=patience)
        stack.callback(ledger.close)
        contents.keep(folder, read, ledger.history.begun)
        warm.keep(earlier, folder)
        projector = store.Projector(ledger.wal, place, study.name)
        projector.start()
        time_left, last = 5.0, 30.0
        try:
            start = partial(cluster.started, study.resources, address, slots)
            fresh = _train(ledger, prepared, origin, start, listener, trainable=trainable)
            mark_finished(ledger.wal, study.hash)
            time_left = 120.0
        except KeyboardInterrupt as reason:
            ledger.history.pause()
            if isinstance(reason, signals.Terminated):
                time_left = last = 1.0  # of the 3 s that Ray gives a job which it stops
            raise
        finally:
            if not projector.flush(time_left):
                logger.warning("MLflow does not hold everything yet; the same command goes on")
            if projector.refused:
                logger.warning(
                    "MLflow refused %d events for good; they lie in %s",
                    projector.refused,
                    folder / "mlflow-refused.jsonl",
                )
            projector.stop(last)
        rows = ledger.history.rows()
        begun = ledger.history.begun
        origin = replace(begun.provenance, data=read.digest) if begun else origin
    source = Source(
        study=study,
        rows=rows,
        provenance=origin,
        correct=evidence.correctness(folder, rows),
        latencies=ledger.history.latencies,
        curves=partial(logged, ledger.wal),
    )
    published = publish(source, folder)
    try:
        link = store.write_board(place, study.name, published.board, published.page.parent)
    except Exception as error:  # the board stands in the folder; the view can be written again
        logger.warning("MLflow did not take the board: %s", error)
        link = None
    return Outcome(published.board, published.page, place, link, fresh, published.times)


def _made(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"--out must be a folder that can be written, but {out}: {error.strerror}"
        ) from None


def _train(
    ledger: Ledger,
    ready: Prepared,
    origin: Provenance,
    start: Start,
    listener: Listener | None,
    *,
    trainable: type[tune.Trainable],
) -> bool:
    """Search and confirm; False where nothing was left to do.

    Raises:
        ClusterLost: Ray died more often in a row than a trial may, and no epoch came meanwhile.
    """
    if not _open(ledger, ready):
        return False
    if listener:
        ledger.replay(listener)
    losses = 0
    while _open(ledger, ready):
        heard = ledger.history.heard
        try:
            _fit(ledger, ready, origin, start, trainable=trainable)
        except Exception as error:
            reason = _lost_ray(error)
            losses = 1 if ledger.history.heard > heard else losses + 1
            if losses > ledger.study.resources.retries:
                raise ClusterLost(
                    f"Ray must stay up for an epoch, but died {losses} times in a row, at last: "
                    f"{reason}; nothing is lost: the same command goes on"
                ) from None
            logger.warning("Ray was lost, and what ran goes on in a new one: %s", reason)
    return True


def _open(ledger: Ledger, ready: Prepared) -> bool:
    """Whether anything is left to run or to time."""
    return not _agenda(ledger, ready).finished or bool(_untimed(ledger))


def _agenda(ledger: Ledger, ready: Prepared, lag: int = 1) -> Agenda:
    return Agenda(ledger.history, ready.data.task, lag=lag, warm=ready.warm)


def _fit(
    ledger: Ledger,
    ready: Prepared,
    origin: Provenance,
    start: Start,
    *,
    trainable: type[tune.Trainable],
) -> None:
    """All that is left to run, or all that runs until Ray is lost."""
    for left in ledger.folder.glob("ray-*"):
        shutil.rmtree(left, ignore_errors=True)  # a driver that was killed here
    with (
        start() as slots,
        tempfile.TemporaryDirectory(
            prefix="ray-", dir=ledger.folder, ignore_cleanup_errors=True
        ) as scratch,
    ):
        settings, data = _settings(ledger, origin), shared.put(ready.data)
        lag = ledger.history.begin(origin, lag=slots, device=settings.device)
        agenda = _agenda(ledger, ready, lag)
        try:
            if not agenda.finished:
                drive(
                    agenda,
                    ledger,
                    settings,
                    data,
                    slots=slots,
                    scratch=scratch,
                    trainable=trainable,
                )
            if agenda.finished:
                _time(ledger, settings, data)
        except KeyboardInterrupt:
            ledger.history.pause()  # first of all: whoever stops us may not wait until Ray is down
            raise


def _untimed(ledger: Ledger) -> list[latency.Pair]:
    """Networks of the board whose time was not taken."""
    wanted = latency.pairs(ledger.history.rows(), ledger.study.budgets, BASELINE)
    return latency.missing(wanted, ledger.history.latencies)


def _time(ledger: Ledger, settings: Settings, data: shared.Handle | None) -> None:
    """Time the board's networks, now that no trial runs: one worker, one pair at a time."""
    resources = ledger.study.resources
    worker = ray.remote(num_cpus=resources.cpu, num_gpus=resources.gpu)(measured)
    for pair in _untimed(ledger):
        for event in ray.get(worker.remote(pair, settings, partial(shared.get, settings, data))):
            ledger.history.time(event)
        signals.check()


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came of; Tune wraps what its parts raise."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _lost_ray(error: Exception) -> str:
    """What became of Ray, in a line; any other error is raised, in its own words."""
    for cause in _causes(error):
        if isinstance(cause, IsoflopError):
            raise cause from None
        if isinstance(cause, RayError | ConnectionError):
            return f"{type(cause).__name__}: {' '.join(str(cause).split())}"[:300]
    raise error


@contextlib.contextmanager
def _room() -> Iterator[None]:
    """A full disk is a line, wherever it was met."""
    try:
        yield
    except Exception as error:
        for cause in _causes(error):
            if isinstance(cause, OSError) and cause.errno in NO_ROOM:
                place = f" to write {cause.filename}" if cause.filename else ""
                raise DiskFull(
                    f"there must be room{place}, but the disk is full; nothing is lost: make "
                    "room, and the same command goes on"
                ) from None
        raise


def _settings(ledger: Ledger, origin: Provenance) -> Settings:
    study = ledger.study
    return Settings(
        data=_absolute(study.data),
        data_seed=study.seed,
        folder=ledger.folder,
        device="cuda" if study.resources.gpu else "cpu",
        threads=max(1, int(study.resources.cpu)),
        size=study.size,
        fit=study.fit,
        data_sha256=origin.data.sha256 if origin.data else "",
    )


def _absolute(data: str) -> str:
    return str(Path(data).absolute()) if Path(data).exists() else data
