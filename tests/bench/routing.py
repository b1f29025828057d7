"""What deciding per image is worth, over seeds: the tables of docs/dynamic.md.

    python -m tests.bench.routing skipnet --data trails --set depth=14 width=0.5 target=0.4
    python -m tests.bench.routing --figure docs/dynamic.png dense.csv skipnet.csv ...

Trains one configuration on each seed and prints a line for each: test accuracy by its own
decisions, by another image's, by the majority's and with all run; MACs; the rank correlation of
MACs with difficulty. The means come last, with the interval of the worth that a board has. Networks
that decide nothing have accuracy and MACs alone.
"""

import argparse
import csv
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from scipy.stats import spearmanr

from methods import METHODS
from methods.api import Network, RoutedNetwork
from methods.data.load import Data, load
from methods.training.evaluate import evaluate
from methods.training.loop import Recipe, train
from methods.training.routing import routing
from methods.values import Scalar
from orchestrator.board.stats.intervals import crossed_mean

CONSOLE = Console(highlight=False, soft_wrap=True)
NONE = float("nan")
"""Placeholder of a value that a network lacks."""
NAMES = {
    "another": "another\nimage's",
    "own": "own\ndecisions",
    "majority": "the\nmajority's",
    "everything": "all run",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A network on the test split; accuracies in percent, MACs in millions."""

    seed: int
    own: float
    another: float
    majority: float
    everything: float
    macs: float
    rate: float
    """Share of what can be decided that runs: MACs between the cheapest decisions and all."""
    spearman: float
    """Correlation of an image's MACs with its difficulty; 0 where either is constant."""
    levels: str
    """Accuracy at each level of difficulty, the easiest first."""
    seconds: float

    def line(self) -> str:
        known = [name for name in (*NAMES, "macs", "rate") if not np.isnan(getattr(self, name))]
        figures = ", ".join(f"{name} {getattr(self, name):.3f}" for name in known)
        return (
            f"seed {self.seed}: {figures}, Spearman {self.spearman:+.2f}, by difficulty "
            f"{self.levels}, {self.seconds:.0f} s"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", nargs="?", choices=list(METHODS))
    parser.add_argument("--data", default="trails")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, help="a CSV file for the lines")
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--figure", type=Path, nargs="+", metavar="FILE", help="a picture of files")
    options = parser.parse_args(arguments)
    if options.figure:
        drawn(options.figure[0], options.figure[1:])
        return
    torch.set_num_threads(1)
    fields = dict(_field(text) for text in options.set)
    model = METHODS[options.method]
    method = model.published(**fields) if options.published else model.of(fields)
    recipe = Recipe(epochs=options.epochs, batch_size=options.batch, lr=options.lr)
    data, rows, worths = load(options.data), [], []
    for seed in options.seeds:
        began = time.monotonic()
        *_, last = train(method, data, recipe, seed=seed)
        row, worth = measured(last.net, method.floor(data.task), data, seed)
        rows.append(dataclasses.replace(row, seconds=time.monotonic() - began))
        worths.append(worth)
        CONSOLE.print(rows[-1].line())
    _summary(rows, worths)
    if options.out:
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(Row)])
            writer.writeheader()
            writer.writerows(dataclasses.asdict(row) for row in rows)


def measured(
    net: Network, floor: int, data: Data, seed: int
) -> tuple[Row, np.ndarray[Any, Any] | None]:
    """A trained network on the test split, and what the decisions of each image are worth."""
    own = evaluate(net, data.test)
    under = routing(net, data.test, own) if isinstance(net, RoutedNetwork) else None
    most = None if under is None else under.everything
    difficulty = data.difficulty if data.difficulty is not None else np.zeros(len(data.test))
    levels = [own.correct[difficulty == level].mean() for level in np.unique(difficulty)]
    varied = own.macs.std() > 0 and difficulty.std() > 0
    span = 0 if most is None else most.macs_mean - floor
    row = Row(
        seed=seed,
        own=100 * own.accuracy,
        another=NONE if under is None else 100 * (own.accuracy - under.worth.mean()),
        majority=NONE if under is None else 100 * under.majority.accuracy,
        everything=NONE if most is None else 100 * most.accuracy,
        macs=own.macs_mean / 1e6,
        rate=(own.macs_mean - floor) / span if span else NONE,
        spearman=float(spearmanr(own.macs, difficulty)[0]) if varied else 0.0,
        levels=" ".join(f"{100 * level:.1f}" for level in levels),
        seconds=0.0,
    )
    return row, None if under is None else under.worth


def drawn(picture: Path, tables: Sequence[Path]) -> None:
    """A picture of the accuracy under four kinds of decisions: a panel a table, a line a seed."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(
        1, len(tables), sharey=True, squeeze=False, figsize=(3.6 * len(tables), 3.6)
    )
    for axes, table in zip(panels[0], tables, strict=True):
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            heights = [float(row[kind]) for kind in NAMES]
            axes.plot(list(NAMES.values()), heights, "o-", label=f"seed {row['seed']}")
        axes.set_title(table.stem.replace("_", " "))
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("test accuracy, %")
    panels[0][-1].legend(fontsize=8)
    figure.supxlabel("each image runs by")
    figure.tight_layout()
    figure.savefig(picture, dpi=110)


def _summary(rows: list[Row], worths: list[np.ndarray[Any, Any] | None]) -> None:
    if len(rows) < 2:
        return
    for name in ("own", "another", "majority", "everything", "macs", "rate", "spearman"):
        values = np.array([getattr(row, name) for row in rows])
        if np.isnan(values).any():
            continue
        CONSOLE.print(f"{name} {values.mean():.3f} (sd {values.std(ddof=1):.3f})")
    known = [worth for worth in worths if worth is not None]
    if known:
        worth = crossed_mean(np.stack(known))
        assert worth.lo is not None
        assert worth.hi is not None
        alone = [each.mean() > 1.96 * each.std() / len(each) ** 0.5 for each in known]
        CONSOLE.print(
            f"worth {100 * worth.mean:+.2f} ({100 * worth.lo:+.2f} to {100 * worth.hi:+.2f}), "
            f"above 0 by its images in {sum(alone)} of {len(rows)}"
        )


def _field(text: str) -> tuple[str, Scalar]:
    name, _, value = text.partition("=")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, {"true": True, "false": False}.get(value, value)


if __name__ == "__main__":
    main()
