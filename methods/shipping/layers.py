"""Milliseconds of a network before it is trained: the sum over its operations, each timed once.

A table holds the time of every operation with its shapes, strides and arguments: the convolutions
and products of layers, and all that runs between them. It is filled as networks are traced, on the
deployed form, which really skips, slices and groups, and is kept for this machine. A sum of
operations is no network: one factor, fitted on the reference network, makes it one.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from methods import files
from methods.api import Method, Task
from methods.machine import device_name
from methods.macs import quiet
from methods.shipping.choices import user_folder
from methods.shipping.clock import Clock, steady, wait
from methods.shipping.forms import tuned_layers
from methods.shipping.turns import in_turns, reference

logger = logging.getLogger(__name__)

VERSION = 1
"""Version of a table's file; a file of another version is measured again."""
CALLS, SECONDS = 20, 0.004
"""Calls of an operation, of which the fastest counts, and seconds after which they end: other
processes only ever make a call slower."""
CLEARLY = 1.5
"""A network is turned away before training where it is predicted to take so many times the largest
budget: predictions miss by less than that (docs/latency.md)."""


class Layers:
    """The table of one machine: device, threads, version of torch and images in a call.

    It lies in `folder`, by default in the user's cache, `$XDG_CACHE_HOME/isoflop/layers`. Any
    number of processes may share it; a torn file, or one of other conditions, is measured anew.
    """

    def __init__(self, task: Task, device: str, batch: int, folder: Path | None = None) -> None:
        self.task = task
        self.device = device
        self.batch = batch
        self._images = torch.randn(
            (batch, task.channels, task.height, task.width),
            generator=torch.Generator().manual_seed(0),
        ).to(device)
        self._conditions: dict[str, Any] = {
            "version": VERSION,
            "device": device_name(device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "batch": batch,
        }
        digest = files.digest(json.dumps(self._conditions, sort_keys=True))
        self.path = (user_folder("layers") if folder is None else folder) / f"{digest[:32]}.json"
        self._seconds, self._references = self._read()

    @property
    def reference_ms(self) -> float:
        """A call of the reference network, measured once for this machine."""
        return self._reference()["ms"]

    def least_ms(self, method: Method) -> float:
        """The least milliseconds that a call of a method's network can take, as predicted.

        Of the untrained network's operating point that costs least. Where training may make it
        cheaper still, by skipping or pruning, its time is taken to shrink as its MACs do, which is
        more than it does: a network that is said to take too long takes too long.

        Raises:
            MethodError: it has no network for this task.
        """
        deployed, share = self._cheapest(method)
        return share * self.predicted_ms(deployed)

    def measured_ms(self, method: Method) -> float:
        """The same, of the network's operating point as a clock measures it.

        Raises:
            MethodError: it has no network for this task.
        """
        deployed, share = self._cheapest(method)
        beside = reference(self.task).to(self.device)
        turns = in_turns(deployed, beside, self._images, self.batch)
        return share * turns.calibrated(self.reference_ms)[0]

    def predicted_ms(self, deployed: nn.Module) -> float:
        """Milliseconds of a call of a deployed network, as predicted."""
        factor: float = self._reference()["factor"]
        return factor * self._sum_ms(deployed)

    def _cheapest(self, method: Method) -> tuple[nn.Module, float]:
        """The deployed untrained operating point that costs least, and the fraction of its MACs
        that training can leave."""
        floor, image = method.floor(self.task), self._images[:1].cpu()
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.default_generator.manual_seed(0)
            net = method.build(self.task)
            views = [view for phase in method.phases() for view in phase.points(net).values()]
            prices = [float(view.eval()(image).macs) for view in views]
            least = min(range(len(views)), key=prices.__getitem__)
            deployed = method.deploy(views[least]).to(self.device)
        return deployed, min(1.0, floor / max(prices[least], 1.0))

    def _reference(self) -> dict[str, float]:
        task = self.task
        key = f"{task.channels}x{task.height}x{task.width}, {task.classes} classes"
        if key not in self._references:
            network = reference(task).to(self.device)
            ms = in_turns(network, network, self._images, self.batch).ms
            self._references[key] = {"ms": ms, "factor": ms / self._sum_ms(network)}
            self._write()
        return self._references[key]

    def _sum_ms(self, deployed: nn.Module) -> float:
        known = len(self._seconds)
        tuned = tuned_layers(deployed, self._images)
        with quiet(tuned), _Sum(self._seconds, torch.device(self.device)) as total:
            tuned(self._images)
        if len(self._seconds) > known:
            self._write()
        return 1e3 * float(total.seconds)

    def _read(self) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        try:
            content = json.loads(self.path.read_text())
            if content["conditions"] != self._conditions:
                raise ValueError("it was measured under other conditions")
            return dict(content["seconds"]), dict(content["references"])
        except FileNotFoundError:
            return {}, {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("measuring again, since %s cannot be used: %s", self.path, error)
            return {}, {}

    def _write(self) -> None:
        """Keeps the table with what other processes added; a full disk is not an error."""
        seconds, references = self._read() if self.path.exists() else ({}, {})
        content = {
            "conditions": self._conditions,
            "references": references | self._references,
            "seconds": seconds | self._seconds,
        }
        try:
            files.write(self.path, json.dumps(content, indent=0))
        except OSError as error:
            logger.warning("the times of layers could not be stored: %s", error)


class _Sum(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums the times of the operations that run inside; those that are not known are timed."""

    def __init__(self, known: dict[str, float], device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seconds = 0.0
        self._known = known
        self._device = device
        self._clock = steady(device)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        key = f"{func}{[_word(value) for value in tree_leaves((args, kwargs))]}"
        if key not in self._known:
            copies = tree_map(_copy, (args, kwargs)) if func._schema.is_mutable else (args, kwargs)
            self._known[key] = _least(
                lambda: func(*copies[0], **copies[1]), self._device, self._clock
            )
        self.seconds += self._known[key]
        return func(*args, **kwargs)


def _least(call: Callable[[], object], device: torch.device, clock: Clock) -> float:
    """Seconds of the fastest of some calls; the first does not count."""
    call()
    wait(device)
    fastest, began = float("inf"), clock()
    for _ in range(CALLS):
        start = clock()
        call()
        wait(device)
        now = clock()
        fastest = min(fastest, now - start)
        if now - began > SECONDS:
            break
    return fastest


def _word(value: object) -> str:
    """What of an argument an operation's time depends on."""
    if isinstance(value, Tensor):
        return f"{value.dtype}{tuple(value.shape)}{value.stride()}"
    return str(value)


def _copy(value: object) -> object:
    return value.clone() if isinstance(value, Tensor) else value
