"""DS-Net: what buckets of one width save (goals 6 and 7)."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.api import Images, Task
from methods.dsnet.layers import EPSILON, Shares, SlimNorm2d
from methods.dsnet.method import DSNet
from methods.dsnet.networks import BucketedNet, GatedSupernet, UniformNet, bucketed
from methods.dsnet.supernet import SlimBlock
from tests.bench.speed.clock import Clock, Ratio, same
from tests.bench.speed.goals import Finding, found

TASK = Task("images", 3, 32, 32, 10)
METHOD = DSNet(depth=20, narrowest=0.25, choices=4, routing_size=4)
BATCH = 64
MIXES = {"uniform": (16, 16, 16, 16), "60/20/10/10": (38, 13, 7, 6)}


class MaskedSupernet(nn.Module):
    """DS-Net as papers train its gate: full width, blended channel by channel at every layer.

    A blend cuts the map at each width, pads it with zeros, makes what is not a number zero, and
    adds up what the one-hot gate weighs. It stands behind every convolution and every norm; the
    norm's statistics are blended too.
    """

    def __init__(self, net: GatedSupernet) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Images, shares: Shares) -> Tensor:
        return self.back(self.front(images), shares)

    def front(self, images: Images) -> Tensor:
        return self.net.supernet.front(images, self.net.paths[0])[0]

    def back(self, features: Tensor, shares: Shares) -> Tensor:
        supernet, paths = self.net.supernet, self.net.paths
        entry = supernet.layout.entry
        along = list(zip(*(supernet.layout.along(path) for path in paths), strict=True))[entry:]
        gated, *others = list(supernet.blocks)[entry:]
        assert isinstance(gated, SlimBlock)
        features = self._projected(gated, features, shares, along[0])
        for block, sources, targets in zip(others, along, along[1:], strict=False):
            assert isinstance(block, SlimBlock)
            mixed = _blended(block.depthwise(features), shares, block.inputs, sources)
            mixed = F.silu(_normed(block.norm1, mixed, shares, sources))
            excited = block.squeeze.excite(mixed, block.squeeze.squeeze(mixed))
            changed = self._projected(block, excited, shares, targets)
            features = features + changed if block.residual else changed
        return supernet.head(features.mean((2, 3)), TASK.classes)

    def _projected(
        self, block: SlimBlock, features: Tensor, shares: Shares, targets: Sequence[int]
    ) -> Tensor:
        widest = max(block.outputs[target] for target in targets)
        changed = _blended(block.pointwise(features, widest), shares, block.outputs, targets)
        return F.silu(_normed(block.norm2, changed, shares, targets))


def _normed(norm: SlimNorm2d, features: Tensor, shares: Shares, entries: Sequence[int]) -> Tensor:
    wide = features.shape[1]
    rows = list(entries)
    mean = (shares @ norm.running_mean[rows, :wide])[:, :, None, None]
    variance = (shares @ norm.running_var[rows, :wide])[:, :, None, None]
    scaled = (features - mean) / torch.sqrt(variance + EPSILON)
    shifted = scaled * norm.weight[:wide, None, None] + norm.bias[:wide, None, None]
    return _blended(shifted, shares, norm.widths, entries)


def _blended(
    features: Tensor, shares: Shares, widths: Sequence[int], entries: Sequence[int]
) -> Tensor:
    total = torch.zeros_like(features)
    for place, entry in enumerate(entries):
        cut = torch.zeros_like(features)
        cut[:, : widths[entry]] = features[:, : widths[entry]]
        cut = torch.where(torch.isnan(cut), torch.zeros_like(cut), cut)
        total = total + shares[:, place, None, None, None].expand_as(cut) * cut
    return total


class Forced(nn.Module):
    """A gate that is overruled."""

    def __init__(self, gate: nn.Module, shares: Shares) -> None:
        super().__init__()
        self.gate = gate
        self.shares = shares

    def forward(self, reduced: Tensor) -> Tensor:
        self.gate(reduced)
        return self.shares


def findings(clock: Clock) -> Iterator[Finding]:
    """Buckets over the masked form, the gate's training step, and time saved beside MACs saved."""
    net = _statistics(clock)
    images = torch.randn(BATCH, 3, 32, 32, device=clock.device)
    packed = images.to(memory_format=torch.channels_last)
    for name, counts in MIXES.items():
        shares = _shares(counts).to(clock.device)
        limits = {"least": 12.0, "stretch": 22.0} if name == "uniform" else {}
        whole, dynamic = _over_masked(clock, net, images, packed, shares)
        what = f"DS-Net in buckets, batch {BATCH}, {name}, over masked"
        yield found("6", f"{what}, from the gate on", dynamic, **limits)
        yield found("", f"{what}, stem and shared stages included", whole)
    yield found(
        "6",
        f"DS-Net's gate step, batch {BATCH}, over the masked form's",
        _gate_step(clock, net, images, packed, _shares(MIXES["uniform"]).to(clock.device)),
        least=4.0,
        stretch=6.5,
    )
    yield from _savings(clock, net, packed)


