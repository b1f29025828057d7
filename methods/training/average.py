"""The moving average of the weights that a phase trains.

It is a few lines of our own: torch's AveragedModel copies the whole network, averages masks and
counters too, and starts with the random weights at full decay.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

STATISTICS = "running_"
"""Beginning of the names of the norms' statistics, which are averaged like the weights."""


class Average:
    """An exponential moving average of what a phase trains, which takes its place to be looked at.

    It has the weights and, of all buffers, the running statistics of norms: masks, counters and
    clocks are those of the last step. A weight that is exactly zero is zero in the average too: it
    was pruned.
    """

    def __init__(self, net: nn.Module, trained: Sequence[nn.Parameter], decay: float) -> None:
        """An average that starts with the weights that the network has now."""
        ids = {id(parameter) for parameter in trained}
        weights = {name: p.detach() for name, p in net.named_parameters() if id(p) in ids}
        statistics = {
            name: buffer
            for name, buffer in net.named_buffers()
            if name.rpartition(".")[2].startswith(STATISTICS)
        }
        self._decay = decay
        self._updates = 0
        self._shown = False
        self._weights = len(weights)
        self._inside = {**weights, **statistics}
        self._others = {name: value.clone() for name, value in self._inside.items()}
        """The average or, while that is shown, what the network trains."""

    def update(self) -> None:
        """Takes in the weights after a step, with a decay that rises: (1 + n) / (10 + n), as in
        TensorFlow, until it is as given."""
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average([*self._others.values()], [*self._inside.values()], self._updates)
        self._updates += 1

    def show(self) -> None:
        """Puts the average into the network, and keeps what it trains."""
        for name in [*self._inside][: self._weights]:
            self._others[name].masked_fill_(self._inside[name] == 0, 0)
        self._exchange()

    def hide(self) -> None:
        """Puts back what the network trains, if the average is shown."""
        if self._shown:
            self._exchange()

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it beside the network, in which it is shown."""
        return {"updates": self._updates, "trained": self._others}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues an average that is shown in the network."""
        self._updates, self._shown = int(state["updates"]), True
        for name, value in state["trained"].items():
            self._others[name].copy_(value)

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, inside in self._inside.items():
            held: Tensor = inside.clone()
            inside.copy_(self._others[name])
            self._others[name].copy_(held)
        self._shown = not self._shown
