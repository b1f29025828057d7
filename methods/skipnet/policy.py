"""SkipNet's decisions and their rewards, as functions of the gates' log odds.

Wang et al., SkipNet (arXiv 1711.09485v2), section 3.3.
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from methods.parallel import per_sample
from methods.skipnet.gates import Logit

Actions = Float[Tensor, "batch gates"]

FEW = 0.05
"""Share of the gated blocks that run, or skip, below which gates have collapsed."""
STILL = 0.01
"""Bits that a gate carries on average below which a network is static."""


def threshold(_gate: int, odds: Logit) -> Logit:
    """Run if the gate's probability exceeds one half, as in the authors' code, not Eq. 7."""
    return (odds > 0).to(odds.dtype)


def straight_through(_gate: int, odds: Logit) -> Logit:
    """`threshold` forward; backward, the gradient of the gate's probability (section 3.3)."""
    return _StraightThrough.apply(odds)  # type: ignore[no-any-return, no-untyped-call]


def sample(temperature: float, _gate: int, odds: Logit) -> Logit:
    """Run with the gate's probability at `temperature`; draws from torch's global generator."""
    probability = torch.sigmoid(odds.detach() / temperature)
    return (per_sample(torch.rand_like, probability) < probability).to(odds.dtype)


def noisy(temperature: float, gate: int, odds: Logit) -> Logit:
    """`straight_through` on log odds with logistic noise; draws from torch's global generator.

    At temperature 1 it runs as often as `sample`.
    """
    uniform = per_sample(torch.rand_like, odds).clamp(1e-6, 1 - 1e-6)
    return straight_through(gate, odds + temperature * torch.logit(uniform))


def pressure(rate: Tensor, target: float) -> Float[Tensor, ""]:
    """How much skipping is rewarded where this share of MACs runs, in [-1, 1].

    It is the derivative of 2 (rate / target - 1)^2, bounded: a proportional controller.
    """
    return (4 * (rate / target - 1) / target).clamp(-1, 1)


def returns(
    actions: Actions,
    task_loss: Float[Tensor, " batch"],
    *,
    alpha: float | Tensor,
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


def collapse(decisions: Bool[Tensor, "batch gates"], advice: str) -> str | None:
    """A one-sentence warning with the advice if these decisions are degenerate, else None.

    They are if under 5 % or over 95 % of the blocks run, or if gates on average carry under 0.01
    bits.
    """
    rates = decisions.double().mean(0)
    executed = float(rates.mean())
    nats = -(torch.xlogy(rates, rates) + torch.xlogy(1 - rates, 1 - rates)).mean()
    bits = abs(float(nats)) / math.log(2)
    if not FEW <= executed <= 1 - FEW:
        return f"gates have collapsed: {executed:.1%} of the gated blocks run; {advice}"
    if bits < STILL:
        return (
            f"gates decide alike for every image ({bits:.3f} bits a gate): this network is static; "
            f"{advice}"
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