def _statistics(clock: Clock) -> GatedSupernet:
    """A network whose statistics and affine maps are not the trivial ones."""
    torch.manual_seed(0)
    net = METHOD.build(TASK)
    for part in net.supernet.modules():
        if isinstance(part, SlimNorm2d):
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    return net.to(clock.device, memory_format=torch.channels_last).eval().requires_grad_(False)


def _shares(counts: Sequence[int]) -> Shares:
    chosen = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(1))
    return F.one_hot(chosen[order], len(counts)).float()


def _shipped(net: GatedSupernet, shares: Shares) -> BucketedNet:
    shipped = METHOD.deploy(net)
    assert isinstance(shipped, BucketedNet)
    shipped.gate = Forced(shipped.gate, shares)
    return shipped


@torch.no_grad()
def _over_masked(
    clock: Clock, net: GatedSupernet, images: Tensor, packed: Tensor, shares: Shares
) -> tuple[Ratio, Ratio]:
    """The time of the whole network, and of the part that runs at its own width."""
    theirs, ours = MaskedSupernet(net), _shipped(net, shares)
    same(ours(packed), theirs(images, shares))
    whole = clock.faster(lambda: theirs(images, shares), lambda: ours(packed), rounds=5)[0]
    features, mine = theirs.front(images).contiguous(), ours.front(packed)[0]
    backs, chosen = list(ours.backs), shares.argmax(1)
    dynamic = clock.faster(
        lambda: theirs.back(features, shares), lambda: bucketed(mine, chosen, backs), rounds=5
    )[0]
    return whole, dynamic


def _gate_step(
    clock: Clock, net: GatedSupernet, images: Tensor, packed: Tensor, shares: Shares
) -> Ratio:
    """Forward and backward from what the gate reads on; the gradient goes to the one-hot choice."""
    supernet = net.supernet
    with torch.no_grad():
        features, _ = supernet.front(images, net.paths[0])
        ours_in, _ = supernet.front(packed, net.paths[0])
    masked = MaskedSupernet(net)
    labels = torch.arange(BATCH, device=clock.device) % TASK.classes

    def theirs() -> Tensor:
        choice = shares.clone().requires_grad_()
        logits = masked.back(features, choice)
        F.cross_entropy(logits, labels).backward()
        return logits

    def ours() -> Tensor:
        choice = shares.clone().requires_grad_()
        logits = supernet.masked(ours_in, choice, net.paths)
        F.cross_entropy(logits, labels).backward()
        return logits

    same(ours(), theirs())
    return clock.faster(theirs, ours, rounds=5)[0]


@torch.no_grad()
def _savings(clock: Clock, net: GatedSupernet, packed: Tensor) -> Iterator[Finding]:
    """How much of what the MACs save over the widest choice the clock saves too."""
    shares = _shares(MIXES["uniform"]).to(clock.device)
    chosen = shares.argmax(1)
    widest = UniformNet(net.supernet, net.paths[-1]).eval()
    promised = float(widest.cost / net.prices[chosen].mean())
    full, ours = METHOD.deploy(widest), _shipped(net, shares)
    backs = [lambda some, path=path: net.supernet.back(some, path) for path in net.paths]

    def sliced() -> Tensor:
        return bucketed(net.supernet.front(packed, net.paths[0])[0], chosen, backs)

    same(sliced(), ours(packed))
    same(full(packed), widest(packed).logits)
    for what, plain, mine, limits in (
        ("folded", lambda: full(packed), lambda: ours(packed), {"least": 0.9, "stretch": 0.95}),
        ("sliced", lambda: widest(packed), sliced, {"least": 0.7, "stretch": 0.95}),
    ):
        ratio = clock.faster(plain, mine)[0]
        name = f"DS-Net {what}: time saved over MACs saved ({promised:.2f}), batch {BATCH}"
        yield found("7", name, Ratio(*(value / promised for value in ratio)), **limits)
