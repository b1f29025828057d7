"""One trial in a worker: build, train, evaluate, prove the price, keep checkpoints, replay.

The science is a plain generator of results; Ray's part is a shell of a few lines around it, whose
actors are reused from trial to trial.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from methods.data.load import Data
from methods.errors import BucketAway, DiskFull, Diverged, PeerLost
from methods.machine import device_name
from methods.parallel.group import from_first, rank
from methods.training.evaluate import Evaluation, evaluate
from methods.training.loop import Epoch, train
from orchestrator.record import evidence
from orchestrator.record.events import Metrics, decode_points, encode_points
from orchestrator.record.evidence import Evidence, Shot, Subject
from orchestrator.record.result import Ending, Result, decode_result, encode_result
from orchestrator.study.params import recorded_parts
from orchestrator.trial.checkpoints import latest, save, save_phase
from orchestrator.trial.job import Job
from orchestrator.trial.measure import measure
from orchestrator.trial.start import starter

logger = logging.getLogger(__name__)

INTERVAL = 5.0
"""Seconds between two checkpoints, at least; the end of a phase always has one."""
LAYOUT = 4
"""Version of the layout of checkpoints; one of another version is ignored."""


def results(job: Job, load: Callable[[], Data] | None = None) -> Iterator[Result]:
    """The epochs of a trial, the last of them with its ending; errors end it as failed.

    Where it is to pause its results end earlier, and its checkpoint stands in its folder before the
    last one is told. After a restart the results up to the checkpoint come again first, with their
    own times, so that a driver that died before it heard some epochs hears them now. A confirm
    run's predictions on the test images stand in the study's depot before its end is told. `load`
    gives the data set, which is read here by default. Each of several workers of a trial has all of
    its results; the first alone writes, and reads the checkpoint.
    """
    try:
        for result in _results(job, load or job.settings.read):
            if result.step == job.until and not result.done:
                yield replace(result, pauses=True)
                return
            yield result
    except Diverged as error:
        yield _failure(f"diverged: {error}")
    except (BucketAway, DiskFull, PeerLost):
        raise  # no room for its files, or a worker died: the trial is lost, and served again
    except Exception as error:  # a trial may fail, the sweep may not
        if _out_of_memory(error):  # it would take as much again
            yield _failure(f"out of memory: {str(error) or type(error).__name__}")
            return
        if "CUDA error" in str(error):
            raise  # the context is broken: Tune ends this actor, and tries once more in a new one
        logger.exception("%s failed", job.trial)
        yield _failure(f"{type(error).__name__}: {error}")


def _results(job: Job, load: Callable[[], Data]) -> Iterator[Result]:
    trial = job.settings.depot.below("trials").below(job.trial)
    first = rank() == 0
    checkpoint = from_first(lambda: _latest(job))  # others might see a newer one by now
    past = [decode_result(content) for content in checkpoint["results"]] if checkpoint else []
    done = bool(past) and past[-1].done
    if checkpoint and done and first and checkpoint["shots"] is not None:
        evidence.keep(job.trial, _bytes(checkpoint["shots"]), job.settings.depot)  # if it was lost
    yield from past
    if done:
        return
    job.settings.take_methods()
    method, recipe = recorded_parts(job.method, job.params)
    device = job.settings.device
    data = load()
    points = list(decode_points(checkpoint["points"])) if checkpoint else []
    shots = _shots(checkpoint["shots"]) if checkpoint else {}
    seconds = float(checkpoint["seconds"]) if checkpoint else 0.0
    began, saved = time.monotonic(), time.monotonic()
    phases = len(method.phases())
    state = checkpoint["train"] if checkpoint else None
    weights = None if state else dict(job.settings.starts).get(job.method)
    start = None if weights is None else starter(job.settings.depot, weights, method, data.task)
    for epoch in train(
        method, data, recipe, seed=job.seed, device=device, state=state, start=start
    ):
        validation = evaluate(epoch.net, data.validation, device=device)
        if epoch.phase_done:
            name = epoch.phase if phases > 1 else ""
            test = job.role == "confirm"
            for measured in measure(
                method, epoch.points(), name, data, device, test=test, clock=job.settings.clock
            ):
                points.append(measured.point)
                if measured.shot:
                    shots[measured.point.point] = measured.shot
            if first and test and epoch.index < epoch.epochs:
                save_phase(trial, epoch.phase, epoch.state()["net"])
        seconds, began = seconds + time.monotonic() - began, time.monotonic()
        ending = None
        if epoch.index == epoch.epochs:
            digest = ""
            if first and shots:
                digest = evidence.write(_evidence(job, shots, data), job.settings.depot)
            ending = Ending("COMPLETE", None, seconds, tuple(points), device_name(device), digest)
        result = Result(epoch.index, _now(), _metrics(epoch, validation), ending)
        past.append(result)
        at_end = epoch.phase_done or epoch.index in (job.until, epoch.epochs)
        due = at_end or time.monotonic() - saved > INTERVAL
        if first and due:
            saved = time.monotonic()
            content = {
                "identity": _identity(job),
                "train": epoch.state(),
                "points": encode_points(points),
                "shots": _tensor(_evidence(job, shots, data)) if shots else None,
                "seconds": seconds,
                "results": [encode_result(earlier) for earlier in past],
            }
            try:
                save(trial, content)
            except OSError as error:  # no reason to stop: the one before is still there
                result = replace(result, warning=f"no checkpoint of epoch {epoch.index}: {error}")
        yield result


def _latest(job: Job) -> dict[str, Any] | None:
    """The last checkpoint of this trial, unless it is another's."""
    checkpoint = latest(job.settings.depot.below("trials").below(job.trial))
    if checkpoint and checkpoint["identity"] != _identity(job):
        logger.warning("%s: the checkpoint of another trial is ignored", job.trial)
        return None
    return checkpoint


