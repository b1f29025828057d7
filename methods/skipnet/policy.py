"""SkipNet's decisions and their rewards, as functions of the gates' log odds.

Wang et al., SkipNet (arXiv 1711.09485v2), section 3.3.
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from methods.skipnet.gates import Logit

Actions = Float[Tensor, "batch gates"]


def threshold(_gate: int, odds: Logit) -> Logit:
    """Run if the gate's probability exceeds one half, as in the authors' code, not Eq. 7."""
    return (odds > 0).to(odds.dtype)


def straight_through(_gate: int, odds: Logit) -> Logit:
    """`threshold` forward; backward, the gradient of the gate's probability (section 3.3)."""
    return _StraightThrough.apply(odds)  # type: ignore[no-any-return, no-untyped-call]


def sample(temperature: float, _gate: int, odds: Logit) -> Logit:
    """Run with the gate's probability at `temperature`; draws from torch's global generator."""
    probability = torch.sigmoid(odds.detach() / temperature)
    return (torch.rand_like(probability) < probability).to(odds.dtype)


def returns(
    actions: Actions,
    task_loss: Float[Tensor, " batch"],
    *,
    alpha: float,
    beta: float,
    worth: Float[Tensor, " gates"] | None = None,
) -> Float[Tensor, "batch gates"]:
    """Reward to go at each gate, in nats: that of the skips ahead minus the loss (section 3.3).

    `worth` scales the reward of each gate's skip; None means 1. The result has no gradient.
    """
    rewards = (1 - actions) * (alpha / actions.shape[1])
    if worth is not None:
        rewards = rewards * worth.to(rewards.dtype)
    ahead = rewards.flip(1).cumsum(1).flip(1)
    return (ahead - beta * task_loss[:, None]).detach()


def policy_loss(
    odds: Float[Tensor, "batch gates"],
    actions: Actions,
    advantages: Float[Tensor, "batch gates"],
) -> Float[Tensor, " batch"]:
    """REINFORCE loss per sample: its expected gradient is that of the negative expected return."""
    log_probability = F.logsigmoid(torch.where(actions > 0, odds, -odds))
    return -(advantages.detach() * log_probability).sum(1)


def collapse(decisions: Bool[Tensor, "batch gates"]) -> str | None:
    """A one-sentence warning if these decisions are degenerate, else None.

    They are if under 5 % or over 95 % of the blocks run, or if gates on average carry under 0.01
    bits.
    """
    rates = decisions.double().mean(0)
    executed = float(rates.mean())
    nats = -(torch.xlogy(rates, rates) + torch.xlogy(1 - rates, 1 - rates)).mean()
    bits = abs(float(nats)) / math.log(2)
    if executed < 0.05:
        return f"gates have collapsed: {executed:.1%} of the gated blocks run; try a gate_bias > 0"
    if executed > 0.95:
        return f"gates have collapsed: {executed:.1%} of the gated blocks run; try a larger alpha"
    if bits < 0.01:
        return (
            f"gates decide alike for every image ({bits:.3f} bits a gate): this network is static"
        )
    return None


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, odds: Tensor) -> Tensor:
        ctx.save_for_backward(odds)
        return (odds > 0).to(odds.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        probability = torch.sigmoid(ctx.saved_tensors[0])
        return gradients[0] * probability * (1 - probability)
