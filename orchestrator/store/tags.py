"""Trials in MLflow's terms: tags and rounded figures, as values.

Tags keep every digit, so that the board can be recomputed from MLflow alone; metrics are rounded
for the reader, since MLflow's pages print raw floats.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import cast, get_args

from methods.data.digest import Digest
from methods.files import digest
from orchestrator.record.events import (
    SIZES,
    TIMES,
    End,
    EndState,
    Figures,
    Point,
    Role,
    Start,
    decode_points,
    encode_points,
)
from orchestrator.record.provenance import Provenance
from orchestrator.record.result import Outcome
from orchestrator.record.rows import Row, trial_rows
from orchestrator.study.identity import search_name, search_of

RUNNING = "RUNNING"
"""State of a row whose trial has no end yet: it is running or was interrupted."""
ROLES: Mapping[str, Role] = {
    "trial-search": "search",
    "trial-confirm": "confirm",
    "trial-base": "base",
}
"""The tag `role` of a trial's run -> the trial's role."""
OTHER_ROLES = ("report", "sweep", "leaderboard")
"""The tag `role` of the runs that are no trial's."""
PAUSED = {"outcome": "paused"}
"""The tag of a trial that waits at its rung; MLflow's status stays RUNNING."""
RESUMED = {"outcome": "running"}
"""What replaces it, and stands with any trial that was started again."""
UNREADABLE = "UNREADABLE"
"""State of a row of a run that is no trial's, or whose tags were damaged."""
PIECE = 7_500
"""Characters of a tag; MLflow cuts tags at 8,000, and only logs it."""


def methods_of(provenance: Provenance) -> frozenset[str]:
    """The methods that a study declares; empty where an earlier version recorded none."""
    methods = provenance.study.get("methods")
    return frozenset(methods) if isinstance(methods, Mapping) else frozenset()


def start_tags(start: Start) -> dict[str, str]:
    """A trial's start, with every digit."""
    tags = {
        "role": f"trial-{start.role}",
        "method": start.method,
        "trial": start.trial,
        "config": start.config,
        "config_hash": start.config_hash,
        "seed": str(start.seed),
        "torch_seed": "" if start.torch_seed is None else str(start.torch_seed),
        "point": start.point,
        **_repeat(start),
        f"budget_{start.unit}": json.dumps(start.budgets),
        **({"serves": json.dumps(start.serves)} if start.serves else {}),
        **({} if start.predicted_ms is None else {"predicted_ms": repr(start.predicted_ms)}),
        **_pieces("params", json.dumps(dict(start.params), sort_keys=True)),
    }
    return {**tags, "start_sha256": seal(tags)}


def end_tags(end: End) -> dict[str, str]:
    """A trial's end, with every digit."""
    reason = {"reason": end.reason[:PIECE]} if end.reason else {}
    alarms = [f"{point.point}: {point.alarm}" for point in end.points if point.alarm is not None]
    if alarms:
        reason["alarm"] = "; ".join(alarms)[:PIECE]
    tags = {
        "state": end.state,
        "epochs": str(end.epochs),
        "seconds": repr(end.seconds),
        "device": end.device,
        **reason,
        **({"evidence": end.evidence} if end.evidence else {}),
        **({"curve_sha256": end.curve} if end.curve else {}),
        **_pieces("points", json.dumps(encode_points(end.points), sort_keys=True)),
    }
    return {**tags, "end_sha256": seal(tags)}


def outcome_tag(end: End) -> dict[str, str]:
    """How a trial ended in a user's words; `state` has the log's, which the seal covers."""
    return {"outcome": Outcome.of(end.state, end.reason).word}


def status(end: End) -> str:
    """MLflow's status of a trial's run: FAILED is only what failed in a worker."""
    return "FAILED" if Outcome.of(end.state, end.reason).word == "FAIL" else "FINISHED"


def data_tags(data: Digest) -> dict[str, str]:
    """What was read, on the study's run `report`: sums to find equal data and test images by."""
    return {
        "data_sha256": data.sha256,
        **{f"data_{split}_sha256": value for split, value in data.splits.items()},
        "data_images": json.dumps({role: part.images for role, part in data.parts.items()}),
        "data_duplicates": json.dumps(dict(data.duplicates)),
    }


def seal(tags: Mapping[str, str]) -> str:
    """SHA-256 of some tags, which shows a later change of one of them."""
    return digest(json.dumps(dict(tags), sort_keys=True))


def is_trial(tags: Mapping[str, str]) -> bool:
    """Whether a run is a trial's or may be one: nothing says that it is anything else."""
    return "trial" in tags or tags.get("role") not in OTHER_ROLES


def events(tags: Mapping[str, str]) -> tuple[Start, End]:
    """The start and the end that a trial's tags were made from.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: they cannot be read.
    """
    start = started(tags)
    end = End(
        trial=tags["trial"],
        state=_state(tags["state"]),
        reason=tags.get("reason"),
        epochs=int(tags["epochs"]),
        seconds=float(tags["seconds"]),
        points=decode_points(json.loads(_joined("points", tags))),
        device=tags.get("device", ""),
        evidence=tags.get("evidence", ""),
        curve=tags.get("curve_sha256", ""),
    )
    return start, end