def _identity(job: Job) -> dict[str, object]:
    """Whose a checkpoint is, and how it is laid out."""
    return {
        "method": job.method,
        "params": job.params,
        "seed": job.seed,
        "role": job.role,
        "evidence": evidence.FORMAT,
        "layout": LAYOUT,
    }


def _evidence(job: Job, shots: Mapping[str, Shot], data: Data) -> Evidence:
    """What the test images gave so far."""
    data_sha256 = job.settings.data_sha256
    subject = Subject.of(job.trial, job.method, job.params, job.seed, data=data_sha256)
    return Evidence(subject, data.test.labels.cpu().numpy(), shots, data.difficulty)


def _tensor(content: Evidence) -> torch.Tensor:
    """Evidence as a checkpoint holds it: the bytes of its file."""
    return torch.frombuffer(bytearray(evidence.packed(content)), dtype=torch.uint8)


def _bytes(content: torch.Tensor) -> bytes:
    """The file that a checkpoint holds."""
    return bytes(content.numpy().tobytes())


def _shots(content: torch.Tensor | None) -> dict[str, Shot]:
    """The operating points of a checkpoint's evidence."""
    return {} if content is None else dict(evidence.unpacked(_bytes(content)).points)


def _metrics(epoch: Epoch, validation: Evaluation) -> Metrics:
    return Metrics(
        train_loss=epoch.loss,
        val_acc=validation.accuracy,
        val_loss=validation.loss,
        macs_mean_m=validation.macs_mean / 1e6,
        lr=epoch.lr,
        seconds=epoch.seconds,
    )


def _now() -> int:
    return time.time_ns() // 1_000_000


def _failure(reason: str) -> Result:
    return Result(0, 0, None, Ending("FAIL", " ".join(reason.split())))


def _out_of_memory(error: Exception) -> bool:
    """Whether a host or a GPU refused to give memory; torch has no class for the host's refusal."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("CUDA error: out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
