"""The networks of DS-Net: a supernet with its gate, views of one path, and the shipped forms."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor, nn

from methods.api import Changed, Decisions, Features, Images, Network, Output, RoutedNetwork
from methods.dsnet.gate import Costs, Gate, Odds, Reading
from methods.dsnet.supernet import Logits, Path, SlimMobileNet
from methods.fold import fold


class GatedSupernet(RoutedNetwork):
    """A supernet, its gate over the routing space, and the teacher that averages the supernet."""

    prices: Tensor
    clock: Tensor
    easy: Tensor

    def __init__(
        self,
        supernet: SlimMobileNet,
        routing: Sequence[int],
        *,
        normed: bool = False,
        biased: bool = False,
    ) -> None:
        super().__init__()
        self.supernet = supernet
        self.teacher = copy.deepcopy(supernet).requires_grad_(False)
        self.routing = tuple(routing)
        """The consecutive choices that the gate selects from."""
        inputs = supernet.layout.gate_inputs
        self.gate = Gate(inputs, len(routing), normed=normed, bias=biased)
        prices = [supernet.cost(path) + self.gate.weight.numel() for path in self.paths]
        self.register_buffer("prices", torch.tensor(prices, dtype=torch.float64), persistent=False)
        self.register_buffer("clock", torch.tensor(0.0, dtype=torch.float64))
        self.register_buffer("easy", torch.tensor(0.5))

    @property
    def paths(self) -> list[Path]:
        """The path of each choice of the routing space."""
        return [self.supernet.layout.uniform(choice) for choice in self.routing]

    def train(self, mode: bool = True) -> "GatedSupernet":
        """The teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def route(self, images: Images, decisions: Decisions | None = None) -> tuple[Output, Decisions]:
        """The output, and each image's index into the routing (whole, batch 1)."""
        features, chosen = self.decide(images)
        chosen = chosen if decisions is None else decisions[:, 0]
        backs = [partial(self.supernet.back, path=path) for path in self.paths]
        return Output(bucketed(features, chosen, backs), self.prices[chosen]), chosen[:, None]

    @property
    def costs(self) -> Costs:
        """The price of each choice of the routing space over the widest's."""
        return self.prices / self.prices[-1]

    def everything(self) -> Int[Tensor, " 1"]:
        """The decision for the widest choice."""
        return torch.tensor([len(self.routing) - 1], device=self.prices.device)

    def decide(self, images: Images) -> tuple[Changed, Int[Tensor, " batch"]]:
        """The features that every choice continues from, and each image's index into the routing.

        The largest of the gate's logits decides, without noise, in training mode too.
        """
        features, odds = self.weigh(images)
        return features, odds.argmax(1)

    def weigh(self, images: Images) -> tuple[Changed, Odds]:
        """The features that every choice continues from, and the gate's logits."""
        features, inputs = self.supernet.front(images, self.paths[0])
        return features, self.odds(inputs)

    def odds(self, inputs: Reading) -> Odds:
        """The gate's logits for what it reads, in single precision at least."""
        odds: Odds = self.gate(inputs)
        return odds.to(torch.promote_types(odds.dtype, torch.float32))

    @torch.no_grad()
    def teach(self, progress: float, decay: float, *, warm: bool = True) -> None:
        """Update the teacher's average of the supernet's weights and statistics; call once a step.

        If `warm`, the average spans the last ninth of the steps so far, until `decay` allows fewer.
        """
        steps = progress / (progress - self.clock) if progress > 0 else self.clock
        self.clock.fill_(progress)
        share = (9 / (10 + steps)).clamp(min=1 - decay) if warm else torch.tensor(1 - decay)
        teacher, supernet = self.teacher.state_dict(), self.supernet.state_dict()
        for name, average in teacher.items():
            average.lerp_(supernet[name], share.to(average.dtype))


class UniformNet(Network):
    """A view of a supernet on one path, without the gate."""

    def __init__(self, supernet: SlimMobileNet, path: Path) -> None:
        super().__init__()
        self.supernet = supernet
        self.path = path
        self.cost = supernet.cost(path)
        """MACs of one image."""

    def forward(self, images: Images) -> Output:
        logits = self.supernet(images, self.path)
        price = torch.full((len(images),), self.cost, dtype=torch.float64, device=images.device)
        return Output(logits, price)


class SlicedNet(nn.Module):
    """One path as shipped: a plain static network."""

    def __init__(self, view: UniformNet) -> None:
        super().__init__()
        self.front = fold(view.supernet.front_at(view.path))
        self.back = fold(view.supernet.back_at(view.path))
        self.eval()

    def forward(self, images: Images) -> Logits:
        return self.back(self.front(images)[0])  # type: ignore[no-any-return]


class BucketedNet(nn.Module):
    """DS-Net as shipped: each image runs at its width, together with all others of that width.

    Front and gate run once for the batch; every width has a contiguous copy of its weights.
    """

    def __init__(self, net: GatedSupernet) -> None:
        super().__init__()
        self.front = fold(net.supernet.front_at(net.paths[0]))
        self.gate = fold(net.gate.at())
        self.backs = nn.ModuleList(fold(net.supernet.back_at(path)) for path in net.paths)
        self.eval()

    def forward(self, images: Images) -> Logits:
        return self.run(images)[0]

    @torch.no_grad()
    def run(self, images: Images) -> tuple[Logits, Odds]:
        """Logits of the classes and of the gate; the latter keep the gate in a traced graph."""
        features, inputs = self.front(images)
        odds = self.gate(inputs)
        return bucketed(features, odds.argmax(1), list(self.backs)), odds


def bucketed(
    features: Features,
    chosen: Int[Tensor, " batch"],
    backs: Sequence[Callable[[Features], Logits]],
) -> Logits:
    """Each image through its choice of `backs`, in one batch with all others of that choice."""
    if torch.compiler.is_exporting():  # a graph has one path for buckets of any size
        places = [(chosen == choice).nonzero().squeeze(1) for choice in range(len(backs))]
        parts = [features.index_select(0, place) for place in places]
        joined = torch.cat([back(part) for back, part in zip(backs, parts, strict=True)])
        empty = joined.new_empty(features.shape[0], joined.shape[1])
        return empty.index_copy_(0, torch.cat(places), joined)
    choices = chosen.tolist()
    if len(set(choices)) == 1:
        return backs[choices[0]](features)  # type: ignore[no-any-return]
    order = chosen.argsort()
    sorted_ = features[order]  # indexing preserves channels last, which index_select does not
    buckets = torch.split(sorted_, [choices.count(choice) for choice in range(len(backs))])
    logits = torch.cat(
        [back(bucket) for back, bucket in zip(backs, buckets, strict=True) if len(bucket)]
    )
    return torch.empty_like(logits).index_copy_(0, order, logits)


def uniform_points(net: GatedSupernet) -> Mapping[str, UniformNet]:
    """The network at every uniform width, and the largest, as views."""
    layout = net.supernet.layout
    paths = {str(choice): layout.uniform(choice) for choice in range(layout.choices)}
    paths["largest"] = layout.largest
    return {name: UniformNet(net.supernet, path) for name, path in paths.items()}
