"""The contract between a method and everything that trains, prices and compares it.

Three ideas carry it: a method is a value (`Method`), a network prices itself (`Output.macs`), and
there is one clock (`progress` in [0, 1], see `Phase`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

import pydantic
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from methods.errors import MethodError, StorageError
from methods.machine import avoid_faulty_kernels
from methods.values import Params, Plain, Scalar, explain

avoid_faulty_kernels()  # every network imports this module before its first convolution

Images = Float[Tensor, "batch channels height width"]
Labels = Int[Tensor, " batch"]
Features = Float[Tensor, "batch channels height width"]
Changed = Float[Tensor, "batch out_channels out_height out_width"]
Decisions = Shaped[Tensor, "batch decisions"]
"""What runs on each image: boolean for parts that run or not, whole for the index of a choice, real
for the weights of a mixture."""
Family = Literal["cifar", "imagenet"]
"""Kind of backbone: three stages for small images, or four for large ones."""

Optimiser = Literal["sgd", "rmsprop", "adamw"]

BACKBONE = "backbone."
"""Prefix of the state of a network's backbone."""


class Output(NamedTuple):
    """Logits, and the cost of each sample in the deployed network, in MACs."""

    logits: Float[Tensor, "batch classes"]
    macs: Float[Tensor, " batch"]


class Network(nn.Module):
    """A network that prices itself: `forward(images) -> Output`."""

    def forward(self, images: Images) -> Output:
        raise NotImplementedError


class RoutedNetwork(Network):
    """A network that decides for each image what runs on it, and follows others' decisions too.

    Decisions are a value, so that what deciding per image is worth can be measured: give each image
    the decisions of another one.
    """

    def route(self, images: Images, decisions: Decisions | None = None) -> tuple[Output, Decisions]:
        """The output under these decisions, by default its own, and the decisions.

        The price is that of the decisions. A network that is handed its own decisions gives its own
        output, and an image's output depends on its own row alone.
        """
        raise NotImplementedError

    def everything(self) -> Shaped[Tensor, " decisions"] | None:
        """The decisions of an image on which all runs that can; None where there are none such."""
        return None

    def forward(self, images: Images) -> Output:
        return self.route(images)[0]


N = TypeVar("N", bound=Network)
S = TypeVar("S", bound="Settings")
M = TypeVar("M", bound="Method")


@dataclass(frozen=True)
class Task:
    """The classification task of a network: image shape in pixels and number of classes."""

    name: str
    channels: int
    height: int
    width: int
    classes: int


@dataclass(frozen=True)
class Group:
    """Parameters that share optimiser settings; None means the recipe's value."""

    parameters: Sequence[nn.Parameter]
    lr_scale: float = 1.0
    weight_decay: float | None = None
    momentum: float | None = None


def all_alike(net: Network) -> Sequence[Group]:
    """Every trainable parameter, with the recipe's settings."""
    return [Group([p for p in net.parameters() if p.requires_grad])]


def stand_still(net: Network, progress: float) -> None:
    """The `advance` of a phase that schedules nothing."""


def leave(net: Network, batches: Iterable[Images]) -> None:
    """The `finish` of a phase that leaves the network as it is after the last step."""


def itself(net: Network) -> Mapping[str, Network]:
    """The `points` of a phase with a single operating point: the network itself."""
    return {"": net}


@dataclass(frozen=True, kw_only=True)
class Phase(Generic[N]):
    """A part of training with one loss.

    `progress` is the completed fraction of *this phase*, in [0, 1].
    """

    name: str
    share: float
    """Fraction of the trial's epochs; the shares of a method sum to 1."""
    loss: Callable[[N, Images, Labels], Tensor]
    parameters: Callable[[N], Sequence[Group]] = all_alike
    advance: Callable[[N, float], None] = stand_still
    """Called before each optimiser step."""
    finish: Callable[[N, Iterable[Images]], None] = leave
    """Called once after the last step, in training mode and without gradients; gets one pass over
    the phase's images, augmented as in training."""
    points: Callable[[N], Mapping[str, Network]] = itself
    """Operating points of the finished phase: name -> network that prices itself and that the
    method's `deploy` accepts. The last one represents the trial in the search."""
    part: tuple[float, float] = (0.0, 1.0)
    """Start and end of the phase's samples in the training split, as fractions; an epoch has as
    many steps over a part as over the whole split."""
    lr: float | None = None
    """Peak learning rate of this phase; None means the recipe's."""
    schedule: Literal["cosine", "step", "exponential", "constant"] | None = None
    """Learning-rate schedule of this phase; None means the recipe's."""
    optimiser: Optimiser | None = None
    """The optimiser whose steps this phase is derived for, others being refused; None: any."""
    averaged: bool = True
    """Whether weights may be averaged over the steps of this phase, where the recipe does so."""


