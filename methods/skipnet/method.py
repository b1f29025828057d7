"""SkipNet: a gate in front of each block decides, per image, whether the block runs."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Annotated, NamedTuple

import pydantic
import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from methods.api import (
    Changed,
    Decisions,
    Family,
    Features,
    Images,
    Labels,
    Method,
    Output,
    Phase,
    RoutedNetwork,
    Search,
    Task,
    cross_entropy,
    stand_still,
)
from methods.fold import Pricer, fold
from methods.macs import quiet, sketched
from methods.resnet import Residual, ResNet, check_depth, costs, resnet
from methods.skipnet.gates import (
    Gates,
    Kind,
    LeanRecurrentGates,
    Logit,
    RecurrentGates,
    State,
    make_gates,
)
from methods.skipnet.policy import (
    Actions,
    collapse,
    policy_loss,
    returns,
    sample,
    straight_through,
    threshold,
)

Decide = Callable[[int, Tensor], Tensor]
"""Decides which images run the next block: (gate, log odds of running) -> 1 or 0 per image."""

MOMENTUM = 0.9
"""Momentum of the running mean that the baseline option subtracts from the returns."""


class Trace(NamedTuple):
    """The result of one pass: logits, and the log odds and action of each gate per image."""

    logits: Float[Tensor, "batch classes"]
    odds: Float[Tensor, "batch gates"]
    """Log odds of running the block behind each gate."""
    actions: Actions


class Prices(NamedTuple):
    """MACs of one sample: the unavoidable part, and the saving of each gate that skips."""

    floor: int
    """Stem, first block, every gate, every projection and the head."""
    savings: tuple[int, ...]


class SkipResNet(RoutedNetwork):
    """A ResNet with a gate in front of every block but the first.

    Gate k reads the output of block k and controls block k+1. This form runs every block and mixes
    by 0 or 1, as training requires; its price is the MACs that the shipped form executes.
    """

    savings: Tensor
    expected: Tensor

    def __init__(self, backbone: ResNet, gates: Gates, prices: Prices) -> None:
        super().__init__()
        self.backbone = backbone
        self.gates = gates
        self.floor = prices.floor
        savings = torch.tensor(prices.savings, dtype=torch.float64)
        self.register_buffer("savings", savings, persistent=False)
        self.register_buffer("expected", torch.zeros(len(prices.savings)))

    def forward(self, images: Images) -> Output:
        trace = self.run(images, straight_through)
        return Output(trace.logits, self.price(trace.actions))

    def run(self, images: Images, decide: Decide, *, detach: bool = False) -> Trace:
        """One pass with `decide`; `detach` keeps the gates' gradient out of the backbone."""
        first, *others = self.backbone.units
        features = first(self.backbone.stem(images))
        odds, actions = [], []
        state: State = None
        for index, block in enumerate(others):
            logit, state = self.gates(index, features.detach() if detach else features, state)
            odds.append(logit.to(torch.promote_types(logit.dtype, torch.float32)))
            actions.append(decide(index, odds[-1]))
            features = _mixed(block, features, actions[-1])
        return Trace(
            self.backbone.classify(features), torch.stack(odds, 1), torch.stack(actions, 1)
        )

    def price(self, actions: Actions) -> Float[Tensor, " batch"]:
        """MACs of each sample under these actions."""
        return self.floor + actions.double() @ self.savings

    def route(self, images: Images, decisions: Decisions | None = None) -> tuple[Output, Decisions]:
        """The output, and which of the gated blocks each image runs (boolean, batch gates)."""
        trace = self.run(images, threshold if decisions is None else partial(_handed, decisions))
        return Output(trace.logits, self.price(trace.actions)), trace.actions > 0

    def everything(self) -> Bool[Tensor, " gates"]:
        """The decisions of an image that runs every block."""
        return torch.ones_like(self.savings, dtype=torch.bool)


