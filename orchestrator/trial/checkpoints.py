"""The networks of a confirm run as they were when its phases ended, and what ships of them."""

import contextlib
import io
import logging
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from methods.api import Method, Network, Task, point_of
from methods.errors import DiskFull, StorageError
from orchestrator.record.log import FULL

logger = logging.getLogger(__name__)


def keep(folder: Path, phase: str, net: Mapping[str, Any]) -> None:
    """The weights of a network whose phase is done and is not the last: the trial trains on.

    Raises:
        DiskFull: there is no room.
        OSError: there is no folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f"next-{platform.node()}-{os.getpid()}.pt"
    packed = io.BytesIO()
    torch.save(dict(net), packed)
    try:
        aside.write_bytes(packed.getbuffer())
        aside.replace(folder / f"phase-{phase}.pt")
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull(f"there must be room in {folder}, but the disk is full") from None
        raise
    finally:
        aside.unlink(missing_ok=True)


def view(folder: Path, method: Method, task: Task, point: str) -> Network:
    """The network of one operating point of a trial, in evaluation mode; it prices itself.

    Raises:
        StorageError: the trial's folder does not hold it.
    """
    kept = [phase.name for phase in method.phases()][:-1]
    phase = point.partition("/")[0]
    net = _filled(method, task, folder, phase if phase in kept else None)
    return point_of(method, net, point).eval()


def deployed(folder: Path, method: Method, task: Task, point: str) -> nn.Module:
    """What ships of an operating point: images -> logits.

    Raises:
        StorageError: the trial's folder does not hold it.
    """
    return method.deploy(view(folder, method, task, point)).eval()


def _filled(method: Method, task: Task, folder: Path, phase: str | None) -> Network:
    path = folder / ("last.pt" if phase is None else f"phase-{phase}.pt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError) as error:
        raise StorageError(
            f"the networks of a confirm run stay in its folder, but {folder.name}/{path.name} "
            f"cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    with torch.random.fork_rng(devices=[]):
        net: Network = method.build(task)
    net.load_state_dict(content["train"]["net"] if phase is None else content)
    return net


def save(folder: Path, content: Mapping[str, Any]) -> None:
    """Write aside, then rename; the former checkpoint stays as the second.

    The worker of a driver that was killed may live a moment longer and write here too: each has
    its own file aside, and both write the same.

    Raises:
        OSError: there is no room, or no folder; the former checkpoints are as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    aside = beside(folder, "pt")
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


def beside(folder: Path, kind: str) -> Path:
    """Where this process writes a file before it takes its name."""
    return folder / f"next-{platform.node()}-{os.getpid()}.{kind}"


def latest(folder: Path) -> dict[str, Any] | None:
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
