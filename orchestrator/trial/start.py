"""Trained weights that trials start from: read as a user names them, kept, read by a worker."""

import contextlib
import importlib
import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from methods import files
from methods.api import BACKBONE, Method, Network, Task
from methods.errors import BucketAway, DiskFull, StorageError
from methods.files import NO_ROOM
from methods.training.layouts import plain
from methods.training.start import Weights, fill, plain_weights
from methods.values import Params
from orchestrator.record.depot import Depot, Folder
from orchestrator.record.provenance import Origin
from orchestrator.study.params import recorded_parts
from orchestrator.trial import kept as trained

TIMM, TRIAL = "timm:", "trial:"
FOLDER = "starts"
"""The folder of a study's in which weights are kept."""
FILE = "model.safetensors"
"""The file of a model of timm's on its hub."""
TENSORFLOW = "tf_"
"""How timm's names of weights begin that come from TensorFlow."""


def read(name: str, task: Task, *, folders: Sequence[Path], out: Path) -> Weights:
    """The weights that a user names: a file, `timm:NAME`, `trial:STUDY/TRIAL`, or a folder of
    `isoflop train`.

    A relative file is looked for in `folders`; studies lie in `out`.

    Raises:
        StorageError: there are none, or they cannot be read.
    """
    if name.startswith(TIMM):
        model = name.removeprefix(TIMM)
        return _foreign(_downloaded(name, model), name, model.startswith(TENSORFLOW))
    if name.startswith(TRIAL):
        study, _, trial = name.removeprefix(TRIAL).partition("/")
        return _of_trial(Folder(out / study / "trials" / trial), "last.pt", name, task)
    path = located(name, folders)
    if path is None:
        where = " or ".join(map(str, dict.fromkeys(folders)))
        raise StorageError(
            f"a start must be a file with trained weights, but there is none at {name}"
            f"{'' if Path(name).is_absolute() else f' in {where}'}; give a .safetensors file, "
            "`timm:NAME` or `trial:STUDY/TRIAL`"
        )
    if path.is_dir():
        return _by_hand(path, name, task)
    return _foreign(path, name, path.name.startswith(TENSORFLOW))


def located(name: str, folders: Sequence[Path]) -> Path | None:
    """Where a named file or folder lies; None where it does not, or the name is no path."""
    if name.startswith((TIMM, TRIAL)):
        return None
    return next((path for folder in folders if (path := folder / name).exists()), None)


def file_of(origin: Origin) -> str:
    """The file of the weights of such an origin, in the folder of a study."""
    return f"{FOLDER}/{origin.sha256[:16]}.pt"


def keep(path: Path, weights: Weights) -> None:
    """Writes weights as workers read them.

    Raises:
        StorageError: they cannot be written.
    """
    buffer = io.BytesIO()
    content = {"origin": weights.origin, "tensors": dict(weights.tensors)}
    torch.save({**content, "dropped": list(weights.dropped)}, buffer)
    try:
        files.write(path, buffer.getvalue())
    except OSError as error:
        kind = DiskFull if error.errno in NO_ROOM else StorageError
        raise kind(f"{path} must be a file that can be written, but: {error.strerror}") from None


def kept(depot: Depot, file: str, task: Task) -> Weights:
    """The weights that `keep` wrote, or those of a trial's last checkpoint.

    Raises:
        StorageError: they cannot be read.
    """
    content = _loaded(depot, file, depot.where(file))
    if "tensors" in content:
        return Weights(content["origin"], content["tensors"], tuple(content["dropped"]))
    return _of_trial(depot, file, Path(file).parent.name, task)


def starter(depot: Depot, file: str, method: Method, task: Task) -> Callable[[Network], object]:
    """What fills a fresh network of a method with kept weights.

    Raises:
        StorageError: they cannot be read.
    """
    return partial(fill, method=method, weights=kept(depot, file, task))


def _of_trial(depot: Depot, file: str, name: str, task: Task) -> Weights:
    content = _loaded(depot, file, name)
    try:
        identity = content["identity"]
        method, params, state = identity["method"], identity["params"], content["train"]["net"]
    except (KeyError, TypeError):
        raise StorageError(
            f"{name} must be a trial's checkpoint, but {depot.where(file)} is none"
        ) from None
    return _of_network(method, params, state, name, task)


def _by_hand(folder: Path, name: str, task: Task) -> Weights:
    row = trained.read(folder).rows[-1]
    content = _loaded(Folder(folder / "trials" / row.trial), "last.pt", name)
    return _of_network(row.method, row.params, content["train"]["net"], name, task)


def _of_network(
    method: str, params: Params, state: dict[str, Any], name: str, task: Task
) -> Weights:
    return _finite(plain_weights(recorded_parts(method, params)[0], task, state, name))


def _foreign(path: Path, name: str, tensorflow: bool) -> Weights:
    """The weights in a safetensors file."""
    library = _needed("safetensors.torch", name)
    try:
        tensors: dict[str, Tensor] = library.load_file(path)
    except Exception as error:  # a torn file has many ways to fail
        reason = " ".join(str(error).split()) or type(error).__name__
        raise StorageError(
            f"a start must be a whole .safetensors file, but {name} cannot be read: {reason}; give "
            "another file, or copy this one again"
        ) from None
    return _finite(Weights(name, plain(tensors, tensorflow=tensorflow)))


def _finite(weights: Weights) -> Weights:
    bad = [
        name
        for name, tensor in weights.tensors.items()
        if not (name.startswith(BACKBONE) or bool(tensor.isfinite().all()))
    ]
    if bad:
        raise StorageError(
            f"trained weights must be finite, but {bad[0]} of {weights.origin} is not; give others"
        )
    return weights


def _downloaded(name: str, model: str) -> Path:
    """The file of a model of timm's, from its hub or from the hub's cache here."""
    library = _needed("huggingface_hub", name)
    place = f"timm/{model}", FILE
    with contextlib.suppress(Exception):  # it is not here yet
        return Path(library.hf_hub_download(*place, local_files_only=True))
    from methods.data.reading.hub import offline_if_unreachable  # noqa: PLC0415  # loads datasets

    try:
        with offline_if_unreachable():
            return Path(library.hf_hub_download(*place))
    except Exception as error:  # no network, no such model, no room: each has its own class
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise StorageError(
            f"{name} must be a model of timm's that can be downloaded, but: {reason}; correct the "
            "name, or give its .safetensors file"
        ) from None


def _needed(package: str, name: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise StorageError(
            f"to read {name}, {package.partition('.')[0]} must be installed, but is not: `pip "
            "install 'isoflop[timm]'`"
        ) from None


def _loaded(depot: Depot, file: str, name: str) -> dict[str, Any]:
    """A file that torch wrote."""
    try:
        packed = depot.read(file)
        if packed is None:
            raise FileNotFoundError(file)
        content = torch.load(io.BytesIO(packed), map_location="cpu", weights_only=True)
        if not isinstance(content, dict):
            raise TypeError("it holds no fields")
    except FileNotFoundError:
        raise StorageError(
            f"{name} must have weights, but there are none at {depot.where(file)}; name a "
            "confirm run that ended, whose checkpoint its study keeps"
        ) from None
    except BucketAway:
        raise
    except Exception as error:  # a torn file has many ways to fail
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise StorageError(
            f"{name} must have weights, but {depot.where(file)} cannot be read: {reason}"
        ) from None
    return content
