"""SkipNet's network: as it trains, where every block runs, and as it ships, where blocks skip."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from methods.api import Changed, Decisions, Family, Features, Images, Output, RoutedNetwork, Task
from methods.fold import Pricer, fold
from methods.macs import sketched
from methods.parallel import per_sample
from methods.resnet import Residual, ResNet, costs
from methods.skipnet.gates import Gates, Kind, Logit, State, folded, make_gates
from methods.skipnet.policy import Actions, straight_through, threshold

Decide = Callable[[int, Tensor], Tensor]
"""Decides which images run the next block: (gate, log odds of running) -> 1 or 0 per image."""


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
    """Running mean of the return at each gate."""
    rate: Tensor
    """Running mean of the share of the gated MACs that run, under sampled actions."""
    steps: Tensor
    """Steps that these running means have seen."""

    def __init__(self, backbone: ResNet, gates: Gates, prices: Prices) -> None:
        super().__init__()
        self.backbone = backbone
        self.gates = gates
        self.floor = prices.floor
        savings = torch.tensor(prices.savings, dtype=torch.float64)
        self.register_buffer("savings", savings, persistent=False)
        self.register_buffer("expected", torch.zeros(len(prices.savings)))
        self.register_buffer("rate", torch.zeros(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.gated = True
        """Whether gates decide; else every block runs."""
        self.progress = 0.0
        """Progress of the phase at its last step."""
        self.register_load_state_dict_pre_hook(_complete)  # type: ignore[no-untyped-call]

    def forward(self, images: Images) -> Output:
        trace = self.run(images, straight_through if self.gated else run_all)
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

    def dropped(self, images: Images, keep: float) -> Float[Tensor, "batch classes"]:
        """Logits where each gated block runs on each image with probability `keep`, gates aside."""
        first, *others = self.backbone.units
        features = first(self.backbone.stem(images))
        for block in others:
            coins = per_sample(torch.rand_like, torch.empty(len(images), device=images.device))
            features = _mixed(block, features, (coins < keep).to(features.dtype))
        return self.backbone.classify(features)

    def share(self, actions: Actions) -> Float[Tensor, " batch"]:
        """Share of the gated blocks' MACs that run under these actions, in [0, 1]."""
        return actions @ (self.savings / self.savings.sum()).to(actions.dtype)

    def price(self, actions: Actions) -> Float[Tensor, " batch"]:
        """MACs of each sample under these actions."""
        return self.floor + actions.double() @ self.savings

    def route(self, images: Images, decisions: Decisions | None = None) -> tuple[Output, Decisions]:
        """The output, and which of the gated blocks each image runs (boolean, batch gates)."""
        rule = threshold if self.gated else run_all
        trace = self.run(images, rule if decisions is None else partial(_handed, decisions))
        return Output(trace.logits, self.price(trace.actions)), trace.actions > 0

    def everything(self) -> Bool[Tensor, " gates"]:
        """The decisions of an image that runs every block."""
        return torch.ones_like(self.savings, dtype=torch.bool)

    def get_extra_state(self) -> Tensor:
        """Whether gates decide, which belongs in a checkpoint but on no device."""
        return torch.tensor(self.gated)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore from a checkpoint whether gates decide."""
        self.gated = bool(state)


class SkippingNet(nn.Module):
    """SkipNet as shipped: a block runs on the images that do not skip it, gathered."""

    def __init__(self, net: SkipResNet) -> None:
        super().__init__()
        self.backbone = fold(net.backbone)
        self.gates = folded(net.gates)
        self.least = 0.0 if net.gated else -float("inf")
        """A block runs on images whose log odds exceed this."""
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
            features = _gathered(block, features, logit > self.least)
        return self.backbone.classify(features), odds


@lru_cache(maxsize=1024)
def prices(task: Task, depth: int, width: float, family: Family, kind: Kind) -> Prices:
    """The prices of a network, without building it."""
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


def _complete(net: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Checkpoints of earlier versions lack what only a policy with a target needs."""
    for name in ("rate", "steps", "_extra_state"):
        state.setdefault(prefix + name, net.state_dict()[name])


def run_all(_gate: int, odds: Logit) -> Logit:
    """Decides that the block runs on every image."""
    return torch.ones_like(odds)


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


class _OneGate(nn.Module):
    def __init__(self, gates: Gates, index: int) -> None:
        super().__init__()
        self.gates = gates
        self.index = index

    def forward(self, features: Features) -> Logit:
        logit: Tensor = self.gates(self.index, features, None)[0]
        return logit
