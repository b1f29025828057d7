"""What all commands share: the console and options."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

console = Console()

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


def near(path: Path) -> Path:
    """A path as one would type it from here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