def started(tags: Mapping[str, str]) -> Start:
    """The start that a trial's tags were made from.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: they cannot be read.
    """
    role, trial = tags["role"], tags["trial"]
    if role not in ROLES:
        raise ValueError(f"a trial must have a role of {sorted(ROLES)}, got {role!r}")
    if tags["key"] != trial:
        raise ValueError(f"a trial must have its name as `key`, got {tags['key']!r}")
    params = json.loads(_joined("params", tags))
    if not isinstance(params, dict):
        raise ValueError("a trial must have parameters")
    unit = "ms" if "budget_ms" in tags else "mmac"
    return Start(
        trial=trial,
        role=ROLES[role],
        method=tags["method"],
        params=params,
        seed=int(tags["seed"]),
        attempt=1,
        config=tags["config"],
        config_hash=tags["config_hash"],
        budgets=tuple(json.loads(tags[f"budget_{unit}"])),
        point=tags.get("point", ""),
        torch_seed=int(seed) if (seed := tags.get("torch_seed")) else None,
        repeat=int(tags.get("repeat", 1)),
        unit=unit,
        predicted_ms=float(ms) if (ms := tags.get("predicted_ms")) else None,
        serves=tuple(json.loads(tags.get("serves", "[]"))),
    )


def rows(study: str, tags: Mapping[str, str], run_id: str) -> list[Row]:
    """The rows of a trial, from its tags; where they cannot be read, one row that says why."""
    try:
        return _rows(study, tags, run_id)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        reason = f"no tag {error}" if isinstance(error, KeyError) else str(error)
    return [_bare(study, tags, run_id, UNREADABLE, f"run {run_id} in MLflow: {reason}")]


def figures(points: Sequence[Point], chosen: str) -> dict[str, float]:
    """Rounded figures of the chosen operating point, or of the last; then those of each by name."""
    if not points:
        return {}
    main = next((point for point in points if point.point == chosen), points[-1])
    rounded = _figures(main)
    if len(points) > 1:
        for point in points:
            rounded |= {f"{point.point}/{name}": v for name, v in _figures(point).items()}
    return rounded


def _rows(study: str, tags: Mapping[str, str], run_id: str) -> list[Row]:
    if "state" not in tags:
        started(tags)
        return [_bare(study, tags, run_id, RUNNING, None)]
    start, end = events(tags)
    if end.state == "COMPLETE" and not end.points:
        raise ValueError("a complete trial must have an operating point, but has none")
    return trial_rows(study, start, end, run_id)


def _repeat(start: Start) -> dict[str, str]:
    """The tag of a trial whose search is one of several; the only search of a method has none."""
    repeated = search_of(start.config) == search_name(start.method, start.repeat)
    return {"repeat": str(start.repeat)} if repeated else {}


def _state(word: str) -> EndState:
    if word not in get_args(EndState):
        raise ValueError(f"a trial must end as one of {get_args(EndState)}, got {word!r}")
    return cast(EndState, word)


def _bare(study: str, tags: Mapping[str, str], run_id: str, state: str, reason: str | None) -> Row:
    """A trial without a figure."""
    trial = tags.get("trial", run_id)
    return Row(
        study=study,
        method=tags.get("method", "unknown"),
        trial=trial,
        config=trial if state == UNREADABLE else tags.get("config", trial),
        config_hash=tags.get("config_hash", ""),
        role=ROLES.get(tags.get("role", ""), "search"),
        point="",
        seed=int(seed) if (seed := tags.get("seed", "")).isdecimal() else 0,
        state=state,
        reason=reason,
        params={},
        epochs=0,
        seconds=0.0,
        val_acc=None,
        val_macs_mean=None,
        run_id=run_id,
        repeat=int(repeat) if (repeat := tags.get("repeat", "")).isdecimal() else 1,
    )


def _figures(point: Point) -> dict[str, float]:
    test = _split("test", "test_macs", point.test) if point.test else {}
    sizes = {f"size/{name}": getattr(point, name) for name in SIZES}
    known = {name: float(value) for name, value in sizes.items() if value is not None}
    times = {f"latency/{name}": getattr(point, name) for name in TIMES}
    known |= {name: float(f"{value:.4g}") for name, value in times.items() if value is not None}
    return {**_split("val", "macs", point.val), **test, **known}


def _split(split: str, macs: str, figures: Figures) -> dict[str, float]:
    """One split's figures, rounded; those that are finite."""
    rounded = {}
    if math.isfinite(figures.accuracy):
        rounded[f"{split}/acc"] = round(figures.accuracy, 4)
    for name, accuracy in (
        ("another", figures.another),
        ("majority", figures.majority),
        ("all_run", figures.everything),
        ("top5", figures.top5),
    ):
        if accuracy is not None and math.isfinite(accuracy):
            rounded[f"{split}/{name}_acc"] = round(accuracy, 4)
    for name, cost in (
        ("mean", figures.macs_mean),
        ("p95", figures.macs_p95),
        ("max", figures.macs_max),
    ):
        if cost is not None and math.isfinite(cost):
            rounded[f"{macs}/{name}_m"] = round(cost / 1e6, 4)
            if name == "mean" and cost > 0:
                rounded[f"{macs}/log10"] = round(math.log10(cost), 4)
    return rounded


def _pieces(name: str, text: str) -> dict[str, str]:
    """A text as one tag, or as many as it takes: `points`, `points.1`, ..."""
    starts = range(0, max(len(text), 1), PIECE)
    return {
        f"{name}.{i}" if i else name: text[start : start + PIECE] for i, start in enumerate(starts)
    }


def _joined(name: str, tags: Mapping[str, str]) -> str:
    text, i = tags[name], 1
    while (piece := tags.get(f"{name}.{i}")) is not None:
        text, i = text + piece, i + 1
    return text
