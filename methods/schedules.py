"""Learning-rate multipliers: pure functions of progress in [0, 1]."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType


def cosine(progress: float) -> float:
    """Half a cosine, from 1 down to 0 (Loshchilov and Hutter, SGDR, equation 5, one cycle)."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def step(progress: float, at: Sequence[float] = (0.5, 0.75), factor: float = 0.1) -> float:
    """`factor` to the power of the milestones reached (ResNet, section 4.2: 32k, 48k of 64k)."""
    passed = sum(progress >= milestone for milestone in at)
    return float(factor**passed)


def exponential(progress: float, every: float = 2.4 / 350, factor: float = 0.97) -> float:
    """`factor` to the power of the intervals passed (EfficientNet: every 2.4 of 350 epochs)."""
    return float(factor ** int(progress / every + 1e-9))


def constant(progress: float) -> float:  # noqa: ARG001
    """The peak throughout."""
    return 1.0


def warmup(progress: float, fraction: float, start: float = 0.1) -> float:
    """Linear from `start` to 1 over the first `fraction` of progress, then 1."""
    if progress >= fraction:
        return 1.0
    return start + (1.0 - start) * progress / fraction


SCHEDULES: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {"cosine": cosine, "step": step, "exponential": exponential, "constant": constant}
)
"""The schedules that a recipe or a phase may name."""
