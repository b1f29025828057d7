"""The fastest of the exact forms of a deployed network, by measurement.

A layer that mixes kernels or convolves by groups can be computed in several ways. All give the same
values; which is fastest depends on shapes, layout and machine. The same holds for the layout of the
maps, and for the number of images that run at a time: a few images whose maps fit the processor's
cache may be faster than the whole batch. The price of a network is that of its default form,
whatever form is chosen here.
"""

import copy
import logging
import math
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
from methods.shipping.clock import Clock, race, steady, wait
from methods.shipping.convolutions import convolution_forms, has_forms
from methods.training.engines import ByEngine, Engine, engines

DEARER = ("dense", "experts", "spread/2", "spread/4")
"""Forms that execute more MACs than the price of the layer."""
LAYOUTS: Mapping[str, torch.memory_format] = MappingProxyType(
    {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
)
PORTION = 16
"""Images that a CPU may run at a time instead of the whole batch, and that layers are timed on."""
WORTH = 0.95
"""Another form replaces the default if it takes at most this fraction of the default's time."""
TOLERANCE = 1e-3
"""Largest error of an engine's logits, as a fraction of the largest: rounding, in any precision."""

logger = logging.getLogger(__name__)


@runtime_checkable
class HasForms(Protocol):
    """A layer of a method that can be computed in several exact ways."""

    def forms(self, features: Features, /, *others: Tensor) -> Mapping[str, nn.Module]:
        """Its forms for these inputs, name -> module; the default comes first."""


class Formed(nn.Module):
    """A layer in the form chosen for maps of one shape; other maps use its default form."""

    def __init__(self, layer: nn.Module, shape: torch.Size, name: str, form: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.shape = shape
        """Shape of an image's maps: channels, height, width."""
        self.name = name
        self.form = form

    def forward(self, features: Features, *others: Tensor) -> Changed:
        form = self.form if features.shape[1:] == self.shape else self.layer
        return form(features, *others)  # type: ignore[no-any-return]


class Fastest(nn.Module):
    """A deployed network in the forms chosen for batches of one size."""

    def __init__(self, net: nn.Module, batch: int, portion: int, forms: str) -> None:
        super().__init__()
        self.net = net
        self.batch = batch
        self.portion = portion
        """Images of such a batch that run at a time."""
        self.forms = forms
        """A description of the chosen forms."""

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        if len(images) != self.batch or self.portion == self.batch:
            return self.net(images)  # type: ignore[no-any-return]
        return torch.cat([self.net(some) for some in torch.split(images, self.portion)])

    def by(self, engine: Engine, device: torch.device) -> "Fastest":
        """The same network, executed by another engine."""
        net = ByEngine(self.net, engine, device)
        return Fastest(net, self.batch, self.portion, f"{self.forms}, {engine}")


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

    Forms that `choices` have not stored are measured on these images, layer by layer and then as a
    whole, in a few seconds at most; calling the result measures nothing. By default the clock is
    the thread's processor time if one thread computes, so that other processes matter little.
    """
    tuner = _Tuner.on(images, choices, clock)
    with quiet(net):
        ways = {way.name: way for way in _ways(net, images)}
        question = {"network": repr(net), **_place(images)}
        stored = tuner.choices.recall(question, list(ways))
        if stored is not None:
            return tuner.executed(tuner.formed(net, images, ways[stored]), images, question)
        built = {name: tuner.formed(net, images, way) for name, way in ways.items()}
        calls = {name: partial(network, images) for name, network in built.items()}
        best = built[tuner.best(question, calls, images.device)]
        return tuner.executed(best, images, question)


def tuned_layers(net: nn.Module, images: Images, choices: Choices | None = None) -> Fastest:
    """A copy of a deployed network with each layer in its fastest form, channels last.

    The layers are measured as by `fastest`, each once for this machine; the network is not.
    """
    with quiet(net):
        way = _Way("channels_last", len(images), tuned=any(True for _ in _layers(net)))
        return _Tuner.on(images, choices, None).formed(net, images, way)


def tuned(
    layer: nn.Module,
    *inputs: Tensor,
    choices: Choices | None = None,
    clock: Clock | None = None,
) -> Formed:
    """A layer in its fastest form for such inputs; see `fastest`."""
    with quiet(layer):
        return _Tuner.on(inputs[0], choices, clock).form(layer, inputs)


class _Tuner(NamedTuple):
    choices: Choices
    clock: Clock

    @classmethod
    def on(cls, images: Tensor, choices: Choices | None, clock: Clock | None) -> "_Tuner":
        """A tuner with this cache and clock; the defaults are the user's and the processor's."""
        return cls(Choices() if choices is None else choices, clock or steady(images.device))

    def best(
        self, question: Question, calls: Mapping[str, Callable[[], Tensor]], device: torch.device
    ) -> str:
        """The fastest of these calls, as stored or measured now; the first one if in doubt."""
        default = next(iter(calls))
        stored = self.choices.recall(question, list(calls))
        if stored is not None or len(calls) == 1:
            return stored or default
        finished = {name: partial(_finished, call, device) for name, call in calls.items()}
        seconds = race(finished, self.clock)
        least = min(seconds, key=seconds.__getitem__)
        best = least if seconds[least] < WORTH * seconds[default] else default
        self.choices.keep(question, best, seconds)
        return best

    def formed(self, net: nn.Module, images: Images, way: _Way) -> Fastest:
        """The network in this way of running."""
        twin = copy.deepcopy(net).eval().requires_grad_(False)
        twin = twin.to(memory_format=LAYOUTS[way.layout])  # type: ignore[call-overload]
        layers: dict[str, Formed] = {}
        if way.tuned:
            hooks = [
                layer.register_forward_pre_hook(partial(self._visit, layers, name))
                for name, layer in _layers(twin)
            ]
            twin(images[:PORTION])
            for hook in hooks:
                hook.remove()
            for name, formed in layers.items():
                if formed.form is not formed.layer:
                    twin.set_submodule(name, formed)
        counts = Counter(layer.name for layer in layers.values())
        return Fastest(twin, len(images), way.portion, _words(way, counts, len(images)))

    def executed(self, network: Fastest, images: Images, asked: Question) -> Fastest:
        """The network as its fastest engine executes it; one whose values differ is left out."""
        eager, *others = engines(images.device)
        if not others:
            return network
        question = {"engine of": network.forms, **asked}
        stored = self.choices.recall(question, [eager, *others])
        options = [engine for engine in others if stored in (None, engine)]
        built: dict[str, Fastest] = {eager: network}
        for engine in options:
            twin = network.by(engine, images.device)
            if reason := _difference(twin, network, images):
                logger.warning("%s is not executed by %s: %s", network.forms, engine, reason)
            else:
                built[engine] = twin
        if stored is None:
            finished = {
                name: partial(_finished, partial(each, images), images.device)
                for name, each in built.items()
            }
            seconds = dict.fromkeys(others, math.inf) | race(finished, self.clock)
            least = min(seconds, key=seconds.__getitem__)
            stored = least if seconds[least] < WORTH * seconds[eager] else eager
            self.choices.keep(question, stored, seconds)
        return built.get(stored, network)

    def form(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> Formed:
        """A layer in its fastest form for these inputs."""
        forms = _forms(layer, *inputs)
        question = {"layer": repr(layer), **_place(*inputs)}
        layout = LAYOUTS[_layout(inputs[0])]
        calls = {name: partial(_laid_out, form, inputs, layout) for name, form in forms.items()}
        best = self.best(question, calls, inputs[0].device)
        return Formed(layer, inputs[0].shape[1:], best, forms[best])

    def _visit(
        self, layers: dict[str, Formed], name: str, layer: nn.Module, inputs: tuple[Tensor, ...]
    ) -> None:
        """Runs before each call of a layer in a dry run; the first call counts."""
        if name not in layers:
            layers[name] = self.form(layer, inputs)


def _ways(net: nn.Module, images: Images) -> Iterator[_Way]:
    """Each layout with the whole batch and with portions; also untuned, if layers can be tuned."""
    tuned = any(True for _ in _layers(net))
    if tuned:
        yield _Way("channels_last", len(images), tuned=False)
    for layout in LAYOUTS:
        yield _Way(layout, len(images), tuned)
        if len(images) > PORTION and not images.is_cuda:
            yield _Way(layout, PORTION, tuned)


def _layers(net: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers with more than one form, outermost first; not the parts of such a layer."""
    for name, part in net.named_children():
        if isinstance(part, HasForms) or (type(part) is nn.Conv2d and has_forms(part)):
            yield f"{prefix}{name}", part
        else:
            yield from _layers(part, f"{prefix}{name}.")


def _forms(layer: nn.Module, features: Features, *others: Tensor) -> Mapping[str, nn.Module]:
    """The exact forms of a layer for these inputs; the default comes first."""
    if isinstance(layer, HasForms):
        return layer.forms(features, *others)
    assert isinstance(layer, nn.Conv2d), "only layers with forms are tuned"
    return convolution_forms(layer, features)


def _laid_out(form: nn.Module, inputs: tuple[Tensor, ...], layout: torch.memory_format) -> Tensor:
    """A form's output in the layout of its input, so that converting the layout is timed too."""
    output: Tensor = form.forward(*inputs)
    return output.contiguous(memory_format=layout)


def _finished(call: Callable[[], Tensor], device: torch.device) -> None:
    call()
    wait(device)


def _difference(twin: Fastest, network: Fastest, images: Images) -> str:
    """Why the twin cannot replace the network, or its largest error; empty if it can."""
    try:
        values, wanted = twin(images), network(images)
    except Exception as error:  # whatever a compiler raises
        return " ".join(str(error).split())[:200]
    apart = float((values - wanted).abs().max() / wanted.abs().max())
    return "" if apart <= TOLERANCE else f"its logits differ by {apart:.1e} of the largest"


def _layout(features: Tensor) -> str:
    last = features.is_contiguous(memory_format=torch.channels_last)
    return "channels_last" if last else "contiguous"


def _place(*inputs: Tensor) -> dict[str, Any]:
    """The conditions of a timing: all that it depends on beside the code that runs."""
    first = inputs[0]
    return {
        "inputs": [list(tensor.shape) for tensor in inputs],
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
