"""MobileNetV1-style supernets as functions of their layout: the published one, and CIFAR's size.

Howard et al., MobileNets (arXiv 1704.04861): depthwise 3x3, then pointwise 1x1; no residuals. As in
DS-Net, Swish and squeeze-and-excitation are added. All choices share the stem and the first
stages, whose second width runs in the largest network only; the last stages are dynamic.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from methods.api import Changed, Features, Images, Task
from methods.dsnet.gate import STATISTICS, GateInput, Reading, reading
from methods.dsnet.layers import (
    ALIVE,
    Shares,
    SlimConv2d,
    SlimDepthwise2d,
    SlimLinear,
    SlimNorm2d,
    SlimSqueeze,
    Squeeze,
)
from methods.errors import MethodError
from methods.resnet import scaled

Path = tuple[int, ...]
"""The index into their widths at which the stem and each stage run."""
Logits = Float[Tensor, "batch classes"]

SQUEEZE = 4
"""Widest input of a block over the size of its squeezed vector, the same at every width."""
SQUEEZED = 16
"""Minimal size of that vector in the supernet for small images: most of fewer would be dead."""
PUBLISHED_DEPTH = 28
"""Layers with weights in DS-Net's released supernet: stem, 13 blocks of two, classifier."""


class Stage(NamedTuple):
    """Blocks that share an output width; the first of them strides."""

    widths: tuple[int, ...]
    """From narrow to wide, in channels; the last is the largest network's."""
    blocks: int
    stride: int


