"""What a faster form of training does to accuracy: the same trials both ways, seed by seed.

`python -m tests.bench.parity` trains ResNet-8 on the digits from five seeds in fp32 and in bf16.
Order, augmentation and first weights of a seed are the same, so the differences are paired. The
interval is a t-interval: with five seeds it is wide, and says so.
"""

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["OMP_NUM_THREADS"] = "1"

import torch
from rich.console import Console

from methods.data.load import Data, load
from methods.dense import Dense
from methods.machine import native_bf16, tune_allocator
from methods.training.evaluate import evaluate
from methods.training.loop import Recipe, train
from orchestrator.board.stats.intervals import summary

METHOD = Dense(depth=8, width=0.5)
RECIPE = Recipe(epochs=16, batch_size=32, lr=0.1)


def accuracy(data: Data, recipe: Recipe, seed: int, device: str) -> float:
    """On the test split, in per cent, evaluated in fp32 whatever it was trained in."""
    *_, last = train(METHOD, data, recipe, seed=seed, device=device)
    return 100 * evaluate(last.net, data.test, device=device).accuracy


def parity(
    seeds: int = 5, *, device: str = "cpu", recipe: Recipe = RECIPE, fast: str = "bf16"
) -> dict[str, Any]:
    """Mean difference of the fast arithmetic to fp32, in points of accuracy, and its interval."""
    tune_allocator()
    torch.set_num_threads(1)
    data = load("digits", device=device)
    ways = {
        name: [
            accuracy(data, recipe.model_copy(update={"precision": name}), seed, device)
            for seed in range(seeds)
        ]
        for name in ("fp32", fast)
    }
    found = summary([b - a for a, b in zip(ways["fp32"], ways[fast], strict=True)])
    return {
        "accuracy": ways,
        "images": len(data.test),
        "difference": found.mean,
        "low": found.lo,
        "high": found.hi,
        "seeds": seeds,
        "native": native_bf16(torch.device(device)),
    }


def told(found: Mapping[str, Any]) -> str:
    """In a sentence."""
    means = {name: sum(values) / len(values) for name, values in found["accuracy"].items()}
    ways = ", ".join(f"{name} {mean:.2f} %" for name, mean in means.items())
    return (
        f"{ways}: {found['difference']:+.2f} points [{found['low']:+.2f}, {found['high']:+.2f}] "
        f"over {found['seeds']} seeds and {found['images']} test images"
        f"{'' if found['native'] else '; bf16 is emulated here'}"
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, default=None, help="write the figures here too")
    asked = parser.parse_args()
    found = parity(asked.seeds, device=asked.device)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1))
    Console().print(told(found), highlight=False)


if __name__ == "__main__":
    main()
