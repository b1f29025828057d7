"""The events of a study, as values: one event is one JSON object a line of the log.

`encode` and `decode` are the only place that knows the objects' keys. A key that this version does
not know is passed over, and one that an earlier version did not write has a default.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from methods.files import digest
from methods.values import Params
from orchestrator.record.provenance import Provenance, decode_provenance, encode_provenance

Role = Literal["search", "confirm", "base"]
"""`base`: a plain backbone, from whose weights trials of other roles start."""
EndState = Literal["COMPLETE", "PRUNED", "FAIL"]
WINDOW = 2
"""The present rule of `Begun.window`."""


@dataclass(frozen=True)
class Figures:
    """Results of a network on one split: accuracy as a fraction, loss in nats, MACs per image."""

    accuracy: float
    macs_mean: float
    loss: float | None = None
    macs_std: float | None = None
    macs_p95: float | None = None
    macs_max: float | None = None
    another: float | None = None
    """Accuracy with each image under another one's decisions; None where nothing is decided."""
    majority: float | None = None
    """Accuracy with all images under the majority's decisions."""
    majority_macs: float | None = None
    everything: float | None = None
    """Accuracy with all images under the decision to run all."""
    everything_macs: float | None = None
    alike: float | None = None
    """Fraction of the images that have the most frequent decisions."""
    top5: float | None = None
    """Fraction whose class is among the five most likely; None where there are few classes."""


@dataclass(frozen=True)
class Point:
    """One operating point of a trained network; '' names the only one."""

    point: str
    val: Figures
    test: Figures | None = None
    alarm: str | None = None
    """The method's warning."""
    parameters: int | None = None
    """Learned values of the deployed network; None, as below, in logs of earlier versions."""
    weight_bytes: int | None = None
    """Bytes of all values that the deployed network ships."""
    activation_bytes: int | None = None
    """Peak memory of activations for one image."""
    ms: float | None = None
    """Milliseconds of a call of the deployed network, where budgets are in milliseconds: in turns
    with the reference network, as a multiple of what that one takes by the study's record."""
    spread_ms: float | None = None
    """Distance between the quartiles of the rounds, on the same scale."""
    clock_ms: float | None = None
    """The raw measurements of the network and of the reference."""
    reference_ms: float | None = None


@dataclass(frozen=True)
class Metrics:
    """One epoch of a learning curve; NaN where a figure was not written."""

    train_loss: float = math.nan
    val_acc: float = math.nan
    """Fraction."""
    val_loss: float = math.nan
    macs_mean_m: float = math.nan
    """MMACs per validation image."""
    lr: float = math.nan
    seconds: float = math.nan

    def named(self) -> dict[str, float]:
        """The figures that were written, by the names that the log and MLflow have for them."""
        figures = {name: getattr(self, name) for name in METRICS}
        return {CURVE + name: value for name, value in figures.items() if not math.isnan(value)}


@dataclass(frozen=True)
class Begun:
    """A driver is about to run trials."""

    study: str
    hash: str
    provenance: Provenance
    lag: int
    """Trials at once, by which a proposal sees those numbered a fixed distance before it."""
    device: str
    window: int = 1
    """Which rule makes that distance (`search.window`); 1 in logs of earlier versions."""
    time: int = 0
    """Milliseconds since 1970, here and below."""


@dataclass(frozen=True)
class Start:
    """A trial takes a worker, or is refused one."""

    trial: str
    role: Role
    method: str
    params: Params
    seed: int
    """Index of the seed: 0 in the search."""
    attempt: int
    config: str
    """The search trial whose parameters these are."""
    config_hash: str
    budgets: tuple[float, ...] = ()
    """What it confirms."""
    point: str = ""
    torch_seed: int | None = None
    """What the trial's randomness is drawn from."""
    repeat: int = 1
    """Which of the method's searches it belongs to, from 1 on."""
    unit: str = "mmac"
    """Unit of the budgets; see `study.budgets.Cost.name`."""
    predicted_ms: float | None = None
    """The least that its network can take, as predicted before it began; None where budgets are
    MACs, or nothing could be predicted."""
    serves: tuple[str, ...] = ()
    """The methods that start from this base; empty for other trials."""
    time: int = 0


@dataclass(frozen=True)
class Epoch:
    """One point of a trial's learning curve."""

    trial: str
    step: int
    metrics: Metrics
    time: int = 0