class Layout(NamedTuple):
    """A supernet's shape."""

    stem: Stage
    shared: tuple[Stage, ...]
    """Run at their first width in every choice, at their second in the largest network."""
    dynamic: tuple[Stage, ...]
    """Run at the width of the choice; the largest network's width repeats the last choice's."""
    least: int = 1
    """Minimal size of a squeezed vector."""
    residual: bool = False
    """Whether blocks after the first of a stage add their input."""
    gate_input: GateInput = "squeezed"
    """What the gate reads of the first dynamic block."""
    squeeze_bias: float = ALIVE
    """Initial bias of squeezing."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Every stage after the stem."""
        return (*self.shared, *self.dynamic)

    @property
    def choices(self) -> int:
        """Number of uniform widths."""
        return len(self.dynamic[0].widths) - 1

    @property
    def entry(self) -> int:
        """Index of the first dynamic block, which holds the gate."""
        return sum(stage.blocks for stage in self.shared)

    @property
    def gate_inputs(self) -> int:
        """Size of what the gate reads."""
        before = self.shared[-1]
        if self.gate_input == "squeezed":
            return self.squeezed(before)
        return STATISTICS * before.widths[0]

    @property
    def largest(self) -> Path:
        """The path of the largest widths; wider than the last choice in stem and shared stages."""
        return tuple(len(part.widths) - 1 for part in (self.stem, *self.stages))

    def squeezed(self, before: Stage) -> int:
        """Size of the squeezed vector of a block whose input is the output of this stage."""
        return max(self.least, before.widths[-1] // SQUEEZE)

    def uniform(self, choice: int) -> Path:
        """The path of a choice; choice 0 is the smallest network."""
        return (0,) * (1 + len(self.shared)) + (choice,) * len(self.dynamic)

    def along(self, path: Path) -> list[int]:
        """The index of each block's output width on a path."""
        stages = zip(self.stages, path[1:], strict=True)
        return [place for stage, place in stages for _ in range(stage.blocks)]


def published(width: float, narrowest: float, choices: int) -> Layout:
    """The released supernet for 224 px, its channels times `width`.

    The dynamic stages have `choices` widths each, from `narrowest` of the first one's widest, in
    steps that are equal in all of them (published: 14 from 0.35, in steps of 32 channels).

    Raises:
        MethodError: more choices than channels that can be omitted.
    """

    def pair(narrow: int, wide: int) -> tuple[int, int]:
        return scaled(narrow, width), scaled(wide, width)

    first, second = _spaced((640, 1152), width, narrowest, choices)
    return Layout(
        Stage(pair(16, 24), 1, 2),
        (Stage(pair(32, 88), 1, 1), Stage(pair(48, 168), 2, 2), Stage(pair(96, 264), 2, 2)),
        (Stage(first, 6, 2), Stage(second, 2, 2)),
    )


def small(depth: int, width: float, narrowest: float, choices: int, *, stride: int = 1) -> Layout:
    """A supernet for small images: three stages of (depth - 2) / 6 blocks, two of them dynamic.

    `stride` is that of the stem and of the first stage; widths are spaced as in `published`.

    Raises:
        MethodError: more choices than channels that can be omitted.
    """
    blocks = (depth - 2) // 6
    first, second = _spaced((128, 256), width, narrowest, choices)
    return Layout(
        Stage((scaled(16, width), scaled(32, width)), 1, stride),
        (Stage((scaled(32, width), scaled(64, width)), blocks, stride),),
        (Stage(first, blocks, 2), Stage(second, blocks, 2)),
        SQUEEZED,
    )


def path_macs(task: Task, layout: Layout, path: Path) -> int:
    """MACs of one image along a path, without the gate, in closed form."""
    height, width = _strided(task.height, task.width, layout.stem.stride)
    before, inputs = layout.stem, layout.stem.widths[path[0]]
    total = 9 * task.channels * inputs * height * width
    for stage, place in zip(layout.stages, path[1:], strict=True):
        outputs = stage.widths[place]
        for position in range(stage.blocks):
            height, width = _strided(height, width, stage.stride if position == 0 else 1)
            total += (9 * inputs + inputs * outputs) * height * width
            total += 2 * inputs * layout.squeezed(before)
            before, inputs = stage, outputs
    return total + inputs * task.classes


class SlimBlock(nn.Module):
    """Depthwise at the input width, squeeze-and-excitation, pointwise to the output width.

    `source` and `target` are indices of its input and output widths.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: Sequence[int],
        stride: int,
        reduced: int,
        *,
        residual: bool,
        squeeze_bias: float,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.depthwise = SlimDepthwise2d(max(inputs), stride)
        self.norm1 = SlimNorm2d(inputs)
        self.squeeze = SlimSqueeze(max(inputs), reduced, squeeze_bias)
        self.pointwise = SlimConv2d(max(inputs), max(outputs), 1)
        self.norm2 = SlimNorm2d(outputs)

    def forward(self, features: Features, source: int, target: int) -> Changed:
        mixed = self.mix(features, source)
        changed = self.project(self.squeeze.excite(mixed, self.squeeze.squeeze(mixed)), target)
        return features + changed if self.residual else changed

    def mix(self, features: Features, source: int) -> Changed:
        """The features that are squeezed: the depthwise convolution with its norm and Swish."""
        return F.silu(self.norm1(self.depthwise(features), source))

    def project(self, features: Features, target: int) -> Changed:
        """The pointwise convolution with its norm and Swish."""
        return F.silu(self.norm2(self.pointwise(features, self.outputs[target]), target))

    def masked(
        self, features: Features, shares: Shares, sources: Sequence[int], targets: Sequence[int]
    ) -> Changed:
        """`forward` with each image at its pair of widths; channels beyond it are zero."""
        mixed = F.silu(self.norm1.mixed(self.depthwise(features), shares, sources))
        excited = self.squeeze.excite(mixed, self.squeeze.squeeze(mixed))
        changed = self.project_masked(excited, shares, targets)
        return features + changed if self.residual else changed

    def project_masked(self, features: Features, shares: Shares, targets: Sequence[int]) -> Changed:
        """`project` with each image at its width; channels beyond it are zero."""
        widest = max(self.outputs[target] for target in targets)
        return F.silu(self.norm2.mixed(self.pointwise(features, widest), shares, targets))

    def mixer_at(self, source: int) -> list[nn.Module]:
        """The layers before squeezing, as plain modules."""
        return [self.depthwise.at(self.inputs[source]), self.norm1.at(source), nn.SiLU()]

    def projector_at(self, source: int, target: int) -> list[nn.Module]:
        """`project`, as plain modules."""
        pointwise = self.pointwise.at(self.inputs[source], self.outputs[target])
        return [pointwise, self.norm2.at(target), nn.SiLU()]

    def at(self, source: int, target: int) -> nn.Module:
        """The slice as plain modules."""
        squeeze = self.squeeze.at(self.inputs[source])
        body = nn.Sequential(*self.mixer_at(source), squeeze, *self.projector_at(source, target))
        return Residual(body) if self.residual else body


class Residual(nn.Module):
    """A block that adds its input, as shipped."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, features: Features) -> Features:
        return features + self.body(features)  # type: ignore[no-any-return]


class SlimMobileNet(nn.Module):
    """A supernet in two halves: the layers before the gate's decision, and those after it."""

    def __init__(self, task: Task, layout: Layout) -> None:
        super().__init__()
        self.task = task
        self.layout = layout
        self.stem = SlimConv2d(task.channels, layout.stem.widths[-1], 3, layout.stem.stride)
        self.norm = SlimNorm2d(layout.stem.widths)
        self.blocks = nn.ModuleList()
        before = layout.stem
        for stage in layout.stages:
            for position in range(stage.blocks):
                block = SlimBlock(
                    before.widths,
                    stage.widths,
                    stage.stride if position == 0 else 1,
                    layout.squeezed(before),
                    residual=layout.residual and position > 0,
                    squeeze_bias=layout.squeeze_bias,
                )
                self.blocks.append(block)
                before = stage
        self.head = SlimLinear(before.widths[-1], task.classes)

    def forward(self, images: Images, path: Path, dropout: float = 0.0) -> Logits:
        return self.back(self.front(images, path)[0], path, dropout)

    def cost(self, path: Path) -> int:
        """MACs of one image along a path, without the gate."""
        return path_macs(self.task, self.layout, path)

    def front(self, images: Images, path: Path) -> tuple[Changed, Reading]:
        """The features before the first dynamic pointwise convolution, and what the gate reads."""
        shared, gated, _ = self._parts()
        source = path[0]
        features = F.silu(self.norm(self.stem(images, self.norm.widths[source]), source))
        for block, target in zip(shared, self.layout.along(path), strict=False):
            features = block(features, source, target)
            source = target
        mixed = gated.mix(features, source)
        reduced = gated.squeeze.squeeze(mixed)
        inputs = reading(self.layout.gate_input, mixed, reduced)
        return gated.squeeze.excite(mixed, reduced), inputs

    def back(self, features: Features, path: Path, dropout: float = 0.0) -> Logits:
        """Logits from the output of `front`; `dropout` acts on the pooled features in training."""
        _, gated, others = self._parts()
        source, *targets = self.layout.along(path)[self.layout.entry :]
        features = gated.project(features, source)
        for block, target in zip(others, targets, strict=True):
            features = block(features, source, target)
            source = target
        return self._classify(features, dropout)

    def masked(self, features: Features, shares: Shares, paths: Sequence[Path]) -> Logits:
        """`back` with each image on its one of these paths, by running statistics.

        All layers run at the widest path. A channel that the norm's mask sets to zero stays zero in
        Swish, excitation and depthwise convolution; the gradient reaches `shares`.
        """
        _, gated, others = self._parts()
        blocks = zip(*(self.layout.along(path) for path in paths), strict=True)
        sources, *targets = list(blocks)[self.layout.entry :]  # of each block, every path's
        features = gated.project_masked(features, shares, sources)
        for block, target in zip(others, targets, strict=True):
            features = block.masked(features, shares, sources, target)
            sources = target
        return self._classify(features)

    def front_at(self, path: Path) -> "Front":
        """`front` along this path, as plain modules."""
        shared, gated, _ = self._parts()
        source = path[0]
        stem = self.stem.at(self.task.channels, self.norm.widths[source])
        body = nn.Sequential(stem, self.norm.at(source), nn.SiLU())
        for block, target in zip(shared, self.layout.along(path), strict=False):
            body.append(block.at(source, target))
            source = target
        body.extend(gated.mixer_at(source))
        squeeze = gated.squeeze.at(gated.inputs[source])
        return Front(body, squeeze, self.layout.gate_input)

    def back_at(self, path: Path) -> nn.Sequential:
        """`back` along this path, as plain modules."""
        _, gated, others = self._parts()
        before, source, *targets = [path[0], *self.layout.along(path)][self.layout.entry :]
        body = nn.Sequential(*gated.projector_at(before, source))
        for block, target in zip(others, targets, strict=True):
            body.append(block.at(source, target))
            source = target
        head = self.head.at(self.layout.stages[-1].widths[source], self.task.classes)
        return body.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), head])

    def _parts(self) -> tuple[list[SlimBlock], SlimBlock, list[SlimBlock]]:
        """The shared blocks, the block that holds the gate, and the rest."""
        blocks = cast("list[SlimBlock]", list(self.blocks))
        entry = self.layout.entry
        return blocks[:entry], blocks[entry], blocks[entry + 1 :]

    def _classify(self, features: Features, dropout: float = 0.0) -> Logits:
        pooled = F.dropout(features.mean((2, 3)), dropout, self.training)
        return self.head(pooled, self.task.classes)  # type: ignore[no-any-return]