class SkippingNet(nn.Module):
    """SkipNet as shipped: a block runs on the images that do not skip it, gathered."""

    def __init__(self, net: SkipResNet) -> None:
        super().__init__()
        self.backbone = fold(net.backbone)
        gates = fold(net.gates)
        self.gates = LeanRecurrentGates(gates) if isinstance(gates, RecurrentGates) else gates
        self.eval()

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        return self._decided(images)[0]

    def run(
        self, images: Images
    ) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch gates"]]:
        """Logits and the log odds of every gate; the latter keep the gates in a traced graph."""
        logits, odds = self._decided(images)
        return logits, torch.stack(odds, 1)

    @torch.no_grad()
    def _decided(self, images: Images) -> tuple[Tensor, list[Tensor]]:
        first, *others = self.backbone.units
        features = first(self.backbone.stem(images))
        odds = []
        state: State = None
        for index, block in enumerate(others):
            logit, state = self.gates(index, features, state)
            odds.append(logit)
            features = _gathered(block, features, logit > 0)
        return self.backbone.classify(features), odds


class SkipNet(Method):
    """A gate in front of each block decides, per image, whether the block runs.

    Paper: Wang et al., SkipNet: Learning Dynamic Routing in Convolutional Networks, ECCV 2018,
    arXiv 1711.09485v2.

    As published:
    - the three gates and where they read; the first block always runs
    - supervised phase: hard gates, straight-through gradient, no cost term
    - policy phase: sampled actions, REINFORCE beside the cross-entropy, constant learning rate
    - a skipped block keeps its projection and omits its ReLU

    Deviations:
    - the shipped network really skips, and a projection runs once per block
    - the policy term is a mean over the batch, not a sum; the return is always detached
    - the cost counts gates, stem and head
    - both phases are shares of one trial; the paper's 64k and 10k iterations set the default
    - options that are not in the paper, off by default: gate_bias, temperature, baseline,
      frozen_norms, detach_gates, relative_cost
    """

    alpha: Annotated[float, Field(ge=0, le=4), Search(low=0.01, high=4, log=True)] = 0.1
    """Reward for skipping every block, in nats of task loss (section 3.3; ImageNet 0.01)."""
    gate: Annotated[Kind, Search()] = "rnn"
    """Kind of gate: ffgate-1 and ffgate-2 cost 16 and 12 % of a block each, rnn next to nothing."""
    depth: Annotated[int, Field(ge=8, le=1202), Search(low=8, high=74, step=6)] = 38
    """Layers of the backbone: 6n+2 in the cifar family; 18, 34, 50, 101 or 152 in imagenet's."""
    width: Annotated[float, Field(ge=0.1, le=4), Search(low=0.25, high=1.0, step=0.25)] = 1.0
    """Multiplies every channel count; the result is rounded to a multiple of 4."""
    family: Family = "cifar"
    """cifar: three stages from 16 channels, behind ImageNet's stem for images above 64 px;
    imagenet: four stages from 64 channels."""
    policy_share: Annotated[float, Field(gt=0, lt=1)] = 10 / 74
    """Fraction of training under the policy gradient (10k of 74k iterations on CIFAR)."""
    policy_lr: Annotated[float, Field(gt=0, le=1), Search(low=1e-4, high=1e-2, log=True)] = 1e-4
    """Constant learning rate of the policy phase."""
    policy_weight: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Weight of the policy term beside the cross-entropy."""
    beta: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Weight of the task loss in the return (ImageNet: alpha over the number of gates)."""
    gate_bias: Annotated[float, Field(ge=-10, le=10)] = 0.0
    """Log odds added to every gate at initialisation; above 0, new networks run most blocks."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Divides the log odds that actions are sampled from; below 1, sampling is less random."""
    baseline: bool = False
    """Subtract a running mean from the returns: less variance, the same expected gradient."""
    frozen_norms: bool = False
    """Freeze the normalisation statistics in the policy phase."""
    detach_gates: bool = False
    """Keep the policy gradient out of the backbone."""
    relative_cost: bool = False
    """Reward each skip in proportion to the MACs that it saves, with mean 1, not all equally."""

    @pydantic.model_validator(mode="after")
    def _depth_exists(self) -> "SkipNet":
        check_depth(self.depth, self.family)
        return self

    def build(self, task: Task) -> SkipResNet:
        """A freshly initialised network for `task`; draws from torch's global generator.

        Raises:
            MethodError: images too small for the family.
        """
        prices = _prices(task, self.depth, self.width, self.family, self.gate)
        backbone = resnet(task, self.depth, self.width, family=self.family)
        widths = [block.outputs for block in backbone.units]
        return SkipResNet(backbone, make_gates(self.gate, widths, self.gate_bias), prices)

    def phases(self, smoothing: float = 0.0) -> Sequence[Phase[SkipResNet]]:
        """Cross-entropy through hard gates, then cross-entropy with the policy gradient."""
        return [
            Phase(
                name="supervised",
                share=1 - self.policy_share,
                loss=partial(cross_entropy, smoothing=smoothing),
            ),
            Phase(
                name="policy",
                share=self.policy_share,
                loss=partial(self._policy_step, smoothing=smoothing),
                advance=_freeze_norms if self.frozen_norms else stand_still,
                lr=self.policy_lr,
                schedule="constant",
            ),
        ]

    def deploy(self, net: SkipResNet) -> SkippingNet:
        """The network that skips: norms folded, samples gathered block by block."""
        return SkippingNet(net)

    def floor(self, task: Task) -> int:
        """MACs of a sample that skips every block but the first, all gates included."""
        return _prices(task, self.depth, self.width, self.family, self.gate).floor

    def alarm(self, net: SkipResNet, images: Images) -> str | None:
        """A warning if the gates have collapsed on these images."""
        with quiet(net):
            return collapse(net.route(images)[1])

    def _policy_step(
        self, net: SkipResNet, images: Images, labels: Labels, *, smoothing: float
    ) -> Tensor:
        trace = net.run(images, partial(sample, self.temperature), detach=self.detach_gates)
        task_loss = F.cross_entropy(
            trace.logits, labels, reduction="none", label_smoothing=smoothing
        )
        gains = returns(
            trace.actions,
            task_loss,
            alpha=self.alpha,
            beta=self.beta,
            worth=net.savings / net.savings.mean() if self.relative_cost else None,
        )
        advantages = _above(net.expected, gains) if self.baseline else gains
        surrogate = policy_loss(trace.odds / self.temperature, trace.actions, advantages)
        return task_loss.mean() + self.policy_weight * surrogate.mean()


