"""Steps and deployed networks by other engines beside the same as written, as JSON on stdout.

A process of its own: where shapes are checked at run time, as under pytest, nothing is compiled.
"""

import copy
import json
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from methods import METHODS
from methods.api import Network, Phase
from methods.data.load import load
from methods.shipping import forms
from methods.shipping.choices import Choices
from methods.training import engines
from methods.training.engines import run_by
from methods.training.loop import Recipe, train
from tests.methods.shipping.test_forms import SMALL, TASK, images, shipped

CPU = torch.device("cpu")


def steps(*names: str) -> dict[str, float]:
    """Largest difference of any loss or state after four steps of each phase of these methods.

    Captured by torch.compile and run without code generation, so that no rounding hides an error.
    """
    engines._OPTIONS["compiled"] = {"backend": "aot_eager"}
    return dict(_steps(names))


def _steps(names: Sequence[str]) -> Iterator[tuple[str, float]]:
    for name in names:
        method = METHODS[name].of(SMALL[name])
        for phase in method.phases(0.1):
            torch.manual_seed(0)
            net = method.build(TASK)
            torch._dynamo.reset()
            by_engine = run_by("compiled", phase.loss, CPU)
            assert by_engine is not phase.loss
            other = Phase(**{**vars(phase), "loss": by_engine})
            wanted, found = _trained(phase, copy.deepcopy(net)), _trained(other, net)
            yield (
                f"{name} {phase.name}",
                float(max((a - b).abs().max() for a, b in zip(wanted, found, strict=True))),
            )


def _trained(phase: Phase[Any], net: Network) -> list[Tensor]:
    """Losses and states of four steps with random numbers in them."""
    draw = torch.Generator().manual_seed(2)
    trained = [p for group in phase.parameters(net) for p in group.parameters]
    sgd = torch.optim.SGD(trained, lr=0.05)
    losses = []
    torch.manual_seed(1)
    for step in range(4):
        batch = torch.randn(16, 1, 8, 8, generator=draw)
        labels = torch.randint(5, (16,), generator=draw)
        net.train()
        phase.advance(net, step / 4)
        sgd.zero_grad()
        loss = phase.loss(net, batch, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        sgd.step()
        losses.append(loss.detach().double())
    return [*losses, *(value.double() for value in net.state_dict().values())]


def trials() -> dict[str, list[float]]:
    """The losses of a trial by two engines."""
    losses = {}
    for engine in ("eager", "compiled"):
        fields = {"epochs": 2, "batch_size": 64, "lr": 0.05, "mixup": 0.2, "engine": engine}
        recipe = Recipe.of(fields)
        method = METHODS["dense"].of(SMALL["dense"])
        losses[engine] = [epoch.loss for epoch in train(method, load("digits"), recipe, seed=3)]
    return losses


class Wrong(nn.Module):
    """Logits that a compiler gets wrong."""

    def forward(self, batch: Tensor) -> Tensor:
        return batch.flatten(1) + (0 if torch.compiler.is_compiling() else 1)


def deployed() -> dict[str, Any]:
    """A deployed network in its fastest form of those with a compiler's, twice, and a wrong one."""
    forms.engines = lambda _device: ("eager", "compiled")
    net, some = shipped("skipnet").float(), images(2).float()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        first, again = (forms.fastest(net, some, Choices(Path(folder))) for _ in range(2))
        seconds = [json.loads(file.read_text())["seconds"] for file in Path(folder).iterdir()]
        wrong = forms.fastest(Wrong(), some, Choices(Path(folder)))
        return {
            "forms": [first.forms, again.forms, wrong.forms],
            "error": float((first(some) - net(some)).abs().max()),
            "compiled": float((first.by("compiled", CPU)(some) - net(some)).abs().max()),
            "measured": sum("compiled" in each for each in seconds),
        }


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr)
    what = {"steps": steps, "trials": trials, "deployed": deployed}[sys.argv[1]]
    sys.stdout.write(json.dumps(what(*sys.argv[2:])))
