"""The provenance of a board's numbers: study, code, versions, machine."""

import dataclasses
import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from methods.data.digest import Digest, decode_digest, encode_digest
from methods.errors import StudyError
from methods.outside import Source
from orchestrator.study.file import Study

if TYPE_CHECKING:
    from methods.api import Task

PACKAGES = ("isoflop", "torch", "ray", "optuna", "mlflow", "fvcore", "numpy", "scipy", "moocore")
CONVENTION = (
    "MACs of convolutions and matrix products, gates and routing included (fvcore FLOPs); "
    "normalisation, bias, activations and pooling are free"
)

SOURCE = "source"
"""The folder of a study's in which the source of its methods of other packages is kept."""

Json = Mapping[str, object]
"""A JSON object as it stands in a file."""


@dataclass(frozen=True)
class Machine:
    """What a driver runs on."""

    system: str = ""
    processor: str = ""
    cores: int | None = None
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Clock:
    """The reference of measured milliseconds, recorded when a study with such budgets begins."""

    reference_ms: float
    """One call of the reference network, `methods.shipping.turns.reference`: every time of the
    study is a multiple of it, so that a slow hour or a busy machine cancels out."""
    batch: int
    """Images in the call."""
    device: str
    threads: int


@dataclass(frozen=True)
class Foreign:
    """A method of another package, as a study took it."""

    place: str
    """`package.module:Class`."""
    sha256: str
    """Digest of the Python files of its package; the study's folder keeps them."""


@dataclass(frozen=True)
class Origin:
    """The trained weights from which the trials of a method start."""

    name: str
    """As the study names them."""
    sha256: str
    """Digest of the tensors, which the study's folder keeps; empty for a base."""
    left: tuple[str, ...] = ()
    """What they lack of the backbone: it keeps its initial values."""
    unused: tuple[str, ...] = ()
    """What of them belongs nowhere."""

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Origin":
        """What a JSON object says."""
        left, unused = content.get("left", ()), content.get("unused", ())
        return cls(content["name"], content.get("sha256", ""), tuple(left), tuple(unused))


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Everything that must be equal for equal numbers; no time of day, no path.

    None and an empty mapping stand for what an earlier version did not write.
    """

    study: Json
    """The fields of the study, as the version that began it knew them."""
    study_hash: str
    classes: int
    image: tuple[int, int, int]
    """Channels, height and width."""
    test_images: int | None = None
    data: Digest | None = None
    """What the study reads."""
    commit: str | None = None
    """See `commit`."""
    convention: str | None = None
    """What is counted as a MAC."""
    python: str | None = None
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """By package."""
    machine: Machine | None = None
    clock: Clock | None = None
    """The clock of a study with budgets in milliseconds."""
    methods: Mapping[str, Foreign] = dataclasses.field(default_factory=dict)
    """The study's methods of other packages, by the name or the place that it gives."""
    starts: Mapping[str, Origin] = dataclasses.field(default_factory=dict)
    """The trained weights of the methods that start from some."""


FIELDS = dataclasses.fields(Provenance)


def provenance(
    study: Study,
    task: "Task",
    test_images: int,
    data: Digest | None = None,
    sources: Mapping[str, Source] = MappingProxyType({}),
    *,
    starts: Mapping[str, Origin] = MappingProxyType({}),
) -> Provenance:
    """The provenance of what this process runs on this machine.

    `sources` are those of the study's methods of other packages, `starts` the trained weights.
    """
    return Provenance(
        study=study.model_dump(mode="json"),
        study_hash=study.hash,
        classes=task.classes,
        image=(task.channels, task.height, task.width),
        test_images=test_images,
        data=data,
        commit=commit(),
        convention=CONVENTION,
        python=platform.python_version(),
        versions=versions(),
        machine=machine(),
        methods={name: Foreign(each.place, each.sha256) for name, each in sources.items()},
        starts=starts,
    )


