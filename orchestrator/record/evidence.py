"""The evidence of a confirm run: a prediction and a cost for each test image.

One Parquet file per run, named by its content and written before the run's end is recorded. A row
is a test image, in the split's order: its `label`, and per operating point a prediction, a loss
and MACs; where there are many classes, whether its own is among the five most likely; where the
network decides per image, its decisions, and the predictions under others' decisions; and its
`difficulty`, where the data set knows it.
"""

import functools
import io
import json
import logging
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Integer, Shaped

from methods import files
from methods.files import digest
from methods.training.figures import alike, figures
from methods.values import Params
from orchestrator.record.depot import Bucket, Depot
from orchestrator.record.events import SPLITS
from orchestrator.record.log import await_room
from orchestrator.record.provenance import versions
from orchestrator.record.rows import Row, config_hash

logger = logging.getLogger(__name__)

FORMAT = 1
"""Version of the file's layout."""
FACTS = b"isoflop"
"""Where the Parquet schema carries what the run was, as JSON."""
TEST_KEYS = {name: key for key, name in SPLITS["test"].items()}
"""A field of `Figures` -> its key in a point's JSON object, on the test split."""
FOLDER = "evidence"
"""The folder of the files, in the study's."""
Values = Shaped[np.ndarray, "..."]
Column: TypeAlias = Values | pa.Array


@dataclass(frozen=True)
class Alike:
    """The results of a network on every test image under the same decisions for all."""

    predictions: Integer[np.ndarray, " images"]
    macs: Float[np.ndarray, " images"]


@dataclass(frozen=True)
class Decided:
    """The decisions of a network for every test image, and its results under others' decisions."""

    decisions: Shaped[np.ndarray, "images decisions"]
    """Boolean for parts that run or not, whole for choices, real for weights."""
    another: Integer[np.ndarray, "images draws"]
    """Predictions with each image under another one's decisions, once for every exchange."""
    majority: Alike
    """Under the most frequent value of each decision, or the mean of each weight."""
    everything: Alike | None
    """Under the decision to run all, where there is one."""


@dataclass(frozen=True)
class Shot:
    """The results of one operating point on every test image, with exact MACs."""

    predictions: Integer[np.ndarray, " images"]
    macs: Float[np.ndarray, " images"]
    losses: Float[np.ndarray, " images"] | None = None
    """Cross-entropy in nats; None in the files of earlier versions."""
    decided: Decided | None = None
    """None where the network decides nothing, and in the files of earlier versions."""
    among_five: Bool[np.ndarray, " images"] | None = None
    """Whether the class is among the five most likely; None where there are few classes, and in
    the files of earlier versions."""


@dataclass(frozen=True)
class Subject:
    """The run that a file is of; no clock and no path, so that equal runs give equal bytes."""

    trial: str
    method: str
    params: Params
    config_hash: str
    seed: int
    """What the run's randomness was drawn from."""
    python: str
    versions: Mapping[str, str]
    """By package."""
    data: str = ""
    """SHA-256 of the data set; empty in the files of earlier versions."""

    @classmethod
    def of(cls, trial: str, method: str, params: Params, seed: int, *, data: str = "") -> "Subject":
        """The subject of a run in this process."""
        identity = config_hash(method, params)
        python = platform.python_version()
        return cls(trial, method, dict(params), identity, seed, python, _versions(), data)


@dataclass(frozen=True)
class Evidence:
    """One confirm run: which one, the labels, and its operating points."""

    subject: Subject
    labels: Integer[np.ndarray, " images"]
    points: Mapping[str, Shot]
    difficulty: Float[np.ndarray, " images"] | None = None
    """From 0, the easiest, to 1, where the data set knows it."""

    def correct(self, point: str) -> Bool[np.ndarray, " images"]:
        """Which test images the operating point has right."""
        right: Bool[np.ndarray, " images"] = self.points[point].predictions == self.labels
        return right

    def figures(self, point: str) -> dict[str, float]:
        """The test figures of an operating point, recomputed from the images."""
        shot = self.points[point]
        values = figures(shot.predictions, self.labels, shot.macs)
        routing = routing_figures(self.labels, shot.decided) if shot.decided else {}
        five = {} if shot.among_five is None else {"test_top5": float(shot.among_five.mean())}
        return {
            "test_acc": values.pop("accuracy"),
            **{f"test_{name}": value for name, value in values.items()},
            "test_macs_std": float(shot.macs.std()),
            **{TEST_KEYS[name]: v for name, v in routing.items() if v is not None},
            **five,
        }

    def per_image(self, point: str) -> "PerImage":
        """The operating point's results, image by image."""
        shot, correct, worth, all_run = self.points[point], self.correct(point), None, None
        if shot.decided is not None:
            worth = correct - np.mean(shot.decided.another == self.labels[:, None], axis=1)
            if (everything := shot.decided.everything) is not None:
                all_run = everything.predictions == self.labels
        return PerImage(
            correct, shot.macs, self.labels, worth, shot.losses, self.difficulty, all_run
        )


