"""The console and the options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

TABLE_WIDTH = 72
"""Columns that the tables need; where the terminal is narrower it wraps their lines."""
console = Console()
console.width = max(console.width, TABLE_WIDTH)  # rich would leave out columns

StudyFile = Annotated[
    str, typer.Argument(help="The study file (YAML), or the name of a study that isoflop ships.")
]
Out = Annotated[Path, typer.Option(help="Folder that holds a folder per study.")]
Store = Annotated[
    str | None,
    typer.Option(
        "--mlflow",
        help="MLflow tracking URI.",
        envvar="ISOFLOP_MLFLOW",
        show_default="SQLite in --out",
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        help="Pixels of each side that every image is brought to.",
        min=1,
        show_default="the size that all images have",
    ),
]
Fit = Annotated[
    Literal["crop", "pad", "stretch"],
    typer.Option(help="How images come to --size: cut, framed in black, or stretched."),
]


def near(path: Path) -> Path:
    """A path relative to the working folder where it lies below that."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
