"""What a trial runs on."""

import functools
import platform
from pathlib import Path

import torch


def device_name(device: str) -> str:
    """The hardware's name, for the record."""
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return _processor()


@functools.cache
def _processor() -> str:
    """The processor's model where Linux tells it, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (models and models[0]) or platform.processor() or platform.machine()
