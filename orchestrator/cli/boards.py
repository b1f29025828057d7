"""The board of a study, and methods and studies side by side, from the MLflow store alone."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.shared import Out, Store, console, near


def board(
    study: Annotated[str, typer.Argument(help="The study file, or the study's name.")],
    out: Out = Path("runs"),
    mlflow: Store = None,
) -> None:
    """Print the board of a finished or running study, from the MLflow store alone."""
    from orchestrator import sweep

    print_board(sweep.show(study, out, uri=mlflow))


def print_board(outcome: Any) -> None:
    """The board, where its report lies, and how it is opened in MLflow."""
    from orchestrator.report import terminal

    console.print(terminal(outcome.board))
    console.print(f"\nReport:  {near(outcome.report)}", highlight=False, soft_wrap=True)
    server = outcome.uri if outcome.uri.startswith("http") else "http://127.0.0.1:5000"
    if not outcome.uri.startswith("http"):
        console.print(
            f"MLflow:  {near(Path(sys.executable).with_name('mlflow'))} server "
            f"--backend-store-uri {outcome.uri} --port 5000",
            highlight=False,
            soft_wrap=True,
        )
    if outcome.link:
        console.print(f"   then  {server}/{outcome.link}", highlight=False, soft_wrap=True)