class Front(nn.Module):
    """The first half of a sliced supernet, as shipped."""

    def __init__(self, body: nn.Sequential, squeeze: Squeeze, gate_input: GateInput) -> None:
        super().__init__()
        self.body = body
        self.squeeze = squeeze
        self.gate_input: GateInput = gate_input

    def forward(self, images: Images) -> tuple[Changed, Reading]:
        """The same outputs as `SlimMobileNet.front`."""
        features = self.body(images)
        reduced = self.squeeze.squeeze(features)
        inputs = reading(self.gate_input, features, reduced)
        return self.squeeze.excite(features, reduced), inputs


def _spaced(
    widest: tuple[int, int], width: float, narrowest: float, choices: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Widths of the two dynamic stages, with the widest repeated for the largest network."""
    tops = [scaled(channels, width) for channels in widest]
    step = max(1, int((1 - narrowest) * tops[0] / (choices - 1) + 0.5))
    if step * (choices - 1) >= tops[0]:
        raise MethodError(
            f"the first dynamic stage must keep a channel at its narrowest, but got {choices} "
            f"choices for {tops[0]} channels; lower choices, or raise width or narrowest"
        )
    first, second = (
        (*(top - step * (choices - 1 - choice) for choice in range(choices)), top) for top in tops
    )
    return first, second


def _strided(height: int, width: int, stride: int) -> tuple[int, int]:
    return -(-height // stride), -(-width // stride)
