"""The names that weight files of others have for the parts of our backbones.

Known are ResNets as torchvision and timm name them, and timm's MobileNetV1 and V2, EfficientNets
and those with CondConv. What a file says decides: its layout, the blocks of its stages, and which
of them are separable. Names that belong to no part stay as they are.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

EPSILON, OTHER_EPSILON = 1e-3, 1e-5
"""What norms of EfficientNets and MobileNets add to a variance: here, as in TensorFlow's weights,
and elsewhere."""
RESNET = (
    (r"conv1\.weight", "stem.0.weight"),
    (r"bn1\.(\w+)", r"stem.1.\1"),
    (r"fc\.(\w+)", r"head.\1"),
)
IN_RESNET = (
    (r"conv([123])\.weight", r"conv\1.weight"),
    (r"bn([123])\.(\w+)", r"norm\1.\2"),
    (r"downsample\.([01])\.(\w+)", r"projection.\1.\2"),
)
EFFICIENT = (
    (r"conv_stem\.weight", "stem.0.weight"),
    (r"bn1\.(\w+)", r"stem.1.\1"),
    (r"conv_head\.weight", "last.0.weight"),
    (r"bn2\.(\w+)", r"last.1.\1"),
    (r"classifier\.(\w+)", r"head.\1"),
)
IN_EFFICIENT = (
    (r"conv_pw\.weight", "expand.0.weight"),
    (r"bn1\.(\w+)", r"expand.1.\1"),
    (r"conv_dw\.weight", "filter.0.weight"),
    (r"bn2\.(\w+)", r"filter.1.\1"),
    (r"conv_pwl\.weight", "project.0.weight"),
    (r"bn3\.(\w+)", r"project.1.\1"),
    (r"se\.conv_reduce\.(\w+)", r"squeeze.\1"),
    (r"se\.conv_expand\.(\w+)", r"excite.\1"),
    (r"routing_fn\.(\w+)", r"router.linear.\1"),
)
IN_SEPARABLE = (
    (r"conv_dw\.weight", "filter.0.weight"),
    (r"bn1\.(\w+)", r"filter.1.\1"),
    (r"conv_pw\.weight", "project.0.weight"),
    (r"bn2\.(\w+)", r"project.1.\1"),
    *IN_EFFICIENT[6:8],
)
"""A block without expansion."""


def plain(tensors: Mapping[str, Tensor], *, tensorflow: bool = False) -> dict[str, Tensor]:
    """The tensors under the names of our backbones, where their layout is known.

    Norms of EfficientNets and MobileNets are adapted to our epsilon, with the same outputs in
    evaluation mode; weights that come from `tensorflow`, as all with CondConv do, have it already.
    """
    names = set(tensors)
    if "conv_stem.weight" in names:
        tensorflow = tensorflow or any(".routing_fn." in name for name in names)
        return _adapted(_efficient(tensors), tensorflow=tensorflow)
    if {"conv1.weight", "layer1.0.conv1.weight"} <= names:
        return _resnet(tensors)
    return dict(tensors)


def _resnet(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    stages = _blocks(tensors, r"layer(\d+)\.(\d+)\.")
    renamed = {}
    for name, tensor in tensors.items():
        found = re.match(r"layer(\d+)\.(\d+)\.(.+)", name)
        if found is None:
            renamed[_named(name, RESNET) or name] = tensor
            continue
        index = stages.index((int(found[1]), int(found[2])))
        inner = _named(found[3], IN_RESNET)
        renamed[f"blocks.{index}.{inner}" if inner else name] = tensor
    return renamed


def _efficient(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    stages = _blocks(tensors, r"blocks\.(\d+)\.(\d+)\.")
    expanding = {name.rpartition(".conv_pwl")[0] for name in tensors if ".conv_pwl." in name}
    renamed = {}
    for name, tensor in tensors.items():
        found = re.match(r"(blocks\.(\d+)\.(\d+))\.(.+)", name)
        if found is None:
            renamed[_named(name, EFFICIENT) or name] = tensor
            continue
        index, separable = stages.index((int(found[2]), int(found[3]))), found[1] not in expanding
        inner = _named(found[4], IN_SEPARABLE if separable else IN_EFFICIENT)
        if inner is None:
            renamed[name] = tensor
            continue
        if not expanding:  # MobileNetV1
            inner = inner.replace("project.", "mix.")
        linear = inner.startswith(("squeeze.w", "excite.w")) and tensor.ndim == 4
        renamed[f"blocks.{index}.{inner}"] = tensor.flatten(1) if linear else tensor
    return renamed


def _adapted(tensors: dict[str, Tensor], *, tensorflow: bool) -> dict[str, Tensor]:
    if tensorflow:
        return tensors
    for name, variance in list(tensors.items()):
        scale = name.replace("running_var", "weight")
        if name.endswith("running_var") and scale in tensors:
            ratio = (variance.double() + EPSILON) / (variance.double() + OTHER_EPSILON)
            weight = tensors[scale]
            tensors[scale] = (weight.double() * torch.sqrt(ratio)).to(weight.dtype)
    return tensors


def _blocks(names: Iterable[str], pattern: str) -> Sequence[tuple[int, int]]:
    """Stage and position of every block, in order."""
    found = (re.match(pattern, name) for name in names)
    return sorted({(int(each[1]), int(each[2])) for each in found if each})


def _named(name: str, table: Sequence[tuple[str, str]]) -> str | None:
    """The name by the first row that it matches; None where it matches none."""
    for pattern, template in table:
        if found := re.fullmatch(pattern, name):
            return found.expand(template)
    return None
