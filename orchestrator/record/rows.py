"""One finished trial as a row, the gate that rows pass, and the choice on validation."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from methods.files import digest
from methods.values import Params
from orchestrator.record.events import SIZES, SPLITS, TIMES, End, Point, Role, Start
from orchestrator.record.result import Outcome

FIGURES = tuple(
    f"{split}_{figure}"
    for split in ("val", "test")
    for figure in ("acc", "macs_mean", "macs_p95", "macs_max")
) + tuple(
    f"test_{figure}"
    for figure in (
        *("another_acc", "majority_acc", "majority_macs", "all_acc", "all_macs", "alike"),
        "top5",
    )
)
"""The fields that a row takes from an operating point."""


@dataclass(frozen=True)
class Row:
    """One operating point of one trial; a failed trial is one row with the point ''.

    Accuracies are fractions in [0, 1], costs MACs, `budgets` as the study has them, times seconds.
    """

    study: str
    method: str
    trial: str
    config: str
    config_hash: str
    role: Role
    point: str
    seed: int
    state: str
    reason: str | None
    params: Params
    epochs: int
    seconds: float
    val_acc: float | None
    val_macs_mean: float | None
    val_macs_p95: float | None = None
    val_macs_max: float | None = None
    test_acc: float | None = None
    test_macs_mean: float | None = None
    test_macs_p95: float | None = None
    test_macs_max: float | None = None
    test_another_acc: float | None = None
    """With each image under another one's decisions; None where nothing is decided."""
    test_majority_acc: float | None = None
    test_majority_macs: float | None = None
    test_all_acc: float | None = None
    test_all_macs: float | None = None
    test_alike: float | None = None
    """Fraction of the images that have the most frequent decisions."""
    test_top5: float | None = None
    """Fraction whose class is among the five most likely; None where there are few classes."""
    parameters: int | None = None
    """Learned values of the deployed network; None, like the two below, if an earlier version ran
    the trial."""
    weight_bytes: int | None = None
    activation_bytes: int | None = None
    ms: float | None = None
    """Milliseconds of a call of the deployed network, calibrated; None where MACs are budgeted."""
    spread_ms: float | None = None
    """Distance between the quartiles of the rounds in which it was timed."""
    budgets: tuple[float, ...] = ()
    run_id: str | None = None
    evidence: str = ""
    """SHA-256 of the file with what each test image gave; '' where there is none."""
    repeat: int = 1
    """Which of the method's searches it belongs to, from 1 on."""
    serves: tuple[str, ...] = ()
    """The methods that start from this base; empty for other trials."""

    @property
    def outcome(self) -> Outcome:
        """How the trial ended, in users' terms."""
        return Outcome.of(self.state, self.reason)


def trial_rows(study: str, start: Start, end: End, run_id: str | None = None) -> list[Row]:
    """The rows of one trial, from the events of its start and its end."""
    points: Sequence[Point | None] = end.points if end.state == "COMPLETE" else [None]
    return [
        Row(
            study=study,
            method=start.method,
            trial=start.trial,
            config=start.config,
            config_hash=start.config_hash,
            role=start.role,
            point=point.point if point else "",
            seed=start.seed,
            state=end.state,
            reason=end.reason,
            params=start.params,
            epochs=end.epochs,
            seconds=end.seconds,
            budgets=start.budgets,
            run_id=run_id,
            evidence=end.evidence,
            repeat=start.repeat,
            serves=start.serves,
            **_figures(point),
        )
        for point in points
    ]


def mean_sizes(rows: Sequence[Row]) -> dict[str, float]:
    """Mean sizes of the deployed networks of some rows, of those that all of them have."""
    sizes = {name: [getattr(row, name) for row in rows] for name in SIZES}
    return {name: fmean(values) for name, values in sizes.items() if values and None not in values}


def config_hash(method: str, params: Params) -> str:
    """Twelve hex digits of a method and all its parameters."""
    content = json.dumps([method, dict(params)], sort_keys=True)
    return digest(content)[:12]


def not_finite(points: Iterable[Point]) -> str | None:
    """Which figure of an operating point is NaN or infinite, or None."""
    for point in points:
        for split, figures in (("val", point.val), ("test", point.test)):
            for key, name in SPLITS[split].items():
                value = getattr(figures, name, None)
                if value is not None and not math.isfinite(value):
                    return f"{key} is {value}" + (f" at {point.point}" if point.point else "")
        for key in TIMES:
            value = getattr(point, key)
            if value is not None and not math.isfinite(value):
                return f"{key} is {value}" + (f" at {point.point}" if point.point else "")
    return None


def _figures(point: Point | None) -> dict[str, Any]:
    """The figures of an operating point, by their fields of a row."""
    if point is None:
        return dict.fromkeys(FIGURES)
    keys = {**SPLITS["val"], **SPLITS["test"]}
    figures = {
        key: getattr(point.val if key.startswith("val") else point.test, keys[key], None)
        for key in FIGURES
    }
    return figures | {key: getattr(point, key) for key in (*SIZES, "ms", "spread_ms")}