@dataclass(frozen=True)
class Lost:
    """A trial's worker died; the trial may be started again."""

    trial: str
    reason: str
    time: int = 0


@dataclass(frozen=True)
class Paused:
    """The driver was stopped by hand while these trials ran."""

    trials: tuple[str, ...]
    time: int = 0


@dataclass(frozen=True)
class Rung:
    """A trial waits at its rung for the others of its bracket; its worker is free."""

    trial: str
    step: int
    """Epochs that it has trained."""
    time: int = 0


@dataclass(frozen=True)
class Bracket:
    """All trials of a bracket have reached their rung, or ended: some resume, the others end."""

    trials: tuple[str, ...]
    """By rising numbers."""
    promoted: tuple[str, ...]
    """Those that resume."""
    time: int = 0


@dataclass(frozen=True)
class End:
    """A trial's end, for good."""

    trial: str
    state: EndState
    reason: str | None
    epochs: int
    seconds: float
    points: tuple[Point, ...] = ()
    device: str = ""
    evidence: str = ""
    """SHA-256 of the file with what each test image gave."""
    curve: str = ""
    """See `curve_sha256`; '' where no epoch ended, or an earlier version wrote the log."""
    time: int = 0


@dataclass(frozen=True)
class Latency:
    """How long a deployed network takes, beside another; or the reason why that is not known."""

    trial: str
    point: str
    reference: str
    """The trial of the other network."""
    reference_point: str
    reason: str | None = None
    batch: int | None = None
    ms: float | None = None
    spread_ms: float | None = None
    reference_ms: float | None = None
    reference_spread_ms: float | None = None
    p95_ms: float | None = None
    """95th percentile of single calls; None, like the fields below, in logs of earlier versions."""
    reference_p95_ms: float | None = None
    calls: int | None = None
    """Calls of each that were timed."""
    joules: float | None = None
    """Per image; None where the machine counts none."""
    reference_joules: float | None = None
    energy: str | None = None
    """What counted the joules, or why nothing did."""
    forms: str | None = None
    reference_forms: str | None = None
    device: str | None = None
    threads: int | None = None
    time: int = 0


Event = Begun | Start | Epoch | Lost | Paused | Rung | Bracket | End | Latency

KINDS: Mapping[str, type[Event]] = {
    "study": Begun,
    "start": Start,
    "epoch": Epoch,
    "lost": Lost,
    "paused": Paused,
    "rung": Rung,
    "bracket": Bracket,
    "end": End,
    "latency": Latency,
}
NAMES = {kind: name for name, kind in KINDS.items()}
KEYS = {kind: [field.name for field in dataclasses.fields(kind)] for kind in NAMES}
LATER = frozenset({"window", "torch_seed", "repeat", "unit", "predicted_ms", "serves", "curve"})
"""Keys that earlier versions did not write; an event's default is left out."""
SIZES = ("parameters", "weight_bytes", "activation_bytes")
"""What a point says of its deployed network beside the MACs; see `methods.shipping.size`."""
TIMES = ("ms", "spread_ms", "clock_ms", "reference_ms")
"""What a point says of its time, where budgets are in milliseconds."""
METRICS = [field.name for field in dataclasses.fields(Metrics)]
CURVE = "curve/"
CURVES = frozenset(CURVE + name for name in METRICS)
"""The names of an epoch's figures in the log and in MLflow, which begin with `CURVE`."""
SPLITS: Mapping[str, Mapping[str, str]] = {
    split: {
        f"{split}_acc": "accuracy",
        f"{split}_loss": "loss",
        **{f"{split}_macs_{which}": f"macs_{which}" for which in ("mean", "std", "p95", "max")},
        f"{split}_another_acc": "another",
        f"{split}_majority_acc": "majority",
        f"{split}_majority_macs": "majority_macs",
        f"{split}_all_acc": "everything",
        f"{split}_all_macs": "everything_macs",
        f"{split}_alike": "alike",
        f"{split}_top5": "top5",
    }
    for split in ("val", "test")
}
"""By split: the key of a figure in a point's JSON object -> its field."""