@dataclass(frozen=True)
class Search:
    """Annotation of a hyperparameter: the default range of the search, which a study may narrow.

    Numbers have `low` and `high` (inclusive) with `log` or `step`; closed choices have `choices`.
    A field without this annotation has its default value unless the study gives it a range.
    """

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None
    choices: tuple[Scalar, ...] | None = None


class Settings(Plain):
    """A frozen value whose fields are checked, documented and finite."""

    @classmethod
    def of(cls: type[S], params: Params) -> S:
        """The settings with these values, and defaults for the other fields.

        Raises:
            MethodError: an unknown field, or a value outside its bounds.
        """
        try:
            return cls(**params)
        except pydantic.ValidationError as error:
            raise MethodError(explain(cls, error), at=error.errors()[0]["loc"]) from None


class Method(Settings):
    """Base of every method's configuration; its fields are the hyperparameters.

    The annotation of a field holds its bounds as pydantic's `Field(ge=..., le=...)` and its default
    search range as `Search(...)`; its default is the paper's value; the line under it is its
    meaning.
    """

    PUBLISHED: ClassVar[Params] = {}
    """The paper's settings where they differ from the defaults here: fields of the method, and of
    the recipe as `recipe.lr`."""
    FORMER: ClassVar[Params] = {}
    """What networks of earlier versions were, by fields that those versions did not have yet, where
    that is not the default."""
    STARTED: ClassVar[Params] = {}
    """The defaults of fields where training starts from trained weights, if they are others."""
    ADDED: ClassVar[tuple[str, ...]] = ()
    """Parts that trained weights of a plain backbone may lack, by words between dots of names."""

    @classmethod
    def published(cls: type[M], **fields: Scalar) -> M:
        """The method as its paper has it, but for these fields; the recipe is the caller's.

        Raises:
            MethodError: an unknown field, or a value outside its bounds.
        """
        profile = {name: value for name, value in cls.PUBLISHED.items() if "." not in name}
        return cls.of({**profile, **fields})

    def build(self, task: Task) -> Any:
        """A freshly initialised network for `task`; draws from torch's global generator."""
        raise NotImplementedError

    def phases(self, smoothing: float = 0.0) -> Sequence[Phase[Any]]:
        """The phases of training, in order; `smoothing` is the label smoothing of cross-entropy."""
        raise NotImplementedError

    def deploy(self, net: Any) -> nn.Module:
        """The network as shipped, images -> logits: it executes the MACs that `net` reports.

        Returns a new module in evaluation mode; `net` is unchanged.
        """
        raise NotImplementedError

    def floor(self, task: Task) -> int:
        """The minimal MACs of a sample, in closed form or priced without training."""
        raise NotImplementedError

    def alarm(self, _net: Any, _images: Images) -> str | None:
        """A one-sentence warning about how the network treats these images, or None."""
        return None

    def unreduced(self) -> Params | None:
        """The same network without what the method saves; None if it saves nothing, or if its own
        network shows that, with all run.

        Fields as a study gives them: those of this method that change, or `method`, another one of
        the catalogue, with its fields. A static network of one phase and one operating point that
        costs no less. It is trained as long, by the same recipe, to tell what the saving costs.
        """
        return None

    def plain(self) -> Params | None:
        """The network of the catalogue whose trained weights this one can start from; None if there
        is none. Fields as `unreduced` gives them, of a static network of one phase."""
        return None

    def places(self, net: Any) -> Mapping[str, str]:
        """Where trained weights belong: name in a plain backbone -> name in the network's state.

        By default the names below `backbone`, or all names where the network has no such part.
        """
        names = [name for name in net.state_dict() if not name.endswith("_extra_state")]
        inside = {n.removeprefix(BACKBONE): n for n in names if n.startswith(BACKBONE)}
        return inside or {name: name for name in names}

    def placed(self, weight: Tensor, place: Tensor) -> Tensor | None:
        """A trained weight as it enters its place in a new network; None if it does not fit."""
        return weight if weight.shape == place.shape else None


class StaticNet(Network):
    """A backbone with the same cost for every sample."""

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
    """A view of a network at one of its operating points; the view prices itself.

    Raises:
        StorageError: no operating point has this name.
    """
    phases, views = method.phases(), {}
    for phase in phases:
        prefix = phase.name if len(phases) > 1 else ""
        for name, view in phase.points(net).items():
            views["/".join(part for part in (prefix, name) if part)] = view
    if point not in views:
        raise StorageError(f"there is no operating point {point!r}; valid: {', '.join(views)}")
    return views[point]
