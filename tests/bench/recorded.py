"""What tables of learning curves say about searches (docs/search.md).

    python -m tests.bench.recorded studies/tables/*.parquet

Per method: standard deviations of the log error between seeds of one configuration, and between
configurations; rank correlations with the last error of the error after a quarter of the epochs,
and of what the surrogate predicts where the configuration is left out.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table as Grid
from scipy.stats import spearmanr

from orchestrator.report.table import number, table, text
from orchestrator.search.promotion.curves import SMALLEST
from orchestrator.search.replay import curves
from orchestrator.search.replay.surrogate import surrogates

QUARTER = 0.25


@dataclass(frozen=True)
class Spread:
    """What seeds and configurations change in the log error of one method's whole trials."""

    trials: int
    configurations: int
    repeated: int
    """Configurations with three runs or more."""
    seeds: float
    """Standard deviation between runs of one configuration, pooled; NaN if none ran twice."""
    between: float
    """Standard deviation between configurations, without what seeds add."""
    early: float
    """Rank correlation of the error after a quarter of the epochs with the last one."""

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "Spread":
        """From the rows of one method."""
        whole = whole_trials(rows)
        step = max(1, round(QUARTER * whole["epochs"].max()))
        early = rows[rows["step"] == step].set_index("trial")["val_acc"].astype(float)
        whole["log"] = np.log(np.maximum(1 - whole["final_acc"].astype(float), SMALLEST))
        groups = whole.groupby("params")["log"]
        counts, means = groups.count(), groups.mean()
        within = float(((whole["log"] - groups.transform("mean")) ** 2).sum())
        freedom = len(whole) - len(counts)
        noise = within / freedom if freedom else math.nan
        between = float(means.var()) - noise * float((1 / counts).mean())
        return cls(
            trials=len(whole),
            configurations=len(counts),
            repeated=int((counts >= 3).sum()),
            seeds=math.sqrt(noise),
            between=math.sqrt(max(0.0, between)),
            early=float(spearmanr(1 - early[whole["trial"]], whole["log"]).statistic),
        )


def whole_trials(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per trial that ran to its end."""
    ended = rows[(rows["state"] == "COMPLETE") & (rows["step"] == rows["epochs"])]
    return ended.reset_index(drop=True)


def spreads(path: Path) -> Grid:
    """The table's figures, a line per method."""
    shown = curves.read(path)
    heads = ("whole trials", "configs", "on 3 seeds", "sd of seeds", "sd of configs")
    ranks = ("rank after a quarter", "rank by surrogate")
    grid = table(
        text("method", wrap=False),
        *(number(head, wrap=True) for head in (*heads, *ranks)),
        title=f"{path.name}: {shown.rows['epochs'].max()} epochs on {shown.study.data}, commit "
        f"{shown.provenance.commit}; {path.stat().st_size / 1000:.0f} kB",
    )
    for method, surrogate in surrogates(shown).items():
        spread = Spread.of(shown.rows[shown.rows["method"] == method])
        figures = (spread.seeds, spread.between, spread.early, surrogate.quality.order)
        counts = (spread.trials, spread.configurations, spread.repeated)
        grid.add_row(method, *map(str, counts), *(f"{figure:.2f}" for figure in figures))
    return grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", type=Path, nargs="+")
    for path in parser.parse_args().tables:
        Console(width=110).print(spreads(path))


if __name__ == "__main__":
    main()
