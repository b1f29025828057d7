"""The results of a worker: one per epoch, the last one with the trial's ending.

The log, Optuna and MLflow know three states. A trial that took no worker is in state FAIL there,
and its reason tells why; `Outcome` is what users see instead.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from orchestrator.record.events import (
    EndState,
    Metrics,
    Point,
    decode_metrics,
    decode_points,
    encode_points,
)

OVER_BUDGET, REFUSED = "over budget", "refused"
"""How a trial ended that took no worker: it costs too much, or its values do not go together."""
OVER_BUDGET_BEFORE = re.compile(r"refused: costs \S+ MMACs at least, the largest budget is \S+")
"""The reason of a trial over budget in logs of earlier versions."""


class Outcome(NamedTuple):
    """How a trial ended, as users see it; as text with its reason."""

    word: str
    """'over budget', 'refused', or the state."""
    reason: str | None = None

    @classmethod
    def of(cls, state: str, reason: str | None) -> "Outcome":
        """The outcome that a state and a reason in the log, or in MLflow's tags, stand for."""
        if state == "FAIL" and reason:
            word, _, rest = reason.partition(": ")
            if word in (OVER_BUDGET, REFUSED):
                return cls(OVER_BUDGET if OVER_BUDGET_BEFORE.fullmatch(reason) else word, rest)
        return cls(state, reason)

    @property
    def took_a_worker(self) -> bool:
        """Whether the trial was begun by a worker, and not turned away before."""
        return self.word not in (OVER_BUDGET, REFUSED)

    def __str__(self) -> str:
        return f"{self.word}: {self.reason}" if self.reason else self.word


@dataclass(frozen=True)
class Ending:
    """How a trial ended."""

    state: EndState
    reason: str | None = None
    seconds: float | None = None
    """None where the trial has cost what its epochs took."""
    points: tuple[Point, ...] = ()
    device: str = ""
    evidence: str = ""
    """SHA-256 of the file with what each test image gave."""

    @property
    def timed(self) -> bool:
        """Whether every operating point has a time that a budget can limit."""
        return all(point.ms is not None and point.ms > 0 for point in self.points)

    @classmethod
    def without_a_worker(cls, outcome: Outcome) -> "Ending":
        """The end of a trial that is over budget or refused."""
        return cls("FAIL", str(outcome))


@dataclass(frozen=True)
class Result:
    """One epoch of a trial, the last one with the trial's ending."""

    step: int
    time: int
    """Milliseconds since 1970."""
    metrics: Metrics | None = None
    """None where the trial failed instead."""
    ending: Ending | None = None
    warning: str = ""
    pauses: bool = False
    """Whether the trial pauses here, and frees its worker."""

    @property
    def done(self) -> bool:
        """Whether nothing comes after it from this worker."""
        return self.ending is not None or self.pauses


def encode_result(result: Result) -> dict[str, Any]:
    """A result as a JSON object, as checkpoints hold it and as Tune carries it."""
    content: dict[str, Any] = {
        "step": result.step,
        "time": result.time,
        "metrics": result.metrics.named() if result.metrics else {},
        "done": result.done,
        "end": _encoded(result.ending) if result.ending else None,
    }
    further = {"warning": result.warning, "pauses": result.pauses}
    return {**content, **{name: value for name, value in further.items() if value}}


def decode_result(content: Mapping[str, Any]) -> Result:
    """The result in a JSON object."""
    return Result(
        content.get("step", 0),
        content.get("time", 0),
        decode_metrics(content["metrics"]) if content["metrics"] else None,
        _decoded(content["end"]) if content["end"] else None,
        content.get("warning", ""),
        content.get("pauses", False),
    )


def _encoded(ending: Ending) -> dict[str, Any]:
    content: dict[str, Any] = {"state": ending.state, "reason": ending.reason}
    if ending.state != "COMPLETE":
        return content
    content |= {
        "seconds": ending.seconds,
        "points": encode_points(ending.points),
        "device": ending.device,
    }
    return {**content, "evidence": ending.evidence} if ending.evidence else content


def _decoded(content: Mapping[str, Any]) -> Ending:
    return Ending(
        content["state"],
        content.get("reason"),
        content.get("seconds"),
        decode_points(content.get("points", ())),
        content.get("device", ""),
        content.get("evidence", ""),
    )
