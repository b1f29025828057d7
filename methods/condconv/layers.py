"""Layers whose weights are mixed, image by image, from several experts.

Yang et al., CondConv (arXiv 1904.04971): y = (a1 W1 + ... + aE WE) * x with a = sigmoid(R GAP(x)).
A convolution is linear in its kernel, so the same values can be computed in five ways. All but the
last mix kernels first, and cost one convolution and the mixing; they differ in speed:

- grouped: the images become the groups of one convolution, a few MiB of kernels at a time;
- bmm: the same for 1x1 kernels of stride 1, as a batch of matrix products;
- loop: image by image;
- patches: matrix products with the input patch of each pixel. It is slower, but its graph holds for
  any batch size, so exported networks use it;
- experts: every expert runs, and the outputs are mixed. It costs as many convolutions as there are
  experts; it is the fastest for tiny maps and large kernels.

A rule in `picks` or a measurement (`methods.shipping.forms`) selects the fastest. All accept
batches of any size, so training needs no batches of 1, whose norms would see a single image.
"""

import copy
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.utils import _pair

from methods.api import Changed, Features
from methods.errors import MethodError
from methods.fold import affine

Path = Literal["grouped", "bmm", "loop", "patches", "experts"]
Start = Literal["glorot", "timm"]
Routing = Float[Tensor, "batch experts"]
"""Weight of each expert for an image, in (0, 1); weights need not sum to 1."""
Size = int | tuple[int, int]

CACHE = 4 * 2**20
"""Bytes of mixed kernels that a CPU handles at a time, about the size of its caches."""
LITTLE = 64
"""Maximum of experts times output pixels at which, in training, `experts` is the fastest way."""
LARGE = 8192
"""Minimal number of weights of a kernel for that."""


class Router(nn.Module):
    """Routing weights from pooled features: a linear map and a sigmoid (section 3).

    Glorot's uniform initialisation and a bias of 0 are those of the authors' code; timm's range is
    narrower by the square root of 6.
    """

    def __init__(self, inputs: int, experts: int, start: Start = "glorot") -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, experts)
        bound = (6 if start == "glorot" else 1) ** 0.5 / (inputs + experts) ** 0.5
        nn.init.uniform_(self.linear.weight, -bound, bound)
        nn.init.zeros_(self.linear.bias)

    @property
    def extra(self) -> int:
        """MACs of one sample, all of them beyond a plain network's."""
        return self.linear.weight.numel()

    def forward(self, pooled: Float[Tensor, "batch channels"]) -> Routing:
        return torch.sigmoid(self.linear(pooled))


