"""What a confirm run leaves to be checked by: a prediction and a cost for each test image.

One Parquet file per run, named by its content and written before the run's end is recorded. A row
is a test image, in the split's order: its `label`, and per operating point a prediction and MACs;
and its `difficulty`, where the data set knows it.
"""

import functools
import io
import json
import logging
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Integer
from numpy.typing import NDArray

from methods import files
from methods.files import digest
from methods.training.figures import figures
from methods.values import Params
from orchestrator.record.log import await_room
from orchestrator.record.provenance import versions
from orchestrator.record.rows import Row, config_hash

logger = logging.getLogger(__name__)

FORMAT = 1
"""Version of the file's layout."""
FACTS = b"isoflop"
"""Where the Parquet schema carries what the run was, as JSON."""
FOLDER = "evidence"
"""The folder of the files, in the study's."""
Correct = NDArray[np.bool_]
"""Whether each seed (axis 0) is right on each test image (axis 1)."""
Correctness = Mapping[tuple[str, str], NDArray[np.bool_]]
"""By trial and operating point: whether the run is right on each test image."""
Costs = Mapping[tuple[str, str], Float[np.ndarray, " images"]]
"""By trial and operating point: the MACs of each test image."""


@dataclass(frozen=True)
class Shot:
    """What one operating point gave on every test image; MACs exactly as they were measured."""

    predictions: Integer[np.ndarray, " images"]
    macs: Float[np.ndarray, " images"]


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
        return {
            "test_acc": values.pop("accuracy"),
            **{f"test_{name}": value for name, value in values.items()},
            "test_macs_std": float(shot.macs.std()),
        }


def packed(evidence: Evidence) -> bytes:
    """The file's content: the same numbers give the same bytes."""
    columns = {"label": _narrow(evidence.labels)}
    if evidence.difficulty is not None:
        columns["difficulty"] = evidence.difficulty
    for name, shot in evidence.points.items():
        columns[_column("prediction", name)] = _narrow(shot.predictions)
        columns[_column("macs", name)] = shot.macs
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
        table = pq.read_table(io.BytesIO(content))
        about = json.loads(table.schema.metadata[FACTS])
        columns = {name: table.column(name).to_numpy() for name in table.column_names}
        points = {
            name: Shot(columns[_column("prediction", name)], columns[_column("macs", name)])
            for name in about.pop("points")
        }
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
    if any(shot.macs.dtype.kind != "f" for shot in points.values()):
        raise ValueError("a file of predictions must hold the MACs of every image")
    difficulty = columns.get("difficulty")
    if difficulty is not None and difficulty.dtype.kind != "f":
        raise ValueError("a file of predictions must hold a difficulty as a fraction")
    return Evidence(subject, labels, points, difficulty)


def file_name(trial: str, sha256: str) -> str:
    """How a run's file is called: by the run, and by its content."""
    return f"{trial}-{sha256[:16]}.parquet"


def write(evidence: Evidence, study: Path) -> str:
    """Puts the file into the study's folder, whole or not at all; its digest.

    It has reached the disk when this returns. A worker that outlives its driver writes the same, or
    under another name.

    Raises:
        DiskFull: there was no room, nor was any made.
    """
    content = packed(evidence)
    sha256 = digest(content)
    place(content, study / FOLDER / file_name(evidence.subject.trial, sha256))
    return sha256


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


def correctness(study: Path, rows: Iterable[Row]) -> Correctness:
    """Which test images each confirm run had right, for those whose file is in the study's folder.

    What is missing or altered is logged and left out.
    """
    correct: dict[tuple[str, str], Bool[np.ndarray, " images"]] = {}
    lacking = []
    digests = {row.trial: row.evidence for row in rows if row.role == "confirm" and row.evidence}
    for trial, sha256 in sorted(digests.items()):
        content = read(study, trial, sha256)
        try:
            evidence = unpacked(content or b"")
        except ValueError:
            lacking.append(trial)
            continue
        correct |= {(trial, point): evidence.correct(point) for point in evidence.points}
    if lacking:
        logger.warning(
            "the predictions of %d of %d confirm runs cannot be read (%s, ...); `isoflop verify` "
            "says which",
            len(lacking),
            len(digests),
            lacking[0],
        )
    return correct


def costs(study: Path, rows: Iterable[Row]) -> Costs:
    """What every test image cost at the operating points of these rows, where that is recorded."""
    macs: dict[tuple[str, str], Float[np.ndarray, " images"]] = {}
    for row in rows:
        content = read(study, row.trial, row.evidence) if row.evidence else None
        try:
            macs[row.trial, row.point] = unpacked(content or b"").points[row.point].macs
        except (ValueError, KeyError):
            continue  # `correctness` says that it cannot be read
    return macs


def _column(kind: str, point: str) -> str:
    return f"{kind} {point}" if point else kind


def _narrow(classes: Integer[np.ndarray, " images"]) -> Integer[np.ndarray, " images"]:
    """Class indices in as few bytes as they need."""
    return classes.astype(np.min_scalar_type(int(classes.max(initial=0))))


@functools.cache
def _versions() -> dict[str, str]:
    return versions()
