"""A trial's checkpoints, and the networks of a confirm run at the ends of its phases."""

import errno
import io
import logging
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from methods.api import Method, Network, Task, point_of
from methods.errors import BucketAway, DiskFull, StorageError
from methods.files import NO_ROOM
from orchestrator.record.depot import Depot

logger = logging.getLogger(__name__)

LAST, PREVIOUS = "last.pt", "previous.pt"
"""Names of a trial's checkpoints: the newest, and in a folder the one before."""


def save_phase(depot: Depot, phase: str, net: Mapping[str, Any]) -> None:
    """Save the weights of a network at the end of a phase that is not the last one.

    Raises:
        DiskFull: there is no room.
        OSError: there is no folder.
        BucketAway: the bucket did not answer in time.
    """
    try:
        depot.write(f"phase-{phase}.pt", _packed(net))
    except OSError as error:
        if error.errno in NO_ROOM:
            raise DiskFull(
                f"there must be space in {depot.where('')}, but the disk is full"
            ) from None
        raise


def view(depot: Depot, method: Method, task: Task, point: str) -> Network:
    """The network of a trial at one operating point, in evaluation mode; it prices itself.

    Raises:
        StorageError: the trial's files do not hold it.
    """
    saved_phases = [phase.name for phase in method.phases()][:-1]
    phase = point.partition("/")[0]
    net = _filled(method, task, depot, phase if phase in saved_phases else None)
    return point_of(method, net, point).eval()


def deployed(depot: Depot, method: Method, task: Task, point: str) -> nn.Module:
    """The deployed network of an operating point: images -> logits.

    Raises:
        StorageError: the trial's files do not hold it.
    """
    return method.deploy(view(depot, method, task, point)).eval()


def _filled(method: Method, task: Task, depot: Depot, phase: str | None) -> Network:
    name = LAST if phase is None else f"phase-{phase}.pt"
    try:
        packed = depot.read(name)
        if packed is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        content = _unpacked(packed)
    except (OSError, RuntimeError, EOFError) as error:
        raise StorageError(
            f"the networks of a confirm run stay in its folder, but {depot.where(name)} "
            f"cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    with torch.random.fork_rng(devices=[]):
        net: Network = method.build(task)
    net.load_state_dict(content["train"]["net"] if phase is None else content)
    return net


def save(depot: Depot, content: Mapping[str, Any]) -> None:
    """Write a checkpoint; in a folder the one before it becomes `previous.pt`.

    The worker of a driver that was killed may live a moment longer and write here too; both write
    the same content.

    Raises:
        OSError: there is no room, or no folder; the earlier checkpoints are unchanged.
        BucketAway: the bucket did not answer in time.
    """
    depot.write(LAST, _packed(content), spare=PREVIOUS)


def latest(depot: Depot) -> dict[str, Any] | None:
    """The newest checkpoint that can be read; None where there is none.

    Raises:
        BucketAway: the bucket did not answer in time.
    """
    for name in (LAST, PREVIOUS):
        try:
            packed = depot.read(name)
            if packed is None:
                continue
            checkpoint: dict[str, Any] = _unpacked(packed)
        except BucketAway:
            raise
        except Exception as error:  # a torn file has many ways to fail
            logger.warning("%s cannot be read (%s); trying an older checkpoint", name, error)
            continue
        return checkpoint
    return None


def _packed(content: Mapping[str, Any]) -> bytes:
    """The bytes of a checkpoint; where torch writes a file itself, it hides why a write failed."""
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    return buffer.getvalue()


def _unpacked(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
