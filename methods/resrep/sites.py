"""The sites of compactors in a network, read off a dry run, and its MACs at any widths there.

No architecture is hard-coded: data flow identifies a site, and shapes confirm it.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from methods.api import Features
from methods.errors import MethodError
from methods.fold import M, like
from methods.macs import quiet
from methods.resrep.compactor import Compactor, Mask, merge, narrowed

ACTIVATIONS = (
    *(F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6, F.hardtanh),
    *(F.leaky_relu, F.silu, F.gelu, F.hardswish, torch.tanh, Tensor.tanh),
)
"""They map zero to zero, so that a forgotten channel has no effect."""
POOLS = (F.max_pool2d, torch.max_pool2d, F.avg_pool2d)
"""They may stand between an activation and the next layer."""


PARAMETERS, STATISTICS = ("weight", "bias"), ("running_mean", "running_var")


class Depthwise(NamedTuple):
    """A depthwise convolution and its norm, by name, and the activation behind them."""

    conv: str
    norm: str
    activation: Callable[[Tensor], Tensor]


class Site(NamedTuple):
    """A layer whose channels only one other layer reads; fields are names in the network."""

    conv: str
    norm: str
    follower: str
    channels: int
    between: Depthwise | None = None
    """What stands between the two in an inverted residual."""


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

    A site is a convolution followed by a norm, an activation, perhaps a pooling, and another
    convolution, where nothing else reads the output of any of them. A depthwise convolution with
    its norm and activation may stand before the other one, as in an inverted residual.

    Raises:
        MethodError: there is no site; says what is in the way of each layer that is nearly one.
    """
    calls, readers = _recorded(net, images)
    names = [call.name for call in calls if isinstance(call.layer, nn.Conv2d)]
    found: list[Site] = []
    reasons: list[str] = []
    for call in calls:
        try:
            if site := _site(call, readers):
                _once(site, names)
                found.append(site)
        except MethodError as error:
            reasons.append(str(error))
    if not found:
        raise MethodError(
            "a compactor needs a layer that only one other layer reads, but there is none"
            + "".join(f"; {reason}" for reason in dict.fromkeys(reasons[:3]))
        )
    sites = tuple(found)
    writers = {site.conv: index for index, site in enumerate(sites)}
    writers |= {site.between.conv: index for index, site in enumerate(sites) if site.between}
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
        conv = slim.get_submodule(site.conv)
        norm = slim.get_submodule(f"{site.norm}.0")
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        slim.set_submodule(site.conv, merge(conv, norm, compactor.weight[remaining]))
        slim.set_submodule(site.norm, nn.Identity())
        follower = slim.get_submodule(site.follower)
        assert isinstance(follower, nn.Conv2d)
        if site.between is not None:
            follower = _without(slim, site.between, follower, remaining)
        slim.set_submodule(site.follower, narrowed(follower, remaining))
    return slim


@torch.no_grad()
def _without(net: nn.Module, between: Depthwise, follower: nn.Conv2d, remaining: Mask) -> nn.Conv2d:
    """Narrows a depthwise convolution; the follower, with what the forgotten channels gave it.

    Of zeros a depthwise convolution makes its bias, and its norm a constant: a 1x1 convolution
    takes that as a bias.
    """
    conv, norm = net.get_submodule(between.conv), net.get_submodule(between.norm)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    zeros = conv.weight.new_zeros(1, conv.out_channels, 1, 1)
    if conv.bias is not None:
        zeros = zeros + conv.bias[:, None, None]
    constant = between.activation(norm(zeros)).flatten().masked_fill(remaining, 0)
    bias = follower.weight.flatten(1).double() @ constant.double()
    if follower.bias is not None:
        bias = bias + follower.bias.double()
    for part, names in ((conv, PARAMETERS), (norm, (*PARAMETERS, *STATISTICS))):
        for name in names:
            if (value := getattr(part, name)) is not None:
                value = value[remaining].clone()
                kept = nn.Parameter(value, requires_grad=False) if name in PARAMETERS else value
                setattr(part, name, kept)
    count = int(remaining.sum())
    conv.in_channels = conv.out_channels = conv.groups = norm.num_features = count
    return like(follower, follower.weight, bias)


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
    reads: tuple[int, ...] = ()
    """The values that it reads, in the order of the inputs."""
    writes: int = 0
    rest: Callable[[Any], Any] = lambda value: value
    """The operation as a function of its first argument."""

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
        self._values: dict[int, int] = {}

    def value(self, tensor: Tensor) -> int:
        """The value that a tensor has now: an operation in place gives it another."""
        return self._values.setdefault(id(tensor), len(self._values) * 2)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = _tensors([*args, *(kwargs or {}).values()])
        reads = tuple(map(self.value, inputs))
        result = func(*args, **(kwargs or {}))
        if outputs := _tensors([result]):
            owners = (self._owners[id(t)] for t in inputs if id(t) in self._owners)
            name, layer = next(owners, ("", None))
            if any(outputs[0] is tensor for tensor in inputs):
                self._values[id(outputs[0])] = -1 - len(self.calls)
            writes = self.value(outputs[0])
            rest = partial(_applied, func, args[1:], kwargs or {})
            self.calls.append(_Call(func, inputs, outputs, name, layer, reads, writes, rest))
        return result


