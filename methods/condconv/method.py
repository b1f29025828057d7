"""CondConv: each image mixes its convolution kernels from experts.

Yang et al., CondConv: Conditionally Parameterized Convolutions for Efficient Inference (arXiv
1904.04971v3).
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

import pydantic
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from methods.api import (
    Changed,
    Decisions,
    Features,
    Images,
    Method,
    Output,
    Phase,
    RoutedNetwork,
    Search,
    Task,
    cross_entropy,
)
from methods.condconv import efficientnet, mobilenet
from methods.condconv.layers import CondConv2d, CondLinear, Router, Start, fuse
from methods.errors import MethodError
from methods.fold import PLAIN, fold
from methods.macs import quiet, sketched
from methods.resnet import Norm, ResNet, check_depth, costs, normalise, resnet, stage_sizes
from methods.values import Params, shown

DEPTH = 20
"""Default depth; the only valid value where the family says how deep a network is."""
EFFICIENTNETS: Mapping[str, float] = MappingProxyType(
    {"efficientnet-b0": 1.0, "efficientnet-b1": 1.1}
)
"""What the blocks of a group are multiplied by."""
MOBILENETS: Mapping[str, mobilenet.Version] = MappingProxyType(
    {"mobilenet-v1": 1, "mobilenet-v2": 2}
)
Backbone = ResNet | efficientnet.EfficientNet | mobilenet.MobileNet
DEAR = 0.5
"""Ratio of mixing to convolution, in MACs, above which a layer is reported as expensive."""
STILL = 0.01
"""Standard deviation of routing weights over images below which they count as constant."""


class Routed(nn.Module):
    """A block whose convolutions all mix their experts by one routing of the block's input."""

    def __init__(self, block: nn.Module, router: Router) -> None:
        super().__init__()
        self.block = block
        self.router = router

    def forward(self, features: Features) -> Changed:
        routing = self.router(features.mean((2, 3)))
        return self.block(features, context=(routing,))  # type: ignore[no-any-return]


class RoutedHead(nn.Module):
    """A classifier that mixes its experts by a routing of its input, the pooled features."""

    def __init__(self, linear: CondLinear, router: Router) -> None:
        super().__init__()
        self.linear = linear
        self.router = router

    def forward(self, pooled: Float[Tensor, "batch channels"]) -> Float[Tensor, "batch classes"]:
        return self.linear(pooled, self.router(pooled))  # type: ignore[no-any-return]


