"""Draws front.png, the picture of the README, from the table of a published study.

python docs/hooks/front.py runs/quickstart/report/leaderboard.csv docs/front.png
"""

import sys
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

COLOURS = {
    "dense": "#1b1c1e",
    "resrep": "#CC79A7",
    "condconv": "#0072B2",
    "dsnet": "#009E73",
    "condensenet": "#D55E00",
    "skipnet": "#B07A00",
}
"""Those of the report (Okabe and Ito), yellow darkened for text on white."""
NAMES = {
    ("dense", 0.1): (9, 12),
    ("dense", 0.3): (-9, 12),
    ("condconv", 0.1): (9, -14),
    ("condconv", 0.3): (9, 0),
    ("resrep", 0.3): (-9, 0),
    ("resrep", 0.1): (9, -12),
    ("condensenet", 0.3): (-9, 0),
    ("skipnet", 0.3): (-9, 0),
}
"""Where a cell's name stands, in points from its mark; the others stand to its right."""


def main(table: Path, picture: Path) -> None:
    """Test accuracy over cost, each cell with its interval and its name."""
    cells = pd.read_csv(table).dropna(subset="mean")
    figure = Figure(figsize=(8, 4.2), layout="constrained", facecolor="white")
    axes = figure.subplots()
    for method, rows in cells.groupby("method"):
        colour = COLOURS[str(method)]
        mean = rows["mean"] * 100
        spread = [mean - rows["lo"] * 100, rows["hi"] * 100 - mean]
        axes.errorbar(rows["macs_mean_m"], mean, spread, fmt="o", color=colour, capsize=3)
        for cell, height in zip(rows.itertuples(), mean, strict=True):
            right, up = NAMES.get((str(method), cell.budget_mmac), (9, 0))
            axes.annotate(
                str(method),
                (cell.macs_mean_m, height),
                xytext=(right, up),
                textcoords="offset points",
                ha="left" if right > 0 else "right",
                va="center",
                color=colour,
            )
    baseline = cells[cells["method"] == "dense"].sort_values("macs_mean_m")
    axes.step(
        [*baseline["macs_mean_m"], 0.45],
        [*(baseline["mean"] * 100), baseline["mean"].iloc[-1] * 100],
        where="post",
        color=COLOURS["dense"],
        linewidth=1,
    )
    primary = cells[cells["primary"]]["budget_mmac"].iloc[0]
    axes.axvline(primary, color="#8f9194", linestyle=":", linewidth=1)
    axes.annotate(
        "primary budget",
        (primary, 56),
        xytext=(5, 0),
        textcoords="offset points",
        color="#5c5e61",
        va="center",
    )
    axes.set(
        xscale="log",
        xlim=(0.048, 0.45),
        ylim=(54, 84),
        xlabel="million MACs per image",
        ylabel="test accuracy, %",
    )
    axes.set_xticks([0.05, 0.1, 0.2, 0.3, 0.4], labels=["0.05", "0.1", "0.2", "0.3", "0.4"])
    axes.minorticks_off()
    axes.grid(axis="y", color="#e6e7e9")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=160)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
