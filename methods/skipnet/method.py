"""SkipNet: a gate in front of each block decides, per image, whether the block runs."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Annotated, ClassVar, Literal

import pydantic
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from methods.api import (
    Family,
    Group,
    Images,
    Labels,
    Method,
    Phase,
    Search,
    Task,
    all_alike,
    cross_entropy,
)
from methods.macs import quiet
from methods.parallel import batch_mean
from methods.resnet import check_depth, resnet
from methods.skipnet.gates import Kind, make_gates
from methods.skipnet.network import SkippingNet, SkipResNet, prices
from methods.skipnet.policy import (
    Actions,
    collapse,
    noisy,
    policy_loss,
    pressure,
    returns,
    sample,
)
from methods.skipnet.settle import gather, settle
from methods.values import Params

MOMENTUM = 0.9
"""Momentum of the running means of the return and of the share that runs."""
STRENGTH = 2.0
"""Weight of the squared relative error of the share, where its gradient is taken."""
ASTRAY = 0.1
"""Distance from the target, in shares of the gated MACs, that a shift of the gates cannot mend."""


class SkipNet(Method):
    """A gate in front of each block decides, per image, whether the block runs.

    Paper: Wang et al., SkipNet: Learning Dynamic Routing in Convolutional Networks, ECCV 2018,
    arXiv 1711.09485v2.

    As published:
    - the three gates and where they read; the first block always runs
    - supervised phase: hard gates, straight-through gradient, no cost term
    - policy phase: sampled actions, REINFORCE beside the cross-entropy
    - a skipped block keeps its projection and omits its ReLU

    Deviations:
    - the shipped network really skips, and a projection runs once per block
    - the policy term is a mean over the batch, not a sum; the return is always detached
    - smoothed labels stay out of the return
    - the cost counts gates, stem and head
    - both phases are shares of one trial
    - not in the paper, on by default, off as published: a target for the share of MACs that runs
      (target, hold_target), the body first (warm, kept), gates on normalised features (gate_norm),
      statistics gathered under decisions (regather), a cooling temperature, a baseline
    - not in the paper, off by default: gate_bias, frozen_norms, detach_gates, relative_cost, gates
      that learn without samples (learning)
    """

    PUBLISHED: ClassVar[Params] = {
        "alpha": 0.1,
        "target": 0.0,
        "warm": False,
        "gate_norm": False,
        "policy_share": 10 / 74,
        "policy_lr": 1e-4,
        "policy_schedule": "constant",
        "gate_lr_scale": 1.0,
        "policy_weight": 1.28,
        "cooling": 1.0,
        "baseline": False,
        "regather": False,
        "hold_target": False,
        "recipe.nesterov": False,
        "recipe.schedule": "step",
    }

    FORMER: ClassVar[Params] = {
        "target": 0.0,
        "warm": False,
        "gate_norm": False,
        "policy_schedule": "constant",
        "gate_lr_scale": 1.0,
        "cooling": 1.0,
        "regather": False,
        "hold_target": False,
    }

    alpha: Annotated[float, Field(ge=0, le=16), Search(low=1, high=8, log=True)] = 4.0
    """Reward for skipping every block, in nats of task loss (section 3.3; CIFAR 0.1, ImageNet
    0.01); with a target, the largest reward or penalty by which the target is approached."""
    target: Annotated[float, Field(ge=0, le=1), Search(low=0.3, high=0.9)] = 0.6
    """Share of the gated blocks' MACs that is to run, on average over images; 0: no target, and
    alpha alone decides (published)."""
    gate: Annotated[Kind, Search()] = "rnn"
    """Kind of gate: ffgate-1 and ffgate-2 cost 16 and 12 % of a block each, rnn next to nothing."""
    depth: Annotated[int, Field(ge=8, le=1202), Search(low=8, high=74, step=6)] = 38
    """Layers of the backbone: 6n+2 in the cifar family; 18, 34, 50, 101 or 152 in imagenet's."""
    width: Annotated[float, Field(ge=0.1, le=4), Search(low=0.25, high=1.0, step=0.25)] = 1.0
    """Multiplies every channel count; the result is rounded to a multiple of 4."""
    family: Family = "cifar"
    """cifar: three stages from 16 channels, behind ImageNet's stem for images above 64 px;
    imagenet: four stages from 64 channels."""
    warm: bool = True
    """Train the body first: blocks are dropped at random ever more often, and gates wait for the
    policy phase; false: gates train with the body through hard decisions (published)."""
    kept: Annotated[float, Field(gt=0, le=1)] = 0.8
    """With `warm`, the probability with which a block runs in the end of the body's phase; it falls
    from 1 to this within the first half, and not below the target."""
    gate_norm: bool = True
    """Normalise the pooled features that a gate reads, at no cost; without it, gates see nearly the
    same numbers for every image (published)."""
    learning: Literal["reinforce", "straight-through"] = "reinforce"
    """How gates learn in the policy phase: by reward for sampled actions, or by the gradient of the
    loss and of the cost through hard decisions."""
    policy_share: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Fraction of training in the policy phase (published: 10k of 74k iterations on CIFAR); the
    paper's ablations are 0, supervised only, and 1, reinforcement from the start."""
    policy_lr: Annotated[float, Field(gt=0, le=1), Search(low=0.01, high=0.1, log=True)] = 0.05
    """Peak learning rate of the policy phase (published: 1e-4)."""
    policy_schedule: Literal["cosine", "step", "constant"] = "cosine"
    """Learning rate over the policy phase (published: constant)."""
    gate_lr_scale: Annotated[float, Field(gt=0, le=10)] = 0.2
    """Learning rate of the gates in the policy phase, relative to the body's (published: 1)."""
    policy_weight: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Weight of the policy term beside the cross-entropy, both means (CIFAR: 0.01 for a sum over
    128 images, which is 1.28; ImageNet: 0.01)."""
    beta: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Weight of the task loss in the return (ImageNet: alpha over the number of gates)."""
    gate_bias: Annotated[float, Field(ge=-10, le=10)] = 0.0
    """Log odds added to every gate at initialisation; above 0, new networks run most blocks."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Divides the log odds that actions are sampled from; below 1, sampling is less random."""
    cooling: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Factor by which the temperature falls over the policy phase, so that what is sampled becomes
    what is decided (published: 1)."""
    baseline: bool = True
    """Subtract a running mean from the returns: less variance, the same expected gradient."""
    regather: bool = True
    """Gather the norms' statistics anew after the last step, under decisions instead of samples."""
    hold_target: bool = True
    """Shift the gates after the last step, so that the share that is decided is the target."""
    frozen_norms: bool = False
    """Freeze the normalisation statistics of the backbone in the policy phase."""
    detach_gates: bool = False
    """Keep the policy gradient out of the backbone."""
    relative_cost: bool = False
    """Reward each skip in proportion to the MACs that it saves, with mean 1, not all equally; a
    target implies it."""

    @pydantic.model_validator(mode="after")
    def _depth_exists(self) -> "SkipNet":
        check_depth(self.depth, self.family)
        if self.warm and not self.policy_share:
            raise ValueError(
                "with warm, gates train in the policy phase alone, but policy_share is 0; set "
                "warm to false, or policy_share above 0"
            )
        return self

    def build(self, task: Task) -> SkipResNet:
        """A freshly initialised network for `task`; draws from torch's global generator.

        Raises:
            MethodError: images too small for the family.
        """
        costs = prices(task, self.depth, self.width, self.family, self.gate)
        backbone = resnet(task, self.depth, self.width, family=self.family)
        widths = [block.outputs for block in backbone.units]
        gates = make_gates(self.gate, widths, self.gate_bias, norm=self.gate_norm)
        return SkipResNet(backbone, gates, costs)

    def phases(self, smoothing: float = 0.0) -> Sequence[Phase[SkipResNet]]:
        """The body with blocks dropped at random, or through hard gates; then the policy."""
        plain = partial(cross_entropy, smoothing=smoothing)
        phases: list[Phase[SkipResNet]] = [
            Phase(
                name="supervised",
                share=1 - self.policy_share,
                loss=partial(self._body_step, smoothing=smoothing) if self.warm else plain,
                parameters=_body if self.warm else all_alike,
                advance=partial(_begin, gated=not self.warm),
                finish=self._finish_body,
            ),
            Phase(
                name="policy",
                share=self.policy_share,
                loss=partial(self._policy_step, smoothing=smoothing),
                parameters=self._groups,
                advance=partial(_begin, gated=True, frozen=self.frozen_norms),
                finish=self._finish_policy,
                lr=self.policy_lr,
                schedule=self.policy_schedule,
            ),
        ]
        return [phase for phase in phases if phase.share]

    def deploy(self, net: SkipResNet) -> SkippingNet:
        """The network that skips: norms folded, samples gathered block by block."""
        return SkippingNet(net)

    def floor(self, task: Task) -> int:
        """MACs of a sample that skips every block but the first, all gates included."""
        return prices(task, self.depth, self.width, self.family, self.gate).floor

    def plain(self) -> Params:
        """The ResNet whose blocks are gated, from which the supervised phase may start."""
        return {
            "method": "dense",
            "depth": self.depth,
            "width": self.width,
            "family": self.family,
        }

    def alarm(self, net: SkipResNet, images: Images) -> str | None:
        """A warning if gates decide alike for all of these images, or never came to the target."""
        if not net.gated:
            return None
        with quiet(net):
            said = collapse(net.route(images)[1], self._advice())
        rate = float(net.rate)
        if said is None and self.target and net.steps and abs(rate - self.target) > ASTRAY:
            return (
                f"at its end the policy ran {rate:.0%} of the gated MACs, for a target of "
                f"{self.target:.0%}: raise alpha or policy_share"
            )
        return said

    def _advice(self) -> str:
        """What made gates decide per image, as measured in docs/dynamic.md."""
        if not self.target:
            return "give a target, such as 0.5: no alpha by itself leads to a share between"
        if not self.gate_norm:
            return "set gate_norm: without it a gate reads nearly the same of every image"
        if not self.warm:
            return "set warm: gates that learn with the body learn from noise"
        return "give more epochs or another target: here nothing was won by deciding per image"

    def _body_step(
        self, net: SkipResNet, images: Images, labels: Labels, *, smoothing: float
    ) -> Tensor:
        least = max(self.target, self.kept)
        keep = 1 - (1 - least) * min(1.0, 2 * net.progress)
        return F.cross_entropy(net.dropped(images, keep), labels, label_smoothing=smoothing)

    def _policy_step(
        self, net: SkipResNet, images: Images, labels: Labels, *, smoothing: float
    ) -> Tensor:
        temperature = self.temperature * self.cooling**net.progress
        if self.learning == "straight-through":
            trace = net.run(images, partial(noisy, temperature), detach=self.detach_gates)
            task_loss = F.cross_entropy(trace.logits, labels, label_smoothing=smoothing)
            share = batch_mean(net.share(trace.actions).mean())
            _follow(net.rate, share.detach(), net.steps)
            net.steps += 1
            error = share if not self.target else STRENGTH * (share / self.target - 1) ** 2
            return task_loss + self.alpha * error
        trace = net.run(images, partial(sample, temperature), detach=self.detach_gates)
        task_loss = F.cross_entropy(trace.logits, labels, reduction="none")
        gains = returns(
            trace.actions,
            task_loss,
            alpha=self._reward(net, trace.actions),
            beta=self.beta,
            worth=net.savings / net.savings.mean() if self.relative_cost or self.target else None,
        )
        advantages = _above(net, gains) if self.baseline else gains
        net.steps += 1
        surrogate = policy_loss(trace.odds / temperature, trace.actions, advantages)
        loss = F.cross_entropy(trace.logits, labels, label_smoothing=smoothing)
        return loss + self.policy_weight * surrogate.mean()

    def _reward(self, net: SkipResNet, actions: Actions) -> float | Tensor:
        """Reward for skipping every block; with a target, what leads the share towards it."""
        if not self.target:
            return self.alpha
        _follow(net.rate, batch_mean(net.share(actions).mean()), net.steps)
        return self.alpha * pressure(net.rate, self.target)

    def _groups(self, net: SkipResNet) -> Sequence[Group]:
        gates = [p for p in net.gates.parameters() if p.requires_grad]
        return [*_body(net), Group(gates, lr_scale=self.gate_lr_scale)]

    def _finish_body(self, net: SkipResNet, batches: Iterable[Tensor]) -> None:
        if self.warm and self.regather:
            gather(net, batches)

    def _finish_policy(self, net: SkipResNet, batches: Iterable[Tensor]) -> None:
        target = self.target if self.hold_target else 0.0
        if self.regather or target:
            settle(net, batches, regather=self.regather, target=target)


@torch.no_grad()
def _above(net: SkipResNet, gains: Tensor) -> Tensor:
    """The returns less their running mean at each gate, which begins with the first batch."""
    mean = batch_mean(gains.mean(0))
    if not net.steps:
        net.expected.copy_(mean)
    advantages = gains - net.expected
    _follow(net.expected, mean, net.steps)
    return advantages


@torch.no_grad()
def _follow(mean: Tensor, value: Tensor, steps: Tensor) -> None:
    """Move a running mean towards a value; the first value is the mean."""
    mean.lerp_(value.to(mean.dtype), torch.where(steps > 0, 1 - MOMENTUM, 1.0))


def _begin(net: SkipResNet, progress: float, *, gated: bool, frozen: bool = False) -> None:
    net.gated = gated
    net.progress = progress
    for part in net.modules() if frozen else ():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()


def _body(net: SkipResNet) -> Sequence[Group]:
    """Everything but the gates."""
    return [Group([p for p in net.backbone.parameters() if p.requires_grad])]
