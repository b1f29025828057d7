"""The console and the options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

TABLE_WIDTH = 72
"""Columns that the tables need; where the terminal is narrower it wraps their lines."""
console = Console()
console.width = max(console.width, TABLE_WIDTH)  # rich would leave out columns


def _shipped(incomplete: str) -> list[str]:
    """Names of shipped studies for the shell to complete; it completes files itself."""
    from isoflop.shipped import study_names

    return [name for name in study_names() if name.startswith(incomplete)]


def _run_before(context: typer.Context, incomplete: str) -> list[str]:
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
        help="The study file (YAML), or the name of a study that isoflop ships.",
        autocompletion=_shipped,
    ),
]
StudyName = Annotated[
    str,
    typer.Argument(help="The study file, or the study's name.", autocompletion=_run_before),
]
Out = Annotated[Path, typer.Option(help="The folder that holds a folder for each study.")]
Store = Annotated[
    str | None,
    typer.Option(
        "--mlflow",
        help="The tracking URI of the MLflow store.",
        envvar="ISOFLOP_MLFLOW",
        show_default="an SQLite file in --out",
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        help="Bring every image to a square of this many pixels a side.",
        min=1,
        show_default="the size that all images have",
    ),
]
Fit = Annotated[
    Literal["crop", "pad", "stretch"],
    typer.Option(help="Cut, frame in black, or stretch the images that are not of --size."),
]


def near(path: Path) -> Path:
    """A path relative to the working folder where it lies below that."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
