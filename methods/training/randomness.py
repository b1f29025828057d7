"""The random numbers of one trial: all of them derive from its seed."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


@dataclass
class Randomness:
    """The generators of one trial, and the state of torch's global ones between its epochs."""

    place: torch.device
    seeds: tuple[int, int, int, int]
    """Seeds of initialisation, layers, order and augmentation."""
    order: torch.Generator = field(default_factory=torch.Generator)
    augment: torch.Generator = field(default_factory=torch.Generator)
    layers: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, seed: int, place: torch.device) -> "Randomness":
        children = np.random.SeedSequence(seed).spawn(4)
        seeds = [int(child.generate_state(1, np.uint64)[0] >> np.uint64(1)) for child in children]
        randomness = cls(place, (seeds[0], seeds[1], seeds[2], seeds[3]))
        randomness.order.manual_seed(seeds[2])
        randomness.augment.manual_seed(seeds[3])
        return randomness

    @contextlib.contextmanager
    def initialising(self) -> Iterator[None]:
        """Inside, torch's global generators start from the seed of initialisation."""
        with self._forked():
            self._seed(self.seeds[0])
            yield

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Inside, torch's global generators continue from their state after the last epoch."""
        with self._forked():
            self._seed(self.seeds[1])
            if self.layers:
                torch.set_rng_state(self.layers["cpu"])
            if "cuda" in self.layers and self.place.type == "cuda":
                torch.cuda.set_rng_state(self.layers["cuda"], self.place)
            yield
            self.layers = {"cpu": torch.get_rng_state()}
            if self.place.type == "cuda":
                self.layers["cuda"] = torch.cuda.get_rng_state(self.place)

    def state(self) -> dict[str, Tensor]:
        return {
            "order": self.order.get_state(),
            "augment": self.augment.get_state(),
            **{f"layers_{name}": tensor.clone() for name, tensor in self.layers.items()},
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.order.set_state(state["order"].cpu())
        self.augment.set_state(state["augment"].cpu())
        names = [name for name in state if name.startswith("layers_")]
        self.layers = {name.removeprefix("layers_"): state[name].cpu() for name in names}

    def _seed(self, seed: int) -> None:
        torch.default_generator.manual_seed(seed)
        if self.place.type == "cuda":
            with torch.cuda.device(self.place):
                torch.cuda.manual_seed(seed)

    def _forked(self) -> contextlib.AbstractContextManager[None]:
        devices = [self.place] if self.place.type == "cuda" else []
        return torch.random.fork_rng(devices=devices)
