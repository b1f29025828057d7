"""One study from file to board: check, search, confirm, report; a second run resumes the first."""

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import ray
from ray import tune
from ray.exceptions import RayError

from methods import outside
from methods.errors import BucketAway, ClusterLost, DiskFull, IsoflopError, StorageError
from methods.files import NO_ROOM
from orchestrator import store
from orchestrator.board import latency
from orchestrator.board.rules import BASELINE
from orchestrator.record import contents, evidence, log
from orchestrator.record.address import Address
from orchestrator.record.depot import lend
from orchestrator.record.ledger import Doing, Ledger, Listener, News
from orchestrator.record.provenance import (
    SOURCE,
    Clock,
    Provenance,
    provenance,
    refuse_other_source,
)
from orchestrator.record.rows import Row
from orchestrator.report.publish import Outcome, Source, publish
from orchestrator.search.agenda import Agenda
from orchestrator.search.window import sight, warning
from orchestrator.study.check import Prepared
from orchestrator.study.file import Study
from orchestrator.sweep import cluster, shared, signals, starts, warm
from orchestrator.sweep.meter import metered
from orchestrator.sweep.ready import Place, Ready, ready
from orchestrator.sweep.tune import drive
from orchestrator.sweep.worker import Trial
from orchestrator.trial.job import Settings
from orchestrator.trial.latency import measured
from orchestrator.trial.predict import Predictor, clock
from orchestrator.trial.start import FOLDER

logger = logging.getLogger(__name__)

Start = Callable[[], contextlib.AbstractContextManager[int]]
"""Starts Ray for a block; gives the number of trials that run at once."""


def run(
    study: Study,
    place: Place,
    *,
    slots: int | None = None,
    patience: float = 0,
    listener: Listener | None = None,
    trainable: type[tune.Trainable] = Trial,
) -> Outcome:
    """Runs what a study has left to run, and makes its board; `trainable` runs the trials.

    `slots` trials run at once, by default as many as the nodes hold now. Where another driver runs
    the study, this one waits `patience` seconds for its end.

    Raises:
        IsoflopError: the study, the data, the folder, the store or the resources cannot be used.
        DiskFull, ClusterDown, ClusterLost: the machine failed; the same call resumes.
        KeyboardInterrupt: the sweep was stopped by a signal; the same call resumes.
    """
    address = place.address
    assert address is not None, "a place to plan for has no address; a sweep must have one"
    tell = listener or _silent
    tell(Doing("Reading the data"))
    checked = ready(study, place)
    if not place.here:
        tell(Doing(f"Connecting to Ray at {address}"))
        with study.lines():
            cluster.preflight(study.resources, address, slots)
    prepared, folder, earlier = checked.prepared, checked.folder, checked.earlier
    study, store_uri, read = prepared.study, place.store, checked.survey
    task, images = prepared.data.task, len(prepared.data.test)
    weights = {name: origin for name, (origin, _) in checked.starts.items()}
    origin = provenance(study, task, images, read.digest, checked.sources, starts=weights)

    def start() -> contextlib.AbstractContextManager[int]:
        here = "Starting Ray on this machine"
        tell(Doing(here if place.here else f"Connecting to Ray at {address}"))
        return cluster.started(study.resources, address, slots)

    with _disk_full_in_a_line(), contextlib.ExitStack() as stack:
        _make(place.out)
        store.claim(store_uri, study.name, study.hash)
        ledger = Ledger(folder, study, optuna=place.optuna, bucket=place.depot, patience=patience)
        stack.callback(ledger.close)
        _keep(ledger, checked)
        warm.keep(earlier, folder)
        projector = store.Projector(ledger.wal, store_uri, study.name)
        projector.start()
        time_left, last = 5.0, 30.0
        try:
            fresh = _train(ledger, prepared, origin, start, tell, trainable=trainable)
            tell(Doing("Writing to MLflow"))
            log.mark_finished(ledger.wal, study.hash)
            time_left = 120.0
        except KeyboardInterrupt:
            ledger.history.pause()
            if signals.reason() is signals.Terminated:
                time_left = last = 1.0  # Ray kills a job 3 s after it has asked it to stop
            raise
        finally:
            if not projector.flush(time_left):
                logger.warning(
                    "MLflow does not have everything yet; the same command writes the rest"
                )
            if projector.refused:
                logger.warning(
                    "MLflow rejected %d events permanently; they are in %s",
                    projector.refused,
                    folder / "mlflow-refused.jsonl",
                )
            projector.stop(last)
        rows = ledger.history.rows()
        begun = ledger.history.begun
        origin = replace(begun.provenance, data=read.digest) if begun else origin
    source = Source(
        study=study,
        rows=_with_runs(rows, store_uri, study.name),
        provenance=origin,
        images=evidence.images(folder, rows),
        latencies=ledger.history.latencies,
        curves=partial(log.logged, ledger.wal),
    )
    return _published(source, folder, store_uri, tell, fresh=fresh)


