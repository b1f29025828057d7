"""The one convention of cost: multiply-accumulates of convolutions and matrix products.

Normalisation (it folds away), bias, activations, pooling and indexing are free. fvcore counts one
multiply-add as one FLOP, so its FLOPs are our MACs; torch's FlopCounterMode counts two.
"""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # fvcore scripts a loss as it is imported
    from fvcore.nn.flop_count import FlopCountAnalysis
    from fvcore.nn.jit_handles import get_shape

COUNTED = ("conv", "linear", "addmm", "matmul", "mm", "bmm", "baddbmm", "mv", "einsum", "tensordot")
DRAWN = {Tensor.normal_, nn.init.normal_, nn.init.kaiming_normal_}
RECURRENT = ("lstm", "lstm_cell")


class _Unfilled(TorchFunctionMode):
    """Skips the initialisation of weights: on the meta device it takes longer than all else."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in DRAWN:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def sketched() -> Iterator[None]:
    """Modules built inside have shapes and no values, which is enough to price them."""
    with torch.device("meta"), _Unfilled():
        yield


def macs(module: nn.Module, *inputs: Tensor) -> int:
    """MACs of one call of `module` on these inputs in evaluation mode, by fvcore's trace.

    The trace freezes control flow and drops operations that no output depends on: a network whose
    control flow depends on data must return the values it decides by, or `executed_macs` counts it.

    Raises:
        NotImplementedError: a matrix product that has no counting rule here.
    """
    with quiet(module), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.trace: deprecated, and every Python branch
        analysis = FlopCountAnalysis(module, inputs)
        analysis.set_op_handle(**HANDLES)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        counts = analysis.by_operator()
    return sum(int(counts[name]) for name in (*COUNTED, *RECURRENT) if name in counts)


def executed_macs(module: nn.Module, *inputs: Tensor) -> int:
    """MACs that one eager call in evaluation mode executes, over the whole batch.

    An independent measurement: half of FlopCounterMode's count, plus LSTMs, which it misses.
    """
    counter = FlopCounterMode(display=False)
    with quiet(module), _recurrent(module, counter) as missed, counter:
        module(*inputs)
    flops = counter.get_total_flops()
    if flops % 2:
        raise AssertionError(f"FlopCounterMode counts two per MAC, but found {flops}")
    return int(flops // 2) + sum(missed)


@contextlib.contextmanager
def quiet(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; restores the mode of every submodule."""
    with in_evaluation(module), torch.no_grad():
        yield


@contextlib.contextmanager
def in_evaluation(module: nn.Module) -> Iterator[None]:
    """Evaluation mode; restores the mode of every submodule."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


@contextlib.contextmanager
def _recurrent(module: nn.Module, counter: FlopCounterMode) -> Iterator[list[int]]:
    """The MACs of every LSTM call that the counter misses."""
    missed: list[int] = []
    before: list[int] = []

    def enter(_part: nn.Module, _inputs: Any) -> None:
        before.append(counter.get_total_flops())

    def leave(part: nn.Module, inputs: Any, _outputs: Any) -> None:
        counted = (counter.get_total_flops() - before.pop()) // 2
        missed.append(_lstm_macs(part, inputs[0]) - counted)

    parts = [part for part in module.modules() if isinstance(part, nn.LSTM | nn.LSTMCell)]
    hooks = [part.register_forward_pre_hook(enter) for part in parts]
    hooks += [part.register_forward_hook(leave) for part in parts]
    try:
        yield missed
    finally:
        for hook in hooks:
            hook.remove()


def _lstm_macs(part: nn.Module, inputs: Tensor) -> int:
    steps = inputs.numel() // inputs.shape[-1]  # time and batch
    weights = [p for name, p in part.named_parameters() if name.startswith("weight")]
    return steps * sum(weight.numel() for weight in weights)


def _lstm(inputs: list[Any], _outputs: list[Any]) -> int:
    sequence, weights = _shape(inputs[0]), inputs[2].node().inputs()
    matrices = [shape for weight in weights if len(shape := _shape(weight)) == 2]
    return math.prod(sequence[:-1]) * sum(math.prod(shape) for shape in matrices)


def _lstm_cell(inputs: list[Any], _outputs: list[Any]) -> int:
    batch = math.prod(_shape(inputs[0])[:-1])
    return batch * sum(math.prod(_shape(weight)) for weight in inputs[2:4])


def _refused(_inputs: list[Any], _outputs: list[Any]) -> int:
    raise NotImplementedError(
        "LSTMs are the only recurrent modules that are counted, but got a GRU or a plain RNN; "
        "write its step as linear maps"
    )


def _baddbmm(inputs: list[Any], _outputs: list[Any]) -> int:
    return math.prod(_shape(inputs[1])) * int(_shape(inputs[2])[-1])


def _mv(inputs: list[Any], _outputs: list[Any]) -> int:
    return math.prod(_shape(inputs[0]))


def _matmul(inputs: list[Any], outputs: list[Any]) -> int:
    return math.prod(_shape(outputs[0])) * int(_shape(inputs[0])[-1])


def _tensordot(inputs: list[Any], outputs: list[Any]) -> int:
    left, right, out = (math.prod(_shape(value)) for value in (*inputs[:2], outputs[0]))
    return out * math.isqrt(left * right // out)  # times the product of the contracted axes


def _einsum(inputs: list[Any], _outputs: list[Any]) -> int:
    equation = str(inputs[0].toIValue()).replace(" ", "")
    terms = equation.split("->")[0].split(",")
    shapes = [_shape(value) for value in inputs[1].node().inputs()]
    if len(terms) > 2 or "." in equation:
        raise NotImplementedError(
            f"einsum is counted for two operands without an ellipsis, but got {equation!r}; "
            f"write it as products of two"
        )
    if len(terms) == 1:
        return 0
    axes = {a: n for term, dims in zip(terms, shapes, strict=True) for a, n in zip(term, dims)}  # noqa: B905
    return math.prod(axes.values())


def _shape(value: Any) -> list[int]:
    return [int(size) for size in get_shape(value)]


HANDLES: dict[str, Callable[[list[Any], list[Any]], int]] = {
    "aten::lstm": _lstm,
    "aten::lstm_cell": _lstm_cell,
    **dict.fromkeys(
        (
            f"aten::{kind}{cell}"
            for kind in ("gru", "rnn_tanh", "rnn_relu")
            for cell in ("", "_cell")
        ),
        _refused,
    ),
    "aten::baddbmm": _baddbmm,
    "aten::mv": _mv,
    "aten::matmul": _matmul,
    "aten::tensordot": _tensordot,
    "aten::einsum": _einsum,
}
