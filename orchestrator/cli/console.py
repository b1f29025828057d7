"""The console and the options that several commands share."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from methods.errors import StudyError

if TYPE_CHECKING:
    import pandas as pd

TABLE_WIDTH = 72
"""Minimal width of the tables in columns; a narrower terminal wraps their lines."""
console = Console()
console.width = max(console.width, TABLE_WIDTH)  # rich would leave out columns


def _shipped(incomplete: str) -> list[str]:
    """Names of shipped studies for the shell to complete; it completes files itself."""
    from isoflop.shipped import study_names

    return [name for name in study_names() if name.startswith(incomplete)]


def run_before(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the studies in --out."""
    logs = Path(context.params.get("out") or "runs").glob("*/wal.jsonl")
    return sorted(log.parent.name for log in logs if log.parent.name.startswith(incomplete))


def method_names(incomplete: str) -> list[str]:
    """Names of methods for the shell to complete."""
    from methods import METHODS

    return [name for name in METHODS if name.startswith(incomplete)]


StudyFile = Annotated[
    str,
    typer.Argument(
        help="Name the study file (YAML), or a study that isoflop ships.",
        autocompletion=_shipped,
    ),
]
StudyName = Annotated[
    str,
    typer.Argument(help="Name the study, or its file.", autocompletion=run_before),
]
Out = Annotated[
    Path, typer.Option(help="Use this folder of studies, which has a subfolder for each.")
]
Store = Annotated[
    str | None,
    typer.Option(
        "--mlflow",
        help="Use the MLflow store at this tracking URI.",
        envvar="ISOFLOP_MLFLOW",
        show_default="an SQLite file in --out",
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        help="Resize every image to a square of this many pixels a side.",
        min=1,
        show_default="the size that all images have",
    ),
]
Fit = Annotated[
    Literal["crop", "pad", "stretch"],
    typer.Option(help="Crop, pad in black, or stretch the images that do not have --size."),
]

Resize = Annotated[
    int | None,
    typer.Option(
        help="Resize images to this many pixels a side, of which --size is cut out.", min=1
    ),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print a single JSON document instead.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print the table as CSV instead.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print only the verdict and the paths of the results.")
]


def for_programs(*, as_json: bool, as_csv: bool) -> bool:
    """Whether the output is for a program, as JSON or CSV.

    Raises:
        StudyError: both formats are asked for.
    """
    if as_json and as_csv:
        raise StudyError(
            "standard output must hold one document, but got --json and --csv; drop one"
        )
    return as_json or as_csv


def print_frame(
    frame: "pd.DataFrame", name: str, facts: Mapping[str, object], *, as_json: bool
) -> None:
    """Print the table as CSV, or as JSON objects under `name` beside the facts; a gap is null."""
    if not as_json:
        from orchestrator.report.frames import csv

        print(csv(frame).decode(), end="")
        return
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    print(json.dumps({**facts, name: rows}, indent=2, allow_nan=False))


def near(path: Path) -> Path:
    """A path relative to the working folder where it lies below that."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