def _published(
    source: Source, folder: Path, store_uri: str, tell: Listener, *, fresh: bool
) -> Outcome:
    """The board, with its report in the study's folder and itself in MLflow."""
    tell(Doing("Drawing the report"))
    published = publish(source, folder)
    tell(Doing("Writing the board to MLflow"))
    try:
        link = store.write_board(
            store_uri, source.study.name, published.board, published.page.parent
        )
    except Exception as error:  # the board is in the folder; its view can be written again
        reason = Address(store_uri).redact(str(error))
        logger.warning("MLflow did not accept the board: %s", reason)
        link = None
    return Outcome(published.board, published.page, store_uri, link, fresh, published.times)


def _silent(news: News) -> None:
    """The listener where nobody listens."""


def _with_runs(rows: Sequence[Row], uri: str, study: str) -> list[Row]:
    """The rows with the run that each trial has in MLflow, as far as it answers."""
    try:
        runs = {row.trial: row.run_id for row in store.read_trials(uri, study)}
    except IsoflopError:  # the report has no links then, and `isoflop board` writes them
        runs = {}
    return [replace(row, run_id=runs.get(row.trial)) for row in rows]


def _keep(ledger: Ledger, checked: Ready) -> None:
    """Records the data and the source of methods of other packages, or holds them to the record."""
    begun = ledger.history.begun
    contents.keep(ledger.folder, checked.survey, begun)
    if begun is not None:
        refuse_other_source(ledger.study.name, begun.provenance.methods, checked.sources)
    outside.keep(ledger.folder / SOURCE, checked.sources)
    starts.keep(ledger.folder, checked.starts)
    lend(ledger.folder, ledger.depot, SOURCE, FOLDER)


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"--out must be a folder that can be written, but {out}: {error.strerror}"
        ) from None


def _train(
    ledger: Ledger,
    prepared: Prepared,
    origin: Provenance,
    start: Start,
    tell: Listener,
    *,
    trainable: type[tune.Trainable],
) -> bool:
    """Search and confirm; False where nothing is left to do.

    Raises:
        ClusterLost: Ray died more often in a row than a trial may be lost, without a new epoch.
    """
    if not _unfinished(ledger, prepared):
        return False
    if tell is not _silent:
        ledger.replay(tell)
    losses = 0
    while _unfinished(ledger, prepared):
        heard = ledger.history.heard
        try:
            _fit(ledger, prepared, origin, start, trainable=trainable)
        except Exception as error:
            reason = _ray_death(error)
            losses = 1 if ledger.history.heard > heard else losses + 1
            if losses > ledger.study.resources.retries:
                raise ClusterLost(
                    f"Ray must run for at least an epoch, but was lost {losses} times in a row; "
                    f"last cause: {reason}; nothing is lost: the same command resumes the sweep"
                ) from None
            logger.warning("Ray was lost, and a new one resumes what ran: %s", reason)
    return True


def _unfinished(ledger: Ledger, prepared: Prepared) -> bool:
    """Whether a trial is left to run or a network to time."""
    return not _agenda(ledger, prepared).finished or bool(_untimed(ledger))


def _agenda(ledger: Ledger, prepared: Prepared, lag: int = 1) -> Agenda:
    task = prepared.data.task
    return Agenda(
        ledger.history,
        task,
        lag=lag,
        warm=prepared.warm,
        predict=Predictor(ledger.history, task),
    )