class CondConv2d(nn.Module):
    """A convolution whose kernel, and optional bias, each image mixes from experts.

    Every expert is drawn from N(0, 2 / fan_out), fan_out = k^2 outputs / groups. The price is one
    convolution and the mixing; evaluation mode uses only ways that cost exactly that.

    Raises:
        MethodError: no expert, or groups that do not divide the channels.
    """

    shift: Tensor | None

    def __init__(  # noqa: PLR0917 - as nn.Conv2d
        self,
        inputs: int,
        outputs: int,
        size: Size,
        stride: Size = 1,
        padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        *,
        experts: int,
        path: Path | None = None,
    ) -> None:
        super().__init__()
        if experts < 1:
            raise MethodError(f"a mixture needs at least one expert, got {experts}")
        if inputs % groups or outputs % groups:
            raise MethodError(
                f"groups must divide channels, got ({groups=}, {inputs=}, {outputs=})"
            )
        self.experts, self.outputs, self.groups = experts, outputs, groups
        self.kernel: tuple[int, int, int] = (inputs // groups, *_pair(size))
        """Shape of one output's weights."""
        self.stride: tuple[int, int] = _pair(stride)
        self.padding: tuple[int, int] = _pair(padding)
        self.weight = nn.Parameter(torch.empty(experts, outputs * math.prod(self.kernel)))
        self.bias = nn.Parameter(torch.zeros(experts, outputs)) if bias else None
        self.register_buffer("shift", None)
        self.path = path
        """The way to compute; None leaves it to the rule in `picks`."""
        fan_out = math.prod(self.kernel[1:]) * outputs / groups
        nn.init.normal_(self.weight, std=(2 / fan_out) ** 0.5)

    @classmethod
    def like(cls, conv: nn.Conv2d, experts: int, path: Path | None = None) -> "CondConv2d":
        """A conditional convolution of the shape of a plain one."""
        size, stride = (cast(tuple[int, int], pair) for pair in (conv.kernel_size, conv.stride))
        return cls(
            conv.in_channels,
            conv.out_channels,
            size,
            stride,
            cast(tuple[int, int], conv.padding),
            conv.groups,
            conv.bias is not None,
            experts=experts,
            path=path,
        )

    @property
    def extra(self) -> int:
        """MACs of one sample beyond a plain convolution's: mixing its kernel and bias."""
        return self.weight.numel() + (0 if self.bias is None else self.bias.numel())

    @property
    def pointwise(self) -> bool:
        """Whether it maps each pixel separately, all channels to all."""
        plain = self.groups == 1 and not any(self.padding)
        return plain and self.kernel[1:] == self.stride == (1, 1)

    def forward(self, features: Features, routing: Routing) -> Changed:
        path = self.picks(features)
        if path == "patches":
            return _patches(self, features, routing)
        return self.run(features, routing, path, self._chunk(path, features))

    def run(self, features: Features, routing: Routing, path: Path, size: int) -> Changed:
        """The convolution in the way `path`, `size` images at a time."""
        pairs = zip(torch.split(features, size), torch.split(routing, size), strict=True)
        parts = [WAYS[path](self, images, weights) for images, weights in pairs]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def picks(self, features: Features) -> Path:
        """The way to compute for these features: the configured one, else the fastest.

        The rule depends on shapes, mode and kind of device alone, so that runs are reproducible. It
        was measured on one CPU thread; bmm and grouped on a GPU are untested.
        """
        if torch.compiler.is_exporting():
            return "patches"
        if self.path is not None and (self.training or self.path != "experts"):
            return self.path
        if self.pointwise:
            return "bmm"
        if not self.training or features.is_cuda or self.groups > 1:
            return "grouped"
        large = self.outputs * math.prod(self.kernel) >= LARGE
        return "experts" if large and self._work(features) <= LITTLE else "grouped"

    def mixed(self, routing: Routing) -> tuple[Tensor, Tensor | None]:
        """Each image's kernel (batch*outputs inputs/groups *size) and bias (batch outputs)."""
        kernels = (routing @ self.weight).reshape(-1, *self.kernel)
        bias = None if self.bias is None else routing @ self.bias
        if self.shift is not None:
            bias = self.shift.expand(routing.shape[0], -1) if bias is None else bias + self.shift
        return kernels, bias

    def extra_repr(self) -> str:
        """The layer's arguments in the manner of nn.Conv2d; timings are stored under this text."""
        inputs, size = self.kernel[0] * self.groups, self.kernel[1:]
        return (
            f"{inputs}, {self.outputs}, size={size}, stride={self.stride}, padding={self.padding}, "
            f"groups={self.groups}, bias={self.bias is not None}, experts={self.experts}"
        )

    def _work(self, features: Features) -> int:
        """Experts times height times width of the output map."""
        return self.experts * math.prod(self._map(features))

    def _map(self, features: Features) -> tuple[int, int]:
        """Height and width of the output map."""
        (height, width), (tall, wide) = features.shape[2:], self.kernel[1:]
        rows = (height + 2 * self.padding[0] - tall) // self.stride[0] + 1
        return rows, (width + 2 * self.padding[1] - wide) // self.stride[1] + 1

    def forms(self, features: Features, _routing: Routing) -> dict[str, nn.Module]:
        """Every way to compute for these features, in portions of 1, 4, 16, ... images."""
        batch = len(features)
        sizes = [4**power for power in range(batch) if 4**power < batch] + [batch]
        paths: list[Path] = ["bmm", "grouped"] if self.pointwise else ["grouped"]
        forms: dict[str, nn.Module] = {"rule": self}
        forms |= {f"{path}/{size}": Way(self, path, size) for path in paths for size in sizes}
        return forms | {"experts": Way(self, "experts", batch)}

    def _chunk(self, path: Path, features: Features) -> int:
        """Number of images that run at a time."""
        if path == "loop":
            return 1
        if path == "experts" or features.is_cuda:
            return len(features)
        mixed = len(features) * self.outputs * math.prod(self.kernel) * features.element_size()
        return -(-len(features) // max(1, round(mixed / CACHE)))


class CondLinear(nn.Module):
    """A linear map whose weights and bias each image mixes from experts.

    Every expert runs and the outputs are mixed, which is the cheapest way here: it costs
    E (inputs + 1) outputs; mixing the weights first would cost inputs * outputs more. Each expert
    is initialised as an nn.Linear.
    """

    def __init__(self, inputs: int, outputs: int, *, experts: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.weight = nn.Parameter(torch.empty(experts * outputs, inputs))
        self.bias = nn.Parameter(torch.empty(experts * outputs))
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5)

    @property
    def extra(self) -> int:
        """MACs of one sample beyond a plain map's."""
        return self.weight.numel() + self.bias.numel() - self.weight.shape[1] * self.outputs

    def forward(
        self, pooled: Float[Tensor, "batch channels"], routing: Routing
    ) -> Float[Tensor, "batch outputs"]:
        every = F.linear(pooled, self.weight, self.bias)  # batch experts*outputs
        return (routing[:, None] @ every.reshape(*routing.shape, -1)).squeeze(1)


class Way(nn.Module):
    """A conditional convolution computed in the way `path`, `size` images at a time."""

    def __init__(self, layer: CondConv2d, path: Path, size: int) -> None:
        super().__init__()
        self.layer, self.path, self.size = layer, path, size

    def forward(self, features: Features, routing: Routing) -> Changed:
        return self.layer.run(features, routing, self.path, self.size)


def fuse(conv: CondConv2d, norm: nn.BatchNorm2d) -> CondConv2d:
    """A copy that absorbs the next norm: scale in every expert, shift unmixed; the same price."""
    scale, shift = affine(norm)
    fused = copy.deepcopy(conv)
    kernels = conv.weight.reshape(conv.experts, conv.outputs, -1) * scale[:, None]
    fused.weight = nn.Parameter(kernels.flatten(1).detach(), requires_grad=False)
    if conv.bias is not None:
        fused.bias = nn.Parameter((conv.bias * scale).detach(), requires_grad=False)
    fused.shift = shift
    fused.path = None
    return fused


def _grouped(layer: CondConv2d, features: Tensor, routing: Tensor) -> Tensor:
    batch = len(features)
    kernels, bias = layer.mixed(routing)
    out = F.conv2d(
        features.reshape(1, -1, *features.shape[2:]),  # 1 batch*inputs height width
        kernels,
        None if bias is None else bias.flatten(),
        layer.stride,
        layer.padding,
        groups=batch * layer.groups,
    )
    return out.reshape(batch, layer.outputs, *out.shape[2:])


def _bmm(layer: CondConv2d, features: Tensor, routing: Tensor) -> Tensor:
    kernels, bias = layer.mixed(routing)
    out = kernels.reshape(len(features), layer.outputs, -1) @ features.flatten(2)
    if bias is not None:
        out = out + bias[:, :, None]
    return out.reshape(*out.shape[:2], *features.shape[2:])


def _patches(layer: CondConv2d, features: Tensor, routing: Tensor) -> Tensor:
    kernels, bias = layer.mixed(routing)
    batch, groups, size = features.shape[0], layer.groups, layer.kernel[1:]
    patches = F.unfold(features, size, padding=layer.padding, stride=layer.stride)
    out = kernels.reshape(batch, groups, layer.outputs // groups, -1) @ patches.reshape(
        batch, groups, math.prod(layer.kernel), -1
    )  # batch groups outputs/groups pixels
    out = out.reshape(batch, layer.outputs, *layer._map(features))
    return out if bias is None else out + bias[:, :, None, None]


def _experts(layer: CondConv2d, features: Tensor, routing: Tensor) -> Tensor:
    groups, experts = layer.groups, layer.experts
    kernels = layer.weight.reshape(experts, groups, -1).transpose(0, 1).reshape(-1, *layer.kernel)
    every = F.conv2d(features, kernels, None, layer.stride, layer.padding, groups=groups)
    by_expert = every.reshape(len(features), groups, experts, -1)  # ... outputs/groups*height*width
    out = (routing[:, None, None] @ by_expert).reshape(
        len(features), layer.outputs, *every.shape[2:]
    )
    if layer.bias is not None:
        out = out + (routing @ layer.bias)[:, :, None, None]
    return out if layer.shift is None else out + layer.shift[:, None, None]


WAYS: Mapping[Path, Callable[[CondConv2d, Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "grouped": _grouped,
        "bmm": _bmm,
        "loop": _grouped,
        "patches": _patches,
        "experts": _experts,
    }
)
