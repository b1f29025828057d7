"""SkipNet's gates: small networks that give, per image, the log odds of running a block.

Wang et al., SkipNet (arXiv 1711.09485v2), section 3.2. A gate returns a logit: the log odds of
running, so that `logit > 0` is the paper's p > 0.5 for the softmax of two and for the sigmoid.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from methods.api import Features
from methods.fold import fold
from methods.parallel import size
from methods.resnet import initialise

Kind = Literal["ffgate-1", "ffgate-2", "rnn"]
State = tuple[Tensor, Tensor] | None
"""The state of the gates between blocks: hidden and cell state, or None."""
Logit = Float[Tensor, " batch"]

HIDDEN = 10
"""Size of the recurrent gate's embedding, hidden and cell state."""


class PooledNorm(nn.BatchNorm1d):
    """A norm without parameters on pooled features, which share a large mean behind a ReLU.

    Without it a gate sees nearly the same numbers for every image.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, affine=False)

    def forward(self, pooled: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        if size(len(pooled)) > 1:
            return super().forward(pooled)
        return F.batch_norm(pooled, self.running_mean, self.running_var, eps=self.eps)


class FeedForwardGates(nn.Module):
    """One small convolutional network for each block, of the first or the cheaper second kind."""

    def __init__(
        self, channels: Sequence[int], kind: Literal["ffgate-1", "ffgate-2"], norm: bool = False
    ) -> None:
        super().__init__()
        body = _first if kind == "ffgate-1" else _second
        self.bodies = nn.ModuleList(body(width) for width in channels)
        self.norms = _norms(channels, norm)
        self.heads = nn.ModuleList(_linear(width, 2) for width in channels)
        initialise(self)

    def forward(self, index: int, features: Features, state: State) -> tuple[Logit, State]:
        """The log odds of running block `index + 1` on the output of block `index`."""
        pooled = self.norms[index](self.bodies[index](features).mean((2, 3)))
        skip, run = self.heads[index](pooled).unbind(1)
        return run - skip, state

    @property
    def readers(self) -> nn.ModuleList:
        """The linear maps that read the pooled features."""
        return self.heads

    @torch.no_grad()
    def favour(self, logit: float) -> None:
        """Add `logit` to the log odds of running of every gate."""
        for head in self.heads:
            assert isinstance(head, nn.Linear)
            head.bias[1].add_(logit)


class RecurrentGates(nn.Module):
    """One shared LSTM that steps over depth; each block has a separate embedding.

    Its step is written out in linear maps, which every MAC counter sees; none sees nn.LSTM.
    """

    def __init__(self, channels: Sequence[int], norm: bool = False) -> None:
        super().__init__()
        self.norms = _norms(channels, norm)
        self.embeddings = nn.ModuleList(_linear(width, HIDDEN) for width in channels)
        self.enter = nn.Linear(HIDDEN, 4 * HIDDEN)
        self.recur = nn.Linear(HIDDEN, 4 * HIDDEN)
        self.head = nn.Linear(HIDDEN, 1)

    def forward(self, index: int, features: Features, state: State) -> tuple[Logit, State]:
        """The log odds of running block `index + 1`, and the state for the next gate."""
        embedded = self.embeddings[index](self.norms[index](features.mean((2, 3))))
        hidden, cell = _start(embedded) if state is None else state
        hidden, cell = _step(self.enter(embedded) + self.recur(hidden), cell)
        return self.head(hidden).squeeze(1), (hidden, cell)

    @property
    def readers(self) -> nn.ModuleList:
        """The linear maps that read the pooled features."""
        return self.embeddings

    @torch.no_grad()
    def favour(self, logit: float) -> None:
        """Add `logit` to the log odds of running of every gate."""
        self.head.bias.add_(logit)


class LeanRecurrentGates(nn.Module):
    """The recurrent gates as shipped, norms folded: the same products in few calls of torch."""

    def __init__(self, gates: RecurrentGates) -> None:
        super().__init__()
        self.embeddings = gates.embeddings
        self.head = gates.head
        self.enter = gates.enter
        self.recur = gates.recur

    def forward(self, index: int, features: Features, state: State) -> tuple[Logit, State]:
        """The log odds of running block `index + 1`, and the state for the next gate."""
        embedded = self.embeddings[index](features.mean((2, 3)))
        enter, recur = self.enter, self.recur
        weights = enter.weight, recur.weight, enter.bias, recur.bias
        state = torch.lstm_cell(embedded, state or _start(embedded), *weights)
        return self.head(state[0]).squeeze(1), state


Gates = FeedForwardGates | RecurrentGates


def make_gates(
    kind: Kind, channels: Sequence[int], bias: float = 0.0, *, norm: bool = False
) -> Gates:
    """Freshly initialised gates, one for each block's output width; `norm` their pooled input.

    As in the authors' code, the last gate exists but is never used; it does not train.
    """
    gates: Gates = (
        RecurrentGates(channels, norm) if kind == "rnn" else FeedForwardGates(channels, kind, norm)
    )
    unused = (
        [gates.embeddings[-1]]
        if isinstance(gates, RecurrentGates)
        else [gates.bodies[-1], gates.heads[-1]]
    )
    for part in unused:
        part.requires_grad_(False)
    if bias:
        gates.favour(bias)
    return gates


@torch.no_grad()
def folded(gates: Gates) -> FeedForwardGates | LeanRecurrentGates:
    """The gates as shipped: each norm is part of the linear map that reads it."""
    plain = fold(gates)
    for index, (norm, reader) in enumerate(zip(plain.norms, plain.readers, strict=True)):
        if isinstance(norm, PooledNorm):
            assert isinstance(reader, nn.Linear)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            reader.weight.div_(torch.sqrt(norm.running_var + norm.eps))
            reader.bias.sub_(reader.weight @ norm.running_mean)
            plain.norms[index] = nn.Identity()
    return LeanRecurrentGates(plain) if isinstance(plain, RecurrentGates) else plain


def _norms(channels: Sequence[int], norm: bool) -> nn.ModuleList:
    return nn.ModuleList(PooledNorm(width) if norm else nn.Identity() for width in channels)


def _first(width: int) -> nn.Sequential:
    return nn.Sequential(nn.MaxPool2d(2), *_convolved(width, 1), *_convolved(width, 2))


def _second(width: int) -> nn.Sequential:
    return nn.Sequential(*_convolved(width, 2))


def _convolved(width: int, stride: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
    return conv, nn.BatchNorm2d(width), nn.ReLU()


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear map of a pooled feature map, initialised as a 1x1 convolution."""
    linear = nn.Linear(inputs, outputs)
    nn.init.normal_(linear.weight, std=(2 / outputs) ** 0.5)
    return linear


def _start(embedded: Tensor) -> tuple[Tensor, Tensor]:
    zeros = embedded.new_zeros(embedded.shape[0], HIDDEN)
    return zeros, zeros


def _step(mixed: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    input_, forget, candidate, output = mixed.chunk(4, 1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(input_) * torch.tanh(candidate)
    return torch.sigmoid(output) * torch.tanh(cell), cell
