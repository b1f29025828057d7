"""Run a study, plan it, and what a study file may hold."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestrator.cli.boards import print_board
from orchestrator.cli.console import Out, Store, console, near


def run(  # noqa: PLR0917
    study: Annotated[Path, typer.Argument(help="The study file (YAML).")],
    out: Out = Path("runs"),
    mlflow: Store = None,
    address: Annotated[
        str, typer.Option(help="Ray cluster; 'local' starts one on this machine.")
    ] = "local",
    slots: Annotated[
        int | None,
        typer.Option(
            help="Trials at once, on a cluster whose nodes come and go.",
            min=1,
            show_default="as many as fit the nodes",
        ),
    ] = None,
    optuna: Annotated[
        str | None,
        typer.Option(
            help="Optuna's database (SQLAlchemy URL).",
            envvar="ISOFLOP_OPTUNA",
            show_default="a journal file",
        ),
    ] = None,
    patience: Annotated[
        float, typer.Option(help="Seconds to wait for another driver of the study to end.", min=0)
    ] = 0,
) -> None:
    """Search, confirm and print the board; the same command goes on after any interruption."""
    from orchestrator.study.file import load

    what = load(study)
    from orchestrator.cli.progress import Progress
    from orchestrator.sweep import run as sweep
    from orchestrator.sweep import signals

    signals.listen()
    progress = Progress(what, console)
    console.print(f"Study [bold]{what.name}[/] on {what.data}, hash {what.hash}", highlight=False)
    try:
        with progress.shown():
            outcome = sweep.run(
                what,
                out,
                uri=mlflow,
                address=address,
                listener=progress,
                slots=slots,
                optuna=optuna,
                patience=patience,
            )
    except KeyboardInterrupt as reason:
        console.print("\nStopped; nothing is lost. Go on with the same command:")
        words = [str(near(Path(sys.argv[0]).absolute())), *sys.argv[1:]]
        console.print(f"  {shlex.join(words)}", soft_wrap=True, highlight=False, markup=False)
        if isinstance(reason, signals.Terminated):
            signals.leave()
        raise typer.Exit(130) from None
    if not outcome.fresh:
        console.print("Everything is done already; this is the board.")
    print_board(outcome)


def plan(
    study: Annotated[Path, typer.Argument(help="The study file (YAML).")],
    steps: Annotated[
        int, typer.Option(help="Steps in each short epoch of the timing; 0 times nothing.", min=0)
    ] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Print what a study would do: reach, effort, time, what its seeds can tell. Runs nothing."""
    from orchestrator.study.file import load

    what = load(study)
    from pydantic import TypeAdapter

    from orchestrator.cli.plan_table import terminal
    from orchestrator.search.plan import Plan
    from orchestrator.search.plan import plan as planned

    with Console(stderr=True).status("Pricing each space and timing a few steps of each method"):
        found = planned(what, steps=steps)
    if as_json:
        print(TypeAdapter(Plan).dump_json(found, indent=2).decode())
        return
    console.print(
        f"Study [bold]{found.study}[/] on {found.data}, hash {found.hash}", highlight=False
    )
    console.print(terminal(found))


def schema(
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Of a cluster file for Kubernetes.")
    ] = False,
) -> None:
    """Print the JSON schema of a study file."""
    from orchestrator.kube.cluster import Cluster
    from orchestrator.study.file import Study

    print(json.dumps((Cluster if cluster else Study).model_json_schema(), indent=2))
