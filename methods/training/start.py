"""Trained weights as the start of a network: what fits where, and what is left over."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from methods.api import Method, Network, Task
from methods.errors import MethodError

HEAD = "head."
"""Prefix of the classifier, which is left as initialised where the classes are others."""
SHOWN = 3
"""Names in a message, at most."""


@dataclass(frozen=True)
class Weights:
    """Trained tensors, by the names of a plain backbone."""

    origin: str
    """Where they are from, as a user wrote it."""
    tensors: Mapping[str, Tensor]
    dropped: tuple[str, ...] = ()
    """What else the file held: parts of a trained network outside of its backbone."""

    @cached_property
    def sha256(self) -> str:
        """Digest of names, types, shapes and values, whatever the file's format is."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
            digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Fit:
    """How trained weights fit a network."""

    filled: int
    """Tensors of the network that they fill."""
    left: tuple[str, ...]
    """Names of the backbone that keep their initial values."""
    unused: tuple[str, ...]
    """Names of the weights that belong nowhere in the network."""

    def __str__(self) -> str:
        parts = [f"{self.filled} tensors are filled"]
        if self.left:
            parts.append(f"as initialised remain {', '.join(self.left)}")
        if self.unused:
            parts.append(f"unused are {', '.join(self.unused)}")
        return "; ".join(parts)


def fit(method: Method, task: Task, weights: Weights) -> Fit:
    """How weights fit the networks of a method, by names and shapes alone.

    Raises:
        MethodError: they are of another architecture, or there is no such network.
    """
    return _matched(method, fresh(method, task), weights)[1]


def fresh(method: Method, task: Task) -> Network:
    """A network of a method, from which nobody's random numbers depend."""
    with torch.random.fork_rng(devices=[]):
        net: Network = method.build(task)
    return net


def fill(net: Network, *, method: Method, weights: Weights) -> Fit:
    """Puts weights into a fresh network of a method.

    Raises:
        MethodError: they are of another architecture; the network is unchanged.
    """
    pairs, matched = _matched(method, net, weights)
    with torch.no_grad():
        for place, weight in pairs:
            place.copy_(weight)
    return matched


def plain_weights(method: Method, task: Task, state: Mapping[str, Any], origin: str) -> Weights:
    """The weights of the plain backbone in the state of a trained network of a method."""
    places = method.places(fresh(method, task))
    names = {place: plain for plain, place in places.items() if place in state}
    tensors = {plain: state[place] for place, plain in names.items()}
    inside = {place.partition(".")[0] for place in names}
    rest = [n for n, v in state.items() if n not in names and isinstance(v, Tensor)]
    rest = [name for name in rest if not name.endswith("_extra_state")]
    beside = tuple(name for name in rest if name.partition(".")[0] not in inside)
    tensors |= {name: state[name] for name in rest if name not in beside}
    return Weights(origin, tensors, beside)


def _matched(
    method: Method, net: Network, weights: Weights
) -> tuple[list[tuple[Tensor, Tensor]], Fit]:
    """The tensors of a network with the weights that belong there."""
    state, pairs, others, left = net.state_dict(), [], [], []
    places = method.places(net)
    for plain, place in places.items():
        weight = weights.tensors.get(plain)
        value = None if weight is None else method.placed(weight, state[place])
        if value is not None:
            pairs.append((state[place], value))
        elif weight is None or plain.startswith(HEAD):
            left.append(plain)
        else:
            others.append(f"{plain}: {_shape(weight)} for {_shape(state[place])}")
    unused = [name for name in weights.tensors if name not in places]
    lacking = [
        name
        for name in left
        if state[places[name]].ndim > 1
        and not name.startswith(HEAD)
        and not set(name.split(".")) & set(method.ADDED)
    ]
    surplus = [n for n in unused if weights.tensors[n].ndim > 1 and not n.startswith(HEAD)]
    if others or lacking or surplus or not pairs:
        found = [
            *([f"lacks {_some(lacking)}"] if lacking else []),
            *([f"has {_some(surplus)} that belong nowhere"] if surplus else []),
            *([f"has {_some(others)}"] if others else []),
        ]
        raise MethodError(
            f"a start must have the architecture that it starts, {type(method).__name__} with "
            f"{_fields(method)}, but {weights.origin} "
            f"{' and '.join(found) or 'has no weight of it'}; give other weights, or change these "
            "fields"
        )
    return pairs, Fit(len(pairs), tuple(left), (*unused, *weights.dropped))


def _fields(method: Method) -> str:
    """The fields by which backbones differ, as far as a method has them."""
    names = [n for n in ("family", "depth", "width", "stages") if n in type(method).model_fields]
    return ", ".join(f"{name} {getattr(method, name)}" for name in names) or "these fields"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return f"{', '.join(names[:SHOWN])}{f' and {more} more' if more > 0 else ''}"
