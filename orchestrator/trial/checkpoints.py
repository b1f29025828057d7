"""A trial's checkpoints, and the networks of a confirm run at the ends of its phases."""

import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from methods import files
from methods.api import Method, Network, Task, point_of
from methods.errors import DiskFull, StorageError
from methods.files import NO_ROOM

logger = logging.getLogger(__name__)


def save_phase(folder: Path, phase: str, net: Mapping[str, Any]) -> None:
    """Save the weights of a network at the end of a phase that is not the last one.

    Raises:
        DiskFull: there is no room.
        OSError: there is no folder.
    """
    try:
        files.write(folder / f"phase-{phase}.pt", _packed(net))
    except OSError as error:
        if error.errno in NO_ROOM:
            raise DiskFull(f"there must be space in {folder}, but the disk is full") from None
        raise


def view(folder: Path, method: Method, task: Task, point: str) -> Network:
    """The network of a trial at one operating point, in evaluation mode; it prices itself.

    Raises:
        StorageError: the trial's folder does not hold it.
    """
    saved_phases = [phase.name for phase in method.phases()][:-1]
    phase = point.partition("/")[0]
    net = _filled(method, task, folder, phase if phase in saved_phases else None)
    return point_of(method, net, point).eval()


def deployed(folder: Path, method: Method, task: Task, point: str) -> nn.Module:
    """The deployed network of an operating point: images -> logits.

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
    """Write a checkpoint; the one before it becomes `previous.pt`.

    The worker of a driver that was killed may live a moment longer and write here too; both write
    the same content.

    Raises:
        OSError: there is no room, or no folder; the earlier checkpoints are unchanged.
    """
    files.write(folder / "last.pt", _packed(content), previous=folder / "previous.pt")


def latest(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read; None where there is none."""
    for path in (folder / "last.pt", folder / "previous.pt"):
        try:
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            continue
        except Exception as error:  # a torn file has many ways to fail
            logger.warning("%s cannot be read (%s); trying an older checkpoint", path.name, error)
            continue
        return checkpoint
    return None


def _packed(content: Mapping[str, Any]) -> bytes:
    """The bytes of a checkpoint; where torch writes a file itself, it hides why a write failed."""
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    return buffer.getvalue()
