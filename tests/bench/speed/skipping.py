"""SkipNet: what skipping saves, and what its gate costs (goals 4 and 5)."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from methods.api import Images, Task
from methods.resnet import ResNet
from methods.skipnet.gates import HIDDEN, LeanRecurrentGates, RecurrentGates
from methods.skipnet.method import SkipNet
from methods.skipnet.network import SkippingNet, SkipResNet
from tests.bench.speed.clock import Clock, Ratio, same
from tests.bench.speed.goals import Finding, found

TASK = Task("images", 3, 32, 32, 10)
METHOD = SkipNet(depth=20)
SINGLES = 8
"""Images that single calls are timed on."""
Decisions = Bool[Tensor, "batch gates"]


class MaskedSkip(nn.Module):
    """SkipNet as papers evaluate it: every block runs, and a mask picks.

    Norms stand apart, a block's input goes through its projection twice, the gate is an `nn.LSTM`
    of one step, and blending expands the mask over the map. `decisions` overrule the gate, which
    runs all the same.
    """

    def __init__(self, net: SkipResNet, decisions: Decisions) -> None:
        super().__init__()
        assert isinstance(net.gates, RecurrentGates)
        self.backbone: ResNet = net.backbone
        self.decisions = decisions
        self.norms = net.gates.norms
        self.embeddings = net.gates.embeddings
        self.lstm = nn.LSTM(HIDDEN, HIDDEN)
        self.head = net.gates.head
        with torch.no_grad():
            self.lstm.weight_ih_l0.copy_(net.gates.enter.weight)
            self.lstm.bias_ih_l0.copy_(net.gates.enter.bias)
            self.lstm.weight_hh_l0.copy_(net.gates.recur.weight)
            self.lstm.bias_hh_l0.copy_(net.gates.recur.bias)

    @torch.no_grad()
    def forward(self, images: Images) -> Tensor:
        first, *others = self.backbone.units
        features = first(self.backbone.stem(images))
        state = None
        for index, block in enumerate(others):
            pooled = nn.functional.adaptive_avg_pool2d(features, 1).flatten(1)
            embedded = self.embeddings[index](self.norms[index](pooled))
            told, state = self.lstm(embedded[None], state)
            chance = torch.sigmoid(self.head(told[0]))
            mask = ((chance > 2).squeeze(1) | self.decisions[:, index]).float()[:, None, None, None]
            ran = block(features)
            skipped = features if block.projection is None else block.projection(features)
            features = mask.expand_as(ran) * ran + (1 - mask).expand_as(skipped) * skipped
        return self.backbone.classify(features)


class Forced(nn.Module):
    """Gates that run, and are overruled."""

    def __init__(self, gates: nn.Module, decisions: Decisions) -> None:
        super().__init__()
        self.gates = gates
        self.odds = [column.float() - 0.5 for column in decisions.unbind(1)]

    def forward(self, index: int, features: Tensor, state: object) -> tuple[Tensor, object]:
        return self.odds[index], self.gates(index, features, state)[1]


def findings(clock: Clock) -> Iterator[Finding]:
    """Speed-up over the masked form at forced decisions, and the recurrent gate's share."""
    torch.manual_seed(0)
    net = METHOD.build(TASK).to(clock.device).eval()
    wanted = {
        (1, 0): {"least": 1.0},
        (1, 50): {"least": 2.4, "stretch": 2.9},
        (64, 0): {"least": 1.0},
        (64, 50): {"least": 1.7, "stretch": 2.0},
        (64, 75): {"least": 2.3, "stretch": 3.0},
    }
    for batch in (1, 64):
        for skipped in (0, 25, 50, 75):
            ratio, ideal = _skipping(clock, net, batch, skipped)
            what = f"SkipNet, batch {batch}, {skipped} % skipped, over masked"
            yield found(
                "4", f"{what} (MACs: {ideal:.2f})", ratio, **wanted.get((batch, skipped), {})
            )
    for batch, limits in (
        (1, {"most": 40.0, "stretch": 25.0}),
        (64, {"most": 4.0, "stretch": 1.0}),
    ):
        yield found(
            "5", f"recurrent gate, % of a block, batch {batch}", _gate(clock, net, batch), **limits
        )


def _skipping(clock: Clock, net: SkipResNet, batch: int, skipped: int) -> tuple[Ratio, float]:
    """The speed-up, and what the MACs promise; of single images several, as they are not alike."""
    wanted = drawn(max(batch, SINGLES), len(net.savings), skipped).to(clock.device)
    ours: list[tuple[nn.Module, Tensor]] = []
    theirs: list[tuple[nn.Module, Tensor]] = []
    for decisions in torch.split(wanted, batch):
        images = torch.randn(batch, 3, 32, 32, device=clock.device)
        shipped: SkippingNet = METHOD.deploy(net)
        shipped.gates = Forced(shipped.gates, decisions)
        ours.append((shipped, images.to(memory_format=torch.channels_last)))
        theirs.append((MaskedSkip(net, decisions), images))
    for mine, masked in zip(ours, theirs, strict=True):
        same(_all([mine])[0], _all([masked])[0])
    ratio = clock.faster(lambda: _all(theirs), lambda: _all(ours))[0]
    every = net.price(torch.ones_like(wanted, dtype=torch.float64)).sum()
    return ratio, float(every / net.price(wanted.double()).sum())


@torch.no_grad()
def _all(calls: Sequence[tuple[nn.Module, Tensor]]) -> list[Tensor]:
    return [module(images) for module, images in calls]


def drawn(batch: int, gates: int, skipped: int) -> Decisions:
    """Decisions to run of which this percentage, to the nearest, is not."""
    rest = round(batch * gates * skipped / 100)
    order = torch.randperm(batch * gates, generator=torch.Generator().manual_seed(1))
    return (order >= rest).reshape(batch, gates)


def _gate(clock: Clock, net: SkipResNet, batch: int) -> Ratio:
    """All gates' time over all gated blocks', in percent."""
    shipped = METHOD.deploy(net)
    assert isinstance(shipped.gates, LeanRecurrentGates)
    images = torch.randn(batch, 3, 32, 32, device=clock.device)
    first, *blocks = shipped.backbone.units
    with torch.no_grad():
        maps = [first(shipped.backbone.stem(images.to(memory_format=torch.channels_last)))]
        for block in blocks:
            maps.append(block(maps[-1]))

        def decide() -> None:
            state = None
            for index, features in enumerate(maps[:-1]):
                _, state = shipped.gates(index, features, state)

        def run() -> None:
            for block, features in zip(blocks, maps, strict=False):
                block(features)

        ratio = clock.faster(decide, run)[0]
    return Ratio(*(100 * value for value in ratio))
