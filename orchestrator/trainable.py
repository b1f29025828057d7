"""One trial in a worker: build, train, evaluate, prove the price, keep checkpoints, replay.

The science is a plain generator of results; Ray's part is a shell of a few lines around it, whose
actors are reused from trial to trial.
"""

import contextlib
import io
import json
import logging
import os
import platform
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from ray import tune

from methods.data import Data
from methods.errors import DiskFull, Diverged
from methods.evaluate import Evaluation, evaluate
from methods.hardware import device_name
from methods.machine import tune_allocator
from methods.train import Epoch, train
from orchestrator import evidence
from orchestrator.deployed import keep
from orchestrator.evidence import Evidence, Shot
from orchestrator.measure import measure
from orchestrator.params import parts
from orchestrator.shared import held

logger = logging.getLogger(__name__)

INTERVAL = 5.0
"""Seconds between two checkpoints, at least; the end of a phase always has one."""
LAYOUT = 2
"""Of a checkpoint; one of another layout is left alone."""
TOLD = "told"
"""Where a result of Tune's carries ours."""


class Trial(tune.Trainable):  # type: ignore[misc]
    """Ray's shell: one step is one result of `results`."""

    def setup(self, config: dict[str, Any]) -> None:
        """A fresh actor's first trial."""
        tune_allocator()
        torch.set_num_threads(max(1, int(config["threads"])))
        self._results = results(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """A used actor's next trial."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The next epoch's result, as text: Tune flattens what is nested."""
        result = next(self._results)
        return {"done": result["done"], TOLD: json.dumps(result)}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: trials keep their own checkpoints, which outlive the driver."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: a trial finds its own checkpoint when it starts."""


def results(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The epochs of a trial, the last of them with its `end`; errors end it as failed.

    After a restart the results up to the checkpoint come again first, with their own times, so that
    a driver that died before it heard some epochs hears them now. A confirm run's predictions on
    the test images stand in the study's folder before its end is told.
    """
    try:
        yield from _results(config)
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


def _results(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    folder = Path(config["folder"]) / "trials" / config["trial"]
    kept = _latest(folder)
    identity = {name: config[name] for name in ("method", "params", "seed", "role")}
    identity |= {"evidence": evidence.FORMAT, "layout": LAYOUT}
    if kept and kept["identity"] != identity:
        logger.warning("%s: the checkpoint of another trial is left alone", config["trial"])
        kept = None
    if kept:
        yield from kept["results"]
        if kept["results"][-1]["end"]:
            return
    method, recipe = parts(config["method"], config["params"])
    device = config["device"]
    data = held(config)
    told = list(kept["results"]) if kept else []
    points = list(kept["points"]) if kept else []
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
            points += [point.figures for point in found]
            shots |= {p.figures["point"]: Shot.of(p.test) for p in found if p.test}
            if test and epoch.index < epoch.epochs:
                keep(folder, epoch.phase, epoch.state()["net"])
        seconds, began = seconds + time.monotonic() - began, time.monotonic()
        result = _result(epoch, seen, seconds, points, device)
        if result["end"] and shots:
            result["end"]["evidence"] = _testify(config, shots, data, folder)
        told.append(result)
        if result["end"] or epoch.phase_done or time.monotonic() - saved > INTERVAL:
            saved = time.monotonic()
            content = {
                "identity": identity,
                "train": epoch.state(),
                "points": points,
                "shots": evidence.tensors(shots),
                "seconds": seconds,
                "results": told,
            }
            try:
                _keep(folder, content)
            except OSError as error:  # no reason to stop: the one before is still there
                result = {**result, "warning": f"no checkpoint of epoch {epoch.index}: {error}"}
        yield result


def _testify(config: Mapping[str, Any], shots: Mapping[str, Shot], data: Data, folder: Path) -> str:
    """Leaves what the test images gave in the study's folder; its digest."""
    about = evidence.facts_of(config["trial"], config["method"], config["params"], config["seed"])
    kept = Evidence(about, data.test.labels.cpu().numpy(), shots)
    return evidence.write(kept, Path(config["folder"]), _aside(folder, "parquet"))


def _result(
    epoch: Epoch, seen: Evaluation, seconds: float, points: list[dict[str, Any]], device: str
) -> dict[str, Any]:
    done = epoch.index == epoch.epochs
    return {
        "step": epoch.index,
        "time": time.time_ns() // 1_000_000,
        "metrics": {
            "curve/train_loss": epoch.loss,
            "curve/val_acc": seen.accuracy,
            "curve/val_loss": seen.loss,
            "curve/macs_mean_m": seen.macs_mean / 1e6,
            "curve/lr": epoch.lr,
            "curve/seconds": epoch.seconds,
        },
        "done": done,
        "end": {
            "state": "COMPLETE",
            "reason": None,
            "seconds": seconds,
            "points": list(points),
            "device": device_name(device),
        }
        if done
        else None,
    }


def _failure(reason: str) -> dict[str, Any]:
    end = {"state": "FAIL", "reason": " ".join(reason.split())}
    return {"step": 0, "time": 0, "metrics": {}, "done": True, "end": end}


def _out_of_memory(error: Exception) -> bool:
    """Whether a host or a GPU refused to give memory; torch has no class for the host's refusal."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("CUDA error: out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _keep(folder: Path, content: Mapping[str, Any]) -> None:
    """Write aside, then rename; the former checkpoint stays as the second.

    The worker of a driver that was killed may live a moment longer and write here too: each has
    its own file aside, and both write the same.

    Raises:
        OSError: there is no room, or no folder; the former checkpoints are as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    aside = _aside(folder, "pt")
    packed = io.BytesIO()
    torch.save(dict(content), packed)  # straight into a file it hides why a write failed
    try:
        aside.write_bytes(packed.getbuffer())
        last = folder / "last.pt"
        with contextlib.suppress(FileNotFoundError):
            last.replace(folder / "previous.pt")
        aside.replace(last)
    finally:
        aside.unlink(missing_ok=True)


def _aside(folder: Path, kind: str) -> Path:
    return folder / f"next-{platform.node()}-{os.getpid()}.{kind}"


def _latest(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None."""
    for path in (folder / "last.pt", folder / "previous.pt"):
        try:
            kept: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            continue
        except Exception as error:  # a torn file has many ways to fail
            logger.warning("%s cannot be read (%s): an older one is tried", path.name, error)
            continue
        return kept
    return None
