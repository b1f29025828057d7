"""Writing a deployed network to a file: its weights, or its graph as pt2 or ONNX."""

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
"""Images that a network is traced with; a batch of 1 would be traced as a fixed size."""
OPSET = 20
"""Version of the ONNX operator set."""


def write(how: Format, deployed: nn.Module, task: Task, folder: Path) -> Path:
    """Write a deployed network in this format, and return the path of the file.

    Raises:
        ExportError: a package is missing, or the format cannot represent this network.
    """
    path = folder / MODEL[how]
    if how == "torch":
        pack = needed("safetensors.torch", "--format torch")
        weights = {name: weight.contiguous() for name, weight in deployed.state_dict().items()}
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
    except Exception as error:  # tracers and converters raise errors of many classes
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExportError(
            f"--format {how} cannot hold this network: {reason}; --format torch can"
        ) from error
    return path


def _program(deployed: nn.Module, images: Images) -> ExportedProgram:
    """The graph for any batch size, without the paths of this machine."""
    with torch.no_grad():
        program = torch.export.export(deployed, (images,), dynamic_shapes=({0: Dim("batch")},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def _save_pt2(program: ExportedProgram, path: Path) -> None:
    program.example_inputs = None  # the archive would pickle them
    torch.export.save(program, path)


def _save_onnx(program: ExportedProgram, path: Path) -> None:
    chatter = "torch.onnx._internal.exporter._registration"  # warns of torchvision
    logging.getLogger(chatter).setLevel(logging.ERROR)
    onnx_program: Any = torch.onnx.export(
        program,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: "batch"},),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    for node in onnx_program.model.graph:
        node.metadata_props.clear()  # the source files that were traced
    onnx_program.save(path, external_data=False)