def encode_provenance(provenance: Provenance) -> dict[str, object]:
    """A provenance as a JSON object, without what is not known."""
    content = {field.name: getattr(provenance, field.name) for field in FIELDS}
    content |= {"study": dict(provenance.study), "image": list(provenance.image)}
    content["versions"] = dict(provenance.versions) or None
    content["methods"] = {name: vars(each) for name, each in provenance.methods.items()} or None
    content["starts"] = {
        name: {key: value for key, value in vars(each).items() if value}
        for name, each in provenance.starts.items()
    } or None
    if provenance.data:
        content["data"] = encode_digest(provenance.data)
    if provenance.machine:
        content["machine"] = {**vars(provenance.machine), "gpus": list(provenance.machine.gpus)}
    if provenance.clock:
        content["clock"] = vars(provenance.clock)
    return {name: value for name, value in content.items() if value is not None}


def decode_provenance(content: object) -> Provenance:
    """The provenance that a JSON object holds; keys that this version does not know are left out.

    Raises:
        ValueError: it is no provenance.
    """
    if not isinstance(content, Mapping) or not isinstance(content.get("study"), Mapping):
        raise ValueError("a provenance must be a JSON object with a study, but is none")
    values = {field.name: content[field.name] for field in FIELDS if field.name in content}
    try:
        channels, height, width = map(int, values["image"])
        values |= {"image": (channels, height, width), "classes": int(values["classes"])}
        if "test_images" in values:
            values["test_images"] = int(values["test_images"])
        if "data" in values:
            values["data"] = decode_digest(values["data"])
        if "versions" in values:
            values["versions"] = dict(values["versions"])
        if "machine" in values:
            values["machine"] = _machine(values["machine"])
        if "clock" in values:
            values["clock"] = Clock(**values["clock"])
        if "methods" in values:
            values["methods"] = {
                name: Foreign(each["place"], each["sha256"])
                for name, each in values["methods"].items()
            }
        starts = values.get("starts", {})
        values["starts"] = {name: Origin.of(each) for name, each in starts.items()}
        return Provenance(**values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"a provenance must have all its fields, but: {error}") from None


def _machine(content: Mapping[str, Any]) -> Machine:
    return Machine(
        content["system"], content["processor"], content["cores"], tuple(content["gpus"])
    )


def refuse_other_source(
    study: str,
    begun: Mapping[str, Foreign],
    sources: Mapping[str, Source],
    kept: Mapping[str, Source] = MappingProxyType({}),
) -> None:
    """Refuses methods of other packages whose source differs from what a study began with.

    `kept` is that source, as far as the study's folder has it.

    Raises:
        StudyError: names the method.
    """
    for name, each in sources.items():
        if name not in begun or each.sha256 != begun[name].sha256:
            was = begun[name].sha256[:12] if name in begun else "none was recorded"
            before = kept[name].files if name in kept else {}
            changed = [
                file
                for file in sorted(before.keys() | each.files.keys())
                if before and before.get(file) != each.files.get(file)
            ]
            where = f" in {', '.join(changed[:5])}" if changed else ""
            raise StudyError(
                f"the source of {name}, a method of study {study!r}, must be what it began with, "
                f"but differs{where} (SHA-256 {was} then, {each.sha256[:12]} now); restore it from "
                f"the folder `{SOURCE}` in the study's folder, or give the study another name",
                at=("methods",),
            )


def versions() -> dict[str, str]:
    """The packages that the numbers may depend on, as they are installed here."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def machine() -> Machine:
    """The machine of this process."""
    import torch  # noqa: PLC0415, a provenance is read without it

    from methods.machine import cores, device_name  # noqa: PLC0415

    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        processor=device_name("cpu"),
        cores=cores(),
        gpus=tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())),
    )


def commit() -> str:
    """The commit of the code that runs, `+` where files differ from it; empty outside git."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--", str(here), str(here.parent / "methods"))
    except FileNotFoundError:
        return ""
    return head + ("+" if head and changed else "")
