"""SkipNet's decisions and what they earn, as functions of the gates' log odds.

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
    """Run where the gate's probability is above one half; the code's strict rule, not Eq. 7's."""
    return (odds > 0).to(odds.dtype)


def straight_through(_gate: int, odds: Logit) -> Logit:
    """`threshold` forward, the gradient of the gate's probability backward (section 3.3)."""
    return _StraightThrough.apply(odds)  # type: ignore[no-any-return, no-untyped-call]


def sample(temperature: float, _gate: int, odds: Logit) -> Logit:
    """Run with the gate's probability; draws from torch's global generator."""
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
    """Reward to go at each gate, in nats: skips ahead, less the loss (section 3.3).

    `worth` scales the reward of each gate's skip; none means 1. No gradient passes.
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
    """REINFORCE per sample: its gradient on average is that of minus the expected return."""
    log_probability = F.logsigmoid(torch.where(actions > 0, odds, -odds))
    return -(advantages.detach() * log_probability).sum(1)


def collapse(decisions: Bool[Tensor, "batch gates"]) -> str | None:
    """What is degenerate in these decisions, in one sentence, if anything.

    Blocks executed below 5 % or above 95 %, or gates that on average carry less than 0.01 bits.
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