def _handed(decisions: Decisions, gate: int, odds: Logit) -> Logit:
    """Decides as it was decided elsewhere, whatever the gate says."""
    return decisions[:, gate].to(odds.dtype)


def _mixed(block: Residual, features: Features, action: Logit) -> Changed:
    """The block where the action is 1, its shortcut where it is 0; both are computed."""
    skipped = block.shortcut(features)
    ran = block(features, skipped)
    share = action.to(ran.dtype)[:, None, None, None]
    return share * ran + (1 - share) * skipped  # type: ignore[no-any-return]


def _gathered(block: Residual, features: Features, runs: Bool[Tensor, " batch"]) -> Changed:
    """The block on the samples that run it, the shortcut on all; overwrites the features.

    Indexing preserves channels last, which index_select does not.
    """
    shortcut = block.shortcut(features)
    index = runs.nonzero().squeeze(1)
    exporting = torch.compiler.is_exporting()  # a graph has one path for any number of samples
    if not exporting and len(index) == len(features):
        return block(features, shortcut)  # type: ignore[no-any-return]
    if exporting or len(index):
        running = features[index]
        shortcuts = running if shortcut is features else shortcut[index]
        shortcut[index] = block(running, shortcuts)
    return shortcut


@torch.no_grad()
def _above(expected: Tensor, gains: Tensor) -> Tensor:
    advantages = gains - expected
    expected.lerp_(gains.mean(0).to(expected.dtype), 1 - MOMENTUM)
    return advantages


def _freeze_norms(net: SkipResNet, _progress: float) -> None:
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()


class _OneGate(nn.Module):
    def __init__(self, gates: Gates, index: int) -> None:
        super().__init__()
        self.gates = gates
        self.index = index

    def forward(self, features: Features) -> Logit:
        logit: Tensor = self.gates(self.index, features, None)[0]
        return logit


@lru_cache(maxsize=1024)
def _prices(task: Task, depth: int, width: float, family: Family, kind: Kind) -> Prices:
    parts = costs(task, depth, width, family)
    with sketched():
        skeleton = make_gates(kind, [channels for channels, _, _ in parts.outputs])
    gates = skeleton.to_empty(device="cpu").eval()
    price = Pricer()
    gating = sum(
        price(_OneGate(gates, index), torch.zeros(1, *shape))[0]
        for index, shape in enumerate(parts.outputs[:-1])
    )
    savings = tuple(
        block - shortcut
        for block, shortcut in zip(parts.blocks[1:], parts.shortcuts[1:], strict=True)
    )
    floor = parts.stem + parts.blocks[0] + sum(parts.shortcuts[1:]) + parts.head + gating
    return Prices(floor, savings)
