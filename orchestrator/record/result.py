"""What a worker says: a result per epoch, and with the last one how the trial ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.record.events import (
    EndState,
    Metrics,
    Point,
    decode_metrics,
    decode_points,
    encode_points,
)


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

    @property
    def done(self) -> bool:
        """Whether nothing comes after it."""
        return self.ending is not None


def encode_result(result: Result) -> dict[str, Any]:
    """A result as a JSON object, as checkpoints hold it and as Tune carries it."""
    content: dict[str, Any] = {
        "step": result.step,
        "time": result.time,
        "metrics": result.metrics.named() if result.metrics else {},
        "done": result.done,
        "end": _encoded(result.ending) if result.ending else None,
    }
    return {**content, "warning": result.warning} if result.warning else content


def decode_result(content: Mapping[str, Any]) -> Result:
    """The result that a JSON object tells of."""
    return Result(
        content.get("step", 0),
        content.get("time", 0),
        decode_metrics(content["metrics"]) if content["metrics"] else None,
        _decoded(content["end"]) if content["end"] else None,
        content.get("warning", ""),
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