class MixingNet(RoutedNetwork):
    """A backbone whose routers weigh the experts for each image, at the same cost for every one."""

    def __init__(self, backbone: nn.Module, cost: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.cost = cost
        """MACs of one image."""

    def route(self, images: Images, decisions: Decisions | None = None) -> tuple[Output, Decisions]:
        """The output, and the weight of each expert of every router (real, batch weights)."""
        with _weighing(self.backbone, decisions) as weights:
            logits = self.backbone(images)
        price = torch.full((len(images),), self.cost, dtype=torch.float64, device=images.device)
        return Output(logits, price), torch.cat(weights, 1)


class CondConv(Method):
    """Each image mixes its convolution kernels from experts, then convolves once.

    Paper: Yang et al., CondConv: Conditionally Parameterized Convolutions for Efficient Inference,
    NeurIPS 2019, arXiv 1904.04971.

    As published:
    - sigmoid routing of the pooled block input; one routing for all convolutions of a block
    - every expert is drawn from N(0, 2 / fan_out), the routing from Glorot's uniform
    - conditional are the last three block groups of EfficientNets, the last stage of a ResNet, and
      of MobileNetV1 the blocks from the sixth on (its classifier with `head`)
    - trained with one cross-entropy in batches: kernels of a batch run as one grouped convolution

    Deviations:
    - the recipe is shared by all methods, and its optimiser and rates are left to the study: the
      authors' flags are rmsprop, lr 0.016 per 256 images on `exponential`, average 0.9999; mixup is
      0 there, and there is no AutoAugment here
    - dropout and drop_path are 0 unless set; in the published profile they are as in the authors'
      flags for EfficientNets
    - a projection shortcut is one of its block's convolutions and thus conditional too
    - the price counts mixing and routing, as fvcore does: 1.5 % below the published EfficientNets
    - a conditional classifier runs its experts and mixes logits: the same values for fewer MACs
    - EfficientNets round scaled channels to multiples of 4, and pad evenly on both sides, which the
      published profile does not
    """

    PUBLISHED: ClassVar[Params] = {
        "padding": "tensorflow",
        "dropout": 0.25,
        "drop_path": 0.2,
        "recipe.weight_decay": 1e-5,
        "recipe.label_smoothing": 0.1,
    }
    ADDED: ClassVar[tuple[str, ...]] = ("router",)

    experts: Annotated[int, Field(ge=1, le=64), Search(choices=(2, 4, 8))] = 8
    """Kernels to mix in each conditional convolution; with 1, a sigmoid scales a plain kernel."""
    placement: Annotated[
        str, Field(coerce_numbers_to_str=True), Search(choices=("1", "all", "late"))
    ] = "late"
    """Conditional stages: their digits in order, as in 1, 23 or 567; `all`; or, as published,
    `late`: the last of a ResNet, the last two of MobileNetV1, else the last three. Mixing costs
    experts / (height * width) of a convolution's map times its MACs: expensive for small maps."""
    head: Annotated[bool, Search()] = False
    """Whether the classifier is conditional too."""
    depth: Annotated[int, Field(ge=8, le=1202), Search(low=8, high=56, step=6)] = DEPTH
    """Layers with weights: 6n+2 in the cifar family; 18, 34, 50, 101 or 152 in imagenet's."""
    width: Annotated[float, Field(ge=0.1, le=4), Search(low=0.25, high=1.0, step=0.25)] = 1.0
    """Multiplies every channel count; the result is rounded to a multiple of 4."""
    family: Literal[
        "cifar", "imagenet", "efficientnet-b0", "efficientnet-b1", "mobilenet-v1", "mobilenet-v2"
    ] = "cifar"
    """cifar: three stages from 16 channels, behind ImageNet's stem for images above 64 px;
    imagenet: four stages from 64 channels; efficientnet-b0: seven block groups; b1: deeper ones;
    mobilenet-v1 and v2: five stages of separable blocks, seven of bottlenecks."""
    norm: Norm = "batch"
    """batch, as published, folds away when deployed; group depends on no batch, however small: it
    looks at one image at a time, in at most 32 groups of channels, and costs time, not MACs."""
    padding: efficientnet.Padding = "even"
    """Where an EfficientNet halves an even map: as much on both sides, or as published weights
    expect, what is left over below and on the right (published: tensorflow)."""
    routing_init: Start = "glorot"
    """Initialisation of the routing layer: the authors', or timm's, narrower by the root of 6."""
    path: Literal["auto", "grouped", "loop", "experts"] = "auto"
    """How training computes with mixed kernels, which changes only its speed: the batch as groups,
    image by image, or every expert; `auto` selects by shape. Deployed, not all experts run."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the classifier's input features that is dropped in training (published, for
    EfficientNets: 0.25)."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that training drops an EfficientNet's last block on an image; earlier ones are
    dropped in proportion to their depth (published: 0.2)."""

    @pydantic.model_validator(mode="after")
    def _backbone_exists(self) -> "CondConv":
        if self.family in ("cifar", "imagenet"):
            check_depth(self.depth, self.family)
        elif self.depth != DEPTH:
            raise ValueError(
                f"{self.family} has a fixed depth: leave depth at {DEPTH}, got {self.depth}"
            )
        self.conditional()
        return self

    def conditional(self) -> list[int]:
        """The indices of the conditional blocks, from 0.

        Raises:
            MethodError: the backbone has no such stages.
        """
        sizes = self._sizes()
        names = "".join(str(stage + 1) for stage in range(len(sizes)))
        last = {"cifar": 1, "imagenet": 1, "mobilenet-v1": 2}.get(self.family, 3)
        late = names[-last:]
        stages = {"all": names, "late": late}.get(self.placement, self.placement)
        if not stages or list(stages) != sorted(set(stages) & set(names)):
            raise MethodError(
                f"placement must be 'all', 'late' or some of {self.family}'s stages {names} in "
                f"order, got {shown(self.placement)}; try {late}"
            )
        owners = "".join(name * size for name, size in zip(names, sizes, strict=True))
        return [block for block, owner in enumerate(owners) if owner in stages]

    def build(self, task: Task) -> MixingNet:
        """A freshly initialised network for `task`; draws from torch's global generator.

        Raises:
            MethodError: images too small for the family.
        """
        return MixingNet(self.backbone(task), self.floor(task))

    def backbone(self, task: Task) -> Backbone:
        """The network that maps images to logits, freshly initialised.

        Raises:
            MethodError: images too small for the family.
        """
        net = self._plain(task)
        normalise(net, self.norm)
        for index in self.conditional():
            net.blocks[index] = self._routed(net.blocks[index])
        head = self._routed_head(net.head) if self.head else net.head
        net.add_module("head", nn.Sequential(nn.Dropout(self.dropout), head))
        return net

    def plain(self) -> Params | None:
        """The plain ResNet; None for other families, which no method of the catalogue has plain."""
        if self.family not in ("cifar", "imagenet"):
            return None
        fields = ("depth", "width", "family", "norm")
        return {"method": "dense", **{name: getattr(self, name) for name in fields}}

    def places(self, net: MixingNet) -> Mapping[str, str]:
        """The plain backbone's names, and those of the routers beside its blocks and its head."""
        return {
            _plain_name(name): place
            for name, place in super().places(net).items()
            if not name.endswith("shift")
        }

    def placed(self, weight: Tensor, place: Tensor) -> Tensor | None:
        """A plain kernel becomes every expert's, such that equal routing weights of 1/2, as they
        are at first, mix them to the kernel itself."""
        conditional = place.ndim == 2 if weight.ndim == 4 else self.head and weight.ndim < 3
        copies = conditional and weight.numel() * self.experts == place.numel()
        if weight.shape == place.shape or not copies:
            return super().placed(weight, place)
        return weight.flatten().repeat(self.experts).reshape(place.shape) * (2 / self.experts)

    def phases(self, smoothing: float = 0.0) -> Sequence[Phase[MixingNet]]:
        """A single phase: cross-entropy."""
        return [Phase(name="train", share=1.0, loss=partial(cross_entropy, smoothing=smoothing))]

    def deploy(self, net: MixingNet) -> nn.Module:
        """The backbone with its norms folded into plain kernels and into every expert's."""
        return fold(net.backbone, {**PLAIN, CondConv2d: fuse})

    def floor(self, task: Task) -> int:
        """MACs of any sample: the plain backbone, mixing and routing."""
        return _price(self, task)

    def alarm(self, net: MixingNet, images: Images) -> str | None:
        """A warning if the routing ignores the images, or if mixing is expensive for their maps."""
        routings = _outputs(net, images, Router)
        if len(images) > 1 and max(float(routing.std(0).mean()) for routing in routings) < STILL:
            return "routing weights are alike for every image: this network is static"
        pixels = min(maps[0, 0].numel() for maps in _outputs(net, images[:1], CondConv2d))
        if self.experts > DEAR * pixels:
            return (
                f"mixing {self.experts} experts costs {self.experts / pixels:.2g} times the "
                f"convolution on maps of {pixels} px; take earlier stages or fewer experts"
            )
        return None

    def _plain(self, task: Task) -> Backbone:
        """The backbone before any of its convolutions is conditional."""
        if self.family in ("cifar", "imagenet"):
            return resnet(task, self.depth, self.width, family=self.family)
        if self.family in MOBILENETS:
            return mobilenet.mobilenet(task, MOBILENETS[self.family], self.width)
        return efficientnet.efficientnet(
            task,
            self.width,
            EFFICIENTNETS[self.family],
            padding=self.padding,
            dropped=self.drop_path,
        )

    def _sizes(self) -> Sequence[int]:
        """Number of blocks in each stage."""
        if self.family in ("cifar", "imagenet"):
            return stage_sizes(self.depth, self.family)
        if self.family in MOBILENETS:
            return mobilenet.counts(MOBILENETS[self.family])
        return efficientnet.counts(EFFICIENTNETS[self.family])

    def _routed(self, block: nn.Module) -> Routed:
        """The block with its convolutions replaced by conditional ones."""
        path = None if self.path == "auto" else self.path
        first = next(part for part in block.modules() if type(part) is nn.Conv2d)
        for part in list(block.modules()):
            for name, conv in part.named_children():
                if type(conv) is nn.Conv2d:
                    setattr(part, name, CondConv2d.like(conv, self.experts, path))
        return Routed(block, Router(first.in_channels, self.experts, self.routing_init))

    def _routed_head(self, head: nn.Linear) -> RoutedHead:
        linear = CondLinear(head.in_features, head.out_features, experts=self.experts)
        return RoutedHead(linear, Router(head.in_features, self.experts, self.routing_init))


def _plain_name(name: str) -> str:
    """A name of the conditional backbone as the plain one has it."""
    parts = name.split(".")
    if parts[0] == "blocks" and parts[2] == "block":
        del parts[2]
    if parts[0] == "head":  # behind the dropout, and in a conditional one the linear layer's
        del parts[1]
        parts = [part for part in parts if part != "linear" or "router" in parts]
    return ".".join(parts)


@contextlib.contextmanager
def _weighing(net: nn.Module, decisions: Decisions | None) -> Iterator[list[Tensor]]:
    """The weights of each router as it runs; `decisions` replace them, a slice for each router."""
    weights: list[Tensor] = []

    def hand(_part: nn.Module, _inputs: Any, own: Tensor) -> Tensor:
        start = sum(earlier.shape[1] for earlier in weights)
        handed = own if decisions is None else decisions[:, start : start + own.shape[1]]
        weights.append(handed.to(own.dtype))
        return weights[-1]

    hooks = [p.register_forward_hook(hand) for p in net.modules() if isinstance(p, Router)]
    try:
        yield weights
    finally:
        for hook in hooks:
            hook.remove()


def _outputs(net: nn.Module, images: Images, kind: type[nn.Module]) -> list[Tensor]:
    """The outputs of all parts of this class for these images, in evaluation mode."""
    outputs: list[Tensor] = []
    hooks = [
        part.register_forward_hook(lambda _part, _inputs, output: outputs.append(output))
        for part in net.modules()
        if isinstance(part, kind)
    ]
    try:
        with quiet(net):
            net(images)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


@lru_cache(maxsize=1024)
def _price(method: CondConv, task: Task) -> int:
    with sketched():
        net = method.backbone(task)
    extra = sum(
        part.extra for part in net.modules() if isinstance(part, CondConv2d | CondLinear | Router)
    )
    if method.family in EFFICIENTNETS:
        return efficientnet.cost(task, method.width, EFFICIENTNETS[method.family]) + extra
    if method.family in MOBILENETS:
        return mobilenet.cost(task, MOBILENETS[method.family], method.width) + extra
    return costs(task, method.depth, method.width, method.family).total + extra
