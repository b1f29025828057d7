"""How torch executes a function: as it is written, compiled, or compiled into CUDA graphs.

All give the same values, to rounding, and draw the same random numbers. A compiled function saves
the launches of small kernels, which is what small images wait for on a GPU; it costs up to minutes
to compile, once for each shape.
"""

import functools
import logging
import warnings
from collections.abc import Callable
from typing import Any, Literal, ParamSpec

import torch
from torch import Tensor, nn

Engine = Literal["eager", "compiled", "graphs"]

CALLS = ParamSpec("CALLS")

_OPTIONS = {"compiled": {"mode": "default"}, "graphs": {"mode": "reduce-overhead"}}

logger = logging.getLogger(__name__)


def engines(device: torch.device) -> tuple[Engine, ...]:
    """The engines worth a comparison on a device; the first needs no compiler."""
    return ("eager", "compiled", "graphs") if device.type == "cuda" else ("eager",)


def run_by(
    engine: Engine, function: Callable[CALLS, Tensor], device: torch.device
) -> Callable[CALLS, Tensor]:
    """The function as this engine executes it on a device, by torch.compile.

    Where nothing can be compiled, a warning says so and the function runs as it is written; what a
    compiler cannot follow inside it always does.
    """
    if engine == "eager":
        return function
    if reason := _missing(device.type):
        logger.warning("nothing can be compiled here, so that all runs eagerly: %s", reason)
        return function
    compiled: Callable[CALLS, Tensor] = _compile(function, _OPTIONS[engine])
    if engine == "compiled" or device.type != "cuda":
        return compiled

    def replayed(*inputs: CALLS.args, **named: CALLS.kwargs) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return compiled(*inputs, **named).clone()  # the next replay overwrites the graph's output

    return replayed


class ByEngine(nn.Module):
    """A network, images -> logits, that an engine executes."""

    def __init__(self, net: nn.Module, engine: Engine, device: torch.device) -> None:
        super().__init__()
        self.net = net
        self.run = run_by(engine, net.forward, device)

    def forward(self, images: Tensor) -> Tensor:
        return self.run(images)


def _compile(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    import torch._dynamo  # noqa: PLC0415, takes seconds
    import torch._inductor.config  # noqa: PLC0415

    torch._dynamo.config.suppress_errors = True  # an error of the compiler's leaves a part eager
    torch._inductor.config.fallback_random = True  # torch's own random numbers
    return torch.compile(function, dynamic=False, **options)


@functools.cache
def _missing(place: str) -> str:
    """Why nothing can be compiled for this kind of device; empty if it can."""
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's compiler imports what torch deprecates
            probe = torch.compile(lambda values: values.sin() + 1, dynamic=False)
            probe(torch.ones(8, device=place))
    except Exception as error:  # of a missing compiler, a missing package, a read-only cache
        return " ".join(str(error).split())[:200]
    return ""
