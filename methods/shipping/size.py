"""How large a deployed network is: its values, their bytes, and the memory that a run needs."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from methods.api import Images
from methods.macs import quiet


@dataclass(frozen=True)
class Size:
    """What a deployed network takes, beside its MACs."""

    parameters: int
    """Learned values that it ships, expert kernels and gates included: floating-point parameters
    and buffers, such as the scales of norms. Indices are no parameters."""
    weight_bytes: int
    """Bytes of all values that it ships, indices included: an exported file is longer by its
    header, which names them."""
    activation_bytes: int
    """Peak memory of activations for one image; see `activation_bytes`."""


def size(deployed: nn.Module, images: Images) -> Size:
    """The size of a deployed network; its peak memory is the largest over these images."""
    state = [value for value in deployed.state_dict().values() if isinstance(value, Tensor)]
    return Size(
        parameters=sum(value.numel() for value in state if value.is_floating_point()),
        weight_bytes=sum(value.numel() * value.element_size() for value in state),
        activation_bytes=max(activation_bytes(deployed, image) for image in torch.split(images, 1)),
    )


def activation_bytes(module: nn.Module, images: Images) -> int:
    """Peak memory of the activations of one call: the largest sum of the live tensors, in bytes.

    A tensor lives from the operation that makes it to the last one that reads or writes it, as in a
    runtime that frees what is not needed any more; during an operation its inputs and its outputs
    live. The image counts, and so do kernels that are mixed for it; parameters, buffers and their
    views do not, nor does the scratch memory inside of an operation. Views share their tensor's
    memory, and an operation in place takes none.
    """
    lives = _Lives([*module.parameters(), *module.buffers()])
    images = images.clone()  # a part of a batch holds the memory of the whole batch
    with quiet(module):
        lives.note([images])
        with lives:
            module(images)
    return lives.peak()


class _Lives(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The first and the last operation of every tensor's memory, but for that of `excluded`."""

    def __init__(self, excluded: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._excluded = {_address(tensor) for tensor in excluded}
        self._step = 0
        self._spans: dict[int, tuple[int, int]] = {}
        self._storages: dict[int, torch.UntypedStorage] = {}  # held, so that none is used again

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        self._step += 1
        self.note(tree_leaves((args, kwargs, outputs)))
        return outputs

    def note(self, values: list[Any]) -> None:
        """The tensors among these live at the present step."""
        for value in values:
            if isinstance(value, Tensor) and (address := _address(value)) not in self._excluded:
                first, _ = self._spans.get(address, (self._step, 0))
                self._spans[address] = (first, self._step)
                self._storages[address] = value.untyped_storage()

    def peak(self) -> int:
        """The largest sum of bytes that live at one step."""
        sums = [0] * (self._step + 1)
        for address, (first, last) in self._spans.items():
            for step in range(first, last + 1):
                sums[step] += self._storages[address].nbytes()
        return max(sums)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # type: ignore[no-any-return]
