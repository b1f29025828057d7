"""The commands that run a study, plan it, and describe what a study file may hold."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestrator.cli.boards import print_board
from orchestrator.cli.console import (
    AsCsv,
    AsJson,
    Out,
    Quiet,
    Store,
    StudyFile,
    console,
    for_programs,
    near,
    print_frame,
)
from orchestrator.cli.streams import outlive
from orchestrator.record.address import redact

Database = Annotated[
    str | None,
    typer.Option(
        "--optuna",
        help="Keep Optuna's studies in this database (SQLAlchemy URL).",
        envvar="ISOFLOP_OPTUNA",
        show_default="a journal file",
    ),
]

Bucket = Annotated[
    str | None,
    typer.Option(
        "--bucket",
        help="Keep the trials' checkpoints and evidence in this bucket (s3://BUCKET/PREFIX), "
        "so that workers need not see --out. Keys come from environment variables.",
        show_default="the study's folder in --out",
    ),
]


def run(  # noqa: PLR0917
    study: StudyFile,
    out: Out = Path("runs"),
    mlflow: Store = None,
    address: Annotated[
        str,
        typer.Option(
            help="Run on the Ray cluster at this address; 'local' starts Ray on this machine."
        ),
    ] = "local",
    slots: Annotated[
        int | None,
        typer.Option(
            help="Run this many trials at once, on a cluster whose number of nodes changes.",
            min=1,
            show_default="as many as fit the nodes",
        ),
    ] = None,
    optuna: Database = None,
    bucket: Bucket = None,
    patience: Annotated[
        float,
        typer.Option(help="Wait this many seconds for another driver of the study to end.", min=0),
    ] = 0,
    quiet: Quiet = False,
) -> None:
    """Search, confirm and print the board. The same command resumes after any interruption."""
    from isoflop import Study
    from orchestrator.record.log import finished

    outlive("the sweep continues")
    what = Study.load(study)
    if not quiet:
        console.print(
            f"Study [bold]{what.name}[/] on {what.data}, hash {what.hash}", highlight=False
        )
    done = finished(out / what.name / "wal.jsonl", what.hash)
    if done and not quiet:
        console.print("The sweep is complete; isoflop checks the data, then prints the board.")
    if not quiet:
        console.print("Loading PyTorch, Ray and MLflow")  # already the next line takes a second
    from orchestrator.cli.progress import Progress
    from orchestrator.sweep import signals

    signals.listen()
    progress = Progress(what, console, quiet=quiet)
    try:
        with progress.shown():
            results = what.run(
                out,
                mlflow=mlflow,
                address=address,
                slots=slots,
                optuna=optuna,
                bucket=bucket,
                patience=patience,
                listener=progress,
            )
    except KeyboardInterrupt:
        closed = "The terminal was closed: the sweep has stopped"
        stopped = closed if signals.reason() is signals.HungUp else "Stopped"
        console.print(f"\n{stopped}; nothing is lost. Resume with the same command:")
        words = [str(near(Path(sys.argv[0]).absolute())), *sys.argv[1:]]
        command = redact(shlex.join(words))
        console.print(f"  {command}", soft_wrap=True, highlight=False, markup=False)
        if signals.reason() is signals.Terminated:
            signals.leave(signals.exit_code())
        raise typer.Exit(signals.exit_code()) from None
    outcome = results.outcome()
    if not outcome.fresh and not done and not quiet:
        console.print("The sweep is complete; this is its board.")
    print_board(outcome, quiet=quiet)


def plan(  # noqa: PLR0917
    study: StudyFile,
    out: Out = Path("runs"),
    mlflow: Store = None,
    optuna: Database = None,
    bucket: Bucket = None,
    steps: Annotated[
        int,
        typer.Option(help="Time epochs of this many optimiser steps; 0 times nothing.", min=0),
    ] = 5,
    elsewhere: Annotated[
        bool,
        typer.Option(
            "--elsewhere", help="Plan for another machine. This one may be too small for a trial."
        ),
    ] = False,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="IMAGES_PER_SECOND",
            help="Derive hours on 1, 8 and 64 GPUs, untimed, from the training throughput of one "
            "GPU for the network of dense's defaults in this study, or else of its first method's. "
            "The output names that network.",
            show_default="times a few steps here",
        ),
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Estimate which budgets a study can meet, how long it takes and which differences its seeds
    can detect. Runs no trial.

    It fails wherever `run` would fail with the same options. With `--rate` it checks the study
    alone, which any machine can plan; well-known data sets of the hub are not read.
    """
    from isoflop import Study

    programs = for_programs(as_json=as_json, as_csv=as_csv)
    what = Study.load(study)
    if not programs:
        console.print(
            f"Study [bold]{what.name}[/] on {what.data}, hash {what.hash}", highlight=False
        )
    then = "timing a few steps of each method" if rate is None else "counting a step of each method"
    with Console(stderr=True).status(f"Pricing each space and {then}"):
        planned = what.plan(
            steps=steps,
            out=out,
            mlflow=mlflow,
            optuna=optuna,
            bucket=bucket,
            elsewhere=elsewhere,
            rate=rate,
        )
    if as_json:
        from pydantic import TypeAdapter

        print(TypeAdapter(type(planned)).dump_json(planned, indent=2).decode())
        return
    if as_csv:
        from orchestrator.cli.plan_table import frame

        print_frame(frame(planned), "methods", {}, as_json=False)
        return
    from orchestrator.cli.plan_table import terminal

    console.print(terminal(planned))


def schema(
    cluster: Annotated[
        bool,
        typer.Option("--cluster", help="Print the schema of cluster files for Kubernetes."),
    ] = False,
) -> None:
    """Print the JSON schema of study files, for editors and checkers."""
    if cluster:
        from orchestrator.kube.cluster import Cluster

        schema = Cluster.model_json_schema()
    else:
        from orchestrator.study.file import Study

        schema = Study.model_json_schema()
    print(json.dumps(schema, indent=2))
