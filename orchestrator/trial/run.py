"""One trial in a worker: build, train, evaluate, prove the price, keep checkpoints, replay.

The science is a plain generator of results; Ray's part is a shell of a few lines around it, whose
actors are reused from trial to trial.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from methods.data.load import Data
from methods.data.load import load as load_data
from methods.errors import DiskFull, Diverged
from methods.machine import device_name
from methods.training.evaluate import Evaluation, evaluate
from methods.training.loop import Epoch, train
from orchestrator.record import evidence
from orchestrator.record.events import Metrics, decode_points, encode_points
from orchestrator.record.evidence import Evidence, Shot
from orchestrator.record.result import Ending, Result, decode_result, encode_result
from orchestrator.study.params import parts
from orchestrator.trial.checkpoints import keep, latest, save
from orchestrator.trial.measure import measure

logger = logging.getLogger(__name__)

INTERVAL = 5.0
"""Seconds between two checkpoints, at least; the end of a phase always has one."""
LAYOUT = 2
"""Of a checkpoint; one of another layout is left alone."""


def results(config: Mapping[str, Any], load: Callable[[], Data] | None = None) -> Iterator[Result]:
    """The epochs of a trial, the last of them with its ending; errors end it as failed.

    After a restart the results up to the checkpoint come again first, with their own times, so that
    a driver that died before it heard some epochs hears them now. A confirm run's predictions on
    the test images stand in the study's folder before its end is told. `load` gives the data set,
    which is read here by default.
    """
    try:
        yield from _results(config, load or partial(own_data, config))
    except Diverged as error:
        yield _failure(f"diverged: {error}")
    except DiskFull:
        raise  # its evidence found no room: the trial is lost, and served again
    except Exception as error:  # a trial may fail, the sweep may not
        if _out_of_memory(error):  # it would take as much again
            yield _failure(f"out of memory: {str(error) or type(error).__name__}")
            return
        if "CUDA error" in str(error):
            raise  # the context is broken: Tune ends this actor, and tries once more in a new one
        logger.exception("%s failed", config["trial"])
        yield _failure(f"{type(error).__name__}: {error}")


def _results(config: Mapping[str, Any], load: Callable[[], Data]) -> Iterator[Result]:
    folder = Path(config["folder"]) / "trials" / config["trial"]
    kept = latest(folder)
    identity = {name: config[name] for name in ("method", "params", "seed", "role")}
    identity |= {"evidence": evidence.FORMAT, "layout": LAYOUT}
    if kept and kept["identity"] != identity:
        logger.warning("%s: the checkpoint of another trial is left alone", config["trial"])
        kept = None
    told = [decode_result(content) for content in kept["results"]] if kept else []
    yield from told
    if told and told[-1].done:
        return
    method, recipe = parts(config["method"], config["params"])
    device = config["device"]
    data = load()
    points = list(decode_points(kept["points"])) if kept else []
    shots = evidence.shots(kept["shots"]) if kept else {}
    seconds = float(kept["seconds"]) if kept else 0.0
    began, saved = time.monotonic(), time.monotonic()
    phases = len(method.phases())
    state = kept["train"] if kept else None
    for epoch in train(method, data, recipe, seed=config["seed"], device=device, state=state):
        seen = evaluate(epoch.net, data.validation, device=device)
        if epoch.phase_done:
            name = epoch.phase if phases > 1 else ""
            test = config["role"] == "confirm"
            found = measure(method, epoch.points(), name, data, device, test=test)
            points += [measured.point for measured in found]
            shots |= {own.point.point: Shot.of(own.test) for own in found if own.test}
            if test and epoch.index < epoch.epochs:
                keep(folder, epoch.phase, epoch.state()["net"])
        seconds, began = seconds + time.monotonic() - began, time.monotonic()
        ending = None
        if epoch.index == epoch.epochs:
            digest = _testify(config, shots, data) if shots else ""
            ending = Ending("COMPLETE", None, seconds, tuple(points), device_name(device), digest)
        result = Result(epoch.index, _now(), _metrics(epoch, seen), ending)
        told.append(result)
        if result.done or epoch.phase_done or time.monotonic() - saved > INTERVAL:
            saved = time.monotonic()
            content = {
                "identity": identity,
                "train": epoch.state(),
                "points": encode_points(points),
                "shots": evidence.tensors(shots),
                "seconds": seconds,
                "results": [encode_result(said) for said in told],
            }
            try:
                save(folder, content)
            except OSError as error:  # no reason to stop: the one before is still there
                result = replace(result, warning=f"no checkpoint of epoch {epoch.index}: {error}")
        yield result


def _testify(config: Mapping[str, Any], shots: Mapping[str, Shot], data: Data) -> str:
    """Leaves what the test images gave in the study's folder; its digest."""
    about = evidence.facts_of(config["trial"], config["method"], config["params"], config["seed"])
    kept = Evidence(about, data.test.labels.cpu().numpy(), shots)
    return evidence.write(kept, Path(config["folder"]))


def _metrics(epoch: Epoch, seen: Evaluation) -> Metrics:
    return Metrics(
        train_loss=epoch.loss,
        val_acc=seen.accuracy,
        val_loss=seen.loss,
        macs_mean_m=seen.macs_mean / 1e6,
        lr=epoch.lr,
        seconds=epoch.seconds,
    )


def _now() -> int:
    return time.time_ns() // 1_000_000


def _failure(reason: str) -> Result:
    return Result(0, 0, None, Ending("FAIL", " ".join(reason.split())))


def own_data(settings: Mapping[str, Any]) -> Data:
    """The data set of these settings, read by this process alone."""
    return load_data(settings["data"], seed=settings["data_seed"], device=settings["device"])


def _out_of_memory(error: Exception) -> bool:
    """Whether a host or a GPU refused to give memory; torch has no class for the host's refusal."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("CUDA error: out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
