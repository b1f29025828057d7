"""What deciding per image is worth: a split under the decisions of other images.

Give each image the decisions of another one: the MACs stay the same to the last, and what accuracy
falls by is what deciding per image is worth. Where it does not fall, the network is static, however
much its MACs vary. The majority's decisions for all images give the static network inside.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped

from methods.api import RoutedNetwork
from methods.data.load import Split
from methods.training.evaluate import Evaluation, evaluate
from methods.training.figures import exchange, majority

DRAWS = 4
"""Exchanges of decisions between the images of a split, whose results are averaged."""


@dataclass(frozen=True, kw_only=True)
class Routing:
    """A split under the network's own decisions, and under those that were made elsewhere."""

    own: Evaluation
    another: tuple[Evaluation, ...]
    """Each image under another one's decisions, once for every exchange."""
    majority: Evaluation
    """All images under the most frequent value of each decision, or the mean of each weight."""
    everything: Evaluation | None
    """All images with all that can run; None where there is no such thing."""

    @property
    def worth(self) -> Float[np.ndarray, " samples"]:
        """How much more often each image is right by its own decisions, in [-1, 1]."""
        others = np.mean([evaluation.correct for evaluation in self.another], axis=0)
        return self.own.correct - others  # type: ignore[no-any-return]


def routing(
    net: RoutedNetwork,
    split: Split,
    own: Evaluation,
    *,
    draws: int = DRAWS,
    device: str | torch.device = "cpu",
) -> Routing:
    """The split under others' decisions; `own` is what `evaluate` gives for it."""
    assert own.decisions is not None, "a network that routes has decided"
    decisions, samples = own.decisions, len(own.decisions)

    def under(rows: Shaped[np.ndarray, "samples decisions"]) -> Evaluation:
        return evaluate(net, split, decisions=torch.from_numpy(rows), device=device)

    most = net.everything()
    return Routing(
        own=own,
        another=tuple(under(decisions[exchange(samples, draw)]) for draw in range(draws)),
        majority=under(np.tile(majority(decisions), (samples, 1))),
        everything=None if most is None else under(np.tile(most.cpu().numpy(), (samples, 1))),
    )
