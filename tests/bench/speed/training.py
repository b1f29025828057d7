"""Training a plain ResNet-8: samples per second of CPU, loaders' workers included (goals 1 and 2).

Each side runs in a separate process, one after the other, since what the allocator learns stays.
`python -m tests.bench.speed.training SIDE PIXELS DEVICE` is one such process.
"""

import copy
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping

import torch
from torch.nn import functional as F

from methods.api import StaticNet
from methods.dense import Dense
from methods.machine import tune_allocator
from methods.training.loop import train
from methods.training.recipe import Recipe, optimiser
from tests.bench.speed.clock import Clock, Ratio, same
from tests.bench.speed.goals import Finding, found
from tests.bench.speed.pictures import Pictures

METHOD = Dense(depth=8)
BATCH = 128
STEPS = {32: 8, 8: 40}
"""Steps of one reading, by the images' size in pixels."""
READINGS = 2
ROUNDS = 3
LIMITS: Mapping[tuple[str, int], dict[str, float]] = {
    ("restarted", 32): {"least": 2.2, "stretch": 3.5},
    ("restarted", 8): {"least": 5.0, "stretch": 7.5},
    ("ordinary", 32): {"least": 1.35, "stretch": 2.1},
    ("ordinary", 8): {"least": 1.35, "stretch": 2.1},
}
GOALS = {"restarted": "1", "ordinary": "2"}


def findings(clock: Clock) -> Iterator[Finding]:
    """Ours, and ours in bf16, over a loop whose loader starts anew and over an ordinary one."""
    agree()
    sides = ("restarted", "ordinary", "ours", "bf16")
    for pixels in STEPS:
        rates: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(ROUNDS):
            for side in sides:
                rates[side].append(_apart(side, pixels, str(clock.device)))
        for theirs in ("restarted", "ordinary"):
            for mine in ("ours", "bf16"):
                ratio = Ratio.of(a / b for a, b in zip(rates[mine], rates[theirs], strict=True))
                what = f"training at {pixels} px, {mine}, over the {theirs} loop"
                yield found(GOALS[theirs], what, ratio, **LIMITS[theirs, pixels])


def agree() -> None:
    """One step of both optimisers, layouts and losses leaves the same weights."""
    pictures = Pictures.drawn(BATCH, 8)
    data = pictures.data()
    torch.manual_seed(0)
    theirs: StaticNet = METHOD.build(data.task)
    ours = copy.deepcopy(theirs).to(memory_format=torch.channels_last)
    images, labels = data.train.head(BATCH)
    phase = METHOD.phases()[0]
    recipe = Recipe(epochs=1, batch_size=BATCH)
    fused = optimiser(phase.parameters(ours), recipe, phase)
    plain = _plain(theirs)
    for net, sgd, some in ((ours, fused, images), (theirs, plain, images.contiguous())):
        net.train()
        F.cross_entropy(net(some).logits, labels).backward()
        sgd.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        same(one, other)


def _restarted(pixels: int, device: str) -> Iterator[None]:
    yield from _looped(pixels, device, restarts=True)


def _ordinary(pixels: int, device: str) -> Iterator[None]:
    yield from _looped(pixels, device, restarts=False)


def _looped(pixels: int, device: str, *, restarts: bool) -> Iterator[None]:
    """A training script as they are: yields after each reading's steps."""
    pictures = Pictures.drawn(BATCH * STEPS[pixels], pixels)
    net: StaticNet = METHOD.build(pictures.data().task).to(device).train()
    loader = pictures.loader(BATCH, workers=1 if restarts else 0)
    sgd, losses = _plain(net), []
    while True:
        batches = (next(iter(loader)) for _ in range(STEPS[pixels])) if restarts else iter(loader)
        for images, labels in batches:
            sgd.zero_grad()
            loss = F.cross_entropy(net.backbone(images.to(device)), labels.to(device))
            loss.backward()
            sgd.step()
            losses.append(loss.item())
        yield


def _ours(pixels: int, device: str) -> Iterator[None]:
    yield from _trained(pixels, device, "fp32")


def _bf16(pixels: int, device: str) -> Iterator[None]:
    yield from _trained(pixels, device, "bf16")


def _trained(pixels: int, device: str, precision: str) -> Iterator[None]:
    tune_allocator()
    pictures = Pictures.drawn(BATCH * STEPS[pixels], pixels)
    recipe = Recipe.of({"epochs": READINGS + 1, "batch_size": BATCH, "precision": precision})
    for _ in train(METHOD, pictures.data(device), recipe, seed=0, device=device):
        yield


SIDES: Mapping[str, Callable[[int, str], Iterator[None]]] = {
    "restarted": _restarted,
    "ordinary": _ordinary,
    "ours": _ours,
    "bf16": _bf16,
}


def _plain(net: StaticNet) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)


def _apart(side: str, pixels: int, device: str) -> float:
    command = [sys.executable, "-m", "tests.bench.speed.training", side, str(pixels), device]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(ended.stdout.splitlines()[-1]))


def _spent(device: str) -> float:
    """Seconds: of CPU, children that ended included, or of the wall beside a GPU."""
    if device != "cpu":
        torch.cuda.synchronize()
        return time.perf_counter()
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def _main(side: str, pixels: int, device: str) -> None:
    torch.set_num_threads(1)
    readings = SIDES[side](pixels, device)
    next(readings)
    began = _spent(device)
    for _ in range(READINGS):
        next(readings)
    print(json.dumps(READINGS * STEPS[pixels] * BATCH / (_spent(device) - began)))  # noqa: T201


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