def _fit(
    ledger: Ledger,
    prepared: Prepared,
    origin: Provenance,
    start: Start,
    *,
    trainable: type[tune.Trainable],
) -> None:
    """Runs what is left to run, until its end or Ray's."""
    for scratch_left in ledger.folder.glob("ray-*"):
        shutil.rmtree(scratch_left, ignore_errors=True)  # by a driver that was killed
    with (
        start() as slots,
        tempfile.TemporaryDirectory(
            prefix="ray-", dir=ledger.folder, ignore_cleanup_errors=True
        ) as scratch,
    ):
        settings, data = _settings(ledger, origin), shared.put(prepared.data)
        settings = replace(settings, clock=_clock(ledger, settings, prepared))
        origin = replace(origin, clock=settings.clock)
        lag = ledger.history.begin(origin, lag=slots, device=settings.device)
        agenda = _agenda(ledger, prepared, lag)
        if (blind := _blind(ledger, lag)) and not agenda.finished:
            logger.warning("%s", blind)
        try:
            with metered(ledger):
                if not agenda.finished:
                    ledger.announce(Doing(""))
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
        except (BucketAway, KeyboardInterrupt):  # no trial is to blame
            ledger.history.pause()  # first of all: whoever stops us may not wait for Ray to end
            raise


def _blind(ledger: Ledger, lag: int) -> str | None:
    """That proposals see next to nothing on this cluster, which `isoflop plan` may not know."""
    study, begun = ledger.study, ledger.history.begun
    if begun is None or begun.window == 1:  # an earlier version began it: nothing can be done
        return None
    spaces = ledger.history.spaces.values()
    return warning(
        study, {space.search: sight(study, space, study.search.trials, lag) for space in spaces}
    )


def _clock(ledger: Ledger, settings: Settings, prepared: Prepared) -> Clock | None:
    """What the study's milliseconds are measured by: as recorded, or measured in a worker now."""
    study, begun = ledger.study, ledger.history.begun
    if study.cost.batch is None:
        return None
    if begun is not None and begun.provenance.clock is not None:
        return begun.provenance.clock
    resources = study.resources
    worker = ray.remote(num_cpus=resources.cpu, num_gpus=resources.worker_gpu)(clock)
    task = prepared.data.task
    measured: Clock = ray.get(
        worker.remote(task, settings.device, settings.threads, study.cost.batch)
    )
    return measured


def _untimed(ledger: Ledger) -> list[latency.Pair]:
    """Networks of the board that were not timed."""
    study = ledger.study
    wanted = latency.pairs(ledger.history.rows(), study.budgets, BASELINE, study.cost)
    return latency.missing(wanted, ledger.history.latencies)


def _time(ledger: Ledger, settings: Settings, data: shared.Handle | None) -> None:
    """Time the board's networks, now that no trial runs: one worker, one pair at a time."""
    resources = ledger.study.resources
    worker = ray.remote(num_cpus=resources.cpu, num_gpus=resources.worker_gpu)(measured)
    pairs = _untimed(ledger)
    for number, pair in enumerate(pairs):
        ledger.announce(Doing("Measuring latency", number, len(pairs)))
        for event in ray.get(worker.remote(pair, settings, partial(shared.get, settings, data))):
            ledger.history.time(event)
        signals.check()


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes; Tune wraps what its parts raise."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _ray_death(error: Exception) -> str:
    """Why Ray died, in a line; any other error is raised."""
    for cause in _causes(error):
        if isinstance(cause, IsoflopError):  # of a task, the error itself and not its whole trace
            raise getattr(cause, "cause", cause) from None
        if isinstance(cause, RayError | ConnectionError):
            return f"{type(cause).__name__}: {' '.join(str(cause).split())}"[:300]
    raise error


@contextlib.contextmanager
def _disk_full_in_a_line() -> Iterator[None]:
    """Makes a full disk one line, wherever it was met."""
    try:
        yield
    except Exception as error:
        for cause in _causes(error):
            if isinstance(cause, OSError) and cause.errno in NO_ROOM:
                target = f" to write {cause.filename}" if cause.filename else ""
                raise DiskFull(
                    f"there must be space{target}, but the disk is full; nothing is lost: free "
                    "some space, and the same command resumes the sweep"
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
        resize=study.resize,
        data_sha256=origin.data.sha256 if origin.data else "",
        source=SOURCE if origin.methods else "",
        starts=starts.paths(study, ledger.folder, ledger.history.spaces),
        bucket=ledger.bucket or "",
    )


def _absolute(data: str) -> str:
    return str(Path(data).absolute()) if Path(data).exists() else data
