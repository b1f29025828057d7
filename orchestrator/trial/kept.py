"""The folder of a training without a study, laid out as a study of one trial.

`trained.json` says what was trained and how it ended; the checkpoints and the evidence lie where a
confirm run has them, so that `isoflop export` takes both alike.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from methods import files, outside
from methods.data.load import Data, Reading
from methods.data.survey import survey
from methods.errors import DiskFull, StorageError
from methods.files import NO_ROOM, digest
from methods.training.start import Weights
from methods.values import Params
from orchestrator.record import evidence
from orchestrator.record.depot import Folder
from orchestrator.record.events import End, Point, Start, decode, encode
from orchestrator.record.evidence import Evidence, Shot, Subject
from orchestrator.record.provenance import (
    SOURCE,
    Origin,
    Provenance,
    decode_provenance,
    encode_provenance,
    provenance,
)
from orchestrator.record.rows import Row, config_hash, trial_rows
from orchestrator.study import params as parameters
from orchestrator.study.file import Study
from orchestrator.study.params import ALIAS
from orchestrator.trial.checkpoints import save, save_phase

FILE = "trained.json"
NAME = "by-hand"
"""The name of the study that stands for it."""


@dataclass(frozen=True)
class Kept:
    """A training without a study, as its folder records it."""

    study: Study
    provenance: Provenance
    rows: list[Row]
    folder: Path


class Keeper:
    """Writes the folder while a method is trained."""

    def __init__(
        self,
        folder: Path,
        method: str,
        params: Params,
        *,
        seed: int,
        reading: Reading,
        origin: Origin | None = None,
    ) -> None:
        self.folder = folder
        self._origin = origin
        self._seed = seed
        self._reading = reading
        self._start = Start(
            trial_name(method, params, seed, reading, origin),
            "confirm",
            method,
            params,
            seed=0,
            attempt=1,
            config=f"{method}-{NAME}",
            config_hash=config_hash(method, params),
            torch_seed=seed,
        )
        self._points: list[Point] = []
        self._shots: dict[str, Shot] = {}

    @property
    def _trial(self) -> Folder:
        return Folder(self.folder / "trials" / self._start.trial)

    def point(self, point: Point, shot: Shot | None) -> None:
        """An operating point, and what it gave on each test image."""
        self._points.append(point)
        if shot is not None:
            self._shots[point.point] = shot

    def phase(self, name: str, state: dict[str, Any]) -> None:
        """The weights at the end of a phase that is not the last."""
        with self._writing():
            save_phase(self._trial, name, state["net"])

    def done(self, data: Data, state: dict[str, Any], *, epochs: int, seconds: float) -> None:
        """All that is left to write, once the last epoch has ended.

        Raises:
            StorageError: it cannot be written.
        """
        start, read = self._start, survey(data).digest
        costs = [point.val.macs_mean for point in self._points]
        study = Study(
            name=NAME,
            data=self._reading.name,
            size=self._reading.size,
            fit=self._reading.fit,
            resize=self._reading.resize,
            seed=self._seed,
            budgets=[max(costs) / 1e6],
            methods={start.method: {ALIAS: start.params[ALIAS]} if ALIAS in start.params else {}},
        )
        subject = Subject.of(start.trial, start.method, start.params, self._seed, data=read.sha256)
        proof = Evidence(subject, data.test.labels.cpu().numpy(), self._shots, data.difficulty)
        with self._writing():
            save(self._trial, {"train": state})
            sha256 = evidence.write(proof, Folder(self.folder))
            end = End(
                start.trial,
                "COMPLETE",
                None,
                epochs,
                seconds,
                tuple(self._points),
                evidence=sha256,
            )
            sources = parameters.outside(study)
            outside.keep(self.folder / SOURCE, sources)
            begun = {start.method: self._origin} if self._origin else {}
            origin = provenance(study, data.task, len(data.test), read, sources, starts=begun)
            content = {
                "provenance": encode_provenance(origin),
                "start": encode(start),
                "end": encode(end),
            }
            files.write(self.folder / FILE, json.dumps(content, indent=1, default=str))

    def _writing(self) -> "_Writing":
        return _Writing(self.folder)


class _Writing:
    """Makes a folder that cannot be written one line."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, OSError):
            kept = DiskFull if error.errno in NO_ROOM else StorageError
            raise kept(
                f"--keep must be a folder that can be written, but {self._folder}: {error.strerror}"
            ) from None


def trial_name(
    method: str,
    params: Params,
    seed: int,
    reading: Reading,
    origin: Origin | Weights | None = None,
) -> str:
    """The same for the same training, and for no other; `origin` is what it starts from."""
    content = [method, dict(params), seed, reading.name, reading.size, reading.fit]
    content += [reading.resize] if reading.resize else []
    content += [origin.sha256] if origin else []
    return f"{method}-{digest(json.dumps(content, sort_keys=True))[:8]}"


def read(folder: Path) -> Kept:
    """Read the folder of a training without a study.

    Raises:
        StorageError: the folder holds none, or one that cannot be read.
    """
    try:
        content = json.loads((folder / FILE).read_text())
        origin = decode_provenance(content["provenance"])
        study = Study.model_validate(origin.study)
        start, end = decode(content["start"]), decode(content["end"])
        if not (isinstance(start, Start) and isinstance(end, End)):
            raise ValueError("it describes no training")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{folder / FILE} must be what `isoflop train` wrote, but cannot be read: {error}"
        ) from None
    return Kept(study, origin, trial_rows(study.name, start, end), folder)