def encode(event: Event) -> dict[str, Any]:
    """An event as a JSON object."""
    kind = type(event)
    content = {"event": NAMES[kind], **{key: getattr(event, key) for key in KEYS[kind]}}
    for key in LATER & content.keys():
        if content[key] == getattr(kind, key):
            del content[key]
    if isinstance(event, Begun):
        content["provenance"] = encode_provenance(event.provenance)
    elif isinstance(event, Start):
        content |= {"params": dict(event.params), "budgets": list(event.budgets)}
    elif isinstance(event, Epoch):
        content["metrics"] = event.metrics.named()
    elif isinstance(event, End):
        content["points"] = encode_points(event.points)
    elif isinstance(event, Latency):
        return {key: value for key, value in content.items() if value is not None}
    return content


def decode(content: Mapping[str, Any]) -> Event:
    """The event in a JSON object.

    Raises:
        ValueError: it holds none.
    """
    kind = KINDS.get(content["event"])
    if kind is None:
        raise ValueError(f"no event is called {content['event']!r}")
    values = {key: content[key] for key in KEYS[kind] if key in content}
    if kind is Begun:
        values["provenance"] = decode_provenance(values["provenance"])
    elif kind is Epoch:
        values["metrics"] = decode_metrics(values["metrics"])
    elif kind is Start:
        values |= {"budgets": tuple(values["budgets"]), "serves": tuple(values.get("serves", ()))}
    elif kind is Paused:
        values["trials"] = tuple(values["trials"])
    elif kind is Bracket:
        values |= {name: tuple(values[name]) for name in ("trials", "promoted")}
    elif kind is End:
        values["points"] = decode_points(values["points"])
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"an event lacks a key: {error}") from None


def encode_points(points: Iterable[Point]) -> list[dict[str, Any]]:
    """Operating points as flat JSON objects, with the figures that were measured."""
    return [_encoded(point) for point in points]


def decode_points(points: Iterable[Mapping[str, Any]]) -> tuple[Point, ...]:
    """The operating points in JSON objects.

    Raises:
        KeyError: an operating point has no name.
        ValueError: a figure is missing, or is no number.
    """
    return tuple(_decoded(point) for point in points)


def decode_metrics(content: Mapping[str, float]) -> Metrics:
    """One epoch's figures from their JSON object."""
    keys = {name: CURVE + name for name in METRICS}
    return Metrics(**{name: content[key] for name, key in keys.items() if key in content})


def curve_sha256(curve: Iterable[tuple[int, Mapping[str, float]]]) -> str:
    """SHA-256 of a learning curve, its finite figures by epoch and name; '' where it has none.

    Without the seconds, so that a trial that was resumed has the sum of one that was not.
    """
    figures = {
        (step, name): float(value)
        for step, named in curve
        for name, value in named.items()
        if math.isfinite(value) and name != f"{CURVE}seconds"
    }
    return digest(json.dumps(sorted(figures.items()))) if figures else ""


def _encoded(point: Point) -> dict[str, Any]:
    content: dict[str, Any] = {"point": point.point}
    for split, figures in (("val", point.val), ("test", point.test)):
        if figures is not None:
            named = {key: getattr(figures, name) for key, name in SPLITS[split].items()}
            content |= {key: value for key, value in named.items() if value is not None}
    stated = {name: getattr(point, name) for name in ("alarm", *SIZES, *TIMES)}
    return content | {name: value for name, value in stated.items() if value is not None}


def _decoded(content: Mapping[str, Any]) -> Point:
    if not isinstance(name := content["point"], str):
        raise ValueError(f"an operating point must have a name, got {name!r}")
    val = _figures(content, "val")
    if val is None:
        raise ValueError("an operating point must have figures on validation, but has none")
    stated = {key: content.get(key) for key in (*SIZES, *TIMES)}
    for key, value in stated.items():
        if not isinstance(value, int | None if key in SIZES else int | float | None):
            kind = "a whole number" if key in SIZES else "a number"
            raise ValueError(f"{key} must be {kind}, got {value!r}")
    return Point(name, val, _figures(content, "test"), content.get("alarm"), **stated)


def _figures(content: Mapping[str, Any], split: str) -> Figures | None:
    values = {name: content.get(key) for key, name in SPLITS[split].items()}
    if all(value is None for value in values.values()):
        return None
    for key, name in SPLITS[split].items():
        required = name in ("accuracy", "macs_mean")
        if not isinstance(values[name], int | float if required else int | float | None):
            raise ValueError(f"{key} must be a number, got {values[name]!r}")
    return Figures(**values)  # type: ignore[arg-type]
