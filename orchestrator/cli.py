"""The commands. A user's mistake is one line and exit code 2, what a machine failed at is exit code
1; a traceback is a bug of ours.
"""

import inspect
import json
import logging
import os
import shlex
import sys
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch reads it once; see cluster.ENVIRONMENT

from methods.errors import IsoflopError, MethodError

app = typer.Typer(
    name="isoflop",
    help="Which dynamic CNN is best at your compute budget? One study file in, an honest "
    "equal-FLOPs leaderboard out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

Out = Annotated[Path, typer.Option(help="Folder that holds a folder per study.")]
Store = Annotated[
    str | None,
    typer.Option("--mlflow", help="MLflow tracking URI.", show_default="SQLite in --out"),
]


@app.command()
def run(
    study: Annotated[Path, typer.Argument(help="The study file (YAML).")],
    out: Out = Path("runs"),
    mlflow: Store = None,
    address: Annotated[
        str, typer.Option(help="Ray cluster; 'local' starts one on this machine.")
    ] = "local",
) -> None:
    """Search, confirm and print the board; the same command goes on after any interruption."""
    from orchestrator.study import load

    what = load(study)
    from orchestrator import sweep
    from orchestrator.progress import Progress

    progress = Progress(what, console)
    console.print(f"Study [bold]{what.name}[/] on {what.data}, hash {what.hash}", highlight=False)
    try:
        with progress.shown():
            outcome = sweep.run(what, out, uri=mlflow, address=address, listener=progress)
    except KeyboardInterrupt:
        console.print("\nStopped; nothing is lost. Go on with the same command:")
        words = [str(_near(Path(sys.argv[0]).absolute())), *sys.argv[1:]]
        console.print(f"  {shlex.join(words)}", soft_wrap=True, highlight=False, markup=False)
        raise typer.Exit(130) from None
    if not outcome.fresh:
        console.print("Everything is done already; this is the board.")
    _print_board(outcome)


@app.command()
def plan(
    study: Annotated[Path, typer.Argument(help="The study file (YAML).")],
    steps: Annotated[
        int, typer.Option(help="Steps in each short epoch of the timing; 0 times nothing.", min=0)
    ] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Print what a study would do: reach, effort, time, what its seeds can tell. Runs nothing."""
    from orchestrator.study import load

    what = load(study)
    from pydantic import TypeAdapter

    from orchestrator.plan import Plan
    from orchestrator.plan import plan as planned
    from orchestrator.plan_tables import terminal

    with Console(stderr=True).status("Pricing each space and timing a few steps of each method"):
        found = planned(what, steps=steps)
    if as_json:
        print(TypeAdapter(Plan).dump_json(found, indent=2).decode())
        return
    console.print(
        f"Study [bold]{found.study}[/] on {found.data}, hash {found.hash}", highlight=False
    )
    console.print(terminal(found))


@app.command()
def board(
    study: Annotated[str, typer.Argument(help="The study file, or the study's name.")],
    out: Out = Path("runs"),
    mlflow: Store = None,
) -> None:
    """Print the board of a finished or running study, from the MLflow store alone."""
    from orchestrator import sweep

    _print_board(sweep.show(study, out, uri=mlflow))


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="One method, for its hyperparameters.")] = None,
) -> None:
    """List the methods, or one method's hyperparameters, ranges and defaults."""
    from methods import METHODS
    from orchestrator.study import nearest

    if name is not None and name not in METHODS:
        raise MethodError(f"no method is called {name!r}; {nearest(name, list(METHODS))}")
    _methods_table() if name is None else _method_card(name)


@app.command()
def train(  # noqa: PLR0917
    method: Annotated[str, typer.Argument(help="A method's name; see `isoflop methods`.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="field=value, of the method or recipe.FIELD; repeatable."),
    ] = None,
    data: Annotated[str, typer.Option(help="Data set: a name or a path.")] = "digits",
    epochs: Annotated[int, typer.Option(help="Passes over the training split.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="All randomness derives from it.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
) -> None:
    """Train one method by hand, print its curve and its operating points on validation."""
    from orchestrator.hand import by_hand

    for line in by_hand(method, set_ or [], data=data, epochs=epochs, seed=seed, device=device):
        console.print(line, highlight=False, soft_wrap=True)


@app.command()
def table(
    study: Annotated[str, typer.Argument(help="The study file, or the study's name.")],
    out: Out = Path("runs"),
    to: Annotated[Path | None, typer.Option(help="The file.", show_default="NAME.parquet")] = None,
) -> None:
    """Export a study's learning curves and costs as a Parquet table, to simulate searches on."""
    from orchestrator import curves
    from orchestrator.study import load

    name = load(Path(study)).name if study.endswith((".yaml", ".yml")) else study
    found = curves.export(out.absolute() / name)
    file = to or Path(f"{name}.parquet")
    curves.write(found, file)
    trials = found.rows["trial"].nunique()
    console.print(f"{trials} trials, {len(found.rows)} epochs: {file}", highlight=False)


@app.command()
def simulate(  # noqa: PLR0917
    table: Annotated[Path, typer.Argument(help="A file that `isoflop table` wrote.")],
    searcher: Annotated[
        str, typer.Option(help="Names, joined by commas; an unknown one lists all.")
    ] = "default,random,nsga2,tpe",
    workers: Annotated[int, typer.Option(help="Trials at once.", min=1)] = 4,
    trials: Annotated[int, typer.Option(help="Whole trials' epochs per method.", min=1)] = 48,
    replicates: Annotated[int, typer.Option(help="Searches of each kind.", min=1)] = 5,
    seed: Annotated[int, typer.Option(help="Of the first replicate.", min=0)] = 0,
    figure: Annotated[Path | None, typer.Option(help="A png, svg or html file.")] = None,
) -> None:
    """Replay searches on a table of curves, in simulated time, and compare their fronts."""
    from orchestrator import curves, races
    from orchestrator.searchers import named

    what, searchers = curves.read(table), named(searcher)
    track = races.Track.of(what)
    console.print(races.qualities(track))
    found = []
    for each in searchers:
        with console.status(f"{each.name}: {replicates} searches"):
            seeds = range(seed, seed + replicates)
            found.append(races.race(track, each, workers=workers, trials=trials, seeds=seeds))
        console.print(races.line(found[-1]), highlight=False)
    console.print(races.standings(found))
    if figure:
        races.write_figure(found, figure)
        console.print(f"Figure:  {figure}", highlight=False)


@app.command()
def schema() -> None:
    """Print the JSON schema of a study file."""
    from orchestrator.study import Study

    print(json.dumps(Study.model_json_schema(), indent=2))


def main(arguments: Sequence[str] | None = None) -> None:
    """The `isoflop` command."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    warnings.filterwarnings("ignore", category=FutureWarning)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        app(list(arguments) if arguments is not None else None)
    except IsoflopError as error:
        print(f"isoflop: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)


def _print_board(outcome: Any) -> None:
    from orchestrator.report import terminal

    console.print(terminal(outcome.board))
    console.print(f"\nReport:  {_near(outcome.report)}", highlight=False, soft_wrap=True)
    server = outcome.uri if outcome.uri.startswith("http") else "http://127.0.0.1:5000"
    if not outcome.uri.startswith("http"):
        console.print(
            f"MLflow:  {_near(Path(sys.executable).with_name('mlflow'))} server "
            f"--backend-store-uri {outcome.uri} --port 5000",
            highlight=False,
            soft_wrap=True,
        )
    if outcome.link:
        console.print(f"   then  {server}/{outcome.link}", highlight=False, soft_wrap=True)


def _near(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _methods_table() -> None:
    from methods import METHODS

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("method", "what it is", "searched"):
        table.add_column(column)
    for name, method in METHODS.items():
        searched = [field for field, span in _searched(name).items() if span]
        table.add_row(name, _card(method)[0], ", ".join(searched))
    console.print(table)
    console.print("`isoflop methods NAME` shows a method's hyperparameters and what it costs.")


def _method_card(name: str) -> None:
    from methods import METHODS
    from methods.api import Task

    method = METHODS[name]
    for line in _card(method):
        hanging = "  " if line.startswith("- ") else ""
        wrapped = textwrap.fill(line, console.width, subsequent_indent=hanging)
        console.print(wrapped, highlight=False, markup=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("field", no_wrap=True)
    for column in ("default", "searched", "meaning"):
        table.add_column(column)
    spans = _searched(name)
    for field, info in method.model_fields.items():
        default = f"{info.default:.3g}" if isinstance(info.default, float) else str(info.default)
        meaning = " ".join((info.description or "").split())
        table.add_row(field, default, spans[field], meaning)
    console.print(table)
    for task in (Task("digits", 1, 8, 8, 10), Task("cifar10", 3, 32, 32, 10)):
        floor = method().floor(task) / 1e6
        console.print(f"Least cost of the defaults on {task.name}: {floor:.4g} MMACs per image")


def _card(method: type) -> list[str]:
    """A method's docstring, each paragraph and each item of a list as one line."""
    lines: list[str] = []
    for line in inspect.cleandoc(method.__doc__ or "").splitlines():
        if lines and lines[-1] and line and not line.startswith("- "):
            lines[-1] += " " + line.strip()
        else:
            lines.append(line)
    return lines


def _searched(name: str) -> dict[str, str]:
    from methods import METHODS
    from orchestrator.space import described

    return {field: described(info) for field, info in METHODS[name].model_fields.items()}
