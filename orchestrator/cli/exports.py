"""A confirm run's network, to use elsewhere."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from orchestrator.cli.shared import Out, Store, console, near


def export(  # noqa: PLR0917
    run: Annotated[
        str, typer.Argument(help="STUDY/METHOD, STUDY/TRIAL, or the MLflow run id of a trial.")
    ],
    kind: Annotated[
        Literal["torch", "pt2", "onnx"],
        typer.Option(
            "--format",
            help="torch: weights, made a network again by isoflop; pt2: a graph for PyTorch; onnx: "
            "a graph for any runtime.",
        ),
    ] = "torch",
    at: Annotated[
        float | None,
        typer.Option(help="The METHOD's cell, by its budget (MMACs).", show_default="primary"),
    ] = None,
    point: Annotated[
        str | None, typer.Option(help="Operating point of a TRIAL that has several.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(help="The folder.", show_default="exports/ in the study's folder"),
    ] = None,
    out: Out = Path("runs"),
    mlflow: Store = None,
) -> None:
    """Ship a confirm run's deployed network: its file, a model card, and proof that they agree."""
    from orchestrator import export as exports

    with Console(stderr=True).status("Exporting, and comparing with the network as measured"):
        found = exports.find(run, out, uri=mlflow, at=at, point=point)
        folder = exports.export(found, kind, to)
    console.print(f"{found.row.trial} {found.row.point}".rstrip(), highlight=False)
    console.print(f"Network: {near(folder)}", highlight=False, soft_wrap=True)
    console.print(f"Card:    {near(folder / 'card.md')}", highlight=False, soft_wrap=True)
