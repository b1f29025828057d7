"""The fastest of the exact forms that a deployed network can run in, by measurement.

A layer that mixes kernels, or convolves by groups, can be computed in several ways: the values are
the same, the time is not, and which is the least depends on shapes, layout and machine. So it is
with the layout of the maps, and with how many images go through the network at a time: a few whose
maps stay in the processor's cache may beat the whole batch. The price of a network is that of its
default form, whatever is chosen here.
"""

import copy
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from methods.api import Changed, Features, Images
from methods.machine import device_name
from methods.macs import quiet
from methods.shipping.choices import Choices, Question
from methods.shipping.clock import Clock, race, wait
from methods.shipping.convolutions import convolution_forms, has_forms

DEARER = ("dense", "experts", "spread/2", "spread/4")
"""Forms that execute more products than are priced."""
LAYOUTS: Mapping[str, torch.memory_format] = MappingProxyType(
    {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
)
PORTION = 16
"""Images that a CPU may take at a time, beside the whole batch; layers are measured on so many."""
WORTH = 0.95
"""Times the default's time that another form may take to be worth it: less is noise."""


@runtime_checkable
class HasForms(Protocol):
    """A layer of a method that can be computed in several exact ways."""

    def forms(self, features: Features, /, *others: Tensor) -> Mapping[str, nn.Module]:
        """Its forms for these inputs by name, each a module; the default comes first."""


class Formed(nn.Module):
    """A layer in the form that was chosen for maps of one shape; others take its default."""

    def __init__(self, layer: nn.Module, shape: torch.Size, name: str, form: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.shape = shape
        """Of an image's maps: channels, height, width."""
        self.name = name
        self.form = form

    def forward(self, features: Features, *others: Tensor) -> Changed:
        taken = self.form if features.shape[1:] == self.shape else self.layer
        return taken(features, *others)  # type: ignore[no-any-return]


class Fastest(nn.Module):
    """A deployed network in the forms that were chosen for batches of one size."""

    def __init__(self, net: nn.Module, batch: int, portion: int, forms: str) -> None:
        super().__init__()
        self.net = net
        self.batch = batch
        self.portion = portion
        """Of a batch of that size, the images that go through the network at a time."""
        self.forms = forms
        """What was chosen, in words."""

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        if len(images) != self.batch or self.portion == self.batch:
            return self.net(images)  # type: ignore[no-any-return]
        return torch.cat([self.net(some) for some in torch.split(images, self.portion)])


class _Way(NamedTuple):
    """How a whole network runs."""

    layout: str
    portion: int
    tuned: bool

    @property
    def name(self) -> str:
        return f"{self.layout}/{self.portion}/{'tuned' if self.tuned else 'default'}"


def fastest(
    net: nn.Module,
    images: Images,
    choices: Choices | None = None,
    *,
    clock: Clock | None = None,
) -> Fastest:
    """A copy of a deployed network, images -> logits, in its fastest form for such batches.

    What `choices` do not know is measured on these images, layer by layer and then as a whole, in
    a few seconds at most; a call of the result measures nothing. The clock is the processor's own
    time where one thread computes, so that other processes matter little.
    """
    tuner = _Tuner.on(images, choices, clock)
    with quiet(net):
        ways = {way.name: way for way in _ways(net, images)}
        question = {"network": repr(net), **_place(images)}
        known = tuner.choices.recall(question, list(ways))
        if known is not None:
            return tuner.formed(net, images, ways[known])
        built = {name: tuner.formed(net, images, way) for name, way in ways.items()}
        calls = {name: partial(one, images) for name, one in built.items()}
        return built[tuner.best(question, calls, images.device)]


def tuned(
    layer: nn.Module,
    *inputs: Tensor,
    choices: Choices | None = None,
    clock: Clock | None = None,
) -> "Formed":
    """A layer that has more than one form in its fastest for such inputs, as in `fastest`."""
    with quiet(layer):
        return _Tuner.on(inputs[0], choices, clock).form(layer, inputs)


class _Tuner(NamedTuple):
    choices: Choices
    clock: Clock

    @classmethod
    def on(cls, images: Tensor, choices: Choices | None, clock: Clock | None) -> "_Tuner":
        """With the choices and the clock that are given, else the user's and the processor's."""
        if clock is None:
            alone = images.device.type == "cpu" and torch.get_num_threads() == 1
            clock = time.thread_time if alone else time.perf_counter
        return cls(Choices() if choices is None else choices, clock)

    def best(
        self, question: Question, calls: Mapping[str, Callable[[], Tensor]], device: torch.device
    ) -> str:
        """The fastest of these calls, the first one if in doubt: as known, else as measured now."""
        known = self.choices.recall(question, list(calls))
        if known is None and len(calls) > 1:
            ended = {name: partial(_ended, call, device) for name, call in calls.items()}
            seconds = race(ended, self.clock)
            known, least = next(iter(calls)), min(seconds, key=seconds.__getitem__)
            if seconds[least] < WORTH * seconds[known]:
                known = least
            self.choices.keep(question, known, seconds)
        return known or next(iter(calls))

    def formed(self, net: nn.Module, images: Images, way: _Way) -> Fastest:
        """The network as it runs that way."""
        twin = copy.deepcopy(net).eval().requires_grad_(False)
        twin = twin.to(memory_format=LAYOUTS[way.layout])  # type: ignore[call-overload]
        found: dict[str, Formed] = {}
        if way.tuned:
            hooks = [
                layer.register_forward_pre_hook(partial(self._visit, found, name))
                for name, layer in _layers(twin)
            ]
            twin(images[:PORTION])
            for hook in hooks:
                hook.remove()
            for name, own in found.items():
                if own.form is not own.layer:
                    twin.set_submodule(name, own)
        counts = Counter(layer.name for layer in found.values())
        return Fastest(twin, len(images), way.portion, _words(way, counts, len(images)))

    def form(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> Formed:
        """A layer in its fastest form for these inputs."""
        forms = _forms(layer, *inputs)
        question = {"layer": repr(layer), **_place(*inputs)}
        layout = LAYOUTS[_layout(inputs[0])]
        calls = {own: partial(_laid, form, inputs, layout) for own, form in forms.items()}
        best = self.best(question, calls, inputs[0].device)
        return Formed(layer, inputs[0].shape[1:], best, forms[best])

    def _visit(
        self, found: dict[str, Formed], name: str, layer: nn.Module, inputs: tuple[Tensor, ...]
    ) -> None:
        """Called before each call of a layer in a dry run; the first one counts."""
        if name not in found:
            found[name] = self.form(layer, inputs)


def _ways(net: nn.Module, images: Images) -> Iterator[_Way]:
    """In each layout, the whole batch and in portions; once as it is, if it has layers to tune."""
    tuned = any(True for _ in _layers(net))
    if tuned:
        yield _Way("channels_last", len(images), tuned=False)
    for layout in LAYOUTS:
        yield _Way(layout, len(images), tuned)
        if len(images) > PORTION and not images.is_cuda:
            yield _Way(layout, PORTION, tuned)


def _layers(net: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """What has more than one form, outermost first; a kind's own parts are not looked at."""
    for name, part in net.named_children():
        if isinstance(part, HasForms) or (type(part) is nn.Conv2d and has_forms(part)):
            yield f"{prefix}{name}", part
        else:
            yield from _layers(part, f"{prefix}{name}.")


def _forms(layer: nn.Module, features: Features, *others: Tensor) -> Mapping[str, nn.Module]:
    """The exact forms of a layer for these inputs; the default comes first."""
    if isinstance(layer, HasForms):
        return layer.forms(features, *others)
    assert isinstance(layer, nn.Conv2d), "only what has forms is tuned"
    return convolution_forms(layer, features)


def _laid(form: nn.Module, inputs: tuple[Tensor, ...], layout: torch.memory_format) -> Tensor:
    """A form's output in the layout of its input, so that what a change of it costs is counted."""
    made: Tensor = form.forward(*inputs)
    return made.contiguous(memory_format=layout)


def _ended(call: Callable[[], Tensor], device: torch.device) -> None:
    call()
    wait(device)


def _layout(features: Tensor) -> str:
    last = features.is_contiguous(memory_format=torch.channels_last)
    return "channels_last" if last else "contiguous"


def _place(*inputs: Tensor) -> dict[str, Any]:
    """All that a time depends on beside what runs."""
    first = inputs[0]
    return {
        "inputs": [list(one.shape) for one in inputs],
        "dtype": str(first.dtype),
        "layout": _layout(first),
        "device": device_name(str(first.device)),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _words(way: _Way, forms: Counter[str], batch: int) -> str:
    parts = [way.layout.replace("_", " ")]
    if way.portion < batch:
        parts.append(f"{way.portion} images at a time")
    for form, count in sorted(forms.items()):
        dearer = " (more MACs than priced)" if form in DEARER else ""
        parts.append(f"{count} x {form}{dearer}")
    return ", ".join(parts)