@dataclass(frozen=True)
class PerImage:
    """The results of an operating point of a confirm run on every test image."""

    correct: Bool[np.ndarray, " images"]
    macs: Float[np.ndarray, " images"]
    labels: Integer[np.ndarray, " images"]
    worth: Float[np.ndarray, " images"] | None = None
    """How much more often the image is right by its own decisions than by another one's, in
    [-1, 1]; None where nothing is decided."""
    losses: Float[np.ndarray, " images"] | None = None
    """Cross-entropy in nats."""
    difficulty: Float[np.ndarray, " images"] | None = None
    """From 0, the easiest, to 1, where the data set knows it."""
    all_run: Bool[np.ndarray, " images"] | None = None
    """Whether the image is right with all run; None where there is no such decision."""


Images = Mapping[tuple[str, str], PerImage]
"""By trial and operating point."""


def routing_figures(
    labels: Integer[np.ndarray, " images"], decided: Decided
) -> dict[str, float | None]:
    """The figures of a network that decides, by the fields of `Figures`."""
    every = decided.everything
    return {
        "another": float(np.mean(decided.another == labels[:, None])),
        "majority": float(np.mean(decided.majority.predictions == labels)),
        "majority_macs": float(decided.majority.macs.mean()),
        "everything": float(np.mean(every.predictions == labels)) if every else None,
        "everything_macs": float(every.macs.mean()) if every else None,
        "alike": alike(decided.decisions),
    }


