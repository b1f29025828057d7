"""A deployed network as a file: its weights, or its graph for PyTorch or for any runtime."""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from methods.api import Images, Task
from methods.errors import ExportError
from methods.shipping.card import MODEL, Format, needed

EXAMPLES = 4
"""Images that a network is traced with; 1 would be taken for a size that never changes."""
OPSET = 20
"""Of ONNX."""


def write(how: Format, deployed: nn.Module, task: Task, folder: Path) -> Path:
    """The file of a deployed network in this format.

    Raises:
        ExportError: a package is missing, or the format cannot hold this network.
    """
    path = folder / MODEL[how]
    if how == "torch":
        pack = needed("safetensors.torch", "--format torch")
        weights = {name: own.contiguous() for name, own in deployed.state_dict().items()}
        path.write_bytes(pack.save(weights))
        return path
    if how == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            needed(package, "--format onnx")
    images = torch.zeros(EXAMPLES, task.channels, task.height, task.width)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = _program(deployed, images)
            (_save_pt2 if how == "pt2" else _save_onnx)(program, path)
    except OSError:
        raise
    except Exception as error:  # tracers and converters each raise their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExportError(
            f"--format {how} cannot hold this network: {reason}; --format torch can"
        ) from error
    return path


def _program(deployed: nn.Module, images: Images) -> ExportedProgram:
    """The graph for any batch, without the paths of this machine."""
    with torch.no_grad():
        program = torch.export.export(deployed, (images,), dynamic_shapes=({0: Dim("batch")},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def _save_pt2(program: ExportedProgram, path: Path) -> None:
    program.example_inputs = None  # they alone would be pickled
    torch.export.save(program, path)


def _save_onnx(program: ExportedProgram, path: Path) -> None:
    chatter = "torch.onnx._internal.exporter._registration"  # of a torchvision that nobody needs
    logging.getLogger(chatter).setLevel(logging.ERROR)
    made: Any = torch.onnx.export(
        program,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: "batch"},),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    for node in made.model.graph:
        node.metadata_props.clear()  # where in which source file it was traced
    made.save(path, external_data=False)
