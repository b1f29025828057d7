"""The sites of compactors in a network, read off a dry run, and its MACs at any widths there.

No architecture is hard-coded: data flow identifies a site, and shapes confirm it.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from methods.api import Features
from methods.errors import MethodError
from methods.fold import M
from methods.macs import quiet
from methods.resrep.compactor import Compactor, merge, narrowed

RELUS = (F.relu, torch.relu, Tensor.relu)


class Site(NamedTuple):
    """A layer whose channels only one other layer reads; fields are names in the network."""

    conv: str
    norm: str
    follower: str
    channels: int


class Product(NamedTuple):
    """The cost of a layer: `unit` MACs times the two widths that may change."""

    unit: int
    inputs: int
    outputs: int
    """Index of the site that has so many channels; -1 if the unit contains them."""


class Plan(NamedTuple):
    """The sites of a network, and its MACs as a function of the widths there."""

    sites: tuple[Site, ...]
    products: tuple[Product, ...]
    unit: int = 1
    """Channels that are removed together: a site keeps a multiple of it, or all its channels."""

    @property
    def widths(self) -> list[int]:
        """Channels at each site of the whole network."""
        return [site.channels for site in self.sites]

    @property
    def dense(self) -> int:
        """MACs of one sample in the whole network."""
        return self.macs(self.widths)

    @property
    def least(self) -> int:
        """MACs of one sample with a single unit at each site."""
        return self.macs([min(self.unit, width) for width in self.widths])

    @property
    def largest(self) -> int:
        """MACs of the most expensive unit of the whole network."""
        savings = (
            self.unit * _saving(products, self.widths, site)
            for site, products in enumerate(self.beside)
            if self.widths[site] > self.unit
        )
        return max(savings, default=0)

    @property
    def beside(self) -> list[list[Product]]:
        """For each site, the products that depend on its width."""
        indices = range(len(self.sites))
        return [[p for p in self.products if site in (p.inputs, p.outputs)] for site in indices]

    def macs(self, widths: Sequence[int]) -> int:
        """MACs of one sample with so many channels at each site."""
        factors = [*widths, 1]
        return sum(unit * factors[i] * factors[o] for unit, i, o in self.products)


def plan_of(net: nn.Module, images: Features) -> Plan:
    """The plan of a network, from a dry run on one image.

    A site is a convolution followed by a norm, a ReLU and another convolution, where nothing else
    reads the output of any of them.

    Raises:
        MethodError: there is no site, or its layers do not match channel by channel.
    """
    calls, readers = _recorded(net, images)
    sites = tuple(site for call in calls if (site := _site(call, readers)))
    if not sites:
        raise MethodError(
            "a compactor needs a layer that only one other layer reads, but there is none"
        )
    names = [call.name for call in calls if isinstance(call.layer, nn.Conv2d)]
    for site in sites:
        name = max(site.conv, site.follower, key=names.count)
        if names.count(name) > 1:
            raise MethodError(f"a layer beside a compactor must run once, but {name} runs again")
    writers = {site.conv: index for index, site in enumerate(sites)}
    followers = {site.follower: index for index, site in enumerate(sites)}
    products = []
    for call in calls:
        if isinstance(call.layer, nn.Conv2d | nn.Linear):
            outputs, inputs, *window = call.layer.weight.shape
            i, o = followers.get(call.name, -1), writers.get(call.name, -1)
            positions = call.output.numel() // outputs
            fixed = (inputs if i < 0 else 1) * (outputs if o < 0 else 1)
            products.append(Product(math.prod(window) * positions * fixed, i, o))
    return Plan(sites, tuple(products))


def attach(net: nn.Module, sites: Iterable[Site]) -> None:
    """Insert a compactor after the norm of every site."""
    for site in sites:
        norm = net.get_submodule(site.norm)
        net.set_submodule(site.norm, nn.Sequential(norm, Compactor(site.channels)))


def attached(net: nn.Module, sites: Iterable[Site]) -> list[Compactor]:
    """The compactors of a network, in the order of the sites."""
    return [cast("Compactor", net.get_submodule(f"{site.norm}.1")) for site in sites]


def removed(net: M, sites: Sequence[Site]) -> M:
    """A copy without compactors and forgotten channels; the norm of each site is merged.

    Raises:
        MethodError: a layer does not match the layer that it reads.
    """
    slim = copy.deepcopy(net).eval()
    for site, compactor in zip(sites, attached(slim, sites), strict=True):
        remaining = compactor.remaining()
        conv, follower = slim.get_submodule(site.conv), slim.get_submodule(site.follower)
        norm = slim.get_submodule(f"{site.norm}.0")
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert isinstance(follower, nn.Conv2d)
        slim.set_submodule(site.conv, merge(conv, norm, compactor.weight[remaining]))
        slim.set_submodule(site.norm, nn.Identity())
        slim.set_submodule(site.follower, narrowed(follower, remaining))
    return slim


def select(
    plan: Plan, norms: Sequence[Float[Tensor, " _"]], limit: float, most: int | None = None
) -> list[Bool[Tensor, " _"]]:
    """The masks of each site: True for rows that continue to learn.

    The shortest rows of all sites are masked one by one, until the network costs at most `limit`
    MACs or `most` rows are masked. A row waits for others of its site until a multiple of the
    plan's unit remains; every site keeps a unit. The cost is updated by the saving of each channel
    at the current widths.
    """
    owners = [site for site, lengths in enumerate(norms) for _ in range(len(lengths))]
    learning = torch.ones(len(owners), dtype=torch.bool)
    widths, cost, beside = plan.widths, plan.dense, plan.beside
    waiting: list[list[int]] = [[] for _ in widths]
    masked, most = 0, len(owners) if most is None else most
    for row in torch.cat(list(norms)).cpu().argsort(stable=True).tolist():
        if cost <= limit or masked >= most:
            break
        site = owners[row]
        waiting[site].append(row)
        remaining = widths[site] - len(waiting[site])
        if remaining > 0 and remaining % plan.unit == 0:
            cost -= len(waiting[site]) * _saving(beside[site], widths, site)
            widths[site] = remaining
            learning[waiting[site]] = False
            masked += len(waiting[site])
            waiting[site].clear()
    return list(torch.split(learning, plan.widths))


def _saving(beside: Iterable[Product], widths: Sequence[int], site: int) -> int:
    """MACs that removing one channel of a site saves at these widths."""
    factors = [*widths, 1]
    return sum(unit * factors[o if i == site else i] for unit, i, o in beside)


class _Call(NamedTuple):
    """One operation of a dry run, and the layer whose weight it used."""

    function: Any
    inputs: list[Tensor]
    outputs: list[Tensor]
    name: str
    layer: nn.Module | None

    @property
    def output(self) -> Tensor:
        return self.outputs[0]


class _Recorder(TorchFunctionMode):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        named = ((name, part, getattr(part, "weight", None)) for name, part in net.named_modules())
        self._owners = {
            id(weight): (name, part) for name, part, weight in named if weight is not None
        }
        self.calls: list[_Call] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs, outputs = _tensors([*args, *(kwargs or {}).values()]), _tensors([result])
        if outputs:
            owner = next((self._owners[id(t)] for t in inputs if id(t) in self._owners), ("", None))
            self.calls.append(_Call(func, inputs, outputs, *owner))
        return result


Readers = Mapping[int, Sequence[_Call]]
"""Identity of a tensor -> the calls that read it."""


def _recorded(net: nn.Module, images: Features) -> tuple[list[_Call], Readers]:
    recorder = _Recorder(net)
    with quiet(net), recorder:
        output = net(images)
    readers = defaultdict(list)
    for call in [*recorder.calls, _Call(None, [output], [], "", None)]:
        for tensor in call.inputs:
            readers[id(tensor)].append(call)
    return recorder.calls, readers


def _site(call: _Call, readers: Readers) -> Site | None:
    """The site whose convolution this call is, or None."""
    if not isinstance(call.layer, nn.Conv2d):
        return None
    norm = _reader(call, readers)
    relu = norm and _reader(norm, readers)
    next_ = relu and _reader(relu, readers)
    if not (norm and relu and next_) or relu.function not in RELUS:
        return None
    if not (isinstance(norm.layer, nn.BatchNorm2d) and isinstance(next_.layer, nn.Conv2d)):
        return None
    if call.layer.groups != 1:
        raise MethodError(f"{call.name} must not be grouped, but has groups={call.layer.groups}")
    if next_.layer.in_channels != call.layer.out_channels or next_.layer.groups != 1:
        raise MethodError(
            f"{next_.name} must read each channel of {call.name} once, but got "
            f"{next_.layer.in_channels} inputs (groups={next_.layer.groups}) for "
            f"{call.layer.out_channels} channels"
        )
    return Site(call.name, norm.name, next_.name, call.layer.out_channels)


def _reader(call: _Call, readers: Readers) -> _Call | None:
    """The only reader of a call's output, if it is the reader's first input; else None."""
    calls = readers.get(id(call.output), ()) if call.outputs else ()
    return calls[0] if len(calls) == 1 and calls[0].inputs[0] is call.output else None


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    tensors: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, list | tuple):
            tensors += _tensors(value)
    return tensors
