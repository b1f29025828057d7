"""Loading the networks that `isoflop export` writes: every file is checked, nothing is unpickled.

An export is a folder: the model's file, a card to read, and `card.json`, which holds the content
of the card and the SHA-256 of the other files.
"""

import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from methods import METHODS
from methods.api import Images, Network, Task, point_of
from methods.errors import ExportError, MethodError
from methods.files import digest
from methods.shipping.card import CARD, MODEL, needed, read_card

PLAIN = re.compile(
    r"[^/]+/(models/model\.json|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|archive_format|archive_version|byteorder|\.data/(version|serialization_id))"
)
"""Files of a torch.export archive that are text or bare numbers; no others are read."""


def load(folder: Path | str) -> nn.Module:
    """The network of an export: normalised images -> logits, on the CPU, in evaluation mode.

    Format `torch` gives the deployed network rebuilt from its weights; `pt2` and `onnx` give a
    module that runs the graph under PyTorch or onnxruntime.

    Raises:
        ExportError: no export, a missing or altered file, or a missing package.
    """
    folder = Path(folder)
    card = read_card(folder)
    return opened(_checked(folder, card), card)


def opened(content: bytes, card: Mapping[str, Any]) -> nn.Module:
    """The network in the content of a model's file; the card gives its format.

    Raises:
        ExportError: a package is missing, or the file contains pickled objects.
    """
    if card["format"] == "torch":
        return _rebuilt(content, card["network"], card["task"])
    return _Foreign(_graph(content) if card["format"] == "pt2" else _session(content))


class _Foreign(nn.Module):
    """A graph as a module; it has a single mode and no parameters to move."""

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._run = run
        self.eval()

    def forward(self, images: Images) -> Tensor:
        return self._run(images)


def _checked(folder: Path, card: Mapping[str, Any]) -> bytes:
    """The content of the model's file, once the digests of all files are verified."""
    model = b""
    for name, sha256 in card["files"].items():
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            raise ExportError(f"{folder / name} cannot be read: {error.strerror}") from None
        if digest(content) != sha256:
            raise ExportError(
                f"{folder / name} must have SHA-256 {sha256}, as {CARD} says, but has "
                f"{digest(content)}: it was altered, and is not loaded"
            )
        if name == card["file"]:
            model = content
    return model


def _rebuilt(content: bytes, network: Mapping[str, Any], task: Mapping[str, Any]) -> nn.Module:
    """The deployed form of a fresh network, with the weights, and thus the widths, of the file."""
    weights = needed("safetensors.torch", "a torch export").load(content)
    try:
        model = METHODS[network["method"]]
    except MethodError as error:
        raise ExportError(
            f"the network is of a method of another package, and this format needs it: {error}; "
            "the formats pt2 and onnx do not"
        ) from None
    method = model.of(network["params"])
    with torch.random.fork_rng(devices=[]):
        fresh: Network = method.build(Task(**task))
    deployed = method.deploy(point_of(method, fresh, network["point"]).eval()).eval()
    if deployed.state_dict().keys() != weights.keys():
        raise ExportError(
            "this version of isoflop deploys the network in other parts than the version that "
            f"exported it; install isoflop {network['isoflop']}"
        )
    for name, weight in weights.items():
        owner, _, attribute = name.rpartition(".")
        _put(deployed.get_submodule(owner), attribute, weight)
    return deployed


def _put(part: nn.Module, name: str, weight: Tensor) -> None:
    """Replace a tensor in the same layout; the file's may be narrower if the method prunes."""
    old: Tensor = getattr(part, name)
    if old.ndim == 4 and old.is_contiguous(memory_format=torch.channels_last):
        weight = weight.contiguous(memory_format=torch.channels_last)
    is_parameter = isinstance(old, nn.Parameter)
    setattr(part, name, nn.Parameter(weight, requires_grad=False) if is_parameter else weight)
    if isinstance(part, nn.Conv2d) and name == "weight":
        if part.groups == part.out_channels == part.in_channels:  # depthwise
            part.groups = len(weight)
        part.out_channels, part.in_channels = len(weight), weight.shape[1] * part.groups
    elif isinstance(part, nn.Linear) and name == "weight":
        part.out_features, part.in_features = weight.shape


def _session(content: bytes) -> Callable[[Tensor], Tensor]:
    """An ONNX file under onnxruntime."""
    runtime = needed("onnxruntime", "an ONNX export")
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.contiguous().numpy()})[0])

    return run


def _graph(content: bytes) -> Callable[[Tensor], Tensor]:
    """A program of torch.export, checked first: its loader unpickles what an archive asks it to."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = [file for file in archive.infolist() if file.file_size]
            texts = [archive.read(file) for file in files if file.filename.endswith("config.json")]
        payloads = [entry for text in texts for entry in json.loads(text)["config"].values()]
        plain = all(entry["use_pickle"] is False for entry in payloads)
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError):
        plain = False
    if not plain or not all(PLAIN.fullmatch(file.filename) for file in files):
        raise ExportError(
            f"{MODEL['pt2']} must be a program of torch.export without any pickled object, but is "
            "not: it is not loaded"
        )
    run: Callable[[Tensor], Tensor] = torch.export.load(io.BytesIO(content)).module().__call__
    return run
