"""What a call takes in joules, where the machine counts them: NVIDIA's counter, or Intel's RAPL.

Both count all that the device draws, idle power and other processes included.
"""

import contextlib
import importlib
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from methods.api import Images
from methods.shipping.clock import wait
from methods.training.evaluate import evaluating

POWERCAP = Path("/sys/class/powercap")
"""Where Linux has RAPL's counters, which AMD's processors have too; most systems let root alone
read them."""
SECONDS = 0.5
"""A measurement lasts so long at least: the counters move in steps of milliseconds."""


class Meter(NamedTuple):
    """A counter of joules; the difference of two readings is what was drawn between them."""

    name: str
    read: Callable[[], float]
    wraps: float = math.inf
    """Joules at which the counter begins anew; no measurement takes as many."""


class Energy(NamedTuple):
    """Joules per image of each network, and what counted them; no joules, and why nothing did."""

    joules: list[float]
    source: str


def energy(modules: Sequence[nn.Module], images: Images, *, powercap: Path = POWERCAP) -> Energy:
    """What calls on these images take, one network after the other, half a second each."""
    meters = _nvml(images.device) if images.is_cuda else _rapl(powercap)
    if isinstance(meters, str):
        return Energy([], meters)
    source = ", ".join(meter.name for meter in meters)
    return Energy([_joules(module, images, meters) for module in modules], source)


def _joules(module: nn.Module, images: Images, meters: list[Meter]) -> float:
    calls = 0
    with evaluating(module):
        module(images)
        wait(images.device)
        before, began = [meter.read() for meter in meters], time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            module(images)
            wait(images.device)
            calls += 1
        after = [meter.read() for meter in meters]
    drawn = 0.0
    for meter, start, end in zip(meters, before, after, strict=True):
        drawn += end - start if end >= start else end - start + meter.wraps
    return drawn / (calls * len(images))


def _rapl(powercap: Path) -> list[Meter] | str:
    """One counter per processor package; its parts are in it."""
    meters = []
    for zone in sorted(powercap.glob("intel-rapl:*")):
        if zone.name.count(":") > 1:
            continue
        try:
            _number(zone / "energy_uj")
            wraps = _number(zone / "max_energy_range_uj")
            name = (zone / "name").read_text().strip()
        except (OSError, ValueError) as error:
            return f"RAPL cannot be read: {getattr(error, 'strerror', None) or error}"
        if name.startswith("package"):
            meters.append(Meter(f"RAPL {name}", partial(_number, zone / "energy_uj"), wraps))
    return meters or "this machine has no RAPL counter"


def _number(path: Path) -> float:
    """Joules in a file that holds microjoules."""
    return int(path.read_text()) / 1e6


def _nvml(device: torch.device) -> list[Meter] | str:
    try:
        pynvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return "nvidia-ml-py is not installed"
    with contextlib.suppress(Exception):  # NVML's errors are classes of its own
        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        return [Meter("NVML", lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)]
    return "NVML counts no energy on this GPU"