def packed(evidence: Evidence) -> bytes:
    """The file's content: the same numbers give the same bytes."""
    columns: dict[str, Column] = {"label": _narrow(evidence.labels)}
    if evidence.difficulty is not None:
        columns["difficulty"] = evidence.difficulty
    for name, shot in evidence.points.items():
        columns |= {_column(kind, name): values for kind, values in _columns(shot)}
    about = {**vars(evidence.subject), "format": FORMAT, "points": list(evidence.points)}
    table = pa.table(columns).replace_schema_metadata({FACTS: json.dumps(about, sort_keys=True)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def unpacked(content: bytes) -> Evidence:
    """What a file holds.

    Raises:
        ValueError: it is no such file.
    """
    try:
        table = pq.ParquetFile(io.BytesIO(content)).read()  # pq.read_table loads pandas
        about = json.loads(table.schema.metadata[FACTS])
        columns = {name: _values(table.column(name)) for name in table.column_names}
        points = {name: _shot(columns, name) for name in about.pop("points")}
        labels = columns["label"]
        layout = about.pop("format")
    except (OSError, TypeError, KeyError, ValueError, AttributeError, pa.ArrowException) as error:
        raise ValueError(f"this is no file of predictions: {error}") from None
    if layout != FORMAT:
        raise ValueError(f"a file of predictions must have format {FORMAT}, but has {layout}")
    try:
        names = [field.name for field in fields(Subject)]
        subject = Subject(**{name: about[name] for name in names if name in about})
    except TypeError as error:
        raise ValueError(f"a file of predictions must name its run: {error}") from None
    classes = [labels, *(shot.predictions for shot in points.values())]
    if not len(labels) or any(column.dtype.kind not in "iu" for column in classes):
        raise ValueError("a file of predictions must hold a class for every image")
    fives = [s.among_five for s in points.values() if s.among_five is not None]
    if any(five.dtype.kind != "b" for five in fives):
        raise ValueError(
            "a file of predictions must state for every image whether its class is "
            "among the five most likely"
        )
    if any(shot.macs.dtype.kind != "f" for shot in points.values()):
        raise ValueError("a file of predictions must hold the MACs of every image")
    difficulty = columns.get("difficulty")
    if difficulty is not None and difficulty.dtype.kind != "f":
        raise ValueError("a file of predictions must hold a difficulty as a fraction")
    return Evidence(subject, labels, points, difficulty)


def file_name(trial: str, sha256: str) -> str:
    """How a run's file is called: by the run, and by its content."""
    return f"{trial}-{sha256[:16]}.parquet"


def write(evidence: Evidence, depot: Depot) -> str:
    """Puts the file where the study's trials keep theirs, whole or not at all; its digest.

    It has reached the disk, or the bucket, when this returns. A worker that outlives its driver
    writes the same, or under another name.

    Raises:
        DiskFull: there was no room, nor was any made.
        BucketAway: the bucket did not answer in time.
    """
    return keep(evidence.subject.trial, packed(evidence), depot)


def keep(trial: str, content: bytes, depot: Depot) -> str:
    """As `write`, of a file's content."""
    sha256 = digest(content)
    name = f"{FOLDER}/{file_name(trial, sha256)}"
    await_room(depot.where(name), lambda: depot.write(name, content))
    return sha256


def fetch(bucket: Bucket, study: Path, trial: str, sha256: str) -> None:
    """Copies a run's file into the study's folder, unless it is there.

    Raises:
        DiskFull: there was no room, nor was any made.
        BucketAway: the bucket did not answer in time, or does not hold this content.
    """
    if read(study, trial, sha256) is None:
        name = f"{FOLDER}/{file_name(trial, sha256)}"
        content = bucket.read(name)
        if content is None or digest(content) != sha256:
            raise bucket.lacks(name)
        place(content, study / name)


def place(content: bytes, path: Path) -> None:
    """Puts a file in its place, whole or not at all; it has reached the disk when this returns.

    Raises:
        DiskFull: there was no room, nor was any made.
    """
    await_room(path, lambda: files.write(path, content))


def read(study: Path, trial: str, sha256: str) -> bytes | None:
    """A run's file in the study's folder, or None where there is none with this content."""
    try:
        content = (study / FOLDER / file_name(trial, sha256)).read_bytes()
    except FileNotFoundError:
        return None
    return content if digest(content) == sha256 else None


def images(study: Path, rows: Iterable[Row]) -> dict[tuple[str, str], PerImage]:
    """The results of each confirm run on every test image, if its file is in the study's folder.

    Missing and altered files are logged and left out.
    """
    per_image: dict[tuple[str, str], PerImage] = {}
    lacking = []
    digests = {row.trial: row.evidence for row in rows if row.role == "confirm" and row.evidence}
    for trial, sha256 in sorted(digests.items()):
        content = read(study, trial, sha256)
        try:
            evidence = unpacked(content or b"")
        except ValueError:
            lacking.append(trial)
            continue
        per_image |= {(trial, point): evidence.per_image(point) for point in evidence.points}
    if lacking:
        logger.warning(
            "the predictions of %d of %d confirm runs cannot be read (%s, ...); `isoflop verify` "
            "lists them",
            len(lacking),
            len(digests),
            lacking[0],
        )
    return per_image


def _columns(shot: Shot) -> Iterator[tuple[str, Column]]:
    """The columns of an operating point, by their kind."""
    yield "prediction", _narrow(shot.predictions)
    yield "macs", shot.macs
    if shot.losses is not None:
        yield "loss", shot.losses.astype(np.float32)
    if shot.among_five is not None:
        yield "among five", shot.among_five
    if (decided := shot.decided) is None:
        return
    whole = decided.decisions.dtype.kind in "iu"
    yield "decisions", _listed(_narrow(decided.decisions) if whole else decided.decisions)
    yield "another", _listed(_narrow(decided.another))
    for kind, alike_ in (("majority", decided.majority), ("everything", decided.everything)):
        if alike_ is not None:
            yield f"{kind} prediction", _narrow(alike_.predictions)
            yield f"{kind} macs", alike_.macs


def _shot(columns: Mapping[str, Values], point: str) -> Shot:
    """An operating point from its columns.

    Raises:
        KeyError: one is missing.
    """

    def column(kind: str) -> Values:
        return columns[_column(kind, point)]

    decided = None
    if _column("decisions", point) in columns:
        every = _column("everything macs", point) in columns
        decided = Decided(
            column("decisions"),
            column("another"),
            Alike(column("majority prediction"), column("majority macs")),
            Alike(column("everything prediction"), column("everything macs")) if every else None,
        )
    losses = columns.get(_column("loss", point))
    among_five = columns.get(_column("among five", point))
    return Shot(column("prediction"), column("macs"), losses, decided, among_five)


def _listed(values: Values) -> pa.FixedSizeListArray:
    """A column with a row of values for each image."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _values(column: pa.ChunkedArray) -> Values:
    """A column's values, two-dimensional where each image has a row of them."""
    if not pa.types.is_fixed_size_list(column.type):
        return column.to_numpy()  # type: ignore[no-any-return]
    rows = pa.compute.list_flatten(column).to_numpy()
    return rows.reshape(len(column), column.type.list_size)  # type: ignore[no-any-return]


def _column(kind: str, point: str) -> str:
    return f"{kind} {point}" if point else kind


def _narrow(classes: Integer[np.ndarray, " images"]) -> Integer[np.ndarray, " images"]:
    """Class indices in as few bytes as they need."""
    return classes.astype(np.min_scalar_type(int(classes.max(initial=0))))


@functools.cache
def _versions() -> dict[str, str]:
    return versions()
