"""The contract between a method and everything that trains, prices and compares it.

Three ideas carry it: a method is a value (`Method`), a network prices itself (`Output.macs`), and
there is one clock (`progress` in [0, 1], see `Phase`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import pydantic
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from methods.errors import MethodError, StorageError
from methods.machine import avoid_faulty_kernels
from methods.values import Plain, explain

avoid_faulty_kernels()  # every network imports this module before it convolves

Images = Float[Tensor, "batch channels height width"]
Labels = Int[Tensor, " batch"]
Features = Float[Tensor, "batch channels height width"]
Changed = Float[Tensor, "batch out_channels out_height out_width"]
Family = Literal["cifar", "imagenet"]
"""Kind of backbone: three stages for small images, or four for large ones."""


class Output(NamedTuple):
    """Logits, and what each sample costs in the deployed network, in MACs."""

    logits: Float[Tensor, "batch classes"]
    macs: Float[Tensor, " batch"]


class Network(nn.Module):
    """A network that prices itself: `forward(images) -> Output`."""

    def forward(self, images: Images) -> Output:
        raise NotImplementedError


N = TypeVar("N", bound=Network)
M = TypeVar("M", bound="Method")


@dataclass(frozen=True)
class Task:
    """What a network is built for: image shape and number of classes."""

    name: str
    channels: int
    height: int
    width: int
    classes: int


@dataclass(frozen=True)
class Group:
    """Parameters that share one optimiser setting; None takes the recipe's."""

    parameters: Sequence[nn.Parameter]
    lr_scale: float = 1.0
    weight_decay: float | None = None
    momentum: float | None = None


def all_alike(net: Network) -> Sequence[Group]:
    """Every parameter that trains, under the recipe's settings."""
    return [Group([p for p in net.parameters() if p.requires_grad])]


def stand_still(net: Network, progress: float) -> None:
    """The advance of a phase in which nothing is scheduled."""


def leave(net: Network, batches: Iterable[Images]) -> None:
    """The finish of a phase that leaves the network as the last step made it."""


def itself(net: Network) -> Mapping[str, Network]:
    """The one operating point of a network that has no others."""
    return {"": net}


@dataclass(frozen=True, kw_only=True)
class Phase(Generic[N]):
    """A stretch of training under one loss.

    `progress` is the fraction of *this phase* that is done, in [0, 1].
    """

    name: str
    share: float
    """Fraction of the trial's epochs; the shares of a method sum to 1."""
    loss: Callable[[N, Images, Labels], Tensor]
    parameters: Callable[[N], Sequence[Group]] = all_alike
    advance: Callable[[N, float], None] = stand_still
    """Called before each optimiser step."""
    finish: Callable[[N, Iterable[Images]], None] = leave
    """Called once after the last step, in training mode and without gradients, with one pass over
    the phase's images as it trained on them."""
    points: Callable[[N], Mapping[str, Network]] = itself
    """Operating points that the finished phase offers: name -> network that prices itself, which
    the method's `deploy` takes. The last one stands for the trial in the search."""
    part: tuple[float, float] = (0.0, 1.0)
    """Where in the training split the phase's samples begin and end, as fractions; an epoch takes
    as many steps over a part as over the whole."""
    lr: float | None = None
    """Peak learning rate of this phase; None takes the recipe's."""
    schedule: Literal["cosine", "step", "constant"] | None = None
    """Learning-rate schedule of this phase; None takes the recipe's."""


@dataclass(frozen=True)
class Search:
    """Annotation of a hyperparameter: the range that a sweep searches unless the study narrows it.

    Numbers take `low` and `high` (inclusive) with `log` or `step`; closed choices take `choices`.
    A field without this annotation keeps its default unless the study opens it.
    """

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None
    choices: tuple[Any, ...] | None = None


class Method(Plain):
    """Base of every method's configuration: a frozen value whose fields are its hyperparameters.

    Bounds stand in the annotation as pydantic's `Field(ge=..., le=...)`, the default search range
    as `Search(...)`, the paper's value as the default, the meaning as the line under the field.
    """

    @classmethod
    def of(cls: type[M], params: Mapping[str, Any]) -> M:
        """The method with these hyperparameters, defaults for the rest.

        Raises:
            MethodError: an unknown field, or a value outside its bounds.
        """
        try:
            return cls(**params)
        except pydantic.ValidationError as error:
            raise MethodError(explain(cls, error), at=error.errors()[0]["loc"]) from None

    def build(self, task: Task) -> Any:
        """A freshly initialised network for `task`; draws from torch's global generator."""
        raise NotImplementedError

    def phases(self, smoothing: float = 0.0) -> Sequence[Phase[Any]]:
        """The stretches of training, in order; `smoothing` softens the labels of cross-entropy."""
        raise NotImplementedError

    def deploy(self, net: Any) -> nn.Module:
        """The network as shipped, images -> logits: it executes what `net` says it costs.

        A new module in evaluation mode; `net` is left as it was.
        """
        raise NotImplementedError

    def floor(self, task: Task) -> int:
        """The least MACs a sample can cost, in closed form or priced without training."""
        raise NotImplementedError

    def alarm(self, _net: Any, _images: Images) -> str | None:
        """What looks wrong in how the network treats these images, in one sentence, if anything."""
        return None


class StaticNet(Network):
    """A backbone that costs the same for every sample."""

    def __init__(self, backbone: nn.Module, cost: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.cost = cost
        """MACs of one sample."""

    def forward(self, images: Images) -> Output:
        logits = self.backbone(images)
        price = torch.full((len(images),), self.cost, dtype=torch.float64, device=images.device)
        return Output(logits, price)


def cross_entropy(
    net: Network, images: Images, labels: Labels, *, smoothing: float = 0.0
) -> Tensor:
    """Mean cross-entropy of the batch, in nats."""
    return F.cross_entropy(net(images).logits, labels, label_smoothing=smoothing)


def point_of(method: Method, net: Network, point: str) -> Network:
    """A network at one of its operating points; a view, which prices itself.

    Raises:
        StorageError: it has none of this name.
    """
    phases, known = method.phases(), []
    for phase in phases:
        prefix = phase.name if len(phases) > 1 else ""
        for own, found in phase.points(net).items():
            known.append("/".join(part for part in (prefix, own) if part))
            if known[-1] == point:
                return found
    raise StorageError(f"there is no operating point {point!r}; valid: {', '.join(known)}")
