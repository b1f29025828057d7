"""The job of a worker: its trial, and the settings that all trials of its study share."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from methods import METHODS
from methods.data.load import Data, Reading
from methods.data.parts import Fit
from methods.values import Params
from orchestrator.record.depot import Depot, depot_of
from orchestrator.record.events import Role
from orchestrator.record.provenance import Clock


@dataclass(frozen=True)
class Settings:
    """Where a worker of a study finds its images, where it leaves files, and on what it runs."""

    data: str
    data_seed: int
    """Seed of the splits."""
    folder: Path
    """The folder of the study, which with a bucket only the driver sees."""
    device: str
    threads: int
    """Number of torch's threads on the CPU."""
    size: int | None = None
    fit: Fit = "crop"
    """See `methods.data.load.Reading`."""
    data_sha256: str = ""
    """Digest of the data set, as the driver read it."""
    clock: Clock | None = None
    """What trials are timed by; None where budgets are MACs."""
    source: str = ""
    """The folder, in the depot, with the source of methods of other packages; empty for none."""
    starts: tuple[tuple[str, str], ...] = ()
    """Per method that starts from trained weights, their file in the depot."""
    resize: int | None = None
    bucket: str = ""
    """The bucket in which trials keep their files; empty for the study's folder."""

    @property
    def depot(self) -> Depot:
        """Where the trials of the study keep their files."""
        return depot_of(self.folder, self.bucket)

    def take_methods(self) -> None:
        """Lets this process take the methods of other packages, from what the study recorded.

        Raises:
            StorageError, MethodError: it cannot.
        """
        if self.source:
            METHODS.use(self.depot.below(self.source).local())

    def read(self) -> Data:
        """The data set, read by this process alone."""
        reading = Reading(self.data, self.size, self.fit, self.resize)
        return reading.load(seed=self.data_seed, device=self.device)


@dataclass(frozen=True)
class Job:
    """One trial, as a worker runs it."""

    trial: str
    method: str
    params: Params
    role: Role
    seed: int
    """What the trial's randomness is drawn from."""
    settings: Settings
    until: int | None = None
    """The epoch after which it pauses; None where it trains to its end."""


def encode_job(job: Job) -> dict[str, Any]:
    """A job as one flat JSON object, with `trial` where Tune's shell looks for it."""
    settings = {**vars(job.settings), "folder": str(job.settings.folder)}
    if job.settings.clock:
        settings["clock"] = vars(job.settings.clock)
    names = ("trial", "method", "role", "seed", "until")
    return {**settings, **{n: getattr(job, n) for n in names}, "params": dict(job.params)}


def decode_job(content: Mapping[str, Any]) -> Job:
    """The job that such an object holds."""
    settings = Settings(
        content["data"],
        content["data_seed"],
        Path(content["folder"]),
        content["device"],
        content["threads"],
        content.get("size"),
        content.get("fit", "crop"),
        content.get("data_sha256", ""),
        Clock(**clock) if (clock := content.get("clock")) else None,
        content.get("source", ""),
        tuple((method, path) for method, path in content.get("starts", ())),
        content.get("resize"),
        content.get("bucket", ""),
    )
    return Job(
        content["trial"],
        content["method"],
        content["params"],
        content["role"],
        content["seed"],
        settings,
        content.get("until"),
    )
