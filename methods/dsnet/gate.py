"""The gate of DS-Net: what it reads, its logits, and how it is brought to a target cost."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from methods.api import Features, Labels
from methods.dsnet.layers import Reduced
from methods.parallel import batch_mean

GateInput = Literal["squeezed", "statistics"]
"""squeezed: the squeezed vector; statistics: mean, maximum and deviation of each channel of the map
that is squeezed."""
TaskLoss = Literal["miss", "cross_entropy"]
"""miss: the probability that a width gives to wrong classes; cross_entropy: in nats."""
Reading = Float[Tensor, "batch inputs"]
"""What the gate reads of each image."""
Odds = Float[Tensor, "batch choices"]
"""The gate's raw logits."""
Costs = Float[Tensor, " choices"]
"""MACs of each choice over those of the widest, ascending."""

STATISTICS = 3
"""Numbers that the gate reads of a channel."""
EPSILON = 1e-5
HALVINGS = 50
"""Steps of the bisection for a shift."""


def reading(kind: GateInput, features: Features, reduced: Reduced) -> Reading:
    """What a gate of this kind reads of a map and its squeezed vector; no gradient reaches a map.

    Means, maxima and deviations are pooling, which costs no MACs.
    """
    if kind == "squeezed":
        return reduced
    features = features.detach().to(torch.promote_types(features.dtype, torch.float32))
    mean = features.mean((2, 3), keepdim=True)
    deviation = (features - mean).square().mean((2, 3)).sqrt()
    return torch.cat([mean.flatten(1), features.amax((2, 3)), deviation], 1)


def task_losses(kind: TaskLoss, logits: Tensor, labels: Labels, smoothing: float) -> Tensor:
    """The loss of each image at one width, for the gate to weigh; smoothing only scales a miss."""
    if kind == "miss":
        return 1 + F.nll_loss(logits.softmax(1), labels, reduction="none")
    return F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)


class Gate(nn.Module):
    """The logits of the choices: a linear map, as published without a norm and a bias."""

    def __init__(self, inputs: int, choices: int, *, normed: bool = False, bias: bool = False):
        super().__init__()
        plain = nn.Linear(inputs, choices, bias=bias)
        self.weight, self.bias = plain.weight, plain.bias
        self.norm = Standard(inputs) if normed else None

    def forward(self, inputs: Reading) -> Odds:
        return F.linear(inputs if self.norm is None else self.norm(inputs), self.weight, self.bias)

    def at(self) -> nn.Linear:
        """A plain linear map that equals the gate in evaluation mode, its norm folded in."""
        weight, bias = self.weight.detach(), None if self.bias is None else self.bias.detach()
        if self.norm is not None:
            scale, shift = self.norm.affine()
            shift = (weight.double() @ shift).to(weight)
            weight = weight * scale.to(weight)
            bias = shift if bias is None else bias + shift
        plain = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
        plain.weight = nn.Parameter(weight.clone(), requires_grad=False)
        if bias is not None:
            plain.bias = nn.Parameter(bias.clone(), requires_grad=False)
        return plain

    @torch.no_grad()
    def shift(self, odds: Odds, costs: Costs, target: float) -> None:
        """Add to the bias what brings the mean cost of decisions by `odds` to the target."""
        self.bias.add_(shift(odds, costs, target))


class Standard(nn.Module):
    """A norm without parameters: mean and deviation of all that it has read in training.

    The layers before the gate are frozen, so that no image's reading grows old.
    """

    batches: Tensor
    mean: Tensor
    square: Tensor

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.register_buffer("batches", torch.tensor(0.0, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(inputs, dtype=torch.float64))
        self.register_buffer("square", torch.ones(inputs, dtype=torch.float64))

    def forward(self, inputs: Reading) -> Reading:
        if self.training:
            self._learn(inputs)
        scale, shift = self.affine()
        return torch.addcmul(shift.to(inputs), inputs, scale.to(inputs))

    def affine(self) -> tuple[Float[Tensor, " inputs"], Float[Tensor, " inputs"]]:
        """Scale and shift of each input."""
        variance = (self.square - self.mean.square()).clamp(min=0)
        scale = (variance + EPSILON).rsqrt()
        return scale, -self.mean * scale

    @torch.no_grad()
    def _learn(self, inputs: Reading) -> None:
        exact = inputs.double()
        self.batches += 1
        self.mean.lerp_(batch_mean(exact.mean(0)), 1 / self.batches)
        self.square.lerp_(batch_mean(exact.square().mean(0)), 1 / self.batches)


def shift(odds: Odds, costs: Costs, target: float) -> Costs:
    """What to add to the logit of each choice so that the mean cost of the decisions is `target`.

    A multiple of the cost, found by bisection: the more of it, the dearer the decisions.
    """
    axis = (costs - costs.mean()).to(odds)
    reach = float((odds.max() - odds.min()) / axis.diff().min()) + 1  # beyond it all decide alike
    low, high = -reach, reach
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        spent = float(costs[(odds + middle * axis).argmax(1)].mean())
        low, high = (middle, high) if spent < target else (low, middle)
    return high * axis