Readers = Mapping[int, Sequence[_Call]]
"""A value -> the calls that read it."""


def _recorded(net: nn.Module, images: Features) -> tuple[list[_Call], Readers]:
    recorder = _Recorder(net)
    with quiet(net), recorder:
        output = net(images)
    readers = defaultdict(list)
    last = _Call(None, [output], [], "", None, (recorder.value(output),))
    for call in [*recorder.calls, last]:
        for value in call.reads:
            readers[value].append(call)
    return recorder.calls, readers


def _site(call: _Call, readers: Readers) -> Site | None:
    """The site whose convolution this call is, or None."""
    if not isinstance(call.layer, nn.Conv2d):
        return None
    found = _activated(call, readers)
    next_ = found and _reader(found[1], readers)
    while next_ and next_.function in POOLS:
        next_ = _reader(next_, readers)
    if not (found and next_ and isinstance(next_.layer, nn.Conv2d)):
        return None
    norm = found[0]
    if _is_depthwise(next_.layer) and call.layer.groups == 1:
        return _inverted(call, norm, next_, readers)
    if call.layer.groups != 1:
        raise MethodError(f"{call.name} must not be grouped, but has groups={call.layer.groups}")
    if next_.layer.in_channels != call.layer.out_channels or next_.layer.groups != 1:
        raise MethodError(
            f"{next_.name} must read each channel of {call.name} once, but got "
            f"{next_.layer.in_channels} inputs (groups={next_.layer.groups}) for "
            f"{call.layer.out_channels} channels"
        )
    return Site(call.name, norm.name, next_.name, call.layer.out_channels)


def _inverted(call: _Call, norm: _Call, depthwise: _Call, readers: Readers) -> Site | None:
    """The site of a convolution that a depthwise one reads, and that one a 1x1 convolution."""
    assert isinstance(call.layer, nn.Conv2d)
    found = _activated(depthwise, readers)
    last = found and _reader(found[1], readers)
    if not (found and last and isinstance(last.layer, nn.Conv2d)):
        return None
    conv = last.layer
    if conv.groups != 1 or conv.kernel_size != (1, 1) or conv.padding != (0, 0):
        raise MethodError(
            f"{last.name}, behind the depthwise {depthwise.name}, must be a 1x1 convolution "
            f"without groups and padding, but is {conv}"
        )
    between = Depthwise(depthwise.name, found[0].name, found[1].rest)
    return Site(call.name, norm.name, last.name, call.layer.out_channels, between)


def _applied(function: Any, rest: tuple[Any, ...], options: Mapping[str, Any], first: Any) -> Any:
    """An operation as it was called, but for its first argument."""
    return function(first, *rest, **options)


def _activated(call: _Call, readers: Readers) -> tuple[_Call, _Call] | None:
    """The norm behind a convolution, and the activation behind that; None if there are none."""
    norm = _reader(call, readers)
    activation = norm and _reader(norm, readers)
    if not (norm and activation and activation.function in ACTIVATIONS):
        return None
    return (norm, activation) if isinstance(norm.layer, nn.BatchNorm2d) else None


def _is_depthwise(conv: nn.Conv2d) -> bool:
    return conv.groups == conv.in_channels == conv.out_channels > 1


def _once(site: Site, names: Sequence[str]) -> None:
    """Refuses a site with a layer that runs again."""
    for name in (site.conv, site.follower, *([site.between.conv] if site.between else [])):
        if names.count(name) > 1:
            raise MethodError(f"a layer beside a compactor must run once, but {name} runs again")


def _reader(call: _Call, readers: Readers) -> _Call | None:
    """The only reader of a call's output, if it is the reader's first input; else None."""
    calls = readers.get(call.writes, ()) if call.outputs else ()
    return calls[0] if len(calls) == 1 and calls[0].reads[0] == call.writes else None


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    tensors: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, list | tuple):
            tensors += _tensors(value)
    return tensors
